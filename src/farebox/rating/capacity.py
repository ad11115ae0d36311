"""Capacity: one amount by the first tier whose limits hold for every quantity."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from farebox.catalog.price import Capacity, CapacityTier
from farebox.rating.rated import Part, PartKind, fee
from farebox.rating.usage import ZERO, Usage


def rate_capacity(price: Capacity, period: Sequence[Usage], fees: bool) -> list[Part]:
    """Return the amount of the first tier that holds all usage of the period, once.

    Quantities add up by the value of the price's dimension; a value that a tier does not name is
    without bound there. Nothing used is within the first tier, whose amount is due.
    """
    if not fees:
        return []
    used: dict[str, Decimal] = {}
    for usage in period:
        value = usage.dimensions.get(price.dimension, "")
        used[value] = used.get(value, ZERO) + usage.quantity
    position = _first_that_holds(price.tiers, used)
    return [fee(PartKind.CAPACITY, f"tier {position + 1}", price.tiers[position].amount)]


def _first_that_holds(tiers: Sequence[CapacityTier], used: Mapping[str, Decimal]) -> int:
    for position, tier in enumerate(tiers):
        if all(used.get(value, ZERO) <= limit for value, limit in tier.limits.items()):
            return position
    return len(tiers) - 1
