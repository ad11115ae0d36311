"""Volume: all units cost what the tier of the period's total says."""

from decimal import Decimal

from farebox.catalog.price import Tier, Volume
from farebox.rating.rated import Part, PartKind, fee
from farebox.rating.tiers import started, tier_of


def rate_volume(
    price: Volume, before: Decimal, quantity: Decimal, total: Decimal, fees: bool
) -> list[Part]:
    """Return the units at the price of the tier that holds `total`, and its flat fee once.

    A negative total picks the tier by its magnitude and is the mirror image of the positive one.
    """
    position, above, tier = tier_of(price.tiers, total)
    label = f"tier {position + 1}"
    parts: list[Part] = []
    if quantity:
        parts.append(_units(tier, label, before, quantity, above))
    if fees:
        parts.extend(_flat(price, tier, label, total))
    return parts


def _units(tier: Tier, label: str, before: Decimal, quantity: Decimal, above: Decimal) -> Part:
    if tier.round_up:
        count = started(before + quantity, tier.per) - started(before, tier.per)
        amount = count * tier.unit
    else:
        count = None
        amount = quantity * tier.unit / tier.per
    return Part(
        PartKind.TIER, label, quantity, amount, tier.unit, tier.per, count, above, tier.up_to
    )


def _flat(price: Volume, tier: Tier, label: str, total: Decimal) -> list[Part]:
    """A total of zero or less owes the first tier's fee if that is due at zero; else it mirrors."""
    if total <= 0 and price.flat_at_zero:
        flat, label, times = price.tiers[0].flat, "tier 1", 1
    else:
        flat, times = tier.flat, (total > 0) - (total < 0)
    return [fee(PartKind.TIER_FLAT, label, flat, Decimal(times))] if flat and times else []
