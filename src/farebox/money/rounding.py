"""The only module that may lose a digit: every other one computes exactly or fails.

The core runs under `EXACT`, a decimal context of 120 digits that traps every inexact
result, so that a silent rounding becomes an error. A value leaves that regime here, at a
stated place (a line, a tax, a credit) and in a stated mode.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    localcontext,
)
from enum import StrEnum
from fractions import Fraction
from functools import reduce

PRECISION = 120
QUANTITY_DECIMALS = 18
QUANTITY_LIMIT = Decimal(10) ** 20

EXACT = Context(
    prec=PRECISION,
    rounding=ROUND_HALF_UP,
    traps=[Inexact, InvalidOperation, DivisionByZero, FloatOperation],
)
_LOSSY = Context(
    prec=PRECISION, rounding=ROUND_HALF_UP, traps=[InvalidOperation, DivisionByZero, FloatOperation]
)


class RoundingMode(StrEnum):
    """Ways to lose digits; the names are those of the field, not of a library."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"
    UP = "up"
    DOWN = "down"
    TRUNCATE = "truncate"


_MODES = {
    RoundingMode.HALF_UP: ROUND_HALF_UP,
    RoundingMode.HALF_EVEN: ROUND_HALF_EVEN,
    RoundingMode.UP: ROUND_CEILING,
    RoundingMode.DOWN: ROUND_FLOOR,
    RoundingMode.TRUNCATE: ROUND_DOWN,
}


def exact_sum(values: Iterable[Decimal]) -> Decimal:
    """Return the sum with every digit; zero of nothing."""
    return reduce(EXACT.add, values, Decimal(0))


@contextmanager
def exact() -> Iterator[None]:
    """Run the block under `EXACT`: an inexact operation raises instead of rounding."""
    with localcontext(EXACT):
        yield


def round_to(
    value: Decimal | Fraction, places: int, mode: RoundingMode = RoundingMode.HALF_UP
) -> Decimal:
    """Return `value` with `places` decimals; half up moves away from zero at exactly one half.

    `up` is towards positive infinity, `down` towards negative infinity, `truncate` towards zero.
    """
    quantum = Decimal(1).scaleb(-places)
    if isinstance(value, Fraction):
        return _round_fraction(value, places, mode)
    return value.quantize(quantum, rounding=_MODES[mode], context=_LOSSY)


def divide(
    dividend: Decimal, divisor: Decimal, places: int, mode: RoundingMode = RoundingMode.HALF_UP
) -> Decimal:
    """Return the quotient rounded once, from its exact value, to `places` decimals.

    Raises ZeroDivisionError on a zero divisor.
    """
    return _round_fraction(Fraction(dividend) / Fraction(divisor), places, mode)


def _round_fraction(value: Fraction, places: int, mode: RoundingMode) -> Decimal:
    scaled = value * 10**places
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest
    match mode:
        case RoundingMode.HALF_UP:
            up = twice > scaled.denominator or (twice == scaled.denominator and value > 0)
        case RoundingMode.HALF_EVEN:
            up = twice > scaled.denominator or (twice == scaled.denominator and whole % 2 == 1)
        case RoundingMode.UP:
            up = rest > 0
        case RoundingMode.DOWN:
            up = False
        case RoundingMode.TRUNCATE:
            up = rest > 0 and value < 0
    return Decimal(whole + up).scaleb(-places, context=EXACT)
