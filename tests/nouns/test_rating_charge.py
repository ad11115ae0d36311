"""A charge of a period: segments, adjustments in their order, rounding, unpriced usage."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.price import (
    Adjustments,
    Capacity,
    CapacityTier,
    Cell,
    Dynamic,
    Flat,
    Graduated,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Price,
    Stairstep,
    StairstepTier,
    Tier,
    Volume,
)
from farebox.money.amount import UnknownCurrency, to_currency
from farebox.rating.adjust import Applied, AppliedKind
from farebox.rating.charge import (
    ChargeResult,
    LineKind,
    RateCardVersion,
    Segment,
    rate_charge,
)
from farebox.rating.rated import PartKind, UnpricedReason
from farebox.rating.usage import ZERO, Usage, resolve_aliases, total_quantity

D = Decimal
DAY_1 = datetime(2026, 10, 1, tzinfo=UTC)
DAY_15 = datetime(2026, 10, 15, tzinfo=UTC)
DAY_31 = datetime(2026, 11, 1, tzinfo=UTC)

GRADUATED = Graduated(
    tiers=(
        Tier(up_to=D(100), unit=D("0.1")),
        Tier(up_to=D(500), unit=D("0.05"), flat=D(3)),
        Tier(unit=D("0.02"), flat=D(7)),
    )
)
VOLUME = Volume(
    tiers=(Tier(up_to=D(100), unit=D(2), flat=D(10)), Tier(unit=D(1), flat=D(5))),
)


def segment(price: Price | None, *quantities: str) -> Segment:
    return Segment(price=price, usages=tuple(Usage(quantity=D(each)) for each in quantities))


def charge(
    *segments: Segment, currency: str = "USD", adjustments: Adjustments | None = None
) -> ChargeResult:
    return rate_charge("api_calls", segments, adjustments or Adjustments(), currency)


def amounts(result: ChargeResult) -> list[Decimal]:
    return [line.amount for line in result.lines]


# Segments


def test_graduated_tiers_continue_over_a_new_rate_card_version() -> None:
    cheaper = Graduated(tiers=(Tier(up_to=D(500), unit=D("0.04")), Tier(unit=D("0.01"))))
    first = Segment(
        price=GRADUATED,
        usages=(Usage(quantity=D(300)),),
        start=DAY_1,
        end=DAY_15,
        rate_card=RateCardVersion("standard", 1),
    )
    second = Segment(
        price=cheaper,
        usages=(Usage(quantity=D(300)),),
        start=DAY_15,
        end=DAY_31,
        rate_card=RateCardVersion("standard", 2),
    )
    result = charge(first, second)
    assert [D("23.00"), D("9.00")] == amounts(result)
    assert [
        (line.rate_card.key, line.rate_card.version) for line in result.lines if line.rate_card
    ] == [("standard", 1), ("standard", 2)]
    assert [(each.start, each.end) for each in result.lines] == [(DAY_1, DAY_15), (DAY_15, DAY_31)]


def test_volume_takes_the_total_of_the_period_and_its_flat_fee_once() -> None:
    result = charge(segment(VOLUME, "60"), segment(VOLUME, "60"))
    assert [D(65), D(60)] == amounts(result)


def test_a_fee_falls_on_the_first_segment_with_usage() -> None:
    result = charge(segment(VOLUME), segment(VOLUME, "60"), segment(VOLUME, "60"))
    assert [D(65), D(60)] == amounts(result)


def test_a_fee_without_usage_falls_on_the_first_segment() -> None:
    result = charge(segment(Flat(amount=D(9))), segment(Flat(amount=D(5))))
    assert [D(9)] == amounts(result)


def test_a_new_price_model_in_mid_period_charges_its_own_fee() -> None:
    result = charge(segment(Flat(amount=D(9)), "1"), segment(VOLUME, "1"))
    assert [D(9), D(12)] == amounts(result)


def test_the_first_tier_is_due_at_zero_only_once() -> None:
    price = Graduated(tiers=(Tier(up_to=D(5), flat=D(100)), Tier(flat=D(50))), flat_at_zero=True)
    assert [D(100)] == amounts(charge(segment(price), segment(price)))
    assert [D(100), D(50)] == amounts(charge(segment(price, "0"), segment(price, "6")))


def test_stairstep_and_capacity_look_at_the_whole_period() -> None:
    step = Stairstep(tiers=(StairstepTier(up_to=D(10), amount=D(1)), StairstepTier(amount=D(20))))
    assert [D(20), D(0)] == amounts(charge(segment(step, "6"), segment(step, "6")))
    seats = Capacity(
        dimension="kind",
        tiers=(CapacityTier(amount=D(10), limits={"": D(5)}), CapacityTier(amount=D(90))),
    )
    assert [D(90), D(0)] == amounts(charge(segment(seats, "4"), segment(seats, "4")))


def test_percentage_counts_free_events_over_segments() -> None:
    price = Percentage(percent=D(10), free_events=2)
    stretches = [
        Segment(price=price, usages=(Usage(quantity=D(100), events=1, values=(D(100),)),)),
        Segment(price=price, usages=(Usage(quantity=D(200), events=2, values=(D(50), D(150))),)),
    ]
    assert [D(0), D(15)] == amounts(rate_charge("card", stretches, Adjustments(), "EUR"))


quantities = st.lists(st.integers(-50, 900).map(lambda each: D(each).scaleb(-1)), max_size=4)
priced = st.sampled_from(
    [GRADUATED, VOLUME, Package(amount=D("1.5"), size=D(7), free=D(3)), PerUnit(unit=D("0.3"))]
)


@given(priced, quantities, st.integers(0, 200).map(D))
def test_a_cut_period_rates_as_a_whole_one(
    price: Price, parts: list[Decimal], included: Decimal
) -> None:
    adjustments = Adjustments(included=included)
    cut = [segment(price, str(part)) for part in parts]
    whole = [segment(price, *(str(part) for part in parts))]
    one = rate_charge("a", whole, adjustments, "USD")
    many = rate_charge("a", cut, adjustments, "USD")
    assert sum(line.exact for line in one.lines) == sum(line.exact for line in many.lines)


# Included units


def tenths_left(usages: Sequence[Usage], included: Decimal) -> list[Decimal]:
    """Take included tenths one by one from the first usage, by dimensions, that has one left."""
    left = [usage.quantity for usage in usages]
    order = sorted(range(len(usages)), key=lambda at: sorted(usages[at].dimensions.items()))
    tenth, pool = D("0.1"), min(included, total_quantity(usages))
    while pool > 0:
        at = next(at for at in order if left[at] > 0)
        left[at] -= tenth
        pool -= tenth
    return left


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-20, 60).map(lambda each: D(each) / 10)),
        max_size=5,
        unique_by=lambda row: row[0],
    ),
    st.integers(0, 90).map(lambda each: D(each) / 10),
)
def test_included_units_give_way_in_the_order_of_dimensions(
    rows: list[tuple[str, Decimal]], included: Decimal
) -> None:
    price = Matrix(dimensions=("kind",), cells=(), default=D(1))
    usages = tuple(Usage(quantity=number, dimensions={"kind": kind}) for kind, number in rows)
    result = rate_charge(
        "a", [Segment(price=price, usages=usages)], Adjustments(included=included), "USD"
    )
    left = [part.quantity for line in result.lines for part in line.parts]
    assert tenths_left(usages, included) == left


def test_included_units_are_used_up_in_the_order_of_time() -> None:
    price = PerUnit(unit=D(1))
    result = charge(
        segment(price, "30"), segment(price, "40"), adjustments=Adjustments(included=D(50))
    )
    assert [D(0), D(20)] == amounts(result)
    assert [D(0), D(20)] == [line.quantity for line in result.lines]
    assert [
        [Applied(AppliedKind.INCLUDED, D(0), "30 of 50 included units used", D(-30))],
        [Applied(AppliedKind.INCLUDED, D(0), "20 of 20 included units used", D(-20))],
    ] == [list(line.applied) for line in result.lines]


def test_an_included_event_is_gone_with_its_fixed_fee() -> None:
    price = Percentage(percent=D(10), fixed=D(1), maximum=D(100))
    usage = Usage(quantity=D(60), events=3, values=(D(10), D(20), D(30)))
    result = rate_charge(
        "a", [Segment(price=price, usages=(usage,))], Adjustments(included=D(15)), "USD"
    )
    assert [D("6.50")] == amounts(result)


# Money adjustments


def test_adjustments_apply_in_their_order_each_with_its_reason() -> None:
    result = charge(
        segment(PerUnit(unit=D(1)), "110"),
        adjustments=Adjustments(
            included=D(10), discount_percent=D(10), discount_amount=D(20), maximum=D(50)
        ),
    )
    (line,) = result.lines
    assert [
        (AppliedKind.INCLUDED, D(0), "10 of 10 included units used"),
        (AppliedKind.DISCOUNT_PERCENT, D(-10), "discount of 10 %"),
        (AppliedKind.DISCOUNT_AMOUNT, D(-20), "discount of 20 in the period"),
        (AppliedKind.MAXIMUM, D(-20), "maximum of 50 a period, 0 billed before"),
    ] == [(step.kind, step.amount, step.reason) for step in line.applied]
    assert (D(100), D(50), D("50.00")) == (line.rated, line.exact, line.amount)


def test_a_minimum_is_a_line_of_its_own() -> None:
    result = charge(
        Segment(price=PerUnit(unit=D(1)), usages=(Usage(quantity=D(30)),), start=DAY_1, end=DAY_31),
        adjustments=Adjustments(minimum=D(100)),
    )
    usage, minimum = result.lines
    assert (LineKind.USAGE, D(30)) == (usage.kind, usage.amount)
    assert (LineKind.MINIMUM, D(70), DAY_1, DAY_31) == (
        minimum.kind,
        minimum.amount,
        minimum.start,
        minimum.end,
    )
    assert [
        Applied(AppliedKind.MINIMUM, D(70), "minimum of 100 a period, usage came to 30")
    ] == list(minimum.applied)


adjustable = st.builds(
    Adjustments,
    included=st.integers(0, 300).map(lambda each: D(each) / 10),
    discount_percent=st.integers(0, 1000).map(lambda each: D(each) / 10),
    discount_amount=st.integers(0, 50_000).map(lambda each: D(each) / 1000),
    maximum=st.one_of(st.none(), st.integers(0, 60_000).map(lambda each: D(each) / 1000)),
    minimum=st.one_of(st.none(), st.integers(0, 60_000).map(lambda each: D(each) / 1000)),
)
fractions = st.lists(st.integers(-9999, 99999).map(lambda each: D(each) / 1000), max_size=4)


@given(fractions, adjustable, st.sampled_from(["USD", "JPY", "KWD"]))
def test_lines_explain_themselves_and_keep_the_limits(
    rows: list[Decimal], adjustments: Adjustments, currency: str
) -> None:
    segments = [segment(Dynamic(multiplier=D("0.333")), str(row)) for row in rows]
    result = rate_charge("a", segments, adjustments, currency)
    usage = [line for line in result.lines if line.kind is LineKind.USAGE]
    for line in result.lines:
        assert line.exact == line.rated + sum(step.amount for step in line.applied)
        assert line.amount == to_currency(line.exact, currency)
        assert line.rated == sum(part.amount for part in line.parts)
        assert line.exact >= 0 or line.rated < 0
        used = sum((row.quantity for row in line.breakdown), ZERO)
        assert line.quantity == used + sum(step.quantity for step in line.applied)
        kinds = [step.kind for step in line.applied]
        assert sorted(kinds, key=list(AppliedKind).index) == kinds
    billed = sum((line.amount for line in usage), ZERO)
    if adjustments.maximum is not None:
        assert billed <= to_currency(adjustments.maximum, currency)
    if adjustments.minimum is not None:
        assert result.amount == max(billed, to_currency(adjustments.minimum, currency))
    else:
        assert result.amount == billed
    # The discount takes what it promises, unless the period comes to less.
    net = sum((line.rated for line in usage), ZERO) + added(result, AppliedKind.DISCOUNT_PERCENT)
    taken = -added(result, AppliedKind.DISCOUNT_AMOUNT)
    assert taken == min(adjustments.discount_amount, max(net, ZERO))


def added(result: ChargeResult, kind: AppliedKind) -> Decimal:
    steps = [step for line in result.lines for step in line.applied if step.kind is kind]
    return sum((step.amount for step in steps), ZERO)


def test_lines_round_half_up_once_and_a_maximum_holds_after_rounding() -> None:
    price = Dynamic()
    result = charge(
        segment(price, "50.005"),
        segment(price, "50.005"),
        adjustments=Adjustments(maximum=D(100)),
    )
    assert [D("50.01"), D("49.99")] == amounts(result)
    assert [D(51), D(-51)] == amounts(
        charge(segment(price, "50.5"), segment(price, "-50.5"), currency="JPY")
    )


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(UnknownCurrency):
        charge(segment(PerUnit(unit=D(1)), "1"), currency="XXQ")


# Nothing unpriced in silence


def test_usage_without_a_rate_or_a_cell_is_listed() -> None:
    price = Matrix(
        dimensions=("model",), cells=(Cell(match={"model": "large"}, unit=D(2)),), per=D(10)
    )
    known = Usage(quantity=D(50), dimensions={"model": "large"})
    unknown = Usage(quantity=D(70), dimensions={"model": "odd"})
    late = Usage(quantity=D(5), dimensions={"model": "large"})
    result = rate_charge(
        "tokens",
        [
            Segment(price=price, usages=(unknown, known), start=DAY_1, end=DAY_15),
            Segment(price=None, usages=(late,), start=DAY_15, end=DAY_31),
        ],
        Adjustments(included=D(10)),
        "USD",
    )
    assert [D(8)] == amounts(result)
    assert [
        ("tokens", DAY_1, DAY_15, unknown, UnpricedReason.NO_CELL),
        ("tokens", DAY_15, DAY_31, late, UnpricedReason.NO_RATE),
    ] == [(each.charge, each.start, each.end, each.usage, each.reason) for each in result.unpriced]


# Aliases


def test_an_alias_is_priced_as_its_canonical_value_and_stays_visible() -> None:
    price = Matrix(
        dimensions=("model",),
        cells=(Cell(match={"model": "large"}, unit=D(2)), Cell(match={}, unit=D(1))),
    )
    aliases = {("model", "large-0613"): "large-latest", ("model", "large-latest"): "large"}
    usage = Usage(quantity=D(3), dimensions={"model": "large-0613", "region": "eu"})
    result = rate_charge(
        "tokens", [Segment(price=price, usages=(usage,))], Adjustments(), "USD", aliases
    )
    (line,) = result.lines
    (part,) = line.parts
    assert D(6) == line.amount
    assert (part.kind, part.label) == (PartKind.CELL, "model=large")
    assert {"model": "large", "region": "eu"} == part.dimensions == line.breakdown[0].dimensions
    assert {"model": "large-0613"} == part.original == line.breakdown[0].original


def test_aliases_leave_other_dimensions_alone_and_survive_a_circle() -> None:
    aliases = {("model", "a"): "b", ("model", "b"): "a"}
    same = Usage(quantity=D(1), dimensions={"kind": "a"})
    assert (same,) == resolve_aliases([same], aliases)
    (turned,) = resolve_aliases([Usage(quantity=D(1), dimensions={"model": "a"})], aliases)
    assert turned.dimensions["model"] in {"a", "b"}
