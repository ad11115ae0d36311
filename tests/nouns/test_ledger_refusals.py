"""Every no that the ledger can say: each alone, and of two that hold the one earlier in the enum.

An obstacle is a change of a scene in which all would go well. Two obstacles that need the same
thing to be different cannot hold at once; all other pairs are tried.
"""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from farebox_ledger_desk import START, Desk
from msgspec.structs import replace

from farebox.ledger.administer import (
    NewGrant,
    NewRecurrence,
    add_grant,
    add_recurrence,
    change_policy,
    end_recurrence,
    expire_grant,
    fail_grant,
    move_units,
    pay_grant,
    void_grant,
)
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Draw, Extend, Release, Reserve, Settle
from farebox.ledger.decide import SKEW, check
from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import Burst, Limit, LimitMode, Policy, Refill
from farebox.ledger.refusal import PRECEDENCE, Refusal, RefusalCode
from farebox.ledger.transfer import Cause

Code = RefusalCode
D = Decimal
NOW = START + timedelta(hours=1)
SOURCE = Path(__file__).parents[2] / "src" / "farebox"

ELSEWHERE = {
    Code.POOL_UNKNOWN: "flows/decide_pools.py",
    Code.CUSTOMER_UNKNOWN: "flows/resolve_feature.py",
    Code.LICENSE_UNKNOWN: "http/license_finder.py",
    Code.LICENSE_POOL_AMBIGUOUS: "http/license_finder.py",
    Code.FEATURE_NOT_ENTITLED: "flows/resolve_feature.py",
    Code.AMOUNT_INVALID: "http/decision.py",
    Code.IDEMPOTENCY_KEY_REUSED: "flows/decide_pools.py",
    Code.DRAW_UNKNOWN: "flows/reverse_draw.py",
    Code.GRANT_KEY_REUSED: "flows/grant_units.py",
}
"""What the ledger never says, because it sees neither rows nor requests; and what says it."""

WELL: Mapping[str, Any] = {
    "verb": "draw",
    "mode": LimitMode.HARD,
    "units": None,
    "price": None,
    "spend_cap": None,
    "burst": None,
    "refill": None,
    "granted": D(10),
    "amount": D(5),
    "unit": "token",
    "now": NOW,
    "closed": False,
    "license": LicenseTerm("L-1", START, NOW + timedelta(microseconds=1)),
    "owner": None,
    "subject": "ann",
    "allotment": None,
    "unallotted": True,
    "shared": False,
    "cap": None,
    "ends_at": None,
    "others": D(0),
    "seconds": 600,
    "hold": "open",
    "reversed": D(0),
    "asked_back": D(5),
    "undo_seconds": 86_400,
    "effective_at": START,
    "expires_at": None,
    "grant": "as it should be",
}

FLOW = Refill(amount=D(1), seconds=10**6, capacity=D(4))

