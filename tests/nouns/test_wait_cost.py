"""To refuse stays cheap: what is looked at to see whether waiting helps is bounded."""

import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from types import FrameType
from typing import Any

import pytest
from farebox_ledger_desk import START, Desk

from farebox.ledger.administer import NewRecurrence, add_recurrence
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Draw, Reserve
from farebox.ledger.policy import Limit, LimitMode, Policy, Renewal, TopUp
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.transfer import Cause
from farebox.ledger.wait import say_when
from farebox.period.cycle import Unit

pytestmark = pytest.mark.usefixtures("exactly")
D = Decimal
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
MANY = 1000


def renewing(policy: Policy | None = None, amount: int = 10, guaranteed: int = 0) -> Desk:
    """Return a desk of twelve recurring grants that do not begin on one day, and so many shares."""
    shares = [Allotment(key=f"s{one}", guarantee=D(1), cap=D(5)) for one in range(guaranteed)]
    desk = Desk(policy, shares=shares)
    month = Renewal(unit=Unit.MONTH)
    for day in range(1, 13):
        asked = NewRecurrence(
            key=str(day), amount=D(amount), starts_at=START + day * DAY, renewal=month
        )
        desk.do(add_recurrence, asked, START)
    return desk


def with_shares() -> Desk:
    return renewing(guaranteed=MANY)


def with_scheduled(policy: Policy | None = None) -> Desk:
    desk = Desk(policy)
    for one in range(MANY):
        desk.grant("1", effective_at=START + DAY + one * SECOND)
    return desk


def with_percent() -> Desk:
    limit = Limit(mode=LimitMode.OVERAGE, units=D(1), percent=D(1))
    desk = with_scheduled(Policy(limit=limit))
    for _ in range(MANY):
        desk.grant("1")
    return desk


def with_holds() -> Desk:
    desk = renewing(Policy(limit=Limit(mode=LimitMode.SOFT, units=D(1)), hold_seconds=9999))
    desk.grant(MANY)
    for _ in range(MANY):
        desk.ask(Reserve(amount=D(1)), START)
    return desk


def with_expiring() -> Desk:
    desk = renewing(amount=MANY // 10)
    for one in range(MANY):
        desk.grant("1", expires_at=START + DAY + one * SECOND)
    return desk


def buying() -> Desk:
    return with_scheduled(Policy(top_up=TopUp(below=D(0), amount=D(5), cost=D(1), times=3)))


def work_of(asked: Callable[[], Any]) -> int:
    """Return how many instructions of Python it takes, whatever the machine does besides."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        asked()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("world", "amount", "subject", "most"),
    [
        (with_shares, 10_000, "carl", 20_000),
        (with_shares, 4, "s3", 400_000),  # where each instant might do: a look at all shares
        (with_scheduled, 100_000, None, 20_000),
        (with_percent, 100_000, None, 20_000),
        (with_holds, 100_000, None, 20_000),
        (with_expiring, MANY + 100, None, 50_000),  # to see what expires: a look at all grants
        (buying, 100_000, None, 20_000),
    ],
)
def test_to_see_whether_waiting_helps_takes_few_looks(
    world: Callable[[], Desk], amount: int, subject: str | None, most: int
) -> None:
    book, cause = world().book, Cause(START, subject)
    refusal = Refusal(RefusalCode.INSUFFICIENT_BALANCE, "", refills_at=START + DAY)
    work = work_of(lambda: say_when(book, refusal, D(amount), cause))
    assert 100 < work < most


def waits(desk: Desk, amount: int) -> Any:
    outcome = desk.ask(Draw(amount=D(amount)), START)
    assert isinstance(outcome, Refusal), outcome
    return outcome.enough_at


def test_of_many_scheduled_grants_the_next_count_and_of_none_a_part_is_told() -> None:
    desk = Desk()
    desk.grant("50", effective_at=START + DAY)
    for _ in range(99):
        desk.grant("1", effective_at=START + 2 * DAY)
    desk.grant("1000", effective_at=START + 3 * DAY)
    # A hundred are looked at, so whether that is all that begins on the second day is not seen.
    assert [START + DAY, None, None] == [waits(desk, amount) for amount in (50, 51, 200)]


def test_where_there_is_too_much_to_look_at_nothing_is_said() -> None:
    found = {}
    for count in (10, 2000):
        desk = Desk(shares=[Allotment(key=f"s{one}", guarantee=D(1)) for one in range(count)])
        desk.grant("5000", effective_at=START + DAY)
        outcome = desk.ask(Draw(amount=D(2), subject="s0"), START)
        assert isinstance(outcome, Refusal)
        found[count] = outcome.refills_at, outcome.enough_at
    assert {10: (START + DAY, START + DAY), 2000: (START + DAY, None)} == found
