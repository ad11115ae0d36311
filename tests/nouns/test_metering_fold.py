"""Every aggregation against a second, simpler computation."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog.meter import Aggregation, Conversion, Meter
from farebox.metering.fold import (
    NO_TOTALS,
    Point,
    Totals,
    convert,
    fold,
    percentile_of,
    quantity_of,
    rank_of,
    totals_of,
)
from farebox.money.rounding import RoundingMode

START = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 60
END = START + timedelta(seconds=SECONDS)

values = st.integers(-1000, 1000).map(lambda n: Decimal(n).scaleb(-2))
timed = st.lists(st.tuples(st.integers(0, SECONDS - 1), values), max_size=12)
carried = st.none() | values


def meter(aggregation: Aggregation, **settings_: object) -> Meter:
    return Meter(key="m", event_type="t", aggregation=aggregation, **settings_)  # type: ignore[arg-type]


def points_of(pairs: list[tuple[int, Decimal]]) -> list[Point]:
    """Give the pairs a sequence in the order of the list, then hand them over out of order."""
    points = [
        Point(START + timedelta(seconds=second), sequence, value)
        for sequence, (second, value) in enumerate(pairs)
    ]
    return points[::2] + points[1::2][::-1]


def carry_of(value: Decimal | None) -> Point | None:
    return None if value is None else Point(START - timedelta(days=1), 0, value)


def run(
    aggregation: Aggregation,
    pairs: list[tuple[int, Decimal]],
    carry: Decimal | None = None,
    **settings_: object,
) -> Decimal | None:
    return fold(meter(aggregation, **settings_), points_of(pairs), START, END, carry_of(carry))


@given(timed)
def test_sum_and_count_are_in_cents(pairs: list[tuple[int, Decimal]]) -> None:
    cents = sum(int(value * 100) for _, value in pairs)
    assert Decimal(cents) == run(Aggregation.SUM, pairs) * 100  # type: ignore[operator]
    assert len(pairs) == run(Aggregation.COUNT, pairs)


@given(timed)
def test_min_and_max_bound_and_occur(pairs: list[tuple[int, Decimal]]) -> None:
    ordered = sorted(value for _, value in pairs)
    assert (ordered[0] if ordered else None) == run(Aggregation.MIN, pairs)
    assert (ordered[-1] if ordered else None) == run(Aggregation.MAX, pairs)


@given(timed.filter(len))
def test_avg_is_rounded_half_up_from_the_exact_quotient(pairs: list[tuple[int, Decimal]]) -> None:
    found = run(Aggregation.AVG, pairs)
    assert found is not None
    # In units of 10^-18 the integer nearest to the exact mean; at one half the larger in size.
    cents = sum(int(value * 100) for _, value in pairs)
    size, half = divmod(2 * abs(cents) * 10**16 + len(pairs), 2 * len(pairs))
    assert half >= 0
    assert size * (1 if cents >= 0 else -1) == found * 10**18


@given(timed)
def test_latest_is_what_a_variable_would_hold(pairs: list[tuple[int, Decimal]]) -> None:
    held = None
    for second in range(SECONDS):
        for at, value in pairs:
            if at == second:
                held = value
    assert held == run(Aggregation.LATEST, pairs)


@given(st.lists(st.sampled_from(["a", "b", "A", "", "ä"]), max_size=9))
def test_unique_count_counts_texts_once(texts: list[str]) -> None:
    seen: list[str] = []
    for text in texts:
        if text not in seen:
            seen.append(text)
    points = [Point(START, number, text) for number, text in enumerate(texts)]
    assert len(seen) == fold(meter(Aggregation.UNIQUE_COUNT), points, START, END)


@given(timed.filter(len), st.integers(0, 10_000).map(lambda n: Decimal(n) / 100))
def test_percentile_is_the_smallest_value_that_covers_its_share(
    pairs: list[tuple[int, Decimal]], percentile: Decimal
) -> None:
    numbers = [value for _, value in pairs]
    covering = [
        value
        for value in numbers
        if 100 * sum(other <= value for other in numbers) >= percentile * len(numbers)
    ]
    assert min(covering) == run(Aggregation.PERCENTILE, pairs, percentile=percentile)


def test_percentile_ranks_exactly_where_doubles_do_not() -> None:
    assert 0.07 * 100 > 7
    assert rank_of(Decimal(7), 100) == 7
    assert Decimal(7) == percentile_of({Decimal(n): 1 for n in range(1, 101)}, Decimal(7))
    assert percentile_of({}, Decimal(50)) is None


@given(timed, carried, st.sampled_from([1, 7, 60, 3600]))
def test_weighted_sum_is_the_level_added_up_second_by_second(
    pairs: list[tuple[int, Decimal]], carry: Decimal | None, weight_seconds: int
) -> None:
    level = carry or Decimal(0)
    area = Fraction(0)
    for second in range(SECONDS):
        for at, value in pairs:
            if at == second:
                level = value
        area += Fraction(level)
    found = run(Aggregation.WEIGHTED_SUM, pairs, carry, weight_seconds=weight_seconds)
    assert found is not None
    error = abs(Fraction(found) - area / weight_seconds)
    assert 2 * error <= Fraction(1, 10**18)
    assert Decimal("1e-18") == Decimal(1).scaleb(found.as_tuple().exponent)  # type: ignore[arg-type]


@settings(max_examples=200)
@given(timed, carried, st.integers(1, SECONDS - 1))
def test_a_window_cut_in_two_adds_up(
    pairs: list[tuple[int, Decimal]], carry: Decimal | None, cut: int
) -> None:
    middle = START + timedelta(seconds=cut)
    points = sorted(points_of(pairs), key=lambda point: (point.time, point.sequence))
    before = [point for point in points if point.time < middle]
    after = [point for point in points if point.time >= middle]
    handed_on = before[-1] if before else carry_of(carry)
    for each in (meter(Aggregation.INCREASE), meter(Aggregation.WEIGHTED_SUM, weight_seconds=1)):
        whole = fold(each, points, START, END, carry_of(carry))
        left = fold(each, before, START, middle, carry_of(carry))
        right = fold(each, after, middle, END, handed_on)
        assert whole == left + right  # type: ignore[operator]


steps = st.lists(
    st.tuples(st.sampled_from(["rise", "reset", "gap"]), st.integers(0, 50)), max_size=12
)


@given(st.integers(0, 100), steps)
def test_increase_is_what_the_machines_truly_counted(
    first: int, moves: list[tuple[str, int]]
) -> None:
    shown, counted, pairs = first, 0, [(0, Decimal(first))]
    for second, (move, amount) in enumerate(moves, 1):
        if move == "reset":
            # Only a reading lower than the one before can be told from a rise.
            if amount >= shown:
                continue
            shown = amount
        else:
            shown += amount
        counted += amount
        if move != "gap":
            pairs.append((second, Decimal(shown)))
    pairs.append((SECONDS - 1, Decimal(shown)))
    if any(move == "gap" for move, _ in moves):
        # A reset behind a gap hides what was counted before it; no meter can know that.
        assert run(Aggregation.INCREASE, pairs) <= counted  # type: ignore[operator]
    else:
        assert counted == run(Aggregation.INCREASE, pairs)


def test_increase_spans_gaps_and_takes_a_carry() -> None:
    pairs = [(10, Decimal(150)), (50, Decimal(400))]
    assert run(Aggregation.INCREASE, pairs) == 250
    assert run(Aggregation.INCREASE, pairs, Decimal(100)) == 300
    assert run(Aggregation.INCREASE, pairs, Decimal(9000)) == 400
    assert run(Aggregation.INCREASE, [(1, Decimal(5)), (2, Decimal(-2)), (3, Decimal(1))]) == 3


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation.COUNT, Decimal(0)),
        (Aggregation.SUM, Decimal(0)),
        (Aggregation.MIN, None),
        (Aggregation.MAX, None),
        (Aggregation.AVG, None),
        (Aggregation.LATEST, None),
        (Aggregation.UNIQUE_COUNT, Decimal(0)),
        (Aggregation.WEIGHTED_SUM, Decimal(0)),
        (Aggregation.INCREASE, Decimal(0)),
        (Aggregation.PERCENTILE, None),
    ],
)
def test_an_empty_window(aggregation: Aggregation, expected: Decimal | None) -> None:
    assert expected == run(aggregation, [], percentile=Decimal(50))


def test_every_aggregation_is_in_the_empty_window_test() -> None:
    parameters = test_an_empty_window.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert list(Aggregation) == [row[0] for row in parameters]


ADDITIVE = (
    Aggregation.COUNT,
    Aggregation.SUM,
    Aggregation.MIN,
    Aggregation.MAX,
    Aggregation.AVG,
)


@settings(max_examples=200)
@given(timed, st.lists(st.integers(0, 3), max_size=12))
def test_merged_totals_are_the_fold_of_all(
    pairs: list[tuple[int, Decimal]], bins: list[int]
) -> None:
    parts: list[list[Decimal]] = [[], [], [], []]
    for number, (_, value) in enumerate(pairs):
        parts[bins[number] if number < len(bins) else 0].append(value)
    first, second, third, fourth = (totals_of(part) for part in parts)
    merged = fourth.merge(second).merge(third.merge(first))
    for aggregation in ADDITIVE:
        assert run(aggregation, pairs) == quantity_of(aggregation, merged)


def test_totals_state_what_they_are() -> None:
    assert Totals() == NO_TOTALS == totals_of([])
    expected = Totals(2, Decimal("1.5"), Decimal("-1"), Decimal("2.5"))
    assert expected == totals_of([Decimal("2.5"), Decimal("-1")])
    with pytest.raises(AssertionError, match="does not follow"):
        quantity_of(Aggregation.LATEST, NO_TOTALS)


def test_sums_keep_all_digits() -> None:
    large, small = Decimal(10) ** 20 - 1, Decimal("0.000000000000000001")
    total = run(Aggregation.SUM, [(1, large), (2, small), (3, -large)])
    assert small == total


def test_points_outside_the_window_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="inside"):
        fold(meter(Aggregation.SUM), [Point(END, 1, Decimal(1))], START, END)
    with pytest.raises(AssertionError, match="before"):
        fold(meter(Aggregation.INCREASE), [], START, END, Point(START, 1, Decimal(1)))
    with pytest.raises(AssertionError, match="text"):
        fold(meter(Aggregation.SUM), [Point(START, 1, "a")], START, END)


@pytest.mark.parametrize(
    ("quantity", "conversion", "expected"),
    [
        ("1000000001", Conversion(divide_by=Decimal(10**9), decimals=0, mode=RoundingMode.UP), "2"),
        ("90", Conversion(divide_by=Decimal(60), decimals=1), "1.5"),
        ("1", Conversion(divide_by=Decimal(3)), "0.333333333333333333"),
        ("2", Conversion(divide_by=Decimal(3), decimals=2, mode=RoundingMode.DOWN), "0.66"),
        ("-2", Conversion(divide_by=Decimal(3), decimals=0, mode=RoundingMode.TRUNCATE), "0"),
        ("0.5", Conversion(decimals=0, mode=RoundingMode.HALF_EVEN), "0"),
        ("1.25", Conversion(multiply_by=Decimal(1000)), "1250"),
    ],
)
def test_conversion_rounds_once(quantity: str, conversion: Conversion, expected: str) -> None:
    assert Decimal(expected) == convert(Decimal(quantity), conversion)
