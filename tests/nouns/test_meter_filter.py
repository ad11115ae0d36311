"""Filters: the remembered answer is the computed one, and texts that are refused."""

import itertools
from decimal import Decimal
from typing import Any

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog.filter import (
    MEMORY_SIZE_MAX,
    FilterCode,
    compile_filter,
    compile_program,
    evaluate,
    fields_read,
)
from farebox.catalog.path import Fault

REMEMBERED = (
    "data.a == 1",
    "data.a == 'x'",
    "data.a != 'x' && data.b == true",
    "data.a == 1 || data.b == 1",
    "data.a.b == 1",
    "data.a.b == 1 || data.a == 'x'",
    "!(data.a == 1)",
    "data.a in ['x', 'y', 1]",
    "data.a in ['x', data.b]",
    "data.a ? data.b : false",
    "data.a",
    "data.a > 0.5",
    "1.0 / data.a > 0.0",
    "string(data.a) == '0'",
    "type(data.a) == type(data.b)",
    "size(data.a) > 1",
    "data.a.startsWith('x') || source == 's1'",
    "type == 't1' && subject != ''",
    "data.a == null",
)
PLAIN = (
    "has(data.a)",
    "data['a'] == 1",
    "data.a[0] == 1",
    "data.a.exists(x, x == 1)",
    "data == {'a': 1}",
    "size(data) == 1",
    "type(data.a) == int",
    r"data.a == r'\x'",
    "data.a == '''x'''",
    "data.a == 1 // && data.b",
    "[data.a][0] == 1",
    "data.a.b.all(data, data > 1)",
    "[data.a, 2].map(v, v) == [1, 2]",
)

scalars = st.sampled_from(
    [
        None, True, False, 0, 1, 2, -1, "", "x", "y", "1", "true", "xy",
        Decimal("1"), Decimal("1.0"), Decimal("0.5"), Decimal("-0"), Decimal("0"), Decimal("0.0"),
        10**30, "x" * 300,
    ]
)  # fmt: skip
inner = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.just("b"), scalars)
events = st.tuples(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    st.sampled_from(["t1", "t2"]),
    st.sampled_from(["s1", "s2"]),
    st.sampled_from(["", "u"]),
)


def program_of(text: str) -> cel.Program:
    program = compile_program(text)
    assert not isinstance(program, Fault), program
    return program


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(REMEMBERED + PLAIN), st.lists(events, min_size=1, max_size=25))
def test_a_remembered_answer_is_the_computed_one(text: str, seen: list[Any]) -> None:
    accepts = compile_filter(text)
    program = program_of(text)
    assert not isinstance(accepts, Fault)
    for event in seen:
        expected = evaluate(program, *event)
        found = accepts(*event)
        assert expected == found
        assert type(expected) is type(found)


LOOKALIKES: tuple[Any, ...] = (
    1, True, Decimal("1"), "1", 0, False, Decimal("0.0"), Decimal("-0.0"), None, "", "true", "x",
    {}, {"b": 1}, {"b": True}, {"b": None}, [1],
)  # fmt: skip


@pytest.mark.parametrize("text", REMEMBERED)
def test_no_value_is_taken_for_one_that_looks_like_it(text: str) -> None:
    program = program_of(text)
    seen = [{"a": value, "b": True} for value in LOOKALIKES] + [{}]
    for first, second in itertools.permutations(seen, 2):
        accepts = compile_filter(text)
        assert not isinstance(accepts, Fault)
        accepts(first, "t", "s", "u")
        assert evaluate(program, second, "t", "s", "u") is accepts(second, "t", "s", "u")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_attribute_is_taken_for_another(place: int) -> None:
    name = ("type", "source", "subject")[place]
    accepts = compile_filter(f"data.a == 1 && {name} == 'x'")
    assert not isinstance(accepts, Fault)
    attributes = ["x", "x", "x"]
    assert True is accepts({"a": 1}, *attributes)
    attributes[place] = "y"
    assert False is accepts({"a": 1}, *attributes)


@pytest.mark.parametrize("text", REMEMBERED)
def test_plain_member_chains_are_remembered(text: str) -> None:
    assert fields_read(text) is not None


