"""Which periods are due: from the start, in order, to the end, each once, whatever was missed."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from farebox_world import at, new_id
from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.plan import Fee, Interval, Plan, Timing
from farebox.flows.due_periods import due_periods, upcoming
from farebox.flows.rate_periods import Due
from farebox.invoicing.assemble import InvoiceKind
from farebox.postgres.customer import SubscriptionRow

START, PERIOD = InvoiceKind.START, InvoiceKind.PERIOD


def subscribed(
    start: str,
    end: str | None = None,
    *,
    timezone: str = "UTC",
    anchor_day: int | None = None,
) -> SubscriptionRow:
    ends = None if end is None else at(end)
    return SubscriptionRow(
        "s", new_id(), "acme", "basic", 1, at(start), ends, timezone, anchor_day, "{}"
    )


def plan(interval: Interval = Interval.MONTH, *, fee: Timing | None = None, count: int = 1) -> Plan:
    fees = () if fee is None else (Fee(key="base", amount=Decimal(10), timing=fee),)
    return Plan(key="basic", currency="EUR", interval=interval, interval_count=count, fees=fees)


def shown(dues: list[Due]) -> list[str]:
    """Write dues as a person would: kind, start, end, and the start of what follows."""
    return [
        f"{due.kind} {due.period.start:%Y-%m-%d %H:%M} {due.period.end:%Y-%m-%d %H:%M}"
        f" then {f'{due.following.start:%Y-%m-%d}' if due.following else '-'}"
        for due in dues
    ]


def test_nothing_is_due_before_the_start() -> None:
    assert [] == due_periods(
        subscribed("2026-09-01"), plan(fee=Timing.ADVANCE), at("2026-08-31 23:59"), {}
    )


def test_the_start_is_due_at_once_where_fees_are_in_advance() -> None:
    subscription, basic = subscribed("2026-09-01"), plan(fee=Timing.ADVANCE)
    expected = ["start 2026-09-01 00:00 2026-10-01 00:00 then -"]
    assert expected == shown(due_periods(subscription, basic, at("2026-09-01"), {}))
    invoiced = {("s", "start"): at("2026-09-01")}
    assert [] == due_periods(subscription, basic, at("2026-09-01"), invoiced)


@pytest.mark.parametrize("timing", [None, Timing.ARREARS])
def test_no_start_invoice_without_fees_in_advance(timing: Timing | None) -> None:
    assert [] == due_periods(subscribed("2026-09-01"), plan(fee=timing), at("2026-09-30"), {})


def test_a_period_is_due_from_the_instant_of_its_end() -> None:
    subscription = subscribed("2026-09-01")
    just_before = at("2026-10-01") - timedelta(microseconds=1)
    assert [] == due_periods(subscription, plan(), just_before, {})
    expected = ["period 2026-09-01 00:00 2026-10-01 00:00 then 2026-10-01"]
    assert expected == shown(due_periods(subscription, plan(), at("2026-10-01"), {}))


def test_months_that_were_missed_are_due_in_order() -> None:
    dues = due_periods(subscribed("2026-01-31"), plan(fee=Timing.ADVANCE), at("2026-05-01"), {})
    assert [
        "start 2026-01-31 00:00 2026-02-28 00:00 then -",
        "period 2026-01-31 00:00 2026-02-28 00:00 then 2026-02-28",
        "period 2026-02-28 00:00 2026-03-31 00:00 then 2026-03-31",
        "period 2026-03-31 00:00 2026-04-30 00:00 then 2026-04-30",
    ] == shown(dues)


def test_what_is_invoiced_is_not_due_again() -> None:
    invoiced = {("s", "start"): at("2026-01-31"), ("s", "period"): at("2026-02-28")}
    dues = due_periods(
        subscribed("2026-01-31"), plan(fee=Timing.ADVANCE), at("2026-05-01"), invoiced
    )
    assert ["period 2026-03-31 00:00 2026-04-30 00:00 then 2026-04-30"] == shown(dues)


def test_the_end_cuts_the_last_period_and_nothing_follows() -> None:
    subscription = subscribed("2026-09-01", "2026-10-15 12:00")
    assert ["period 2026-09-01 00:00 2026-10-01 00:00 then 2026-10-01"] == shown(
        due_periods(subscription, plan(), at("2026-10-15 11:59"), {})
    )
    assert [
        "period 2026-09-01 00:00 2026-10-01 00:00 then 2026-10-01",
        "period 2026-10-01 00:00 2026-10-15 12:00 then -",
    ] == shown(due_periods(subscription, plan(), at("2030-01-01"), {}))


def test_an_end_on_a_boundary_leaves_no_empty_period() -> None:
    subscription = subscribed("2026-09-01", "2026-10-01")
    dues = due_periods(subscription, plan(), at("2030-01-01"), {})
    assert ["period 2026-09-01 00:00 2026-10-01 00:00 then -"] == shown(dues)


def test_an_anchor_makes_the_first_period_short() -> None:
    subscription = subscribed("2026-09-10 08:30", anchor_day=1)
    dues = due_periods(subscription, plan(), at("2026-11-01"), {})
    assert [
        "period 2026-09-10 08:30 2026-10-01 00:00 then 2026-10-01",
        "period 2026-10-01 00:00 2026-11-01 00:00 then 2026-11-01",
    ] == shown(dues)


def test_periods_are_cut_in_the_time_zone_of_the_subscription() -> None:
    subscription = subscribed("2026-10-01T00:00+02:00", timezone="Europe/Berlin")
    assert [
        "period 2026-09-30 22:00 2026-10-31 23:00 then 2026-10-31",
        "period 2026-10-31 23:00 2026-11-30 23:00 then 2026-11-30",
    ] == shown(due_periods(subscription, plan(), at("2026-11-30 23:00"), {}))


def test_a_day_that_a_zone_left_out_is_no_period() -> None:
    """Samoa had no 30 December 2011: two periods would share the start by which they are known."""
    subscription = subscribed("2011-12-28T00:00-10:00", timezone="Pacific/Apia")
    dues = due_periods(subscription, plan(Interval.DAY), at("2012-01-01 10:00"), {})
    assert [
        "period 2011-12-28 10:00 2011-12-29 10:00 then 2011-12-29",
        "period 2011-12-29 10:00 2011-12-30 10:00 then 2011-12-30",
        "period 2011-12-30 10:00 2011-12-31 10:00 then 2011-12-31",
        "period 2011-12-31 10:00 2012-01-01 10:00 then 2012-01-01",
    ] == shown(dues)
    invoiced = {("s", "period"): at("2011-12-30 10:00")}
    resumed = due_periods(subscription, plan(Interval.DAY), at("2012-01-01 10:00"), invoiced)
    assert shown(dues)[3:] == shown(resumed)


def test_the_upcoming_period_is_the_one_under_way() -> None:
    subscription = subscribed("2026-09-01", "2026-10-15")
    assert None is upcoming(subscription, plan(), at("2026-08-31"))
    now = upcoming(subscription, plan(), at("2026-10-14"))
    assert now is not None
    assert ["period 2026-10-01 00:00 2026-10-15 00:00 then -"] == shown([now])
    assert None is upcoming(subscription, plan(), at("2026-10-15"))


@given(
    start=st.integers(0, 90_000_000_000).map(
        lambda n: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=n)
    ),
    length=st.timedeltas(timedelta(hours=1), timedelta(days=400)),
    wait=st.timedeltas(timedelta(0), timedelta(days=500)),
    pause=st.timedeltas(timedelta(0), timedelta(days=500)),
    interval=st.sampled_from([Interval.WEEK, Interval.MONTH, Interval.QUARTER, Interval.YEAR]),
    count=st.integers(1, 3),
    anchor_day=st.sampled_from([None, 1, 15, 29, 30, 31]),
    timezone=st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"]),
    ends=st.booleans(),
)
def test_two_runs_invoice_what_one_would_have(
    start: datetime,
    length: timedelta,
    wait: timedelta,
    pause: timedelta,
    interval: Interval,
    count: int,
    anchor_day: int | None,
    timezone: str,
    ends: bool,
) -> None:
    """However runs are spread, the periods are the same, and cover the time without a gap."""
    subscription = SubscriptionRow(
        "s",
        new_id(),
        "acme",
        "basic",
        1,
        start,
        start + length if ends else None,
        timezone,
        anchor_day,
        "{}",
    )
    basic = plan(interval, fee=Timing.ADVANCE, count=count)
    first = due_periods(subscription, basic, start + wait, {})
    invoiced = {("s", due.kind.value): due.period.start for due in first}
    second = due_periods(subscription, basic, start + wait + pause, invoiced)
    assert due_periods(subscription, basic, start + wait + pause, {}) == first + second

    at_ = start
    for due in first + second:
        if due.kind is PERIOD:
            assert at_ == due.period.start
            assert due.following is None or due.following.start == due.period.end
            at_ = due.period.end
    if ends and start + wait + pause >= start + length:
        assert start + length == at_
    else:
        open_ = upcoming(subscription, basic, at_)
        assert open_ is not None
        assert open_.period.end > start + wait + pause
    assert 1 == sum(due.kind is START for due in first + second)
