"""Per unit: every unit costs the same, in proportion."""

from decimal import Decimal

from farebox.catalog.price import PerUnit
from farebox.rating.rated import Part, PartKind


def rate_per_unit(price: PerUnit, quantity: Decimal) -> list[Part]:
    """Return one row of quantity times unit price."""
    amount = quantity * price.unit / price.per
    return [Part(PartKind.UNIT, "units", quantity, amount, price.unit, price.per)]
