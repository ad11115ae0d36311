"""Numbers as events carry them: JSON numbers or the same digits in a text, never a float."""

import re
from decimal import Decimal, Inexact, InvalidOperation
from enum import StrEnum

from farebox.catalog.path import MISSING
from farebox.money.rounding import EXACT, QUANTITY_DECIMALS, QUANTITY_LIMIT

_LIMIT = int(QUANTITY_LIMIT)
_QUANTUM = Decimal(1).scaleb(-QUANTITY_DECIMALS)
_TEXT_LENGTH_MAX = 128
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,9})?", re.ASCII)


class NumberCode(StrEnum):
    """Why no number could be read, in order of precedence."""

    VALUE_MISSING = "value_missing"
    VALUE_NOT_A_NUMBER = "value_not_a_number"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    DIVISION_BY_ZERO = "division_by_zero"


def number_of(value: object) -> Decimal | NumberCode:
    """Return the exact number that decoded JSON stands for.

    A text counts when it is a JSON number ("12.5"). Null is as good as absent. The limit is
    that of every quantity: below 10^20 in size and no digit after the 18th decimal.
    """
    kind = type(value)
    if kind is int:
        if -_LIMIT < value < _LIMIT:  # type: ignore[operator]
            return Decimal(value)  # type: ignore[arg-type]
        return NumberCode.NUMBER_OUT_OF_RANGE
    if kind is Decimal:
        # Under 20 characters without exponent it is within every limit; str costs 40 ns.
        digits = str(value)
        if len(digits) < 20 and "E" not in digits and "N" not in digits and "I" not in digits:
            return value  # type: ignore[return-value]
        return within_limits(value)  # type: ignore[arg-type]
    if value is MISSING or value is None:
        return NumberCode.VALUE_MISSING
    return _number_of_text(value) if kind is str else NumberCode.VALUE_NOT_A_NUMBER  # type: ignore[arg-type]


def is_numeral(text: str) -> bool:
    """Whether a text is written as JSON writes a number; Decimal alone takes "1_000" and "+5"."""
    return _JSON_NUMBER.fullmatch(text) is not None


def within_limits(value: Decimal) -> Decimal | NumberCode:
    """Return `value` in plain notation if it is a quantity that Farebox can keep."""
    if not value.is_finite():
        return NumberCode.VALUE_NOT_A_NUMBER
    if value and value.adjusted() >= 20:
        return NumberCode.NUMBER_OUT_OF_RANGE
    try:
        return Decimal(plain_text(value.quantize(_QUANTUM, context=EXACT)))
    except (Inexact, InvalidOperation):
        return NumberCode.NUMBER_OUT_OF_RANGE


def plain_text(value: Decimal) -> str:
    """Return the one text of a finite number: no exponent, no trailing zero, no minus zero.

    The caller bounds the exponent; 1E+999999 would be a million characters.
    """
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _number_of_text(text: str) -> Decimal | NumberCode:
    if len(text) > _TEXT_LENGTH_MAX:
        return NumberCode.VALUE_NOT_A_NUMBER
    if not is_numeral(text):
        return NumberCode.VALUE_NOT_A_NUMBER
    return within_limits(Decimal(text))
