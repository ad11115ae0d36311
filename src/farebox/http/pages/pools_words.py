"""What a pool allows, in sentences."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from farebox.http.pages.format import money, quantity
from farebox.ledger.license import LicenseTerm, not_in_force
from farebox.ledger.policy import BurnBy, LimitMode, Payment, Policy
from farebox.ledger.refusal import RefusalCode

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_BY = {
    BurnBy.PRIORITY: "lowest priority number",
    BurnBy.EXPIRY: "soonest expiry",
    BurnBy.AGE: "greatest age",
}


class LicenseStop(Struct, frozen=True):
    """Why a pool gives nothing although it has units: what became of its license, and when."""

    license: str
    word: str
    tone: str
    at: datetime
    sentence: str


def license_stop(term: LicenseTerm | None, now: datetime) -> LicenseStop | None:
    """Return why the license of a pool lets nothing be taken at `now`; None where it does."""
    refusal = None if term is None else not_in_force(term, now)
    if term is None or refusal is None:
        return None
    if refusal.code is RefusalCode.LICENSE_REVOKED:
        told, at = ("revoked", "bad", "was revoked on"), term.revoked_at
    elif refusal.code is RefusalCode.LICENSE_OVER:
        told, at = ("over", "bad", "ended on"), term.ends_at
    else:
        told, at = ("not begun", "warn", "begins on"), term.starts_at
    assert at is not None, "a license is not in force for what happened at some time"
    word, tone, sentence = told
    return LicenseStop(term.key, f"license {word}", tone, at, sentence)


def duration(seconds: int) -> str:
    """Return a length of time in its greatest whole unit."""
    for length, name in _UNITS:
        if seconds % length == 0 and seconds >= length:
            count = seconds // length
            return f"{count:,} {name}{'' if count == 1 else 's'}"
    return "no time"


def policy_words(policy: Policy, unit: str) -> list[tuple[str, str]]:
    """Return what a policy says as pairs of a heading and a sentence."""
    return [
        ("Beyond the grants", _limit(policy, unit)),
        *_bounds(policy, unit),
        *_flows(policy, unit),
        ("Period", _period(policy)),
        ("Order of grants", ", then ".join(_BY[by] for by in policy.burn_order)),
        (
            "Holds",
            f"last {duration(policy.hold_seconds)} unless asked otherwise,"
            f" at most {duration(policy.hold_seconds_max)}",
        ),
        ("Taking back", _undo(policy)),
        *([] if policy.unallotted else [("Without a share", "a subject gets nothing")]),
    ]


def _undo(policy: Policy) -> str:
    if not policy.undo_seconds:
        return "a draw cannot be taken back"
    return f"a draw may be taken back for {duration(policy.undo_seconds)}"


def _amount(value: Decimal, unit: str) -> str:
    return f"{quantity(value)} {unit}"


def _price(value: Decimal | None, policy: Policy, unit: str) -> str:
    if value is None or policy.currency is None:
        return "without a price"
    return f"at {money(value, policy.currency)} a {unit}"


def _limit(policy: Policy, unit: str) -> str:
    limit = policy.limit
    bounds = [
        *([] if limit.units is None else [_amount(limit.units, unit)]),
        *([] if limit.percent is None else [f"{quantity(limit.percent)} % of what is granted"]),
    ]
    at_most = f", at most {' and '.join(bounds)}" if bounds else ""
    match limit.mode:
        case LimitMode.HARD:
            return "draws are refused"
        case LimitMode.SOFT:
            return "draws go through and are flagged"
        case LimitMode.OVERDRAFT:
            return f"draws are borrowed from the next grant{at_most}"
        case LimitMode.OVERAGE:
            within = " in a period" if bounds else ""
            return f"draws go through {_price(limit.price, policy, unit)}{at_most}{within}"
        case LimitMode.UNLIMITED:
            return "draws go through, nothing bounds them"


def _bounds(policy: Policy, unit: str) -> Iterator[tuple[str, str]]:
    limit = policy.limit
    if limit.customer_units is not None:
        yield "Customer's own limit", f"at most {_amount(limit.customer_units, unit)} beyond"
    if limit.spend_cap is not None and policy.currency is not None:
        yield (
            "Spend cap",
            f"overage and burst cost at most {money(limit.spend_cap, policy.currency)} in a period",
        )
    if policy.burst is not None:
        price = _price(policy.burst.price, policy, unit)
        yield "Burst", f"up to {_amount(policy.burst.units, unit)} in a period {price}"


def _flows(policy: Policy, unit: str) -> Iterator[tuple[str, str]]:
    if policy.refill is not None:
        refill = policy.refill
        yield (
            "Refill",
            f"{_amount(refill.amount, unit)} flow in over every {duration(refill.seconds)},"
            f" up to {_amount(refill.capacity, unit)}",
        )
    if policy.top_up is not None:
        top_up = policy.top_up
        paid = (
            "paid before use" if top_up.payment is Payment.PREPAID else "paid with the next invoice"
        )
        cost = "" if policy.currency is None else f" for {money(top_up.cost, policy.currency)}"
        times = "once" if top_up.times == 1 else f"{top_up.times} times"
        yield (
            "Top-up",
            f"below {_amount(top_up.below, unit)}, {_amount(top_up.amount, unit)} are bought{cost},"
            f" {paid}, at most {times} in a period",
        )


def _period(policy: Policy) -> str:
    renewal = policy.renewal
    name = renewal.unit.value
    length = f"a {name}" if renewal.count == 1 else f"{renewal.count} {name}s"
    return length if renewal.anchor_day is None else f"{length}, from day {renewal.anchor_day}"