OBSTACLES: dict[Code, dict[str, Any]] = {
    Code.UNIT_MISMATCH: {"unit": "euro"},
    Code.CLOCK_WENT_BACK: {"now": START - SKEW - timedelta(microseconds=1)},
    Code.POOL_CLOSED: {"closed": True},
    Code.LICENSE_REVOKED: {"license": LicenseTerm("L-1", START, None, NOW)},
    Code.LICENSE_NOT_BEGUN: {"license": LicenseTerm("L-1", NOW + timedelta(microseconds=1))},
    Code.LICENSE_OVER: {"license": LicenseTerm("L-1", START, NOW)},
    Code.SUBJECT_NOT_SERVED: {"owner": "zoe"},
    Code.HOLD_UNKNOWN: {"hold": "none"},
    Code.HOLD_SETTLED: {"hold": "settled"},
    Code.HOLD_RELEASED: {"hold": "released"},
    Code.HOLD_EXPIRED: {"hold": "expired"},
    Code.HOLD_TOO_LONG: {"seconds": 86_401},
    Code.DRAW_REVERSED: {"reversed": D(5)},
    Code.REVERSAL_TOO_LATE: {"undo_seconds": 3599},
    Code.REVERSAL_EXCEEDS_DRAW: {"asked_back": D("5.1")},
    Code.GRANT_UNKNOWN: {"grant": "another"},
    Code.GRANT_TIMES_INVALID: {"effective_at": NOW, "expires_at": NOW},
    Code.GRANT_ALREADY_EXPIRED: {"expires_at": NOW},
    Code.GRANT_NOT_PENDING: {"grant": "another"},
    Code.GRANT_REFILLS: {"grant": "that of a rate limit"},
    Code.GRANT_CLOSED: {"grant": "another"},
    Code.ALLOTMENT_UNKNOWN: {"allotment": "none"},
    Code.ALLOTMENT_MISSING: {"shared": True, "subject": "stranger", "unallotted": False},
    Code.ALLOTMENT_NOT_IN_FORCE: {"shared": True, "ends_at": START},
    Code.ALLOTMENT_CAP_EXCEEDED: {"shared": True, "cap": D(3)},
    Code.RATE_LIMITED: {"refill": FLOW, "granted": 0},
    Code.GUARANTEE_RESERVED: {
        "shared": True,
        "others": D(10),
        "granted": D(10),
        "mode": LimitMode.HARD,
    },
    Code.INSUFFICIENT_BALANCE: {"granted": D("4.9")},
    Code.OVERDRAFT_EXCEEDED: {"mode": LimitMode.OVERDRAFT, "units": D("0.9"), "granted": D(4)},
    Code.OVERAGE_LIMIT_EXCEEDED: {"mode": LimitMode.OVERAGE, "units": D("0.9"), "granted": D(4)},
    Code.SPEND_CAP_EXCEEDED: {
        "burst": Burst(units=D("0.2"), price=D(1)),
        "spend_cap": D("0.09"),
        "granted": D("4.9"),
    },
}
"""The least that must be otherwise for the ledger to say no."""

TIGHT: dict[Code, dict[str, Any]] = {
    Code.RATE_LIMITED: {"burst": Burst(units=D("0.2"), price=D(1)), "spend_cap": D("0.1")},
    Code.INSUFFICIENT_BALANCE: {"burst": Burst(units=D("0.05"), price=D(3)), "spend_cap": D("0.1")},
    Code.OVERDRAFT_EXCEEDED: {"burst": Burst(units=D("0.05"), price=D(3)), "spend_cap": D("0.1")},
    Code.OVERAGE_LIMIT_EXCEEDED: {"price": D(1), "spend_cap": D("0.1")},
}
"""How a bound in units and one in money are passed at once."""

CLOSED = [Code.POOL_CLOSED, Code.LICENSE_REVOKED, Code.LICENSE_NOT_BEGUN, Code.LICENSE_OVER]
NOT_SERVED = [*CLOSED, Code.SUBJECT_NOT_SERVED]
HOLDS = [Code.HOLD_UNKNOWN, Code.HOLD_SETTLED, Code.HOLD_RELEASED, Code.HOLD_EXPIRED]
SHARES = [
    Code.ALLOTMENT_UNKNOWN,
    Code.ALLOTMENT_MISSING,
    Code.ALLOTMENT_NOT_IN_FORCE,
    Code.ALLOTMENT_CAP_EXCEEDED,
]
GRANTS_GIVE = [Code.RATE_LIMITED, Code.GUARANTEE_RESERVED, Code.INSUFFICIENT_BALANCE]
BEYOND = [Code.OVERDRAFT_EXCEEDED, Code.OVERAGE_LIMIT_EXCEEDED, Code.SPEND_CAP_EXCEEDED]
TAKING = [*NOT_SERVED, *SHARES, *GRANTS_GIVE, *BEYOND]
CLOCK = Code.CLOCK_WENT_BACK

