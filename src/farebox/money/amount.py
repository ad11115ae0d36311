"""Amounts of money: a currency knows its digits, an amount is written with exactly those."""

from decimal import Decimal
from fractions import Fraction

import iso4217

from farebox.money.rounding import round_to


class UnknownCurrency(ValueError):
    """The code is not an active ISO 4217 code with a minor unit."""

    def __init__(self, code: str) -> None:
        super().__init__(f"{code!r} is not an ISO 4217 currency with a minor unit")
        self.code = code


def _exponents() -> dict[str, int]:
    return {
        currency.code: currency.exponent
        for currency in iso4217.Currency
        if currency.exponent is not None
    }


EXPONENTS = _exponents()
"""Decimal places of each currency with a minor unit, by ISO 4217 code (JPY 0, USD 2, KWD 3)."""


def exponent_of(currency: str) -> int:
    """Return the number of decimals of `currency`; raises UnknownCurrency."""
    try:
        return EXPONENTS[currency]
    except KeyError:
        raise UnknownCurrency(currency) from None


def to_currency(value: Decimal | Fraction, currency: str) -> Decimal:
    """Round half up to the currency's minor unit; the place where a line loses its digits."""
    return round_to(value, exponent_of(currency))
