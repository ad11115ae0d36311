"""Price models that go by quantity alone, against an oracle that prices tenth by tenth.

The oracles know no intervals: they walk from nothing to the quantity and ask of each tenth of a
unit what it costs. They count in integers and fractions, never in the code they check.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.price import (
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PercentageTier,
    PerUnit,
    Price,
    Stairstep,
    StairstepTier,
    Tier,
    Volume,
)
from farebox.rating.rate import rate
from farebox.rating.rated import Rated
from farebox.rating.usage import Usage


def tenths_of(number: int) -> Decimal:
    return Decimal(number).scaleb(-1)


def in_tenths(value: Decimal) -> int:
    assert value * 10 == int(value * 10)
    return int(value * 10)


tenths = st.integers(-400, 400)
counts = st.integers(0, 400)
prices = st.integers(0, 5000).map(lambda value: Decimal(value).scaleb(-3))
percents = st.integers(0, 1000).map(lambda value: Decimal(value).scaleb(-1))
sizes = st.sampled_from([Decimal(text) for text in ("0.1", "0.5", "1", "2", "5", "10")])
bounds = st.lists(st.integers(1, 300), max_size=3, unique=True).map(sorted)


@st.composite
def tier_lists(draw: st.DrawFn) -> tuple[Tier, ...]:
    ends = [tenths_of(end) for end in draw(bounds)]
    return tuple(
        Tier(
            up_to=end,
            unit=draw(prices),
            flat=draw(prices),
            per=draw(sizes),
            round_up=draw(st.booleans()),
        )
        for end in [*ends, None]
    )


@st.composite
def percentage_tiers(draw: st.DrawFn) -> tuple[PercentageTier, ...]:
    ends = [tenths_of(end) for end in draw(bounds)]
    return tuple(
        PercentageTier(up_to=end, percent=draw(percents), flat=draw(prices))
        for end in [*ends, None]
    )


def used(number: int) -> list[Usage]:
    return [Usage(quantity=tenths_of(number))]


def exact(rated: Rated) -> Fraction:
    """Return the amount, after looking at every row: it explains its own amount."""
    for part in rated.parts:
        if part.unit_price is not None:
            times = part.count if part.count is not None else part.quantity / part.per
            assert part.amount == part.unit_price * times
    assert rated.amount == sum(part.amount for part in rated.parts)
    return Fraction(rated.amount)


def mirrored(number: int, cost: Fraction) -> Fraction:
    return -cost if number < 0 else cost


# Graduated and graduated percentage


def pile_cost(tiers: Sequence[Tier], number: int, flat_of_first: bool) -> Fraction:
    """Stack `number` tenths one on the other and pay for each as it is put on."""
    cost, inside, current = Fraction(0), 0, -1
    for tenth in range(1, abs(number) + 1):
        position = next(
            at for at, tier in enumerate(tiers) if tier.up_to is None or tenth <= tier.up_to * 10
        )
        tier = tiers[position]
        if position != current:
            current, inside = position, 0
            if position or flat_of_first:
                cost += Fraction(tier.flat)
        if not tier.round_up:
            cost += Fraction(tier.unit) / Fraction(tier.per) / 10
        elif inside % in_tenths(tier.per) == 0:
            cost += Fraction(tier.unit)
        inside += 1
    return mirrored(number, cost)


@given(tier_lists(), tenths, tenths, st.booleans(), st.booleans())
def test_graduated(
    tiers: tuple[Tier, ...], before: int, quantity: int, at_zero: bool, fees: bool
) -> None:
    price = Graduated(tiers=tiers, flat_at_zero=at_zero)
    expected = pile_cost(tiers, before + quantity, not at_zero)
    expected -= pile_cost(tiers, before, not at_zero)
    if at_zero and fees:
        expected += Fraction(tiers[0].flat)
    assert expected == exact(rate(price, used(quantity), before=tenths_of(before), fees=fees))


@given(percentage_tiers(), tenths, tenths, st.booleans(), st.booleans())
def test_graduated_percentage(
    tiers: tuple[PercentageTier, ...], before: int, quantity: int, at_zero: bool, fees: bool
) -> None:
    price = GraduatedPercentage(tiers=tiers, flat_at_zero=at_zero)
    stack = [
        Tier(up_to=tier.up_to, unit=tier.percent / 100, flat=tier.flat, per=Decimal(1))
        for tier in tiers
    ]
    expected = pile_cost(stack, before + quantity, not at_zero)
    expected -= pile_cost(stack, before, not at_zero)
    if at_zero and fees:
        expected += Fraction(tiers[0].flat)
    assert expected == exact(rate(price, used(quantity), before=tenths_of(before), fees=fees))


# Volume and stairstep


def totals(ends: Sequence[int]) -> st.SearchStrategy[int]:
    """Any total, and often exactly the end of a tier, on either side of zero."""
    return st.one_of(tenths, st.sampled_from([0, *ends, *(-end for end in ends)]))


def step_of(ends: Sequence[Decimal | None], number: int) -> int:
    """Climb tenth by tenth, and onto the next step when the one below is full."""
    position = 0
    for tenth in range(1, abs(number) + 1):
        end = ends[position]
        if end is not None and tenth > end * 10:
            position += 1
    return position


@given(st.data(), tier_lists(), tenths, tenths, st.booleans(), st.booleans())
def test_volume(
    data: st.DataObject,
    tiers: tuple[Tier, ...],
    before: int,
    quantity: int,
    at_zero: bool,
    fees: bool,
) -> None:
    price = Volume(tiers=tiers, flat_at_zero=at_zero)
    total = data.draw(totals([in_tenths(tier.up_to) for tier in tiers if tier.up_to is not None]))
    tier = tiers[step_of([each.up_to for each in tiers], total)]
    alike = [Tier(unit=tier.unit, per=tier.per, round_up=tier.round_up)]
    expected = pile_cost(alike, before + quantity, False) - pile_cost(alike, before, False)
    if fees and total > 0:
        expected += Fraction(tier.flat)
    elif fees and at_zero:
        expected += Fraction(tiers[0].flat)
    elif fees and total < 0:
        expected -= Fraction(tier.flat)
    rated = rate(
        price,
        used(quantity),
        before=tenths_of(before),
        total=tenths_of(total),
        fees=fees,
    )
    assert expected == exact(rated)


@given(st.data(), bounds, st.lists(prices, min_size=4, max_size=4), tenths, st.booleans())
def test_stairstep(
    data: st.DataObject, ends: list[int], amounts: list[Decimal], before: int, fees: bool
) -> None:
    ups = [*(tenths_of(end) for end in ends), None]
    steps = [
        StairstepTier(up_to=up, amount=amount) for up, amount in zip(ups, amounts, strict=False)
    ]
    total = data.draw(totals(ends))
    amount = Fraction(steps[step_of(ups, total)].amount) if total and fees else Fraction(0)
    price = Stairstep(tiers=tuple(steps))
    rated = rate(price, used(total - before), before=tenths_of(before), fees=fees)
    assert mirrored(total, amount) == exact(rated)


def test_a_volume_fee_at_zero_is_an_option_and_never_given_back() -> None:
    tiers = (Tier(up_to=Decimal(5), flat=Decimal(10)), Tier(flat=Decimal(3)))
    by_option = {
        option: [
            rate(Volume(tiers=tiers, flat_at_zero=option), used(number)).amount
            for number in (60, 10, 0, -10, -60)
        ]
        for option in (False, True)
    }
    assert by_option == {False: [3, 10, 0, -10, -3], True: [3, 10, 10, 10, 10]}


# Package


@given(prices, st.integers(1, 70), st.integers(0, 150), tenths, tenths)
def test_package(amount: Decimal, size: int, free: int, before: int, quantity: int) -> None:
    def opened(number: int) -> Fraction:
        packages = 0
        room = free
        for _ in range(abs(number)):
            if room == 0:
                packages += 1
                room = size
            room -= 1
        return mirrored(number, packages * Fraction(amount))

    price = Package(amount=amount, size=tenths_of(size), free=tenths_of(free))
    expected = opened(before + quantity) - opened(before)
    assert expected == exact(rate(price, used(quantity), before=tenths_of(before)))


# Per unit, dynamic, flat


@given(prices, sizes, st.lists(tenths, max_size=3))
def test_per_unit(unit: Decimal, per: Decimal, numbers: list[int]) -> None:
    one = Fraction(unit) / Fraction(per) / 10
    expected = Fraction(0)
    for number in numbers:
        for _ in range(abs(number)):
            expected += one if number > 0 else -one
    usages = [Usage(quantity=tenths_of(number)) for number in numbers]
    assert expected == exact(rate(PerUnit(unit=unit, per=per), usages))


@given(prices, tenths)
def test_dynamic(multiplier: Decimal, number: int) -> None:
    tenth = Fraction(multiplier) / 10
    expected = mirrored(number, sum((tenth for _ in range(abs(number))), Fraction(0)))
    assert expected == exact(rate(Dynamic(multiplier=multiplier), used(number)))


@given(prices, tenths, st.booleans())
def test_flat(amount: Decimal, number: int, fees: bool) -> None:
    expected = Fraction(amount) if fees else Fraction(0)
    assert expected == exact(rate(Flat(amount=amount), used(number), fees=fees))


# The limits

LARGEST = Decimal("99999999999999999999.999999999999999999")
PER_LARGE = Decimal(2) ** 12 * Decimal(5) ** 18
PER_SMALL = Decimal(1).scaleb(-18)


def test_the_largest_numbers_are_still_exact() -> None:
    tiers = (
        Tier(up_to=Decimal("0.000000000000000001"), unit=LARGEST, flat=LARGEST, per=PER_SMALL),
        Tier(unit=LARGEST, flat=LARGEST, per=PER_LARGE),
    )
    everything: list[Price] = [
        Graduated(tiers=tiers),
        Volume(tiers=tiers),
        PerUnit(unit=LARGEST, per=PER_LARGE),
        PerUnit(unit=LARGEST, per=PER_SMALL),
        Package(amount=LARGEST, size=PER_SMALL),
        Dynamic(multiplier=LARGEST),
        Percentage(percent=Decimal("99.999999999999999999"), fixed=LARGEST),
    ]
    for price in everything:
        for quantity in (LARGEST, -LARGEST):
            rated = rate(price, [Usage(quantity=quantity, events=10**9)] * 3)
            assert Fraction(rated.amount) == sum(Fraction(part.amount) for part in rated.parts)
    assert 3 * Fraction(LARGEST) ** 2 / Fraction(PER_SMALL) == Fraction(
        rate(PerUnit(unit=LARGEST, per=PER_SMALL), [Usage(quantity=LARGEST)] * 3).amount
    )
