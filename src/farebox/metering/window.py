"""Windows of usage: a span of time cut into hours, days or months of a time zone."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from msgspec import Struct

from farebox.period.calendar import day_at, local, start_of_day, to_instant

Span = tuple[datetime, datetime]
"""From (inclusive) to (exclusive), both in UTC."""

BUCKET = timedelta(minutes=15)
"""The length of a rollup bucket. Every offset in use is a multiple of it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WindowSize(StrEnum):
    """The length of a window. Those under a quarter of an hour are read from raw readings."""

    MINUTE = "minute"
    FIVE_MINUTES = "five_minutes"
    QUARTER_HOUR = "quarter_hour"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


_FIXED = {
    WindowSize.MINUTE: timedelta(minutes=1),
    WindowSize.FIVE_MINUTES: timedelta(minutes=5),
    WindowSize.QUARTER_HOUR: BUCKET,
}
_HOUR = timedelta(hours=1)
_INSTANT = timedelta(microseconds=1)


def windows(start: datetime, end: datetime, size: WindowSize, timezone: str) -> list[Span]:
    """Cut the span from `start` to `end` where windows of the time zone begin.

    The windows tile the span: the first and the last are cut short by it. A day has 23 to 25
    hours; weeks begin on Monday. An hour begins when the local clock shows a full hour, so one
    is shorter or longer where the clock moves by half an hour. Windows of a quarter of an hour
    and less are the same in every zone.
    """
    cuts = [start, *_cuts(start, end, size, timezone), end] if start < end else []
    return list(pairwise(cuts))


def _cuts(start: datetime, end: datetime, size: WindowSize, timezone: str) -> Iterator[datetime]:
    """Yield every boundary between `start` and `end`, both excluded, in order."""
    following = _following(size, timezone)
    at = following(start.astimezone(UTC))
    while at < end:
        yield at
        at = following(at)


def _following(size: WindowSize, timezone: str) -> Callable[[datetime], datetime]:
    """Return the function from an instant to the first boundary after it."""
    if size in _FIXED:
        step = _FIXED[size]
        return lambda at: _floor(at, step) + step
    if size is WindowSize.HOUR:
        return lambda at: _next_hour(at, timezone)
    return lambda at: _next_day(at, size, timezone)


def _next_hour(at: datetime, timezone: str) -> datetime:
    found = at + _HOUR
    # Where the clock goes back by less than an hour, that hour is longer.
    while (begin := _start_of_hour(found, timezone)) <= at:
        found += _HOUR
    # Where it goes forward, an hour may be so short that the step passed over it.
    while (before := _start_of_hour(begin - _INSTANT, timezone)) > at:
        begin = before
    return begin


def _start_of_hour(at: datetime, timezone: str) -> datetime:
    return to_instant(local(at, timezone).start_of("hour"))


def _next_day(at: datetime, size: WindowSize, timezone: str) -> datetime:
    day = day_at(at, timezone)
    match size:
        case WindowSize.WEEK:
            day = day.add(days=8 - day.day_of_week().value)
        case WindowSize.MONTH:
            day = day.replace(day=1).add(months=1)
        case _:
            day = day.add(days=1)
    return start_of_day(day, timezone)


def bucket_of(time: datetime) -> datetime:
    """Return the start of the 15-minute bucket in UTC that holds `time`."""
    return _floor(time.astimezone(UTC), BUCKET)


def _floor(time: datetime, step: timedelta) -> datetime:
    return time - (time - _EPOCH) % step


class Split(Struct, frozen=True):
    """A span as an edge, whole buckets and an edge; None for what is empty.

    A span inside one bucket is all `head`. The edges are read from readings.
    """

    head: Span | None
    whole: Span | None
    tail: Span | None


def split(start: datetime, end: datetime) -> Split:
    """Separate the part of a span that rollup buckets cover exactly."""
    first = bucket_of(start)
    first = first if first == start else first + BUCKET
    last = bucket_of(end)
    if first > last:
        return Split(_span(start, end), None, None)
    return Split(_span(start, first), _span(first, last), _span(last, end))


def _span(start: datetime, end: datetime) -> Span | None:
    return (start, end) if start < end else None
