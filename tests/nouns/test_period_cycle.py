"""Billing periods against a walk over the calendar, day by day, with the standard library."""

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.period.calendar import is_timezone
from farebox.period.cycle import (
    Cycle,
    Period,
    Unit,
    index_at,
    period_at,
    period_containing,
    periods_between,
    whole_period_at,
)

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # skipped midnight until 2018
    "America/Havana",  # skips and repeats the hour after midnight
    "Asia/Beirut",  # skips midnight
    "Atlantic/Azores",  # repeats midnight
    "Australia/Lord_Howe",  # moves by half an hour
    "Asia/Kathmandu",  # +05:45
    "Pacific/Chatham",  # +12:45 and +13:45
    "Pacific/Kiritimati",  # +14
    "Pacific/Pago_Pago",  # -11
    "Pacific/Apia",  # left out 30 December 2011
)
MONTHS = {Unit.MONTH: 1, Unit.QUARTER: 3, Unit.YEAR: 12}
QUARTER_HOUR = timedelta(minutes=15)
DAYS = {Unit.DAY: 1, Unit.WEEK: 7}


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type, misc]


def first_instant(day: date, zone: ZoneInfo) -> datetime:
    """Look at every quarter of an hour until the local date is the day or later."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while at.astimezone(zone).date() < day:
        at += timedelta(minutes=15)
    return at


def walk(cycle: Cycle, periods: int) -> list[Period]:
    """Cut periods by walking over the days after the start, one by one."""
    zone = ZoneInfo(cycle.timezone)
    first = day = cycle.start.astimezone(zone).date()
    anchor = cycle.anchor_day or first.day
    cuts = [cycle.start]
    passed = MONTHS.get(cycle.unit, 0) * cycle.count
    if first.day == min(anchor, calendar.monthrange(first.year, first.month)[1]):
        passed = 0
    days = 0
    while len(cuts) <= periods:
        day += timedelta(days=1)
        days += 1
        if cycle.unit in DAYS:
            if days % (DAYS[cycle.unit] * cycle.count) == 0:
                cuts.append(first_instant(day, zone))
        elif day.day == min(anchor, calendar.monthrange(day.year, day.month)[1]):
            passed += 1
            whole = MONTHS[cycle.unit] * cycle.count
            if passed == whole + 1 or passed == whole:
                cuts.append(first_instant(day, zone))
                passed = 0
    return [Period(a, b) for a, b in pairwise(cuts)]


def cycles() -> st.SearchStrategy[Cycle]:
    return st.builds(
        Cycle,
        unit=st.sampled_from(Unit),
        count=st.integers(1, 3),
        start=st.integers(0, 24 * 366 * 96).map(lambda n: utc(2009, 1, 1) + n * QUARTER_HOUR),
        anchor_day=st.none() | st.integers(1, 31),
        timezone=st.sampled_from(ZONES),
    )


@settings(max_examples=150, deadline=None)
@given(cycles())
def test_periods_equal_a_walk_over_the_calendar(cycle: Cycle) -> None:
    assert walk(cycle, 4) == [period_at(cycle, index) for index in range(4)]


@settings(max_examples=200, deadline=None)
@given(cycles(), st.integers(0, 40))
def test_periods_follow_each_other_without_gap(cycle: Cycle, index: int) -> None:
    assert period_at(cycle, index).end == period_at(cycle, index + 1).start
    assert period_at(cycle, 0).start == cycle.start
    whole = whole_period_at(cycle, index)
    assert whole.start <= period_at(cycle, index).start
    assert whole.end == period_at(cycle, index).end


@settings(max_examples=300, deadline=None)
@given(cycles(), st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_an_instant_finds_its_period(cycle: Cycle, index: int, share: float) -> None:
    period = period_at(cycle, index)
    inside = period.start + (period.end - period.start) * share
    if period.start <= inside < period.end:
        assert index == index_at(cycle, inside)
        assert period == period_containing(cycle, inside)
        assert index == index_at(cycle, period.start)
        assert index == index_at(cycle, period.end - timedelta(microseconds=1))


@settings(max_examples=100, deadline=None)
@given(cycles(), st.integers(-200, 400), st.integers(0, 400))
def test_periods_between_are_those_that_overlap(cycle: Cycle, days: int, length: int) -> None:
    start = cycle.start + timedelta(days=days, minutes=7)
    end = start + timedelta(days=length)
    candidates = (period_at(cycle, index) for index in range(1000))
    expected = []
    for period in candidates:
        if period.start >= end:
            break
        if period.end > start and start < end:
            expected.append(period)
    assert tuple(expected) == periods_between(cycle, start, end)


def starts(cycle: Cycle, periods: int) -> list[str]:
    zone = ZoneInfo(cycle.timezone)
    found = [period_at(cycle, index).start.astimezone(zone) for index in range(periods)]
    return [f"{moment:%Y-%m-%d %H:%M}" for moment in found]


def test_the_31st_comes_back_to_the_31st() -> None:
    cycle = Cycle(unit=Unit.MONTH, start=utc(2023, 10, 31))
    expected = ["2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31"]
    assert [f"{day} 00:00" for day in expected] == starts(cycle, 6)


def test_the_leap_day_comes_back_every_four_years() -> None:
    cycle = Cycle(unit=Unit.YEAR, start=utc(2024, 2, 29))
    expected = ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]
    assert [f"{day} 00:00" for day in expected] == starts(cycle, 5)


def test_another_anchor_day_gives_a_short_first_period() -> None:
    cycle = Cycle(unit=Unit.QUARTER, start=utc(2026, 2, 10, 9, 30), anchor_day=1)
    expected = ["2026-02-10 09:30", "2026-03-01 00:00", "2026-06-01 00:00", "2026-09-01 00:00"]
    assert expected == starts(cycle, 4)
    assert Period(utc(2025, 12, 1), utc(2026, 3, 1)) == whole_period_at(cycle, 0)


def test_the_last_day_of_february_is_the_anchor_day_31() -> None:
    cycle = Cycle(unit=Unit.MONTH, start=utc(2026, 2, 28), anchor_day=31)
    assert starts(cycle, 3) == ["2026-02-28 00:00", "2026-03-31 00:00", "2026-04-30 00:00"]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Asia/Beirut", (2025, 3, 30), 23),
        ("America/Havana", (2026, 11, 1), 25),
        ("Atlantic/Azores", (2026, 10, 25), 25),
        ("Pacific/Apia", (2011, 12, 30), 0),
    ],
)
def test_days_are_as_long_as_the_clock_says(
    zone: str, day: tuple[int, int, int], hours: float
) -> None:
    begin = first_instant(date(*day) - timedelta(days=2), ZoneInfo(zone))
    cycle = Cycle(unit=Unit.DAY, start=begin, timezone=zone)
    period = period_at(cycle, 2)
    assert timedelta(hours=hours) == period.end - period.start


def test_a_day_begins_where_the_clock_skips_midnight() -> None:
    cycle = Cycle(unit=Unit.DAY, start=utc(2025, 3, 28, 22), timezone="Asia/Beirut")
    assert starts(cycle, 3) == ["2025-03-29 00:00", "2025-03-30 01:00", "2025-03-31 00:00"]


def test_nothing_is_before_the_start() -> None:
    cycle = Cycle(unit=Unit.MONTH, start=utc(2026, 1, 15))
    assert index_at(cycle, utc(2026, 1, 14, 23, 59)) is None
    assert period_containing(cycle, utc(2026, 1, 1)) is None
    assert periods_between(cycle, utc(2025, 1, 1), utc(2026, 1, 15)) == ()
    assert periods_between(cycle, utc(2026, 3, 1), utc(2026, 3, 1)) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"anchor_day": 32},
        {"anchor_day": 0},
        {"timezone": "Mars/Olympus"},
        {"start": utc(2026, 1, 1).replace(tzinfo=None)},
    ],
)
def test_a_cycle_that_cannot_be_is_a_bug(wrong: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        Cycle(**{"unit": Unit.MONTH, "start": utc(2026, 1, 1), **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "known"),
    [("Europe/Berlin", True), ("UTC", True), ("../etc/passwd", False), ("", False), ("a\0", False)],
)
def test_time_zones_are_those_of_the_database(name: str, known: bool) -> None:
    assert known == is_timezone(name)


def test_units_are_the_intervals_of_plans() -> None:
    from farebox.catalog.plan import Interval

    assert [interval.value for interval in Interval] == [unit.value for unit in Unit]
