"""Amounts and rounding: digits are lost only where they are meant to be, and by the stated rule."""

from decimal import Decimal, FloatOperation, Inexact, InvalidOperation
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.money.amount import EXPONENTS, UnknownCurrency, exponent_of, to_currency
from farebox.money.rounding import EXACT, RoundingMode, divide, exact, round_to

D = Decimal
HALVES = ["2.5", "-2.5", "3.5", "-3.5", "2.4", "-2.4", "2.6", "-2.6", "2", "-2", "0"]

ROUNDED = {
    RoundingMode.HALF_UP: [3, -3, 4, -4, 2, -2, 3, -3, 2, -2, 0],
    RoundingMode.HALF_EVEN: [2, -2, 4, -4, 2, -2, 3, -3, 2, -2, 0],
    RoundingMode.UP: [3, -2, 4, -3, 3, -2, 3, -2, 2, -2, 0],
    RoundingMode.DOWN: [2, -3, 3, -4, 2, -3, 2, -3, 2, -2, 0],
    RoundingMode.TRUNCATE: [2, -2, 3, -3, 2, -2, 2, -2, 2, -2, 0],
}


@pytest.mark.parametrize("mode", RoundingMode)
def test_every_mode_at_and_around_one_half(mode: RoundingMode) -> None:
    expected = ROUNDED[mode]
    assert expected == [round_to(D(text), 0, mode) for text in HALVES]
    assert expected == [round_to(Fraction(text), 0, mode) for text in HALVES]
    assert expected == [divide(D(text), D(1), 0, mode) for text in HALVES]


decimals = st.integers(-(10**30), 10**30).map(lambda value: D(value).scaleb(-12, context=EXACT))


@given(decimals, st.integers(0, 12), st.sampled_from(RoundingMode))
def test_a_decimal_and_its_fraction_round_alike(
    value: Decimal, places: int, mode: RoundingMode
) -> None:
    assert round_to(value, places, mode) == round_to(Fraction(value), places, mode)


@given(decimals, decimals.filter(bool), st.integers(0, 18))
def test_a_quotient_is_the_nearest_there_is(
    dividend: Decimal, divisor: Decimal, places: int
) -> None:
    quotient = divide(dividend, divisor, places)
    error = abs(Fraction(quotient) - Fraction(dividend) / Fraction(divisor))
    assert error <= Fraction(1, 2 * 10**places)
    # copy_negate, because a plain minus rounds to 28 digits in the default context
    assert quotient.copy_negate() == divide(dividend.copy_negate(), divisor, places)


def test_a_zero_divisor_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        divide(D(1), D(0), 2)


def test_the_exact_context_refuses_to_lose_a_digit() -> None:
    with exact():
        assert D(10) ** 60 + D(1).scaleb(-59) == D("1" + "0" * 60 + "." + "0" * 58 + "1")
        with pytest.raises(Inexact):
            D(1) / D(3)
        with pytest.raises(InvalidOperation):
            D("NaN") < D(1)  # noqa: B015 - the comparison itself must raise
        with pytest.raises(FloatOperation):
            D(1) < 0.5  # noqa: B015


def test_amounts_have_the_digits_of_their_currency() -> None:
    assert [str(to_currency(D("1234.5675"), currency)) for currency in ("JPY", "USD", "KWD")] == [
        "1235",
        "1234.57",
        "1234.568",
    ]
    assert str(to_currency(Fraction(2, 3), "EUR")) == "0.67"
    assert str(to_currency(D("-0.005"), "USD")) == "-0.01"
    assert (EXPONENTS["JPY"], exponent_of("USD"), exponent_of("KWD")) == (0, 2, 3)


@pytest.mark.parametrize("code", ["XXQ", "usd", "", "XAU"])
def test_an_unknown_currency_is_named(code: str) -> None:
    with pytest.raises(UnknownCurrency, match=repr(code)) as caught:
        exponent_of(code)
    assert code == caught.value.code