OF_VERB: dict[str, list[Code]] = {
    "draw": [Code.UNIT_MISMATCH, CLOCK, *TAKING],
    "check": [Code.UNIT_MISMATCH, CLOCK, Code.HOLD_TOO_LONG, *TAKING],
    "reserve": [Code.UNIT_MISMATCH, CLOCK, Code.HOLD_TOO_LONG, *TAKING],
    "extend": [
        CLOCK,
        *CLOSED,
        *HOLDS,
        Code.HOLD_TOO_LONG,
        Code.RATE_LIMITED,
        Code.INSUFFICIENT_BALANCE,
        *BEYOND,
    ],
    "settle": [CLOCK, *HOLDS],
    "release": [CLOCK, *HOLDS],
    "reverse": [
        CLOCK,
        Code.DRAW_REVERSED,
        Code.REVERSAL_TOO_LATE,
        Code.REVERSAL_EXCEEDS_DRAW,
    ],
    "add_grant": [
        CLOCK,
        Code.POOL_CLOSED,
        Code.GRANT_TIMES_INVALID,
        Code.GRANT_ALREADY_EXPIRED,
    ],
    "pay": [CLOCK, Code.GRANT_NOT_PENDING],
    "fail": [CLOCK, Code.GRANT_NOT_PENDING],
    "void": [CLOCK, Code.GRANT_REFILLS, Code.GRANT_CLOSED],
    "expire": [CLOCK, Code.GRANT_REFILLS, Code.GRANT_CLOSED],
    "recur": [CLOCK, Code.POOL_CLOSED, Code.GRANT_TIMES_INVALID],
    "end_recurrence": [CLOCK, Code.GRANT_UNKNOWN],
    "move": [
        Code.UNIT_MISMATCH,
        CLOCK,
        Code.POOL_CLOSED,
        Code.SUBJECT_NOT_SERVED,
        *(code for code in SHARES if code is not Code.ALLOTMENT_UNKNOWN),
        *GRANTS_GIVE,
    ],
    "move_into": [CLOCK, Code.POOL_CLOSED],
    "change_policy": [CLOCK],
}
"""Whatever can be asked of a pool, and every no that it can get."""


def scene(verb: str, *codes: Code) -> dict[str, Any] | None:
    """Return the scene with these obstacles, none where they contradict each other."""
    changed: dict[str, Any] = {}
    for code in codes:
        changes = dict(OBSTACLES[code])
        if Code.SPEND_CAP_EXCEEDED in codes and code in TIGHT:
            changes |= TIGHT[code]
        elif code is Code.SPEND_CAP_EXCEEDED and TIGHT.keys() & set(codes):
            changes = {}
        for name, value in changes.items():
            if changed.setdefault(name, value) != value:
                return None
    if codes == (Code.GRANT_TIMES_INVALID,) and verb == "recur":
        changed["expires_at"] = START
    return {**WELL, **changed, "verb": verb}


def desk_of(made: Mapping[str, Any]) -> Desk:
    limit = Limit(
        mode=made["mode"], units=made["units"], price=made["price"], spend_cap=made["spend_cap"]
    )
    policy = Policy(
        limit=limit,
        currency="USD",
        burst=made["burst"],
        refill=made["refill"],
        unallotted=made["unallotted"],
        undo_seconds=made["undo_seconds"],
    )
    mine = Allotment(key="mine", subjects=("ann",), cap=made["cap"], ends_at=made["ends_at"])
    shares = [mine, Allotment(key="others", guarantee=made["others"])] if made["shared"] else []
    return Desk(policy, shares=shares, subject=made["owner"])


def hold_of(desk: Desk, state: str) -> int:
    """Return a hold in a certain state; what it holds came for it alone, or flowed in."""
    if state == "none":
        return 999
    flows = desk.book.pool.policy.refill is not None
    grant = 0 if flows else desk.grant("1")
    reserved = desk.ask(Reserve(amount=D(1), seconds=1 if state == "expired" else 7200), START)
    assert not isinstance(reserved, Refusal)
    number = reserved.operation
    if state == "settled":
        desk.ask(Settle(hold=number, amount=D(1)), START)
    elif state in ("released", "expired"):
        ended = START + timedelta(seconds=1)
        desk.ask(Release(hold=number), START if state == "released" else ended)
        if grant:
            desk.do(void_grant, grant, desk.book.pool.as_of)
    return number


def play(made: Mapping[str, Any]) -> object:
    """Return what the ledger says in a scene."""
    desk, verb, now, amount = desk_of(made), made["verb"], made["now"], made["amount"]
    desk.look(START)
    if verb in ("extend", "settle", "release"):
        number = hold_of(desk, made["hold"])
    if made["granted"]:
        desk.grant(made["granted"])
    if verb == "reverse":
        drawn = desk.ask(Draw(amount=amount), START)
        assert not isinstance(drawn, Refusal)
        if made["reversed"]:
            assert not isinstance(desk.reverse(drawn.operation, START), Refusal)
    if made["closed"] and verb != "move_into":
        desk.close()
    desk.book.pool.license = made["license"]
    asked = {name: made[name] for name in ("amount", "unit", "subject", "allotment")}
    match verb:
        case "draw":
            return desk.ask(Draw(**asked), now)
        case "check":
            return desk.do(check, Reserve(**asked, seconds=made["seconds"]), now)
        case "reserve":
            return desk.ask(Reserve(**asked, seconds=made["seconds"]), now)
        case "extend":
            return desk.ask(Extend(hold=number, amount=amount, seconds=made["seconds"]), now)
        case "settle":
            return desk.ask(Settle(hold=number, amount=amount), now)
        case "release":
            return desk.ask(Release(hold=number), now)
        case "reverse":
            return desk.reverse(drawn.operation, now, made["asked_back"])
        case _:
            return administer(desk, made)


