"""Windows against a look at the local clock, minute by minute, with the standard library."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.metering.window import BUCKET, Split, WindowSize, bucket_of, split, windows

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

SHIFTS = (
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/St_Johns", datetime(2010, 3, 14, 3, 31, tzinfo=UTC)),  # 00:01 to 01:01
    ("America/St_Johns", datetime(2010, 11, 7, 2, 31, tzinfo=UTC)),  # 00:01 to 23:01
    ("America/Havana", datetime(2026, 3, 8, 5, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    ("Pacific/Chatham", datetime(2026, 4, 4, 14, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 1, 1, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Pacific/Kiritimati", datetime(2026, 1, 1, tzinfo=UTC)),
    ("Pacific/Pago_Pago", datetime(2026, 1, 1, tzinfo=UTC)),
)


def hour_begins(at: datetime, zone: ZoneInfo) -> bool:
    """Whether the local clock shows a full hour, or has just skipped one."""
    now, before = at.astimezone(zone), (at - MINUTE).astimezone(zone)
    shift = now.utcoffset() - before.utcoffset()  # type: ignore[operator]
    if shift > timedelta(0):
        skipped = now.replace(tzinfo=None) - shift
        crossed = skipped.replace(minute=0) + (HOUR if skipped.minute else timedelta(0))
        return crossed <= now.replace(tzinfo=None)
    if now.minute:
        return False
    # In the second pass of a fold shorter than an hour, its full hours were there before.
    earlier = now.replace(fold=0).utcoffset() - now.utcoffset() if now.fold else HOUR  # type: ignore[operator]
    return earlier >= HOUR


def day_key(size: WindowSize, day: date) -> date:
    if size is WindowSize.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if size is WindowSize.MONTH else day


def scan(start: datetime, end: datetime, size: WindowSize, zone_name: str) -> list[datetime]:
    zone = ZoneInfo(zone_name)
    cuts = [start]
    # The latest local date so far: the second pass of an evening stays in the new day.
    latest = max((start - n * MINUTE).astimezone(zone).date() for n in range(25 * 60))
    at = (start + MINUTE).replace(second=0, microsecond=0)
    while at < end:
        day = max(latest, at.astimezone(zone).date())
        if size is WindowSize.HOUR:
            begins = hour_begins(at, zone)
        else:
            begins = day_key(size, day) != day_key(size, latest)
        if begins and at > start:
            cuts.append(at)
        latest = day
        at += MINUTE
    return [*cuts, end]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(SHIFTS),
    st.sampled_from([WindowSize.HOUR, WindowSize.DAY, WindowSize.WEEK, WindowSize.MONTH]),
    st.integers(-3000, 0),
    st.integers(1, 4000),
)
def test_windows_begin_where_the_local_clock_says(
    shift: tuple[str, datetime], size: WindowSize, offset: int, length: int
) -> None:
    zone, instant = shift
    start = instant + offset * MINUTE
    end = start + length * MINUTE
    cuts = scan(start, end, size, zone)
    expected = list(pairwise(cuts))
    assert expected == windows(start, end, size, zone)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SHIFTS),
    st.sampled_from(WindowSize),
    st.integers(-10_000_000, 10_000_000),
    st.integers(0, 400_000),
)
def test_windows_tile_the_span(
    shift: tuple[str, datetime], size: WindowSize, offset: int, seconds: int
) -> None:
    zone, instant = shift
    start = instant + timedelta(seconds=offset)
    end = start + timedelta(seconds=seconds)
    found = windows(start, end, size, zone)
    assert seconds == sum((b - a for a, b in found), timedelta(0)).total_seconds()
    assert all(a < b for a, b in found)
    assert all(left[1] == right[0] for left, right in pairwise(found))
    if found:
        assert (start, end) == (found[0][0], found[-1][1])


def test_a_month_in_a_zone_is_cut_at_its_midnights() -> None:
    start, end = datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC)
    days = windows(start, end, WindowSize.DAY, "Europe/Berlin")
    assert len(days) == 31
    assert {
        length: sum(1 for a, b in days if b - a == length) for length in (HOUR * 24, HOUR * 23)
    } == {HOUR * 24: 30, HOUR * 23: 1}
    assert [(start, end)] == windows(start, end, WindowSize.MONTH, "Europe/Berlin")


def test_weeks_begin_on_monday() -> None:
    start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 12, tzinfo=UTC)
    cuts = [day for day, _ in windows(start, end, WindowSize.WEEK, "UTC")]
    assert [cut.day for cut in cuts] == [1, 2, 9]


@pytest.mark.parametrize(
    ("size", "count"),
    [(WindowSize.MINUTE, 61), (WindowSize.FIVE_MINUTES, 13), (WindowSize.QUARTER_HOUR, 5)],
)
def test_small_windows_are_the_same_everywhere(size: WindowSize, count: int) -> None:
    start = datetime(2026, 11, 1, 0, 0, 30, tzinfo=UTC)
    found = windows(start, start + HOUR, size, "Asia/Kathmandu")
    assert count == len(found)
    assert all(b.second == 0 for _, b in found[:-1])


@given(st.integers(-(10**15), 4 * 10**15))
def test_a_bucket_holds_its_time(microseconds: int) -> None:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    bucket = bucket_of(time)
    assert bucket <= time < bucket + BUCKET
    assert (bucket.minute % 15, bucket.second, bucket.microsecond) == (0, 0, 0)


def test_a_bucket_is_in_utc() -> None:
    local = datetime(2026, 1, 1, 5, 50, tzinfo=ZoneInfo("Asia/Kathmandu"))
    assert bucket_of(local).isoformat() == "2026-01-01T00:00:00+00:00"


@settings(max_examples=300)
@given(
    st.integers(0, 7200).map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    st.integers(0, 7200).map(lambda s: timedelta(seconds=s)),
)
def test_a_split_is_the_span_and_its_middle_is_whole(start: datetime, length: timedelta) -> None:
    end = start + length
    parts = split(start, end)
    spans = [span for span in (parts.head, parts.whole, parts.tail) if span is not None]
    cuts = [start, *(b for _, b in spans)]
    assert list(pairwise(cuts)) == spans
    assert cuts[-1] == end
    whole = [
        bucket
        for n in range(20)
        if start <= (bucket := datetime(2026, 1, 1, tzinfo=UTC) + n * BUCKET)
        and bucket + BUCKET <= end
    ]
    expected = (whole[0], whole[-1] + BUCKET) if whole else None
    assert expected == parts.whole


def test_a_span_inside_one_bucket_is_an_edge() -> None:
    start, end = datetime(2026, 1, 1, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 14, tzinfo=UTC)
    assert Split((start, end), None, None) == split(start, end)
