"""Fire, clear or nothing: what follows from a measured number, or from a walk along the ledger."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from msgspec import Struct

from farebox.alerts.rule import FALLING, OF_PERIOD, AlertRule

CROSSINGS_MAX = 100
"""So many crossings of one rule are told from one look; of more, only how it ended."""


class Verdict(StrEnum):
    """What becomes of a rule at a pool."""

    FIRE = "fire"
    CLEAR = "clear"
    NOTHING = "nothing"


class Firing(Struct, frozen=True):
    """A rule that fires at a pool: in which period it began to."""

    period: int


class Point(Struct, frozen=True):
    """What a pool had left after an operation, the entry's number that says so, and when."""

    sequence: int
    time: datetime
    available: Decimal


class Crossing(Struct, frozen=True):
    """A point at which a rule fires or clears."""

    verdict: Verdict
    point: Point


def judge(rule: AlertRule, value: Fraction | None, *, firing: bool) -> Verdict:
    """Return what follows from a number; where there is none, nothing fires and what fires clears.

    A rule that fires too low does so below its threshold, one that fires too high from its
    threshold on. In between threshold and `clear_at` all stays as it is.
    """
    if firing:
        return Verdict.CLEAR if value is None or _is_back(rule, value) else Verdict.NOTHING
    return Verdict.FIRE if value is not None and _is_over(rule, value) else Verdict.NOTHING


def _is_over(rule: AlertRule, value: Fraction) -> bool:
    threshold = Fraction(rule.threshold)
    return value < threshold if _falls(rule) else value >= threshold


def _is_back(rule: AlertRule, value: Fraction) -> bool:
    clear = Fraction(rule.clears_at)
    return value >= clear if _falls(rule) else value < clear


def _falls(rule: AlertRule) -> bool:
    return rule.kind in FALLING


def is_of_old_period(rule: AlertRule, firing: Firing | None, period: int) -> bool:
    """Whether what fires counted within a period that is over, so that it clears in any case."""
    return firing is not None and rule.kind in OF_PERIOD and firing.period != period


def walk(
    points: Sequence[Point], below: Decimal, back_at: Decimal, *, firing: bool
) -> list[Crossing]:
    """Return where a balance fell below a level, and where it came back to another or above it.

    Of more than CROSSINGS_MAX the first are told, and one more where that does not end as it did.
    """
    found: list[Crossing] = []
    for point in points:
        if not firing and point.available < below:
            firing = True
            found.append(Crossing(Verdict.FIRE, point))
        elif firing and point.available >= back_at:
            firing = False
            found.append(Crossing(Verdict.CLEAR, point))
    if len(found) <= CROSSINGS_MAX:
        return found
    # Fire and clear alternate, so an odd rest ends otherwise than what is told.
    rest = found[CROSSINGS_MAX:]
    return found[:CROSSINGS_MAX] + (rest[-1:] if len(rest) % 2 else [])
