"""Public cases of credits that burn down, stated as facts, come out to the last digit.

Each kind of case says how it is put to a pool; no case is put differently than the others.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from farebox_ledger_desk import START, Desk

from farebox.catalog.price import Price
from farebox.ledger.account import Account
from farebox.ledger.administer import (
    NewRecurrence,
    add_recurrence,
    end_recurrence,
    void_grant,
)
from farebox.ledger.command import Answer, Draw
from farebox.ledger.grant import Basis, Rollover
from farebox.ledger.policy import Limit, LimitMode, Policy, Renewal
from farebox.ledger.refusal import Refusal
from farebox.money.rounding import round_to
from farebox.period.cycle import Unit
from farebox.rating.rate import rate
from farebox.rating.usage import Usage

pytestmark = pytest.mark.usefixtures("exactly")
FOLDER = Path(__file__).parent.parent / "cases" / "credits"
D = Decimal
Case = dict[str, Any]


def run_wallet(case: Case) -> None:
    """A credit is a grant; credits are made in the order in which they stand."""
    desk = Desk(unit="USD")
    numbers = {
        one["key"]: desk.grant(one["amount"], priority=one["priority"]) for one in case["credits"]
    }
    for amount in case["draws"]:
        outcome = desk.ask(Draw(amount=D(amount)), START)
        refused = outcome.code.value if isinstance(outcome, Refusal) else None
        assert case.get("refused") == refused
    assert decimals(case["left"]) == {key: desk.available(numbers[key]) for key in numbers}
    if "taken" in case:
        taken = {one.grant: one.amount for one in desk.transfers if one.target is Account.USED}
        assert decimals(case["taken"]) == {key: taken[numbers[key]] for key in numbers}


def run_order(case: Case) -> None:
    """A grant holds one unit, those made at one time come by key; one unit is drawn at a time."""
    now = START + timedelta(hours=9, minutes=30)
    zero = START + timedelta(hours=10)
    desk = Desk()
    keys = {}
    for one in sorted(case["grants"], key=lambda one: (one["made_hours"], one["key"])):
        made = zero + timedelta(hours=one["made_hours"])
        lasts = one.get("expires_hours")
        expires = None if lasts is None else zero + timedelta(hours=lasts)
        keys[desk.grant("1", made, priority=one["priority"], expires_at=expires)] = one["key"]
    for _ in keys:
        desk.ask(Draw(amount=D(1)), now)
    drawn = [one.grant for one in desk.transfers if one.target is Account.USED]
    assert case["order"] == [keys[number or 0] for number in drawn]


def run_grants(case: Case) -> None:
    """Usage that nothing covers is borrowed from what comes next.

    A grant that comes anew every so many hours is a recurring one of as many days, from its anchor
    on; what it is worth before is a grant of its own. One that is reset, once, and then keeps at
    most so much is a recurring grant that rolls over; its day is that of the zone in which the
    reset is at midnight, and what comes anew then is taken back.
    """
    first = min(instant(one["starts"]) for one in case["grants"])
    desk = Desk(
        Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=D(10**6))),
        opened_at=min(first, instant(case["usage"][0]["at"])),
    )
    now = desk.pool.opened_at
    numbers: dict[str, set[int | None]] = {one["key"]: set() for one in case["grants"]}
    resets: list[tuple[datetime, int]] = []
    for one in case["grants"]:
        facts = {"priority": one["priority"]}
        starts, anchor = instant(one["starts"]), instant(one.get("anchor", one["starts"]))
        ends = starts + timedelta(hours=one["lasts_hours"])
        if "every_hours" in one:
            renewal = Renewal(unit=Unit.DAY, count=one["every_hours"] // 24)
            recurring = {"renewal": renewal, "starts_at": anchor, "ends_at": ends} | facts
            numbers[one["key"]].add(desk.recur(one["amount"], now, **recurring))
        if "keeps_most" in one:
            reset = instant(one["ends"])
            recurring = {"renewal": Renewal(unit=Unit.DAY), "starts_at": starts}
            recurring |= {"rollover": Rollover(units=D(one["keeps_most"]))} | facts
            zone = f"Etc/GMT+{reset.hour}"
            recurrence = desk.recur(one["amount"], now, timezone=zone, **recurring)
            numbers[one["key"]].add(recurrence)
            resets.append((reset, recurrence))
        elif "every_hours" not in one or starts < anchor:
            until = min(ends, anchor) if "every_hours" in one else ends
            number = desk.grant(one["amount"], now, effective_at=starts, expires_at=until, **facts)
            numbers[one["key"]].add(number)
    for used in case["usage"]:
        reset_grants(desk, resets, instant(used["at"]))
        assert isinstance(desk.ask(Draw(amount=D(used["amount"])), instant(used["at"])), Answer)
    reset_grants(desk, resets, instant(case["at"]))
    desk.look(instant(case["at"]))
    recurring_key = {n: key for key, known in numbers.items() for n in known if n and n < 0}
    left = dict.fromkeys(numbers, D(0))
    for grant in desk.book.grants.values():
        if grant.basis is Basis.ROLLED_OVER:
            (key,) = recurring_key.values()
        else:
            key = next(
                k for k, known in numbers.items() if {grant.number, grant.recurrence} & known
            )
        left[key] += grant.available
    assert decimals(case["left"]) == left


def reset_grants(desk: Desk, resets: list[tuple[datetime, int]], until: datetime) -> None:
    """Let what is reset by then keep what rolls over, and nothing come anew."""
    for reset, recurrence in [one for one in resets if one[0] <= until]:
        desk.look(reset)
        desk.do(void_grant, desk.book.recurrences[recurrence].grant, reset)
        desk.do(end_recurrence, recurrence, reset)
        resets.remove((reset, recurrence))


def run_charge(case: Case) -> None:
    """The whole charge is drawn from a pool of money; due is what no credit covers."""
    price: Price = msgspec.convert(case["price"], Price)
    desk = Desk(Policy(limit=Limit(mode=LimitMode.OVERAGE)), unit="USD")
    for credit in case["credits"]:
        desk.grant(credit)
    charge = rate(price, [Usage(quantity=D(case["quantity"]))]).amount
    answer = desk.ask(Draw(amount=charge), START)
    assert isinstance(answer, Answer)
    assert D(case["due"]) == answer.beyond.get(Account.OVERAGE, D(0))


def run_prorated(case: Case) -> None:
    """What a month gives pro rata, from some time in it on; nothing from after its end."""
    start, end, at = (instant(text) for text in (*case["period"].values(), case["at"]))
    assert (start.day, start.month + 1) == (end.day, end.month)
    desk = Desk(opened_at=start)
    asked = NewRecurrence(
        key="credits",
        amount=D(case["amount"]),
        renewal=Renewal(anchor_day=start.day),
        ends_at=end,
        prorated=True,
    )
    outcome = desk.do(add_recurrence, asked, at)
    assert isinstance(outcome, Refusal) == (at >= end)
    assert D(case["expected"]) == round_to(desk.balance, case["places"])


RUN: dict[str, tuple[int, Callable[[Case], None]]] = {
    "charge": (3, run_charge),
    "grants": (8, run_grants),
    "order": (1, run_order),
    "prorated": (4, run_prorated),
    "wallet": (6, run_wallet),
}
"""How many cases each file holds, pinned so that none can vanish in silence; and how they run."""


def read_cases(name: str) -> list[Case]:
    cases: list[Case] = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return cases


CASES = [{"kind": kind} | case for kind in RUN for case in read_cases(kind)]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def decimals(values: dict[str, str]) -> dict[str, Decimal]:
    return {key: D(value) for key, value in values.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_public_case_of_credits(case: Case) -> None:
    _, run = RUN[case["kind"]]
    run(case)


def test_no_case_of_credits_vanished(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\npublic cases of credits: {len(CASES)} ran")
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RUN)
    assert {name: len(read_cases(name)) for name in RUN} == {name: RUN[name][0] for name in RUN}
    assert len(CASES) == len({case["id"] for case in CASES})
