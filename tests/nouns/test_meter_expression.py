"""Computed values against fractions, and the texts that are refused."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog.expression import (
    Division,
    Expression,
    Extreme,
    Field,
    Negation,
    Number,
    Operation,
    Rounding,
    compile_expression,
    compile_number,
    fields_of,
    parse_expression,
)
from farebox.catalog.expression_sql import to_sql
from farebox.catalog.number import NumberCode, number_of
from farebox.catalog.path import MISSING, Fault
from farebox.money.rounding import RoundingMode

LIMIT = Fraction(10) ** 20
DATA = {"a": 7, "b": Decimal("2.5"), "c": "-3", "z": 0, "in": {"side": Decimal("0.1")}}


class TooFine(Exception):
    """The exact value has more than 18 decimals."""


def rounded(value: Fraction, places: int, mode: RoundingMode) -> Fraction:
    """Round by looking at the two neighbours, farther and nearer to zero."""
    scaled = value * 10**places
    floor = scaled.numerator // scaled.denominator
    if scaled == floor:
        return Fraction(floor, 10**places)
    near, far = (floor, floor + 1) if value > 0 else (floor + 1, floor)
    distance = abs(scaled - near)
    chosen = {
        RoundingMode.HALF_UP: far if distance >= Fraction(1, 2) else near,
        RoundingMode.HALF_EVEN: far
        if distance > Fraction(1, 2) or (distance == Fraction(1, 2) and near % 2)
        else near,
        RoundingMode.UP: floor + 1,
        RoundingMode.DOWN: floor,
        RoundingMode.TRUNCATE: near,
    }[mode]
    return Fraction(chosen, 10**places)


def value_of(node: Expression) -> Fraction:
    """Compute in fractions, with no code of the compiler."""
    match node:
        case Number(value):
            return Fraction(value)
        case Field(keys):
            found = DATA
            for key in keys:
                found = found[key]  # type: ignore[assignment, index]
            return Fraction(found)  # type: ignore[arg-type]
        case Negation(operand):
            return -value_of(operand)
        case Operation(sign, left, right):
            a, b = value_of(left), value_of(right)
            return {"+": a + b, "-": a - b, "*": a * b}[sign]
        case Extreme(name, operands):
            each = [value_of(operand) for operand in operands]
            return min(each) if name == "min" else max(each)
        case Rounding(operand, places):
            return rounded(value_of(operand), places, RoundingMode.HALF_UP)
        case Division(dividend, divisor, places, mode):
            return rounded(value_of(dividend) / value_of(divisor), places, mode)


def text_of(node: Expression) -> str:
    """Write a node as a person might, with every operation in parentheses."""
    match node:
        case Number(value):
            return format(value, "f")
        case Field(keys):
            return ".".join(keys)
        case Negation(operand):
            return f"-{text_of(operand)}"
        case Operation(sign, left, right):
            return f"({text_of(left)} {sign} {text_of(right)})"
        case Extreme(name, operands):
            return f"{name}({', '.join(map(text_of, operands))})"
        case Rounding(operand, places):
            return f"round({text_of(operand)}, {places})"
        case Division(dividend, divisor, 18, RoundingMode.HALF_UP):
            return f"({text_of(dividend)} / {text_of(divisor)})"
        case Division(dividend, divisor, places, mode):
            return f"div({text_of(dividend)}, {text_of(divisor)}, {places}, {mode})"


numbers = st.integers(0, 10**6).map(lambda n: Number(Decimal(n).scaleb(-3)))
fields = st.sampled_from([("a",), ("b",), ("c",), ("z",), ("in", "side")]).map(Field)
places = st.integers(0, 18)


def compound(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    divisors = inner.filter(lambda node: not (isinstance(node, Number) and not node.value))
    return st.one_of(
        st.builds(Negation, inner),
        st.builds(Operation, st.sampled_from("+-*"), inner, inner),
        st.builds(
            Extreme,
            st.sampled_from(["min", "max"]),
            st.lists(inner, min_size=1, max_size=3).map(tuple),
        ),
        st.builds(Rounding, inner, places),
        st.builds(Division, inner, divisors, places, st.sampled_from(RoundingMode)),
    )


nodes = st.recursive(numbers | fields, compound, max_leaves=8)


@settings(max_examples=500, deadline=None)
@given(nodes)
def test_expressions_compute_what_fractions_do(node: Expression) -> None:
    parsed = parse_expression(text_of(node))
    assert node == parsed
    found = compile_expression(node)(DATA)
    try:
        exact = value_of(node)
    except ZeroDivisionError:
        assert NumberCode.DIVISION_BY_ZERO is found
        return
    in_range = abs(exact) < LIMIT and (exact * 10**18).denominator == 1
    if in_range:
        assert isinstance(found, Decimal)
        assert exact == Fraction(found)
    else:
        assert NumberCode.NUMBER_OUT_OF_RANGE is found


def calculate(text: str, data: dict[str, object] | None = None) -> object:
    compiled = compile_number(text)
    assert not isinstance(compiled, Fault), compiled
    return compiled(DATA if data is None else data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + 4 * b", "17"),
        ("(a + 4) * b", "27.5"),
        ("a - b - c", "7.5"),
        ("a - (b - c)", "1.5"),
        ("-a * -c", "-21"),
        ("--a", "7"),
        ("10 / 4 / 5", "0.5"),
        ("1 / 3", "0.333333333333333333"),
        ("2 / 3", "0.666666666666666667"),
        ("-2 / 3", "-0.666666666666666667"),
        ("div(7, 2, 0)", "4"),
        ("div(-7, 2, 0)", "-4"),
        ("div(7, 2, 0, down)", "3"),
        ("div(5, 2, 0, half_even)", "2"),
        ("div(1, 1000, 2, up)", "0.01"),
        ("min(a, b, c)", "-3"),
        ("max(a, b) * 2", "14"),
        ("round(b, 0)", "3"),
        ("round(-b, 0)", "-3"),
        ("in.side + in.side + in.side", "0.3"),
        ("min", "5"),
        ("`gen_ai.tokens` * 2", "18"),
        ("$.a", "7"),
        ("$['gen_ai.tokens']", "9"),
    ],
)
def test_expressions_by_example(text: str, expected: str) -> None:
    assert Decimal(expected) == calculate(text, {**DATA, "min": 5, "gen_ai.tokens": 9})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("absent + 1", NumberCode.VALUE_MISSING),
        ("in.absent", NumberCode.VALUE_MISSING),
        ("a.deeper", NumberCode.VALUE_MISSING),
        ("in * 2", NumberCode.VALUE_NOT_A_NUMBER),
        ("1 / z", NumberCode.DIVISION_BY_ZERO),
        ("99999999999999999999 + 1", NumberCode.NUMBER_OUT_OF_RANGE),
        ("0.0000000001 * 0.0000000001", NumberCode.NUMBER_OUT_OF_RANGE),
        (" * ".join(["99999999999999999999"] * 7), NumberCode.NUMBER_OUT_OF_RANGE),
        ("min(absent, 1)", NumberCode.VALUE_MISSING),
    ],
)
def test_what_has_no_value_is_refused(text: str, code: NumberCode) -> None:
    assert code is calculate(text)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "before the end"),
        ("   ", 3, "before the end"),
        ("a +", 3, "before the end"),
        ("a b", 2, "unexpected b"),
        ("(a", 2, "expected )"),
        ("a)", 1, "unexpected )"),
        ("a % b", 2, "unexpected character '%'"),
        ("a ** b", 3, "before *"),
        ("pow(a, 2)", 0, "unknown function pow"),
        ("min()", 4, "before )"),
        ("a / 0", 4, "division by zero"),
        ("div(a, 0, 2)", 7, "division by zero"),
        ("div(a, b)", 8, "expected , before )"),
        ("div(a, b, 19)", 10, "at most 18"),
        ("div(a, b, 2, sideways)", 13, "expected a rounding mode"),
        ("round(a)", 7, "expected , before )"),
        ("round(a, b)", 9, "number of decimals"),
        ("round(a, 1.5)", 9, "number of decimals"),
        ("100000000000000000000", 0, "below 10^20"),
        ("0.0000000000000000001", 0, "below 10^20"),
        ("a.", 2, "name after the point"),
        ("1e5", 1, "unexpected e5"),
        ("``", 0, "unexpected character"),
        ("(" * 60 + "a" + ")" * 60, 51, "nested deeper"),
        ("-" * 60 + "a", 51, "nested deeper"),
        ("a+" * 600 + "a", 1000, "at most 1000"),
        ("$.a + 1", 0, "not supported"),
    ],
)
def test_texts_are_refused(text: str, position: int, message: str) -> None:
    fault = compile_number(text)
    assert isinstance(fault, Fault)
    assert position == fault.position
    assert message in fault.message


@settings(max_examples=300)
@given(st.text("ab1.0 +-*/(),`$minaxroud", max_size=12))
def test_any_text_is_an_expression_or_a_fault(text: str) -> None:
    parsed = parse_expression(text)
    if not isinstance(parsed, Fault):
        compile_expression(parsed)(DATA)


def test_fields_are_read_once_in_order() -> None:
    node = parse_expression("b + min(a, b) / `x y`.z - round(b, 1)")
    assert not isinstance(node, Fault)
    assert fields_of(node) == (("b",), ("a",), ("x y", "z"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, Decimal(5)),
        (Decimal("12.5"), Decimal("12.5")),
        ("12.5", Decimal("12.5")),
        ("-0", Decimal(0)),
        ("1e3", Decimal(1000)),
        (Decimal("1E+3"), Decimal(1000)),
        (Decimal("1.50000000000000000000000"), Decimal("1.5")),
        (10**20 - 1, Decimal(10**20 - 1)),
        (Decimal("99999999999999999999.999999999999999999"),) * 2,
        (Decimal("1E-18"), Decimal("1E-18")),
        (Decimal("0E+900"), Decimal(0)),
        (10**20, NumberCode.NUMBER_OUT_OF_RANGE),
        (-(10**20), NumberCode.NUMBER_OUT_OF_RANGE),
        (Decimal("1E+20"), NumberCode.NUMBER_OUT_OF_RANGE),
        (Decimal("1E+400"), NumberCode.NUMBER_OUT_OF_RANGE),
        (Decimal("1E-19"), NumberCode.NUMBER_OUT_OF_RANGE),
        (Decimal("1." + "1" * 500), NumberCode.NUMBER_OUT_OF_RANGE),
        ("1e999999999", NumberCode.NUMBER_OUT_OF_RANGE),
        ("1e9999999999", NumberCode.VALUE_NOT_A_NUMBER),
        (Decimal("NaN"), NumberCode.VALUE_NOT_A_NUMBER),
        (Decimal("-Infinity"), NumberCode.VALUE_NOT_A_NUMBER),
        ("NaN", NumberCode.VALUE_NOT_A_NUMBER),
        ("Infinity", NumberCode.VALUE_NOT_A_NUMBER),
        ("1_000", NumberCode.VALUE_NOT_A_NUMBER),
        ("١٢", NumberCode.VALUE_NOT_A_NUMBER),
        ("1٢", NumberCode.VALUE_NOT_A_NUMBER),
        (" 1", NumberCode.VALUE_NOT_A_NUMBER),
        ("1\n", NumberCode.VALUE_NOT_A_NUMBER),
        ("", NumberCode.VALUE_NOT_A_NUMBER),
        ("007", NumberCode.VALUE_NOT_A_NUMBER),
        ("1" * 200, NumberCode.VALUE_NOT_A_NUMBER),
        (True, NumberCode.VALUE_NOT_A_NUMBER),
        ([1], NumberCode.VALUE_NOT_A_NUMBER),
        ({}, NumberCode.VALUE_NOT_A_NUMBER),
        (1.5, NumberCode.VALUE_NOT_A_NUMBER),
        (None, NumberCode.VALUE_MISSING),
        (MISSING, NumberCode.VALUE_MISSING),
    ],
)
def test_numbers_are_read_exactly_or_refused(value: object, expected: object) -> None:
    found = number_of(value)
    assert expected == found
    assert type(expected) is type(found)


def sql(text: str) -> str:
    node = parse_expression(text)
    assert not isinstance(node, Fault)
    return to_sql(node, lambda keys: f"data #>> '{{{','.join(keys)}}}'")


def test_sql_reads_fields_as_numeric() -> None:
    expected = "((data #>> '{a}')::numeric + (4::numeric * (data #>> '{in,side}')::numeric))"
    assert expected == sql("a + 4 * in.side")
    assert sql("round(-a, 2)") == "round((- (data #>> '{a}')::numeric), 2)"


def test_sql_writes_each_operand_once() -> None:
    text = "a"
    for _ in range(12):
        text = f"div(max({text}, 1), 3, 2, half_even)"
    assert sql(text).count("#>>") == 1
