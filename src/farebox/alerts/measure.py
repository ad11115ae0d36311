"""What a rule measures of a pool: one exact number, or none where there is nothing to measure."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import assert_never

from msgspec import Struct

from farebox.alerts.rule import AlertKind, AlertRule
from farebox.money.rounding import QUANTITY_DECIMALS, RoundingMode, round_to

ZERO = Decimal(0)
SHOWN_DECIMALS = 4
_MICROSECOND = timedelta(microseconds=1)
_HOUR = timedelta(hours=1) // _MICROSECOND
_OF_WHAT_IS_LEFT = (
    AlertKind.BALANCE_BELOW,
    AlertKind.SHARE_USED_ABOVE,
    AlertKind.RUNS_OUT_BEFORE,
)


class Expiring(Struct, frozen=True):
    """A grant that is in force, when it expires and what of it is available or held."""

    expires_at: datetime
    units: Decimal


class Seen(Struct, frozen=True, kw_only=True):
    """A pool as it was seen; amounts of a period are those of the running one.

    used: taken or held in the period by anybody, but for what was while nothing bounded the pool;
    unlimited: nothing does now. beyond: what of it no grant covered. burned: by window (minutes),
    what was taken for good in it. refusals: likewise, how many there were.
    """

    now: datetime
    period: int = -1
    available: Decimal = ZERO
    used: Decimal = ZERO
    unlimited: bool = False
    beyond: Decimal = ZERO
    overage: Decimal = ZERO
    spend: Decimal = ZERO
    burned: dict[int, Decimal] = {}
    refusals: dict[int, int] = {}
    expiring: tuple[Expiring, ...] = ()


def measure(rule: AlertRule, seen: Seen) -> Fraction | None:
    """Return what the rule compares with its threshold, in the threshold's unit."""
    if seen.unlimited and rule.kind in _OF_WHAT_IS_LEFT:
        return None
    match rule.kind:
        case AlertKind.BALANCE_BELOW:
            return Fraction(seen.available)
        case AlertKind.SHARE_USED_ABOVE:
            return percent_used(seen)
        case AlertKind.SPEND_ABOVE:
            return Fraction(seen.spend)
        case AlertKind.OVERAGE_ABOVE:
            return Fraction(seen.overage)
        case AlertKind.BURN_RATE_ABOVE:
            return _burn_rate(rule, seen)
        case AlertKind.RUNS_OUT_BEFORE:
            rate = _burn_rate(rule, seen)
            return max(Fraction(0), Fraction(seen.available)) / rate if rate > 0 else None
        case AlertKind.REFUSALS_ABOVE:
            assert rule.window_minutes is not None
            return Fraction(seen.refusals.get(rule.window_minutes, 0))
        case AlertKind.GRANT_EXPIRES_WITHIN:
            return _hours_to_expiry(rule, seen)
        case _:
            assert_never(rule.kind)


def percent_used(seen: Seen) -> Fraction | None:
    """Return used and held units in percent of what the period had; none where that is no number.

    The period had what grants still have and what they gave; so an expiry makes it less, and what
    was taken beyond the grants takes the share above a hundred.
    """
    if seen.unlimited:
        return None
    used = Fraction(seen.used)
    had = Fraction(seen.available) + max(Fraction(0), used - Fraction(seen.beyond))
    return used * 100 / had if had > 0 else None


def _burn_rate(rule: AlertRule, seen: Seen) -> Fraction:
    """Return units an hour over the whole window, also where the pool is younger."""
    assert rule.window_minutes is not None
    return Fraction(seen.burned.get(rule.window_minutes, ZERO)) * 60 / rule.window_minutes


def _hours_to_expiry(rule: AlertRule, seen: Seen) -> Fraction | None:
    least = ZERO if rule.units is None else rule.units
    times = [one.expires_at for one in seen.expiring if one.units >= least and one.units > 0]
    if not times:
        return None
    return Fraction((min(times) - seen.now) // _MICROSECOND, _HOUR)


def shown(value: Fraction) -> Decimal:
    """Return a measured number as it is told: exact up to 18 decimals, otherwise cut after 4."""
    exact = round_to(value, QUANTITY_DECIMALS, RoundingMode.DOWN)
    if Fraction(exact) != value:
        exact = round_to(value, SHOWN_DECIMALS, RoundingMode.DOWN)
    return Decimal(f"{exact:f}".rstrip("0").rstrip("."))
