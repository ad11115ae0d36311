"""The quote: every example of docs/pricing.md, the command, and whatever strangers may send."""

import json
import re
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.code import CatalogCode
from farebox.catalog.price import Price
from farebox.catalog.price_check import PriceCode
from farebox.cli.quote import quote, quote_command
from farebox.rating.adjust import AppliedKind
from farebox.rating.quote import QuoteCode

PAGE = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```\n\n```result\n(.*?)```", PAGE, re.DOTALL)


def rows_of(document: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in quote(document).splitlines()]


def as_text(row: dict[str, Any]) -> list[str]:
    """Tell a row of the quote the way the page does."""
    match row["type"]:
        case "problem":
            return [f"problem {row['code']} at {row['pointer']}: {row['message']}"]
        case "unpriced":
            return [f"unpriced: quantity {row['usage']['quantity']}, reason {row['reason']}"]
        case "total":
            return [f"total: {row['amount']} {row['currency']}"]
    text = []
    for part in row.get("parts", ()):
        quantity = f"quantity {part['quantity']}, " if part["quantity"] != "0" else ""
        text.append(f"{part['kind']} ({part['label']}): {quantity}amount {part['amount']}")
    for step in row.get("applied", ()):
        amount = "" if step["kind"] == "included" else f" {step['amount']}"
        text.append(f"{step['kind']}{amount}: {step['reason']}")
    if row["kind"] == "minimum":
        return [*text, f"minimum line: amount {row['amount']}"]
    return [*text, f"line: quantity {row['quantity']}, amount {row['amount']}"]


@pytest.mark.parametrize(("document", "expected"), EXAMPLES)
def test_example_of_the_page(document: str, expected: str) -> None:
    told = [line for row in rows_of(document.encode()) for line in as_text(row)]
    assert expected.splitlines() == told


def test_the_page_has_every_example_model_adjustment_and_code() -> None:
    assert PAGE.count("```json") == len(EXAMPLES)
    models = {struct.__struct_config__.tag for struct in Price.__args__}
    headings = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    assert models == headings
    table = re.findall(r"^\| `(\w+)` \|", PAGE[PAGE.index("## Why a price is refused") :], re.M)
    assert [code.value for code in PriceCode] == table
    numbered = re.findall(r"^\d\. `(\w+)`", PAGE, re.MULTILINE)
    assert [kind.value for kind in AppliedKind] == numbered
    assert [code for code in QuoteCode if f"`{code}`" not in PAGE] == []


GOOD: dict[str, Any] = {
    "currency": "USD",
    "price": {"model": "per_unit", "unit": "1"},
    "usage": [{"quantity": "1"}],
}

REFUSED: list[tuple[str, str, bytes]] = [
    (CatalogCode.MALFORMED, "", b'{"currency": "USD"'),
    (CatalogCode.MALFORMED, "", b""),
    (CatalogCode.MALFORMED, "", b"\xff\xfe"),
    (CatalogCode.MALFORMED, "/price", b'{"price": "\\u0000"}'),
    (CatalogCode.WRONG_TYPE, "", b"[]"),
    (CatalogCode.MISSING_FIELD, "/currency", b"{}"),
    (CatalogCode.UNKNOWN_FIELD, "/tax", b'{"currency": "USD", "tax": 1}'),
    (
        CatalogCode.WRONG_TYPE,
        "/price/unit",
        b'{"currency":"USD","price":{"model":"per_unit","unit":[]}}',
    ),
    (CatalogCode.WRONG_TYPE, "/price/model", b'{"currency":"USD","price":{"model":"free"}}'),
    (CatalogCode.UNKNOWN_CURRENCY, "/currency", json.dumps({**GOOD, "currency": "XXQ"}).encode()),
    (
        CatalogCode.NUMBER_OUT_OF_RANGE,
        "/usage/0/quantity",
        json.dumps({**GOOD, "usage": [{"quantity": "NaN"}]}).encode(),
    ),
    (
        CatalogCode.NUMBER_OUT_OF_RANGE,
        "/usage/0/values/0",
        json.dumps({**GOOD, "usage": [{"values": ["sNaN"]}]}).encode(),
    ),
    (
        CatalogCode.NUMBER_OUT_OF_RANGE,
        "/price/unit",
        b'{"currency":"USD","price":{"model":"per_unit","unit":NaN}}',
    ),
    (
        CatalogCode.NUMBER_OUT_OF_RANGE,
        "/price/unit",
        b'{"currency":"USD","price":{"model":"per_unit","unit":1e400}}',
    ),
    (
        CatalogCode.WRONG_TYPE,
        "/usage/0/events",
        json.dumps({**GOOD, "usage": [{"quantity": "1", "events": -1}]}).encode(),
    ),
    (
        PriceCode.LAST_TIER_BOUNDED,
        "/charges/1/price/tiers/0/up_to",
        json.dumps(
            {
                "currency": "USD",
                "charges": [
                    {"price": {"model": "dynamic"}},
                    {"price": {"model": "volume", "tiers": [{"up_to": 5}]}},
                ],
            }
        ).encode(),
    ),
    (
        PriceCode.PERCENT_OUT_OF_RANGE,
        "/adjustments/discount_percent",
        json.dumps({**GOOD, "adjustments": {"discount_percent": 101}}).encode(),
    ),
    (QuoteCode.CHARGE_MISSING, "", b'{"currency": "USD"}'),
    (
        QuoteCode.CHARGE_AMBIGUOUS,
        "/charges",
        json.dumps({**GOOD, "charges": [{"key": "a"}]}).encode(),
    ),
    (
        QuoteCode.CHARGE_AMBIGUOUS,
        "/segments",
        json.dumps({**GOOD, "segments": [{"usage": []}]}).encode(),
    ),
    (QuoteCode.QUANTITY_MISSING, "/usage/0", json.dumps({**GOOD, "usage": [{}]}).encode()),
    (
        QuoteCode.VALUES_MISMATCH,
        "/usage/0/quantity",
        json.dumps({**GOOD, "usage": [{"quantity": "3", "values": ["1"]}]}).encode(),
    ),
    (
        QuoteCode.VALUES_MISMATCH,
        "/usage/0/events",
        json.dumps({**GOOD, "usage": [{"events": 2, "values": ["1"]}]}).encode(),
    ),
]


