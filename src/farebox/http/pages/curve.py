"""How a price goes with the quantity: what the rater says at forty points from nothing to twice."""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from farebox.catalog.price import Graduated, GraduatedPercentage, Price, Stairstep, Volume
from farebox.http.pages.chart import Chart, ChartSeries
from farebox.money.rounding import EXACT, divide
from farebox.rating.charge import Segment, rate_charge
from farebox.rating.quote import QuoteDocument, QuoteUsage
from farebox.rating.usage import ZERO, Usage

_STEPS = 40
_STEP = Decimal("0.05")
_UNIT_PLACES = 9


def price_curve(document: QuoteDocument) -> Chart | None:
    """Return amount and average unit price by quantity; the mix of dimensions stays the same.

    None where the quantity is zero or single values count: those have no quantity to turn up.
    """
    price = document.price
    total = sum((usage.quantity or ZERO for usage in document.usage), ZERO)
    if price is None or total <= 0 or any(usage.values for usage in document.usage):
        return None
    points = []
    for quantity in _quantities(price, total, single=len(document.usage) == 1):
        usages = [_scaled(usage, quantity, total) for usage in document.usage]
        result = rate_charge(
            "usage",
            [Segment(price=price, usages=tuple(usages))],
            document.adjustments,
            document.currency,
            {(each.dimension, each.alias): each.canonical for each in document.aliases},
        )
        points.append((quantity, result.amount))
    units = [divide(amount, at, _UNIT_PLACES) if at else None for at, amount in points]
    return Chart(
        kind="lines",
        x=tuple(at for at, _ in points),
        series=(
            ChartSeries("Amount", tuple(amount for _, amount in points)),
            ChartSeries("Average price of a unit", tuple(units), "right"),
        ),
        label="Amount and average unit price by quantity",
        unit=document.currency,
    )


def _quantities(price: Price, total: Decimal, *, single: bool) -> Sequence[Decimal]:
    """Return where to look: evenly, and at both sides of every tier's end."""
    places = {EXACT.multiply(total, EXACT.multiply(_STEP, Decimal(n))) for n in range(_STEPS + 1)}
    if single and isinstance(price, Graduated | GraduatedPercentage | Stairstep | Volume):
        limit = EXACT.multiply(total, Decimal(2))
        for tier in price.tiers:
            if tier.up_to is not None and 0 < tier.up_to < limit:
                places |= {tier.up_to, min(limit, EXACT.add(tier.up_to, Decimal(1)))}
    return sorted(places)


def _scaled(usage: QuoteUsage, quantity: Decimal, total: Decimal) -> Usage:
    own = usage.quantity or ZERO
    # With several rows the places are multiples of 0.05 of the total, so this division is exact.
    share = quantity if own == total else divide(EXACT.multiply(own, quantity), total, 18)
    return msgspec.structs.replace(
        Usage(quantity=share, dimensions=usage.dimensions), events=usage.events or 0
    )
