"""From what a database kept of readings to quantities, by customer, window and dimensions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct

from farebox.catalog.meter import Aggregation, Meter
from farebox.metering.fold import (
    NO_TOTALS,
    Point,
    Totals,
    convert,
    fold,
    percentile_of,
    quantity_of,
)
from farebox.metering.reading import meter_dimensions
from farebox.money.rounding import EXACT


class Target(Struct, frozen=True):
    """A customer's use of a meter in [start, end)."""

    customer_key: str
    meter_key: str
    start: datetime
    end: datetime


class Place(Struct, frozen=True):
    """Where readings belong: target and window by position, who, and the dimension values.

    dimensions: in the order of `meter_dimensions` of that meter version.
    """

    target: int
    window: int
    subject: str
    meter_version: int
    dimensions: tuple[str, ...]


class TotalsRow(Struct, frozen=True):
    """The additive state of the readings of a place."""

    place: Place
    totals: Totals


class ValueRow(Struct, frozen=True):
    """How often one value was read at a place."""

    place: Place
    value: str
    count: int


class PointRow(Struct, frozen=True):
    """One reading of a series; `carried`: it lies before the range and may carry into it."""

    place: Place
    series_id: UUID
    point: Point
    carried: bool


class Group(Struct, frozen=True):
    """What a quantity is asked for: a target's window, a subject, values of chosen dimensions."""

    target: int
    window: int
    subject: str
    dimensions: tuple[str, ...]


class Quantity(Struct, frozen=True, kw_only=True):
    """A quantity in the meter's billed unit.

    None: the aggregation has no value without readings. events: how many readings it is made of.
    """

    group: Group
    quantity: Decimal | None
    events: int


class Grouping:
    """Which dimensions a question keeps; each meter version may have them in another order."""

    def __init__(self, versions: Mapping[int, Meter], dimensions: Sequence[str]) -> None:
        self.dimensions = tuple(dimensions)
        self._positions: dict[int, tuple[int | None, ...]] = {}
        for version, meter in versions.items():
            names = meter_dimensions(meter)
            self._positions[version] = tuple(
                names.index(name) if name in names else None for name in dimensions
            )

    def of(self, place: Place) -> Group:
        values = tuple(
            "" if position is None else place.dimensions[position]
            for position in self._positions[place.meter_version]
        )
        return Group(place.target, place.window, place.subject, values)


def from_totals(meter: Meter, grouping: Grouping, rows: Iterable[TotalsRow]) -> list[Quantity]:
    """Return quantities of count, sum, min, max and avg, in the order of the rows."""
    groups: dict[Group, Totals] = {}
    for row in rows:
        group = grouping.of(row.place)
        groups[group] = groups.get(group, NO_TOTALS).merge(row.totals)
    return [
        _quantity(meter, group, quantity_of(meter.aggregation, totals), totals.count)
        for group, totals in groups.items()
    ]


def from_values(meter: Meter, grouping: Grouping, rows: Iterable[ValueRow]) -> list[Quantity]:
    """Return quantities of unique_count and percentile; exact, from every distinct value."""
    groups: dict[Group, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        groups[grouping.of(row.place)][row.value] += row.count
    result = []
    for group, counts in groups.items():
        if meter.aggregation is Aggregation.UNIQUE_COUNT:
            quantity: Decimal | None = Decimal(len(counts))
        else:
            assert meter.percentile is not None, "check_meter requires it"
            numbers: dict[Decimal, int] = defaultdict(int)
            for value, count in counts.items():
                numbers[Decimal(value)] += count
            quantity = percentile_of(numbers, meter.percentile)
        result.append(_quantity(meter, group, quantity, sum(counts.values())))
    return result


def from_points(
    meter: Meter,
    grouping: Grouping,
    rows: Sequence[PointRow],
    spans: Sequence[Sequence[tuple[datetime, datetime]]],
) -> list[Quantity]:
    """Return quantities whose result depends on order: each series is folded, then added up.

    rows: in the order of time within a series. spans: the windows of each target.
    """
    series: dict[tuple[Group, UUID], list[PointRow]] = defaultdict(list)
    for row in rows:
        series[grouping.of(row.place), row.series_id].append(row)
    groups: dict[Group, tuple[Decimal | None, int]] = {}
    for (group, _), found in series.items():
        for window, (start, end) in enumerate(spans[group.target]):
            inside = [row.point for row in found if start <= row.point.time < end]
            before = [row.point for row in found if row.point.time < start]
            quantity = fold(meter, inside, start, end, before[-1] if before else None)
            placed = Group(group.target, window, group.subject, group.dimensions)
            sum_, events = groups.get(placed, (None, 0))
            groups[placed] = (_plus(sum_, quantity), events + len(inside))
    return [
        _quantity(meter, group, quantity, events) for group, (quantity, events) in groups.items()
    ]


def values_by_group(grouping: Grouping, rows: Iterable[PointRow]) -> dict[Group, list[Decimal]]:
    """Return single readings in the order of time, for prices with terms for each event."""
    points: dict[Group, list[Point]] = defaultdict(list)
    for row in rows:
        if not row.carried:
            points[grouping.of(row.place)].append(row.point)
    return {
        group: [
            Decimal(point.value)
            for point in sorted(found, key=lambda point: (point.time, point.sequence))
        ]
        for group, found in points.items()
    }


def _plus(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    if left is None or right is None:
        return right if left is None else left
    return EXACT.add(left, right)


def _quantity(meter: Meter, group: Group, quantity: Decimal | None, events: int) -> Quantity:
    if quantity is not None and meter.conversion is not None:
        quantity = convert(quantity, meter.conversion)
    return Quantity(group=group, quantity=quantity, events=events)
