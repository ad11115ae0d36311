"""Dynamic: the metered value is itself an amount of money."""

from decimal import Decimal

from farebox.catalog.price import Dynamic
from farebox.rating.rated import Part, PartKind


def rate_dynamic(price: Dynamic, quantity: Decimal) -> list[Part]:
    """Return the value times the multiplier."""
    amount = quantity * price.multiplier
    return [Part(PartKind.DYNAMIC, "value", quantity, amount, price.multiplier)]