def administer(desk: Desk, made: Mapping[str, Any]) -> object:
    verb, now, amount = made["verb"], made["now"], made["amount"]
    times = {"effective_at": made["effective_at"], "expires_at": made["expires_at"]}
    right = made["grant"] == "as it should be"
    match verb:
        case "add_grant":
            return desk.do(add_grant, NewGrant(amount=amount, **times), now)
        case "pay" | "fail":
            number = desk.grant("1", pending=right)
            return desk.do(pay_grant if verb == "pay" else fail_grant, number, now)
        case "void" | "expire":
            number = desk.grant("1")
            if made["grant"] == "another":
                desk.do(void_grant, number, START)
            elif not right:
                policy = replace(desk.book.pool.policy, refill=FLOW)
                desk.do(change_policy, policy, START)
                desk.look(START)
                number = desk.book.pool.counters.refill_grant or 0
            return desk.do(void_grant if verb == "void" else expire_grant, number, now)
        case "recur":
            asked = NewRecurrence(
                key="r", amount=amount, starts_at=times["effective_at"], ends_at=times["expires_at"]
            )
            return desk.do(add_recurrence, asked, now)
        case "end_recurrence":
            number = desk.recur("1")
            return desk.do(end_recurrence, number if right else -9, now)
        case "change_policy":
            return desk.do(change_policy, Policy(), now)
        case _:
            other = Desk(key="other", unit=made["unit"])
            other.close(closed=made["closed"] and verb == "move_into")
            if now < START:  # the one that was decided on last is the other one
                other.look(START)
            return move_units(desk.book, other.book, amount, now, Cause(now, made["subject"]))


ALONE = [(verb, code) for verb, codes in OF_VERB.items() for code in codes]
PAIRS = [
    (verb, *pair)
    for verb, codes in OF_VERB.items()
    for pair in combinations(sorted(codes, key=lambda code: PRECEDENCE[code]), 2)
    if scene(verb, *pair) is not None
]


@pytest.mark.parametrize("verb", OF_VERB)
@pytest.mark.usefixtures("exactly")
def test_all_goes_well_without_an_obstacle(verb: str) -> None:
    assert not isinstance(play(scene(verb) or {}), Refusal)


@pytest.mark.parametrize(("verb", "code"), ALONE)
@pytest.mark.usefixtures("exactly")
def test_each_obstacle_is_refused_by_its_name(verb: str, code: Code) -> None:
    refusal = play(scene(verb, code) or {})
    assert isinstance(refusal, Refusal)
    assert code == refusal.code
    assert refusal.detail


@pytest.mark.parametrize(("verb", "earlier", "later"), PAIRS)
@pytest.mark.usefixtures("exactly")
def test_of_two_obstacles_the_earlier_in_the_enum_is_named(
    verb: str, earlier: Code, later: Code
) -> None:
    refusal = play(scene(verb, earlier, later) or {})
    assert isinstance(refusal, Refusal)
    assert earlier == refusal.code


def test_every_code_has_a_row() -> None:
    rows = {code for codes in OF_VERB.values() for code in codes}
    assert set(Code) == rows | ELSEWHERE.keys()
    assert not rows & ELSEWHERE.keys()
    assert OBSTACLES.keys() == rows


@pytest.mark.parametrize("code", ELSEWHERE)
def test_what_the_ledger_never_says_is_said_where_it_is_named(code: Code) -> None:
    assert f"RefusalCode.{code.name}" in (SOURCE / ELSEWHERE[code]).read_text()
    ledger = [path for path in (SOURCE / "ledger").glob("*.py") if path.name != "refusal.py"]
    assert not [path for path in ledger if f"RefusalCode.{code.name}" in path.read_text()]
