"""Stairstep: one amount by where the period's total falls."""

from decimal import Decimal

from farebox.catalog.price import Stairstep
from farebox.rating.rated import Part, PartKind
from farebox.rating.tiers import tier_of


def rate_stairstep(price: Stairstep, quantity: Decimal, total: Decimal, fees: bool) -> list[Part]:
    """Return the step of `total` once a period; zero costs nothing, below zero it mirrors."""
    if not fees or not total:
        return []
    position, above, tier = tier_of(price.tiers, total)
    count = Decimal(1 if total > 0 else -1)
    part = Part(
        PartKind.STEP,
        f"step {position + 1}",
        quantity,
        tier.amount * count,
        tier.amount,
        count=count,
        above=above,
        up_to=tier.up_to,
    )
    return [part]