@pytest.mark.parametrize("text", PLAIN)
def test_whatever_is_not_certain_is_evaluated(text: str) -> None:
    assert fields_read(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.a.b == 'data.c' && type == \"subject\"", (("data", "a", "b"), ("type",))),
        ("data . a == data.a.b", (("data", "a"), ("data", "a", "b"))),
        ("'it\\'s data.x' == data.y", (("data", "y"),)),
        ("data.type == source", (("data", "type"), ("source",))),
        ("type(data.a) == type(1)", (("data", "a"),)),
        ("data.a.matches('[') || data.size.size() > 1", (("data", "a"), ("data", "size"))),
    ],
)
def test_fields_read(text: str, expected: object) -> None:
    assert expected == fields_read(text)


def test_memory_is_used_and_bounded() -> None:
    accepts = compile_filter("data.a < 5")
    assert not isinstance(accepts, Fault)
    for number in range(2 * MEMORY_SIZE_MAX + 10):
        assert (number < 5) is accepts({"a": number}, "", "", "")
    cells = dict(zip(accepts.__code__.co_freevars, accepts.__closure__ or (), strict=True))  # type: ignore[attr-defined]
    assert len(cells["memory"].cell_contents) == 10


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("data.a == 'x'", {"a": "x"}, True),
        ("data.a == 'x'", {"a": 1}, False),
        ("data.a == 'x'", {}, False),
        ("!(data.a == 'x')", {}, False),
        ("data.a != 'x'", {}, False),
        ("data.a.b == 1", {"a": {}}, False),
        ("data.a[5] == 1", {"a": [1]}, False),
        ("!has(data.a) || data.a == 1", {}, True),
        ("data.a == 1 || data.b == 2", {"b": 2}, True),
        ("data.a >= 0.5", {"a": Decimal("0.5")}, True),
        ("data.a > 1", {"a": "x"}, FilterCode.FILTER_FAILED),
        ("data.a.b == 1", {"a": None}, FilterCode.FILTER_FAILED),
        ("data.a.startsWith('x')", {"a": 1}, FilterCode.FILTER_FAILED),
        ("1 / data.a > 1", {"a": 0}, FilterCode.FILTER_FAILED),
        ("data.a", {"a": "yes"}, FilterCode.FILTER_NOT_BOOLEAN),
        ("data.a + 1", {"a": 1}, FilterCode.FILTER_NOT_BOOLEAN),
        ("subject == 'u' && type == 't' && source == 's'", {}, True),
    ],
)
def test_filters_by_example(text: str, data: dict[str, Any], expected: object) -> None:
    accepts = compile_filter(text)
    assert not isinstance(accepts, Fault)
    for _ in range(2):
        assert expected is accepts(data, "t", "s", "u")


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("data.a ==", 9, "not a CEL expression"),
        ("data.a = 1", 7, "not a CEL expression"),
        ("a == 1", 0, "unknown name a; fields are data.a"),
        ("data.a == 1 && kind == 2", 15, "unknown name kind"),
        ("data.a.lower() == 'x'", 7, "unknown function lower"),
        ("now() > 1", 0, "unknown function now"),
        ("1", 0, "a filter is true or false"),
        ("'text'", 0, "a filter is true or false"),
        ("null", 0, "a filter is true or false"),
        ("(" * 300 + "true" + ")" * 300, 0, "not a CEL expression"),
        ("true && " * 200 + "true", 1000, "at most 1000"),
    ],
)
def test_texts_are_refused(text: str, position: int, message: str) -> None:
    fault = compile_filter(text)
    assert isinstance(fault, Fault)
    assert message in fault.message
    if "(" * 9 not in text:
        assert position == fault.position


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(
    ["data", ".", "a", "b", "'x'", "1", "==", "&&", "||", "(", ")", "[", "]", "!", "?", ":", ",",
     "in", "type", "size", "has", "exists", "map", "{", "}", " ", "-", "/", "//", "\n", "r"]
), max_size=10).map("".join), events)  # fmt: skip
def test_any_text_is_a_filter_or_a_fault(text: str, event: Any) -> None:
    accepts = compile_filter(text)
    if not isinstance(accepts, Fault):
        expected = evaluate(program_of(text), *event)
        assert expected == accepts(*event) == accepts(*event)
