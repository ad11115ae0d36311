"""Package: every started package beyond the free units costs the same."""

from decimal import Decimal

from farebox.catalog.price import Package
from farebox.rating.rated import Part, PartKind
from farebox.rating.tiers import ZERO, started, units_inside


def rate_package(price: Package, before: Decimal, quantity: Decimal) -> list[Part]:
    """Return the packages started by `quantity` after `before` units, free units first.

    A package that earlier units started is not charged again; below zero it mirrors.
    """
    after = before + quantity
    parts: list[Part] = []
    free = units_inside(after, ZERO, price.free) - units_inside(before, ZERO, price.free)
    if free:
        parts.append(Part(PartKind.FREE, "free units", free, ZERO, ZERO, up_to=price.free))
    held = units_inside(before, price.free, None)
    holds = units_inside(after, price.free, None)
    count = started(holds, price.size) - started(held, price.size)
    if count or holds != held:
        parts.append(
            Part(
                PartKind.PACKAGE,
                "packages",
                holds - held,
                count * price.amount,
                price.amount,
                price.size,
                count,
            )
        )
    return parts
