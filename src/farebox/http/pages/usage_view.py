"""Usage of one customer as a chart and a table: by window and by the values of one dimension."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.catalog.meter import Aggregation
from farebox.flows.read_usage import MeterHistory, read_quantities
from farebox.http.pages.chart import Chart, ChartSeries
from farebox.metering.quantity import Quantity, Target
from farebox.metering.reading import meter_dimensions
from farebox.metering.window import Span, WindowSize, windows
from farebox.money.rounding import EXACT
from farebox.period.calendar import day_at, start_of_day

SERIES_MAX = 7


class Stretch(StrEnum):
    """How much of the past a chart shows, in the customer's time zone."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


STRETCH_LABELS = {
    Stretch.DAY: "24 hours",
    Stretch.WEEK: "7 days",
    Stretch.MONTH: "30 days",
    Stretch.YEAR: "12 months",
}
_DAYS = {Stretch.DAY: 1, Stretch.WEEK: 7, Stretch.MONTH: 30, Stretch.YEAR: 365}
_SIZES = {
    Stretch.DAY: WindowSize.HOUR,
    Stretch.WEEK: WindowSize.HOUR,
    Stretch.MONTH: WindowSize.DAY,
    Stretch.YEAR: WindowSize.MONTH,
}
_ADDS_UP = (
    Aggregation.COUNT,
    Aggregation.SUM,
    Aggregation.INCREASE,
    Aggregation.WEIGHTED_SUM,
)


class UsageGroup(Struct, frozen=True):
    """One value of the dimension, with what was used in the whole stretch."""

    label: str
    quantity: Decimal | None
    events: int
    color: int


class UsageView(Struct, frozen=True, kw_only=True):
    """What the page shows. total: of everything, by the meter's own aggregation."""

    meter: str
    name: str
    unit: str
    dimension: str
    dimensions: tuple[str, ...]
    stretch: Stretch
    total: Decimal | None
    events: int
    groups: tuple[UsageGroup, ...]
    chart: Chart
    rows: tuple[tuple[Span, tuple[Decimal | None, ...]], ...]


def read_usage_view(
    connection: Connection,
    organization_id: UUID,
    history: MeterHistory,
    customer_key: str,
    timezone: str,
    dimension: str,
    stretch: Stretch,
    now: datetime,
) -> UsageView:
    """Read what the chart shows, current to the last event.

    A dimension that the meter does not have is taken as none.
    """
    meter = history.current
    names = meter_dimensions(meter)
    chosen = (dimension,) if dimension in names else ()
    start, end = stretch_of(stretch, timezone, now)
    spans = windows(start, end, _SIZES[stretch], timezone)
    target = [Target(customer_key, meter.key, start, end)]
    whole = read_quantities(connection, organization_id, history, target)
    by_group = (
        read_quantities(connection, organization_id, history, target, dimensions=chosen)
        if chosen
        else whole
    )
    by_window = read_quantities(
        connection, organization_id, history, target, dimensions=chosen, windows=spans
    )
    adds_up = meter.aggregation in _ADDS_UP
    keys = _largest(by_group)
    rows = _rows(by_window, keys, len(spans), rest=adds_up and len(by_group) > len(keys))
    labels = [_label(key) for key in keys]
    if adds_up and len(by_group) > len(keys):
        labels.append("everything else")
    return UsageView(
        meter=meter.key,
        name=meter.name or meter.key,
        unit=meter.unit or "units",
        dimension=chosen[0] if chosen else "",
        dimensions=names,
        stretch=stretch,
        total=whole[0].quantity if whole else None,
        events=whole[0].events if whole else 0,
        groups=_groups(by_group, keys),
        chart=Chart(
            # What does not add up must not be stacked.
            kind="bars" if adds_up or not chosen else "lines",
            x=tuple(span[0] for span in spans),
            series=tuple(
                ChartSeries(label, tuple(row[position] for row in rows))
                for position, label in enumerate(labels)
            ),
            label=f"{meter.name or meter.key} of {customer_key}",
            timezone=timezone,
            unit=meter.unit,
        ),
        rows=tuple(zip(spans, rows, strict=True)),
    )


def stretch_of(stretch: Stretch, timezone: str, now: datetime) -> Span:
    """Return the stretch up to the end of the window under way."""
    tomorrow = day_at(now, timezone).add(days=1)
    if stretch is Stretch.DAY:
        end = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return end - timedelta(days=1), end
    if stretch is Stretch.YEAR:
        first = day_at(now, timezone).replace(day=1).add(months=-11)
        return start_of_day(first, timezone), start_of_day(tomorrow, timezone)
    first = tomorrow.add(days=-_DAYS[stretch])
    return start_of_day(first, timezone), start_of_day(tomorrow, timezone)


def _largest(found: Sequence[Quantity]) -> list[tuple[str, ...]]:
    ordered = sorted(
        found, key=lambda one: ((one.quantity or Decimal(0)).copy_negate(), one.group.dimensions)
    )
    return [one.group.dimensions for one in ordered[:SERIES_MAX]]


def _rows(
    found: Sequence[Quantity], keys: Sequence[tuple[str, ...]], count: int, *, rest: bool
) -> list[tuple[Decimal | None, ...]]:
    """Return the quantities of each window, by key; with `rest`, what all others add up to."""
    places: Mapping[tuple[str, ...], int] = {key: place for place, key in enumerate(keys)}
    width = len(keys) + rest
    rows: list[list[Decimal | None]] = [[None] * width for _ in range(count)]
    for one in found:
        place = places.get(one.group.dimensions)
        if place is None and rest:
            before = rows[one.group.window][-1] or Decimal(0)
            rows[one.group.window][-1] = EXACT.add(before, one.quantity or Decimal(0))
        elif place is not None:
            rows[one.group.window][place] = one.quantity
    return [tuple(row) for row in rows]


def _groups(found: Sequence[Quantity], keys: Sequence[tuple[str, ...]]) -> tuple[UsageGroup, ...]:
    by_key = {one.group.dimensions: one for one in found}
    return tuple(
        UsageGroup(_label(key), by_key[key].quantity, by_key[key].events, place % 8 + 1)
        for place, key in enumerate(keys)
    )


def _label(key: tuple[str, ...]) -> str:
    return (key[0] or "(none)") if key else "total"
