"""Graduated percentage: each part of the value costs the percentage of the tier it falls in."""

from decimal import Decimal

from farebox.catalog.price import GraduatedPercentage, Tier
from farebox.rating.graduated import graduate
from farebox.rating.rated import Part, PartKind

HUNDRED = Decimal(100)


def rate_graduated_percentage(
    price: GraduatedPercentage, before: Decimal, quantity: Decimal, fees: bool
) -> list[Part]:
    """Return what graduated units would cost at `percent` per hundred."""
    tiers = [
        Tier(up_to=tier.up_to, unit=tier.percent, flat=tier.flat, per=HUNDRED)
        for tier in price.tiers
    ]
    return graduate(tiers, price.flat_at_zero, before, quantity, fees, PartKind.PERCENT)
