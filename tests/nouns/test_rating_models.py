"""Every price model against an oracle that prices tenth by tenth, or event by event.

The oracles know no intervals: they walk from nothing to the quantity and ask of each tenth of a
unit what it costs. They count in integers and fractions, never in the code they check.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.price import (
    Capacity,
    CapacityTier,
    Cell,
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Matrix,
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
from farebox.rating.rated import Rated, UnpricedReason
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


# Percentage

values = st.lists(st.integers(0, 200).map(tenths_of), max_size=8)
perhaps = st.one_of(st.none(), prices)


@st.composite
def percentage_prices(draw: st.DrawFn) -> Percentage:
    low, high = draw(perhaps), draw(perhaps)
    if low is not None and high is not None and low > high:
        low, high = high, low
    return Percentage(
        percent=draw(percents),
        fixed=draw(st.one_of(st.just(Decimal(0)), prices)),
        minimum=low,
        maximum=high,
        free_events=draw(st.one_of(st.none(), st.integers(1, 6))),
        free_amount=draw(st.one_of(st.none(), st.integers(1, 500).map(tenths_of))),
    )


def event_costs(price: Percentage, events: Sequence[Decimal]) -> list[Fraction]:
    """Hand out what is free until either of its two stocks is empty, then charge."""
    stock = price.free_amount
    left = price.free_events
    over = stock is None and left is None
    costs = []
    for value in events:
        paid = value
        if not over and left == 0:
            over = True
        if not over and stock is not None and value > stock:
            paid, over = value - stock, True
        elif not over:
            stock = None if stock is None else stock - value
            left = None if left is None else left - 1
            costs.append(Fraction(0))
            continue
        cost = Fraction(paid) * Fraction(price.percent) / 100 + Fraction(price.fixed)
        if price.minimum is not None:
            cost = max(cost, Fraction(price.minimum))
        if price.maximum is not None:
            cost = min(cost, Fraction(price.maximum))
        costs.append(cost)
    return costs


def readings(events: Sequence[Decimal]) -> list[Usage]:
    quantity = sum(events, Decimal(0))
    return [Usage(quantity=quantity, events=len(events), values=tuple(events))]


@given(percentage_prices(), values, st.integers(0, 8))
def test_percentage(price: Percentage, events: list[Decimal], cut: int) -> None:
    costs = event_costs(price, events)
    first, second = events[:cut], events[cut:]
    assert sum(costs) == exact(rate(price, readings(events)))
    assert sum(costs[:cut]) == exact(rate(price, readings(first)))
    rated = rate(price, readings(second), before=sum(first, Decimal(0)), events_before=len(first))
    assert sum(costs[cut:]) == exact(rated)


@given(percentage_prices(), values)
def test_percentage_without_free_terms_mirrors_refunds(
    price: Percentage, events: list[Decimal]
) -> None:
    paid = Percentage(
        percent=price.percent, fixed=price.fixed, minimum=price.minimum, maximum=price.maximum
    )
    charged = [value for value in events if value]
    both = [*charged, *(-value for value in charged)]
    assert sum(event_costs(paid, charged)) == exact(rate(paid, readings(charged)))
    if paid.reads_each_event:
        assert exact(rate(paid, readings(both))) == 0


def test_percentage_that_looks_at_events_is_unpriced_without_them() -> None:
    price = Percentage(percent=Decimal(1), minimum=Decimal(1))
    usage = Usage(quantity=Decimal(100), events=2)
    rated = rate(price, [usage])
    assert rated.amount == 0
    assert [(usage, UnpricedReason.NO_VALUES)] == [
        (item.usage, item.reason) for item in rated.unpriced
    ]


# Matrix

names = ("model", "kind", "region")
choices = {"model": ("a", "b", ""), "kind": ("in", "out"), "region": ("eu", "us")}


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    options = [st.one_of(st.none(), st.just("*"), st.sampled_from(choices[name])) for name in names]
    matches = draw(st.lists(st.tuples(*options), max_size=12))
    cells = []
    for match in matches:
        fixed = {name: value for name, value in zip(names, match, strict=True) if value is not None}
        cells.append(Cell(match=fixed, unit=draw(prices), per=draw(st.one_of(st.none(), sizes))))
    default = draw(perhaps)
    return Matrix(dimensions=names, cells=tuple(cells), per=draw(sizes), default=default)


sets = st.fixed_dictionaries({}, optional={name: st.sampled_from(choices[name]) for name in names})


@given(matrices(), st.lists(st.tuples(sets, tenths), max_size=5))
def test_matrix(price: Matrix, rows: list[tuple[dict[str, str], int]]) -> None:
    expected, without = Fraction(0), []
    usages = [Usage(quantity=tenths_of(number), dimensions=row) for row, number in rows]
    for usage in usages:
        best: tuple[int, Fraction] | None = None
        for cell in price.cells:
            wanted = {name: value for name, value in cell.match.items() if value != "*"}
            if any(usage.dimensions.get(name, "") != value for name, value in wanted.items()):
                continue
            if best is None or len(wanted) > best[0]:
                per = Fraction(price.per if cell.per is None else cell.per)
                best = (len(wanted), Fraction(cell.unit) / per)
        if best is None and price.default is None:
            without.append(usage)
        elif best is None:
            expected += Fraction(usage.quantity) * Fraction(price.default) / Fraction(price.per)
        else:
            expected += Fraction(usage.quantity) * best[1]
    rated = rate(price, usages)
    assert expected == exact(rated)
    assert [(usage, UnpricedReason.NO_CELL) for usage in without] == [
        (item.usage, item.reason) for item in rated.unpriced
    ]


# Capacity


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 12)), max_size=6),
    st.booleans(),
)
def test_capacity(grows: list[tuple[int, int]], rows: list[tuple[str, int]], fees: bool) -> None:
    limits = [(sum(x for x, _ in grows[: at + 1]), at, grows[at][1]) for at in range(len(grows))]
    tiers = [
        CapacityTier(amount=Decimal(at + 1), limits={"x": Decimal(x), "y": Decimal(x + y + at * 9)})
        for x, at, y in limits
    ]
    tiers.append(CapacityTier(amount=Decimal(100)))
    price = Capacity(dimension="unit", tiers=tuple(tiers))
    needed = 0
    for value in ("x", "y"):
        total = sum(number for name, number in rows if name == value)
        fits = [
            at for at, tier in enumerate(tiers) if total <= tier.limits.get(value, Decimal(10**9))
        ]
        needed = max(needed, fits[0])
    usages = [Usage(quantity=Decimal(number), dimensions={"unit": name}) for name, number in rows]
    expected = tiers[needed].amount if fees else 0
    assert expected == exact(rate(price, usages, fees=fees))
    assert expected == exact(rate(price, [], fees=fees, period=usages))


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
