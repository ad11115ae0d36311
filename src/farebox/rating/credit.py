"""What one use costs in a custom unit: credits that a pool gives for it."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from farebox.catalog.price import Price
from farebox.money.rounding import QUANTITY_DECIMALS, round_to
from farebox.rating.rate import rate, split_unpriced
from farebox.rating.rated import UnpricedReason
from farebox.rating.usage import Usage, resolve_aliases


def credits_of(
    price: Price | None, usage: Usage, aliases: Mapping[tuple[str, str], str]
) -> Decimal | UnpricedReason:
    """Return how many units a use burns by itself, rounded to 18 decimals, or why none is said."""
    priced, unpriced = split_unpriced(price, resolve_aliases([usage], aliases))
    if price is None or not priced:
        return unpriced[0].reason
    return round_to(Fraction(rate(price, priced).amount), QUANTITY_DECIMALS)
