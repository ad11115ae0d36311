"""How readings become a quantity: the meaning of every aggregation, in exact arithmetic.

This is the oracle of what SQL aggregates, and the production code of the aggregations that
depend on the order of the readings (latest, weighted_sum, increase).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import reduce

from msgspec import Struct

from farebox.catalog.meter import Aggregation, Conversion, Meter
from farebox.money.rounding import EXACT, QUANTITY_DECIMALS, divide, round_to

_ZERO = Decimal(0)
_MICROSECOND = timedelta(microseconds=1)


class Point(Struct, frozen=True):
    """One reading in time; `sequence` is its place in the stream and orders equal times."""

    time: datetime
    sequence: int
    value: Decimal | str


class Totals(Struct, frozen=True):
    """What count, sum, min, max and avg need to know; it merges in any order and grouping."""

    count: int = 0
    sum: Decimal = _ZERO
    minimum: Decimal | None = None
    maximum: Decimal | None = None

    def merge(self, other: "Totals") -> "Totals":
        """Return the totals of both sets of readings together."""
        if not self.count:
            return other
        if not other.count:
            return self
        assert self.minimum is not None, "a counted reading has a minimum and a maximum"
        assert other.minimum is not None, "a counted reading has a minimum and a maximum"
        assert self.maximum is not None, "a counted reading has a minimum and a maximum"
        assert other.maximum is not None, "a counted reading has a minimum and a maximum"
        return Totals(
            self.count + other.count,
            EXACT.add(self.sum, other.sum),
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )


NO_TOTALS = Totals()


def totals_of(values: Iterable[Decimal]) -> Totals:
    """Return the totals of single readings."""
    return reduce(Totals.merge, (Totals(1, value, value, value) for value in values), NO_TOTALS)


def quantity_of(aggregation: Aggregation, totals: Totals) -> Decimal | None:
    """Return the quantity of an additive aggregation; None where no reading has none.

    avg is sum over count, rounded half up at 18 decimals once, here.
    """
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(totals.count)
        case Aggregation.SUM:
            return totals.sum
        case Aggregation.MIN:
            return totals.minimum
        case Aggregation.MAX:
            return totals.maximum
        case Aggregation.AVG:
            if not totals.count:
                return None
            return divide(totals.sum, Decimal(totals.count), QUANTITY_DECIMALS)
        case _:
            raise AssertionError(f"{aggregation} does not follow from totals")


def fold(
    meter: Meter,
    points: Sequence[Point],
    start: datetime,
    end: datetime,
    carry: Point | None = None,
) -> Decimal | None:
    """Return the quantity of the readings from `start` (inclusive) to `end` (exclusive).

    `points` come in any order and belong to one series: weighted_sum, increase and latest have
    no meaning across series; the caller adds those up. `carry` is the last point before
    `start`, for weighted_sum and increase. Without points count, sum, unique_count and increase
    are 0, weighted_sum goes on from `carry`, and the others are None.
    """
    assert all(start <= point.time < end for point in points), "points lie inside the window"
    assert carry is None or carry.time < start, "the carry-in lies before the window"
    match meter.aggregation:
        case Aggregation.UNIQUE_COUNT:
            return Decimal(len({point.value for point in points}))
        case Aggregation.LATEST:
            return _number(max(points, key=_order)) if points else None
        case Aggregation.WEIGHTED_SUM:
            return weighted_sum(points, start, end, carry, meter.weight_seconds)
        case Aggregation.INCREASE:
            return increase(points, carry)
        case Aggregation.PERCENTILE:
            assert meter.percentile is not None, "check_meter requires it"
            return percentile_of(Counter(map(_number, points)), meter.percentile)
        case additive:
            return quantity_of(additive, totals_of(map(_number, points)))


def _order(point: Point) -> tuple[datetime, int]:
    return point.time, point.sequence


def _number(point: Point) -> Decimal:
    assert isinstance(point.value, Decimal), "text is read by unique_count only"
    return point.value


def weighted_sum(
    points: Iterable[Point],
    start: datetime,
    end: datetime,
    carry: Point | None,
    weight_seconds: int,
) -> Decimal:
    """Integrate a level over time: each value holds until the next reading.

    Before the first reading the level is the carry-in's, or zero. The area is exact, in units
    of value times `weight_seconds`, and rounded half up at 18 decimals once. 3 GB for half an
    hour and `weight_seconds` 3600 are 1.5 GB-hours.
    """
    level, since = (_number(carry) if carry else _ZERO), start
    area = Fraction(0)
    for point in sorted(points, key=_order):
        area += Fraction(level) * ((point.time - since) // _MICROSECOND)
        level, since = _number(point), point.time
    area += Fraction(level) * ((end - since) // _MICROSECOND)
    return round_to(area / (weight_seconds * 1_000_000), QUANTITY_DECIMALS)


def increase(points: Iterable[Point], carry: Point | None) -> Decimal:
    """Add up how far a cumulative counter rose.

    The first reading ever is where counting begins: it adds nothing. A reading below the one
    before means that the counter was reset or replaced and started from zero, so the new
    reading itself is what was counted since. A gap loses nothing: the next reading spans it.
    """
    total = _ZERO
    before = _number(carry) if carry else None
    for point in sorted(points, key=_order):
        value = _number(point)
        if before is not None:
            risen = EXACT.subtract(value, before) if value >= before else max(value, _ZERO)
            total = EXACT.add(total, risen)
        before = value
    return total


def percentile_of(counts: Mapping[Decimal, int], percentile: Decimal) -> Decimal | None:
    """Return the nearest-rank percentile of values that occur `counts` times.

    The smallest value that at least `percentile` percent of the readings do not exceed: always
    one that was read, never an interpolation. It is the rule of SQL's percentile_disc, but in
    exact arithmetic: PostgreSQL ranks by double, so that 7 percent of 100 is its 8th value.
    """
    if not counts:
        return None
    rank = rank_of(percentile, sum(counts.values()))
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return value
    raise AssertionError("the rank is within the counted readings")


def rank_of(percentile: Decimal, count: int) -> int:
    """Return the place (from 1) of the percentile among `count` sorted readings."""
    exact = Fraction(percentile) * count / 100
    return max(1, -(-exact.numerator // exact.denominator))


def convert(quantity: Decimal, conversion: Conversion) -> Decimal:
    """Return the quantity in the billed unit: times, divided by, rounded once in its mode."""
    return divide(
        EXACT.multiply(quantity, conversion.multiply_by),
        conversion.divide_by,
        conversion.decimals,
        conversion.mode,
    )
