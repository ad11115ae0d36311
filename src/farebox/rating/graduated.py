"""Graduated: each unit costs what the tier it falls in says."""

from collections.abc import Sequence
from decimal import Decimal

from farebox.catalog.price import Graduated, Tier
from farebox.rating.rated import Part, PartKind, fee
from farebox.rating.tiers import ZERO, reached, started, units_inside


def rate_graduated(price: Graduated, before: Decimal, quantity: Decimal, fees: bool) -> list[Part]:
    """Return what `quantity` costs after `before` units of the same period.

    That is cost(before + quantity) - cost(before), where cost(-x) = -cost(x): a correction takes
    back what the units on top of the pile cost, flat fees of tiers left again included.
    """
    return graduate(price.tiers, price.flat_at_zero, before, quantity, fees, PartKind.TIER)


def graduate(
    tiers: Sequence[Tier],
    flat_at_zero: bool,
    before: Decimal,
    quantity: Decimal,
    fees: bool,
    kind: PartKind,
) -> list[Part]:
    """Return a row for the units in each tier touched, and one for each flat fee that changes.

    With `flat_at_zero` the first tier's flat fee belongs to the period: due once, where `fees`
    says so, never by reach and never taken back.
    """
    after = before + quantity
    farthest = max(after.copy_abs(), before.copy_abs())
    parts: list[Part] = []
    above = ZERO
    for position, tier in enumerate(tiers):
        label = f"tier {position + 1}"
        if above < farthest:
            part = _units(tier, label, before, after, above, kind)
            if part.quantity or part.amount:
                parts.append(part)
        if position == 0 and flat_at_zero:
            times = 1 if fees else 0
        else:
            times = reached(after, above) - reached(before, above)
        if times and tier.flat:
            parts.append(fee(PartKind.TIER_FLAT, label, tier.flat, Decimal(times)))
        if tier.up_to is None or tier.up_to >= farthest:
            break
        above = tier.up_to
    return parts


def _units(
    tier: Tier, label: str, before: Decimal, after: Decimal, above: Decimal, kind: PartKind
) -> Part:
    held = units_inside(before, above, tier.up_to) if before else ZERO
    holds = units_inside(after, above, tier.up_to)
    units = holds - held
    if tier.round_up:
        count = started(holds, tier.per) - started(held, tier.per)
        amount = count * tier.unit
    else:
        count = None
        amount = units * tier.unit / tier.per
    return Part(kind, label, units, amount, tier.unit, tier.per, count, above, tier.up_to)
