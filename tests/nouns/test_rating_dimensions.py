"""Percentage, matrix and capacity against oracles that go event by event and cell by cell."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.price import Capacity, CapacityTier, Cell, Matrix, Percentage
from farebox.rating.rate import rate
from farebox.rating.rated import Rated, UnpricedReason
from farebox.rating.usage import Usage


def tenths_of(number: int) -> Decimal:
    return Decimal(number).scaleb(-1)


prices = st.integers(0, 5000).map(lambda value: Decimal(value).scaleb(-3))
percents = st.integers(0, 1000).map(lambda value: Decimal(value).scaleb(-1))
sizes = st.sampled_from([Decimal(text) for text in ("0.1", "0.5", "1", "2", "5", "10")])
tenths = st.integers(-400, 400)


def exact(rated: Rated) -> Fraction:
    """Return the amount, after looking at every row: it explains its own amount."""
    for part in rated.parts:
        if part.unit_price is not None:
            times = part.count if part.count is not None else part.quantity / part.per
            assert part.amount == part.unit_price * times
    assert rated.amount == sum(part.amount for part in rated.parts)
    return Fraction(rated.amount)


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
