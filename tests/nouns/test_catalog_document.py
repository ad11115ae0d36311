"""The catalog as a text: what YAML means here, and what is refused with its place."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.document import Document, read_document
from farebox.catalog.plan import Fee, Plan
from farebox.catalog.price import Matrix
from farebox.catalog.yaml_text import DEPTH_MAX, SIZE_MAX, TextFault, Tree, read_yaml


def value_of(text: str) -> object:
    tree = read_yaml(text.encode())
    assert isinstance(tree, Tree), tree
    return tree.value


def fault_of(text: bytes) -> TextFault:
    fault = read_yaml(text)
    refused = isinstance(fault, TextFault)  # what was read instead may be too large to print
    assert refused
    return fault


def test_a_catalog_is_read_exactly() -> None:
    text = b"""
plans:
- key: team
  currency: USD
  fees: [{key: base, amount: 49.90}]
- key: free
  currency: JPY
  fees:
  - key: base
    amount: "0.000000000000000001"
"""
    expected = Document(
        plans=(
            Plan(key="team", currency="USD", fees=(Fee(key="base", amount=Decimal("49.90")),)),
            Plan(
                key="free",
                currency="JPY",
                fees=(Fee(key="base", amount=Decimal("0.000000000000000001")),),
            ),
        )
    )
    assert expected == read_document(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-7", -7),
        ("1.10", Decimal("1.10")),
        ("2.5e-06", Decimal("0.0000025")),
        ("1.", Decimal(1)),
        (".5", Decimal("0.5")),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1.2.3", "1.2.3"),
        ("2026-01-01", "2026-01-01"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    read = value_of(f"a: {text}\n")
    assert isinstance(read, dict)
    assert (type(value), value) == (type(read["a"]), read["a"])


def test_no_number_is_ever_a_float() -> None:
    assert "0.1000000000000000055511151231257827" == str(
        value_of("0.1000000000000000055511151231257827")
    )


@pytest.mark.parametrize(
    ("text", "pointer", "line", "message"),
    [
        (b"", "", 1, "empty"),
        (b"a: 1\na: 2\n", "", 2, "'a' occurs twice"),
        (b"p:\n- x: {k: 1,\n    k: 2}\n", "/p/0/x", 3, "'k' occurs twice"),
        (b"a: 1\n---\nb: 1\n", "", 2, "more than one document"),
        (b"a:\n  b: *nothing\n", "/a/b", 2, "*nothing"),
        (b"a: &a [1, *a]\n", "/a/1", 1, "*a"),
        (b"a: !!float 1\n", "/a", 1, "float"),
        (b"a: !!python/object/apply:os.system [ls]\n", "/a", 1, "python"),
        (b"? [1]\n: 2\n", "", 1, "key must be a text"),
        (b'a: "\\0"\n', "/a", 1, "U+0000"),
        (b'{"a\\u0000": 1}', "", 1, "U+0000"),
        (b"a: 1\nb: \xff\n", "", 2, "UTF-8"),
        (b"a: " + b"9" * 101, "/a", 1, "100 characters"),
        (b"plans:\n - key: a\n  b", "/plans/1", 3, "expected"),
        (b'a: "\\\\ud83c\\udfab"', "/a", 1, "escape"),
        (b'{"plans": [{"key": ]}]}', "/plans/0/key", 1, "expected"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    text: bytes, pointer: str, line: int, message: str
) -> None:
    fault = fault_of(text)
    assert (pointer, line) == (fault.pointer, fault.line)
    assert message in fault.message


def test_depth_size_and_aliases_are_bounded() -> None:
    assert isinstance(read_yaml(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX), Tree)
    assert "levels" in fault_of(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1)).message
    assert "levels" in fault_of(b"[" * 100_000).message
    assert "bytes" in fault_of(b"a" * (SIZE_MAX + 1)).message
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 12):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert "aliases counted in full" in fault_of(bomb.encode()).message


def test_an_anchor_may_be_used_again() -> None:
    assert {"a": [1, {"b": 2}], "c": [[1, {"b": 2}], 3]} == value_of(
        "a: &a [1, {b: 2}]\nc: [*a, &n 3]\n"
    )


def test_lines_are_known_by_pointer() -> None:
    tree = read_yaml(b"plans:\n- key: a\n  fees:\n  - key: x/y\n    amount: 1\na/~b: 1\n")
    assert isinstance(tree, Tree)
    assert 5 == tree.lines["/plans/0/fees/0/amount"]
    assert 4 == tree.lines["/plans/0/fees/0"]
    assert 6 == tree.lines["/a~1~0b"]


def test_every_object_tells_its_first_fault_with_its_line() -> None:
    text = b"""plans:
- key: 1
  currency: USD
- key: b
  currency: USD
  fees:
  - {key: base, amount: 1}
  - {key: extra}
meters: 3
"""
    problems = read_document(text)
    assert isinstance(problems, list)
    expected = [
        ("wrong_type", "/plans/0/key", 2),
        ("missing_field", "/plans/1/fees/1/amount", 8),
        ("wrong_type", "/meters", 9),
    ]
    assert expected == [
        (str(item.code), item.pointer, int(item.message.split("(line ")[1].rstrip(")")))
        for item in problems
    ]


def test_a_time_keeps_its_offset() -> None:
    text = b"rate_cards:\n- {key: a, currency: USD, effective_from: 2026-01-01T00:00:00+02:00}\n"
    document = read_document(text)
    assert isinstance(document, Document)
    expected = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert expected == document.rate_cards[0].effective_from
    assert datetime(2025, 12, 31, 22, tzinfo=UTC) == document.rate_cards[0].effective_from


def test_json_with_escaped_letters_beyond_the_first_plane_is_yaml_too() -> None:
    text = json.dumps({"partners": [{"key": "a", "name": "fare 🎫 \\ud83c\\udfab \\"}]})
    document = read_document(text.encode())
    assert isinstance(document, Document)
    assert "fare 🎫 \\ud83c\\udfab \\" == document.partners[0].name


NUMBERS = st.decimals(-(10**9), 10**9, allow_nan=False, places=6)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS, lambda item: st.lists(item, max_size=4) | st.dictionaries(TEXTS, item, max_size=4)
)


@given(VALUES)
def test_any_json_reads_as_the_same_value(value: object) -> None:
    text = msgspec.json.Encoder(decimal_format="number").encode(value)
    tree = read_yaml(text)
    assert isinstance(tree, Tree), (tree, text)
    assert value == tree.value


def test_a_whole_price_is_read_in_its_model() -> None:
    text = b"""
rate_cards:
- key: llm
  currency: USD
  rates:
  - meter: tokens
    price:
      model: matrix
      dimensions: [model, token_kind]
      per: 1000000
      cells:
      - {match: {model: gpt-4o, token_kind: input}, unit: 2.50}
      - {match: {model: "*", token_kind: output}, unit: 10}
"""
    document = read_document(text)
    assert isinstance(document, Document)
    price = document.rate_cards[0].rates[0].price
    assert isinstance(price, Matrix)
    assert [Decimal("2.5"), Decimal(10)] == [cell.unit for cell in price.cells]