@pytest.mark.parametrize(("code", "pointer", "document"), REFUSED)
def test_refused_quote(code: str, pointer: str, document: bytes) -> None:
    rows = rows_of(document)
    assert [("problem", code, pointer)] == [
        (row["type"], row["code"], row["pointer"]) for row in rows
    ]
    assert all(row["message"] for row in rows)


def test_every_code_of_a_quote_has_a_row_in_order_of_precedence() -> None:
    codes = [code for code, _, _ in REFUSED if isinstance(code, QuoteCode)]
    assert list(QuoteCode) == list(dict.fromkeys(codes))


def test_deep_nesting_is_refused() -> None:
    (row,) = rows_of(b"[" * 100_000)
    assert row["code"] == CatalogCode.MALFORMED


def test_usage_without_any_price_is_unpriced() -> None:
    rows = rows_of(b'{"currency": "KWD", "usage": [{"quantity": 3}]}')
    assert rows == [
        {
            "type": "unpriced",
            "charge": "usage",
            "usage": {"quantity": "3", "events": 0},
            "reason": "no_rate",
        },
        {"type": "total", "amount": "0.000", "currency": "KWD"},
    ]


def test_json_numbers_are_exact() -> None:
    document = (
        b'{"currency": "USD", "price": {"model": "per_unit", "unit": 0.1},'
        b' "usage": [{"quantity": 12345678901234567890.123456789012345678}]}'
    )
    line, total = rows_of(document)
    assert line["exact"] == "1234567890123456789.0123456789012345678"
    assert total["amount"] == "1234567890123456789.01"


def test_the_command_prints_the_quote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "quote.json"
    file.write_text(json.dumps(GOOD))
    assert quote_command(file) == 0
    assert capsys.readouterr().out == quote(file.read_bytes()).decode()


def test_the_command_ends_with_2_when_the_file_is_refused_or_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "quote.json"
    file.write_text("{")
    assert quote_command(file) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "malformed"
    assert quote_command(tmp_path / "absent.json") == 2
    assert capsys.readouterr().err == (
        f"farebox quote: No such file or directory: {tmp_path / 'absent.json'}\n"
    )


odd = st.one_of(
    st.integers(),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.decimals(-(10**20), 10**20, places=18).map(str),
    st.sampled_from(["1e999999999", "-0", "0.1", "0", "x", "1e-18", "4194304", 10**400]),
    # A copy each time: the next change may put something inside.
    st.sampled_from([None, True, [], {}, ["1"], [{}]]).map(deepcopy),
)


def places_of(value: Any) -> list[list[Any]]:
    """Return the path of everything inside a decoded document."""
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return []
    return [[key, *rest] for key, item in inside for rest in [[], *places_of(item)]]


@given(st.data(), st.sampled_from([example for example, _ in EXAMPLES]))
def test_any_document_is_rated_or_refused_by_name(data: st.DataObject, example: str) -> None:
    document = json.loads(example)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places_of(document)))
        target = document
        for step in path:
            target = target[step]
        target[last] = data.draw(odd)
    rows = rows_of(json.dumps(document).encode())
    assert {row["type"] for row in rows} == {"problem"} or rows[-1]["type"] == "total"


def test_what_is_written_can_be_read_as_numbers() -> None:
    line, _ = rows_of(json.dumps(GOOD).encode())
    assert Decimal(line["exact"]) == Decimal(line["amount"])
    assert msgspec.json.decode(quote(json.dumps(GOOD).encode()).splitlines()[0])["type"] == "line"
