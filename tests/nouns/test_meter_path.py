"""JSONPath: the direct readers against jsonpath-ng, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonpath_ng.ext.parser import parse

from farebox.catalog.path import MISSING, Fault, compile_path, simple_keys

names = st.sampled_from(["a", "b", "c"])
documents = st.dictionaries(
    names,
    st.recursive(
        st.sampled_from([None, True, 0, 7, "", "text", Decimal("2.5")]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=12,
    ),
)
segments = st.one_of(
    names.map(lambda name: f".{name}"),
    names.map(lambda name: f"['{name}']"),
    names.map(lambda name: f'["{name}"]'),
    st.integers(-3, 3).map(lambda index: f"[{index}]"),
)
paths = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "$" + "".join(parts))


def read(path: str, data: dict[str, Any]) -> Any:
    reader = compile_path(path)
    assert not isinstance(reader, Fault), reader
    return reader(data)


@settings(max_examples=400)
@given(paths, documents)
def test_direct_readers_agree_with_the_library(path: str, data: dict[str, Any]) -> None:
    found = parse(path).find(data)
    expected = found[0].value if found else MISSING
    answer = read(path, data)
    assert expected is answer or expected == answer
    assert simple_keys(path) is not None


DATA = {
    "a": {"b": 1, "b c": 2, "d-e": 3},
    "list": [{"kind": "seat", "n": 1}, {"kind": "user", "n": Decimal("2.5")}],
    "gen_ai.usage": {"input": 7},
    "größe": 5,
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.a.b", 1),
        ("$.a['b c']", 2),
        ("$.a.d-e", 3),
        ("$['gen_ai.usage'].input", 7),
        ("$.größe", 5),
        ("$.list[0].n", 1),
        ("$.list[-1].n", Decimal("2.5")),
        ("$.list[-2].n", 1),
        ("$.list[-3].n", MISSING),
        ("$.list[2].n", MISSING),
        ("$.none", None),
        ("$.none.x", MISSING),
        ("$.a.b.c", MISSING),
        ("$.absent", MISSING),
        ("$.list[*].n", 1),
        ("$.list[1:].kind", "user"),
        ("$..input", 7),
        ("$.list[?(@.kind=='user')].n", Decimal("2.5")),
        ("$.list[?(@.kind!='user')].n", 1),
        ("$.list[?(@.n==1)].kind", "seat"),
        ("$.list[?(@.kind=='user' && @.n)].kind", "user"),
        ("$.list[?(@.kind=='none')].n", MISSING),
    ],
)
def test_paths_read(path: str, expected: object) -> None:
    assert expected == read(path, DATA)


@pytest.mark.parametrize(
    ("path", "position", "message"),
    [
        ("", 0, "starts with \\$"),
        ("a.b", 0, "starts with \\$"),
        ("$.", 0, "not a JSONPath"),
        ("$.a[", 0, "not a JSONPath"),
        ("$.a b", 4, "not a JSONPath"),
        ("$.a[?(@.n>1)].kind", 0, "comparison other than equality"),
        ("$.a[?(@.n==1.5)].kind", 0, "comparison other than equality"),
        ("$.a[?(@.n=~'x')].kind", 0, "comparison other than equality"),
        ("$.a + $.b", 0, "operation is not supported"),
        ("$.a.`len`", 0, "len is not supported"),
        ("$.a.`parent`", 0, "parent is not supported"),
        ("$.a.`split(x, 0, 1)`", 0, "split is not supported"),
        ("$." + "a" * 300, 256, "at most 256"),
    ],
)
def test_paths_are_refused(path: str, position: int, message: str) -> None:
    fault = compile_path(path)
    assert isinstance(fault, Fault)
    assert position == fault.position
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(fault.message)


def test_hostile_nesting_reads_nothing() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert MISSING is read("$..b", deep)


@settings(max_examples=300, deadline=None)
@given(st.text("$.[]'\"ab*?@()=<>&|,:-01`~+ \\", max_size=14).map(lambda text: "$" + text))
def test_any_text_is_a_path_or_a_fault(text: str) -> None:
    compiled = compile_path(text)
    if not isinstance(compiled, Fault):
        compiled({"a": [{"b": 1}], "b": "text"})
