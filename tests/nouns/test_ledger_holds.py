"""When a hold ends once it is extended, and what is said of use beyond it."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from farebox_ledger_desk import START, Desk

from farebox.ledger.account import Account
from farebox.ledger.command import Answer, Extend, Reserve, Settle
from farebox.ledger.policy import Limit, LimitMode, Policy
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal

pytestmark = pytest.mark.usefixtures("exactly")
D = Decimal
HOUR = timedelta(hours=1)


def granted(outcome: Answer | Refusal) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def test_a_hold_that_is_extended_never_ends_earlier_than_before() -> None:
    desk = Desk(Policy(hold_seconds=600))
    desk.grant("9")
    hold = granted(desk.ask(Reserve(amount=D(3), seconds=3600), START)).operation
    ends = [
        granted(desk.ask(Extend(hold=hold, **asked), START + HOUR / 2)).expires_at
        for asked in ({}, {"amount": D(5)}, {"seconds": 1}, {"seconds": 1801}, {"seconds": 60})
    ]
    longer = START + HOUR + timedelta(seconds=1)
    assert [START + HOUR, START + HOUR, START + HOUR, longer, longer] == ends
    desk.reload()
    desk.look(START + HOUR)
    assert D(1) == desk.balance
    desk.look(longer)
    assert D(9) == desk.balance


@pytest.mark.parametrize(
    ("limit", "used", "reason"),
    [
        ({"units": D(30)}, 130, Reason.SETTLED_BEYOND),
        ({"units": D(30)}, 131, Reason.SETTLED_PAST_LIMIT),
        ({"customer_units": D(30)}, 131, Reason.SETTLED_PAST_LIMIT),
        ({"spend_cap": D(10)}, 120, Reason.SETTLED_BEYOND),
        ({"spend_cap": D(10)}, 121, Reason.SETTLED_PAST_LIMIT),
        ({}, 1000, Reason.SETTLED_BEYOND),
    ],
)
def test_what_is_settled_past_a_bound_of_overage_is_flagged(
    limit: dict[str, Any], used: int, reason: Reason
) -> None:
    priced = Limit(mode=LimitMode.OVERAGE, price=D("0.5"), **limit)
    desk = Desk(Policy(limit=priced, currency="USD"))
    desk.grant("100")
    hold = granted(desk.ask(Reserve(amount=D(115)), START)).operation
    answer = granted(desk.ask(Settle(hold=hold, amount=D(used)), START))
    assert (reason is Reason.SETTLED_PAST_LIMIT, {Account.OVERAGE: D(used - 100)}) == (
        answer.over_limit,
        answer.beyond,
    )
    assert reason == desk.transfers[-1].reason
