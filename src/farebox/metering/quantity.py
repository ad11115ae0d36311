"""From what a database kept of readings to quantities, by customer, window and dimensions."""

from bisect import bisect_left
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
from farebox.period.instant import END

_ZERO = Decimal(0)
_NO_EVENT = 2**63  # after every event of the same instant


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
    """One reading of a series, and from when to when its user counts for the target.

    user: the subject and, where the event named it, the customer; `place` may leave them out.
    carried: it lies before that span and may carry into it.
    """

    place: Place
    series_id: UUID
    user: tuple[str, str]
    point: Point
    carried: bool
    start: datetime
    end: datetime


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
    """Which dimensions a question keeps; each meter version may have them in another order.

    ends: when a level read by a version ends, as `level_ends` has it; for ever where not given.
    filters: the values to keep of some dimensions; others are as if they had never been read.
    """

    def __init__(
        self,
        versions: Mapping[int, Meter],
        dimensions: Sequence[str],
        *,
        ends: Mapping[int, datetime] | None = None,
        filters: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self.dimensions = tuple(dimensions)
        self.ends = ends or {}
        self._names = {version: meter_dimensions(meter) for version, meter in versions.items()}
        self._filters = filters or {}
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

    def named(self, place: Place) -> dict[str, str]:
        """Return the place's dimension values by name."""
        return dict(zip(self._names[place.meter_version], place.dimensions, strict=True))

    def takes(self, place: Place) -> bool:
        """Tell whether the filters let the place through; an absent dimension is empty text."""
        if not self._filters:
            return True
        named = self.named(place)
        return all(named.get(name, "") in values for name, values in self._filters.items())


def level_ends(history: Mapping[int, tuple[Meter, datetime]]) -> dict[int, datetime]:
    """Return when a level read by each version ends, from versions and when they took effect.

    It goes on into the next version where that has the same dimensions, since there the same user
    goes on reporting it. Otherwise it ends where the next version begins: else it would be summed
    for ever beside the one that replaced it.
    """
    return {version: _level_end(history, version) for version in history}


def _level_end(history: Mapping[int, tuple[Meter, datetime]], version: int) -> datetime:
    names = set(meter_dimensions(history[version][0]))
    while later := [number for number in history if number > version]:
        version = min(later, key=lambda number: (history[number][1], -number))
        meter, since = history[version]
        if set(meter_dimensions(meter)) != names:
            return since
    return END


def from_totals(meter: Meter, grouping: Grouping, rows: Iterable[TotalsRow]) -> list[Quantity]:
    """Return quantities of count, sum, min, max and avg, in the order of the rows."""
    groups: dict[Group, Totals] = {}
    for row in rows:
        if grouping.takes(row.place):
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
        if grouping.takes(row.place):
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
    rows: Iterable[PointRow],
    spans: Sequence[Sequence[tuple[datetime, datetime]]],
) -> list[Quantity]:
    """Return quantities whose result depends on order: each chain is folded, then added up.

    A chain is what one user reported with one set of dimension values; it goes on from one meter
    version to the next. spans: the windows of each target.
    """
    groups: dict[Group, tuple[Decimal | None, int]] = {}
    for group, chain in _chains(meter, grouping, rows):
        for window, span in enumerate(spans[group.target]):
            quantity, events = _fold_chain(meter, chain, span)
            if events or quantity:
                placed = Group(group.target, window, group.subject, group.dimensions)
                before, events_before = groups.get(placed, (None, 0))
                groups[placed] = (_plus(before, quantity), events_before + events)
    return [
        _quantity(meter, group, quantity, events) for group, (quantity, events) in groups.items()
    ]


class _Stretch(Struct, frozen=True):
    """A chain's points, in order, as they count for a target from `start` to `end`."""

    start: datetime
    end: datetime
    points: list[Point]
    times: list[datetime]


def _chains(
    meter: Meter, grouping: Grouping, rows: Iterable[PointRow]
) -> Iterable[tuple[Group, list[_Stretch]]]:
    chains: dict[object, dict[tuple[datetime, datetime], list[PointRow]]] = {}
    for row in rows:
        if grouping.takes(row.place):
            said = frozenset(item for item in grouping.named(row.place).items() if item[1])
            key = (row.place.target, row.place.subject, row.user, said)
            chains.setdefault(key, {}).setdefault((row.start, row.end), []).append(row)
    for chain in chains.values():
        stretches = [_stretch(meter, grouping, span, found) for span, found in chain.items()]
        first = next(iter(chain.values()))[0]
        yield grouping.of(first.place), sorted(stretches, key=lambda one: one.start)


def _stretch(
    meter: Meter, grouping: Grouping, span: tuple[datetime, datetime], rows: list[PointRow]
) -> _Stretch:
    rows.sort(key=lambda row: (row.point.time, row.point.sequence))
    points = [row.point for row in rows]
    if meter.aggregation is Aggregation.WEIGHTED_SUM and grouping.ends:
        points = _end_levels(grouping.ends, rows)
    return _Stretch(*span, points, [point.time for point in points])


def _end_levels(ends: Mapping[int, datetime], rows: Sequence[PointRow]) -> list[Point]:
    """Put a zero where a level ends with its meter version, without a reading that says so."""
    points: list[Point] = []
    following = [row.point.time for row in rows[1:]]
    for row, next_time in zip(rows, [*following, END], strict=True):
        points.append(row.point)
        end = max(ends[row.place.meter_version], row.point.time)
        if end < next_time:
            points.append(Point(end, _NO_EVENT, _ZERO))
    return points


def _fold_chain(
    meter: Meter, chain: Sequence[_Stretch], span: tuple[datetime, datetime]
) -> tuple[Decimal | None, int]:
    total: Decimal | None = None
    events = 0
    for stretch in chain:
        start, end = max(span[0], stretch.start), min(span[1], stretch.end)
        if start >= end:
            continue
        first, last = bisect_left(stretch.times, start), bisect_left(stretch.times, end)
        inside = stretch.points[first:last]
        carry = stretch.points[first - 1] if first else None
        quantity = fold(meter, inside, start, end, carry)
        if meter.aggregation is Aggregation.LATEST:
            # Who used for others in between has one latest reading, not one of each time.
            total = total if quantity is None else quantity
        else:
            total = _plus(total, quantity)
        events += sum(1 for point in inside if point.sequence != _NO_EVENT)
    return total, events


def values_by_group(grouping: Grouping, rows: Iterable[PointRow]) -> dict[Group, list[Decimal]]:
    """Return single readings in the order of time, for prices with terms for each event."""
    points: dict[Group, list[Point]] = defaultdict(list)
    for row in rows:
        if not row.carried and grouping.takes(row.place):
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
