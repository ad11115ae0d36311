"""What tiered prices share: how far a running total reaches into a tier, above and below zero.

Every running total x is mirrored at zero: what holds for x holds, negated, for -x. So usage that
is taken back later costs exactly the negative of what it cost.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol, TypeVar

ZERO = Decimal(0)


class Bounded(Protocol):
    """Any tier: it ends at `up_to`, inclusive, or nowhere."""

    @property
    def up_to(self) -> Decimal | None: ...


T = TypeVar("T", bound=Bounded)


def units_inside(total: Decimal, above: Decimal, up_to: Decimal | None) -> Decimal:
    """Return how many of `total` units fall in the tier; negative for a negative total."""
    if total < 0:
        return -units_inside(-total, above, up_to)
    if total <= above:
        return ZERO
    return (total if up_to is None or total < up_to else up_to) - above


def started(units: Decimal, size: Decimal) -> Decimal:
    """Return how many blocks of `size` are started, negative for negative units."""
    if units < 0:
        return -started(-units, size)
    whole, rest = divmod(units, size)
    return whole + 1 if rest else whole


def reached(total: Decimal, above: Decimal) -> int:
    """Tell whether `total` goes beyond `above`: 1, 0, or -1 on the mirrored side."""
    return (total > above) - (total < -above)


def tier_of(tiers: Sequence[T], total: Decimal) -> tuple[int, Decimal, T]:
    """Return position, lower bound and tier in which the magnitude of `total` falls.

    Beyond a last tier that is bounded, which the catalog refuses, the last one holds.
    """
    size = total.copy_abs()
    above = ZERO
    for position, tier in enumerate(tiers[:-1]):
        if tier.up_to is None or size <= tier.up_to:
            return position, above, tier
        above = tier.up_to
    return len(tiers) - 1, above, tiers[-1]
