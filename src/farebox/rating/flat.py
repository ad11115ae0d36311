"""Flat: one amount a period, whatever was used."""

from farebox.catalog.price import Flat
from farebox.rating.rated import Part, PartKind, fee


def rate_flat(price: Flat, fees: bool) -> list[Part]:
    """Return the fee, where this segment is the one that charges it."""
    return [fee(PartKind.FLAT, "flat fee", price.amount)] if fees else []
