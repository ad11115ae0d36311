"""Billing periods of a subscription: numbered, half-open, cut at local midnight."""

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct
from whenever import Date

from farebox.period.calendar import day_at, is_timezone, start_of_day


class Unit(StrEnum):
    """What a period is counted in."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


_MONTHS = {Unit.MONTH: 1, Unit.QUARTER: 3, Unit.YEAR: 12}
_DAYS = {Unit.DAY: 1, Unit.WEEK: 7}


class Cycle(Struct, frozen=True, kw_only=True):
    """The periods that begin at `start` (an instant) and follow each other for ever.

    unit, count: a period lasts `count` units (2 weeks, 1 quarter).
    anchor_day: day of month (1 to 31) on which periods of months begin; none takes the day of
        `start`. A month without that day uses its last. Days and weeks count from the day of
        `start` and do not look at it.
    timezone: an IANA name; periods after the first begin when the local day begins.
    """

    unit: Unit
    count: int = 1
    start: datetime
    anchor_day: int | None = None
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        assert self.count >= 1, "a period has a length"
        assert self.anchor_day is None or 1 <= self.anchor_day <= 31, "a day of the month"
        assert self.start.utcoffset() is not None, "an instant has an offset"
        assert is_timezone(self.timezone), f"unknown time zone {self.timezone}"


class Period(Struct, frozen=True):
    """From `start` (inclusive) to `end` (exclusive), both in UTC."""

    start: datetime
    end: datetime


def period_at(cycle: Cycle, index: int) -> Period:
    """Return the period with the given number; 0 is the first.

    The first period begins at the start itself. When the start is not on the anchor day, it is
    a short one that ends on the next anchor day, also for quarters and years; full periods
    follow from there. The 31st is the last day of a shorter month and comes back to the 31st.
    """
    assert index >= 0, "periods are numbered from 0"
    start = cycle.start.astimezone(UTC) if index == 0 else boundary(cycle, index)
    return Period(start, boundary(cycle, index + 1))


def whole_period_at(cycle: Cycle, index: int) -> Period:
    """Return the full period that `period_at` is all or, for a short first one, a part of.

    Where a fee is prorated, the share is that of the period in its whole period.
    """
    return Period(boundary(cycle, index), boundary(cycle, index + 1))


def boundary(cycle: Cycle, index: int) -> datetime:
    """Return the instant at which the whole period with the given number begins."""
    return start_of_day(_first_day(cycle, index), cycle.timezone)


def index_at(cycle: Cycle, instant: datetime) -> int | None:
    """Return the number of the period that contains the instant, None before the start."""
    if instant < cycle.start:
        return None
    index = _index_at_most(cycle, day_at(instant, cycle.timezone))
    while index > 0 and instant < boundary(cycle, index):
        index -= 1
    return index


def period_containing(cycle: Cycle, instant: datetime) -> Period | None:
    """Return the period that contains the instant, None before the start."""
    index = index_at(cycle, instant)
    return None if index is None else period_at(cycle, index)


def periods_between(cycle: Cycle, start: datetime, end: datetime) -> tuple[Period, ...]:
    """Return, in order, every period that shares an instant with `start` to `end` (exclusive)."""
    if end <= start or end <= cycle.start:
        return ()
    index = index_at(cycle, max(start, cycle.start))
    assert index is not None, "not before the start"
    periods: list[Period] = []
    while (period := period_at(cycle, index)).start < end:
        periods.append(period)
        index += 1
    return tuple(periods)


@lru_cache(maxsize=4096)
def _origin(cycle: Cycle) -> tuple[Date, int]:
    """Return a day on which a whole period begins, and the number of that period."""
    day = day_at(cycle.start, cycle.timezone)
    if cycle.unit in _DAYS:
        return day, 0
    anchor = cycle.anchor_day or day.day
    in_month = _on_day(day, anchor)
    if in_month == day:
        return day, 0
    if in_month > day:
        return in_month, 1
    return _on_day(Date(day.year, day.month, 1).add(months=1), anchor), 1


def _on_day(month: Date, day: int) -> Date:
    return month.replace(day=min(day, month.days_in_month()))


def _first_day(cycle: Cycle, index: int) -> Date:
    origin, number = _origin(cycle)
    steps = (index - number) * cycle.count
    if cycle.unit in _DAYS:
        return origin.add(days=steps * _DAYS[cycle.unit])
    month = Date(origin.year, origin.month, 1).add(months=steps * _MONTHS[cycle.unit])
    return _on_day(month, cycle.anchor_day or day_at(cycle.start, cycle.timezone).day)


def _index_at_most(cycle: Cycle, day: Date) -> int:
    """Return the number of the day's period, or one more: the day of the month is not looked at."""
    origin, number = _origin(cycle)
    if cycle.unit in _DAYS:
        elapsed = (day.to_stdlib() - origin.to_stdlib()).days // _DAYS[cycle.unit]
    else:
        months = (day.year - origin.year) * 12 + day.month - origin.month
        elapsed = months // _MONTHS[cycle.unit]
    return max(0, elapsed // cycle.count + number)
