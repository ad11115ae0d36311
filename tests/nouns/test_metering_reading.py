"""What a meter reads from an event, and one row for each code of what it cannot read."""

from decimal import Decimal
from typing import Any

import pytest

from farebox.catalog.meter import Aggregation, Meter, Spread
from farebox.metering.reading import (
    Reading,
    ReadingCode,
    ReadingRefusal,
    compile_meter,
    meter_dimensions,
)


def meter(**changes: Any) -> Meter:
    sound = {"key": "m", "event_type": "t", "aggregation": Aggregation.SUM, "value": "$.n"}
    return Meter(**{**sound, **changes})


def read(meter: Meter, data: Any, subject: str | None = "u") -> Any:
    return compile_meter(meter).read(data, "t", "s", subject)


SPREAD = meter(
    value=None,
    spread=Spread(dimension="kind", values={"in": "$.i", "out": "2 * o", "cached": "$.c"}),
    dimensions={"model": "$.model"},
)


def test_one_reading_with_its_dimensions_in_order() -> None:
    asked = meter(dimensions={"region": "$.r", "model": "$.m"}, filter="data.r != 'test'")
    expected = (Reading(Decimal("1.5"), ("eu", "gpt"), "u", ""),)
    assert expected == read(asked, {"n": "1.5", "r": "eu", "m": "gpt"})
    assert read(asked, {"n": 1, "r": "test", "m": "gpt"}) == ()
    assert read(asked, {"n": 1}) == ()
    assert meter_dimensions(asked) == ("region", "model")


def test_a_spread_gives_a_reading_for_each_value_that_is_there() -> None:
    expected = (
        Reading(Decimal(3), ("gpt", "in"), "", ""),
        Reading(Decimal(10), ("gpt", "out"), "", ""),
    )
    assert expected == read(SPREAD, {"i": 3, "o": 5, "c": 0, "model": "gpt"}, None)
    assert read(SPREAD, {"model": "gpt", "i": None, "c": Decimal("0.0")}) == ()
    assert meter_dimensions(SPREAD) == ("model", "kind")


def test_a_bad_spread_value_refuses_the_event() -> None:
    refusal = ReadingRefusal(ReadingCode.VALUE_NOT_A_NUMBER, "m", "spread.out", "2 * o")
    assert refusal == read(SPREAD, {"i": 3, "o": [5]})


def test_count_reads_one_of_any_event() -> None:
    count = meter(aggregation=Aggregation.COUNT, value=None)
    assert (Reading(Decimal(1), (), "", ""),) == read(count, None, None)
    assert (Reading(Decimal(1), (), "u", ""),) == read(count, ["no object"])
    assert (Reading(Decimal(1), (), "u", ""),) == read(count, "text")


@pytest.mark.parametrize("path", ["$.n", "n"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), ("", ""), (5, "5"), ("5", "5"), (Decimal("5.0"), "5"), (True, "true")],
)
def test_unique_count_reads_text(path: str, value: object, expected: str) -> None:
    unique = meter(aggregation=Aggregation.UNIQUE_COUNT, value=path)
    assert (Reading(expected, (), "u", ""),) == read(unique, {"n": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (12, "12"),
        (-3, "-3"),
        (Decimal("1.50"), "1.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("-0.0"), "0"),
        (Decimal("0E+999999"), "0"),
        (Decimal("0." + "3" * 130), "0." + "3" * 130),
        ("x" * 256, "x" * 256),
    ],
)
def test_dimensions_are_text_in_one_form(value: object, expected: str) -> None:
    asked = meter(dimensions={"d": "$.d"}, subject="$.d", customer="$.d")
    expected_reading = Reading(Decimal(1), (expected,), expected, expected)
    assert (expected_reading,) == read(asked, {"n": 1, "d": value})


def test_who_used_it_is_the_event_s_subject_unless_the_meter_says_where() -> None:
    assert read(meter(), {"n": 1})[0].subject == "u"
    assert read(meter(), {"n": 1}, None)[0].subject == ""
    named = meter(subject="$.user", customer="$.account.id")
    found = read(named, {"n": 1, "user": "ann", "account": {"id": 77}})
    assert (found[0].subject, found[0].customer) == ("ann", "77")
    assert (read(named, {"n": 1})[0].subject, read(named, {"n": 1})[0].customer) == ("", "")


UNIQUE = {"aggregation": Aggregation.UNIQUE_COUNT}
EVERYWHERE = {"dimensions": {"d": "$.d"}, "subject": "$.s", "customer": "$.c"}
REFUSED: list[tuple[ReadingCode, dict[str, Any], dict[str, Any], str]] = [
    (ReadingCode.FILTER_FAILED, {"filter": "data.n > 1"}, {"n": "x"}, "filter"),
    (ReadingCode.FILTER_NOT_BOOLEAN, {"filter": "data.n"}, {"n": 1}, "filter"),
    (ReadingCode.VALUE_MISSING, {}, {}, "value"),
    (ReadingCode.VALUE_NOT_A_NUMBER, {}, {"n": True}, "value"),
    (ReadingCode.NUMBER_OUT_OF_RANGE, {}, {"n": 10**20}, "value"),
    (ReadingCode.DIVISION_BY_ZERO, {"value": "1 / n"}, {"n": 0}, "value"),
    (ReadingCode.VALUE_NOT_SCALAR, UNIQUE, {"n": [1]}, "value"),
    (ReadingCode.VALUE_TOO_LONG, UNIQUE, {"n": "x" * 257}, "value"),
    (ReadingCode.DIMENSION_NOT_SCALAR, EVERYWHERE, {"n": 1, "d": {}}, "dimensions.d"),
    (ReadingCode.DIMENSION_TOO_LONG, EVERYWHERE, {"n": 1, "d": "x" * 257}, "dimensions.d"),
    (ReadingCode.SUBJECT_NOT_SCALAR, EVERYWHERE, {"n": 1, "s": []}, "subject"),
    (ReadingCode.SUBJECT_TOO_LONG, EVERYWHERE, {"n": 1, "s": 10**5000}, "subject"),
    (ReadingCode.CUSTOMER_NOT_SCALAR, EVERYWHERE, {"n": 1, "c": []}, "customer"),
    (ReadingCode.CUSTOMER_TOO_LONG, EVERYWHERE, {"n": 1, "c": Decimal("1E+999999")}, "customer"),
    (ReadingCode.TEXT_HAS_NUL, EVERYWHERE, {"n": 1, "d": "a\0b"}, "dimensions.d"),
]


@pytest.mark.parametrize(("code", "changes", "data", "field"), REFUSED)
def test_each_refusal_has_its_code_and_field(
    code: ReadingCode, changes: dict[str, Any], data: dict[str, Any], field: str
) -> None:
    refusal = read(meter(**changes), data)
    assert isinstance(refusal, ReadingRefusal)
    assert (code, "m", field) == (refusal.code, refusal.meter, refusal.field)
    assert refusal.path


def test_every_code_has_its_row_in_order() -> None:
    assert list(ReadingCode) == [row[0] for row in REFUSED]


@pytest.mark.parametrize(
    ("changes", "data", "subject"),
    [
        ({}, {"n": 1}, "a\0"),
        (UNIQUE, {"n": "\0"}, "u"),
        ({"subject": "$.s"}, {"n": 1, "s": "\0"}, "u"),
        ({"customer": "$.c"}, {"n": 1, "c": "x\0"}, "u"),
        ({"dimensions": {"d": "$.d"}}, {"n": 1, "d": "\0"}, "u"),
    ],
)
def test_nul_is_refused_wherever_text_is_kept(
    changes: dict[str, Any], data: dict[str, Any], subject: str
) -> None:
    refusal = read(meter(**changes), data, subject)
    assert ReadingCode.TEXT_HAS_NUL is refusal.code


def test_null_is_as_good_as_absent() -> None:
    for code_meter in (meter(), meter(value="n + 1"), meter(**UNIQUE)):
        assert ReadingCode.VALUE_MISSING is read(code_meter, {"n": None}).code


PLACED: list[tuple[dict[str, Any], set[tuple[object, ...]] | None, bool]] = [
    ({}, set(), False),
    ({"dimensions": {"d": "$.d", "e": "$.o['e']"}}, {("d",), ("o", "e")}, False),
    ({"dimensions": {"d": "$.l[0].d"}, "subject": "$.s"}, {("l", 0, "d"), ("s",)}, False),
    ({"customer": "$.c", "filter": "data.a == data.b"}, {("c",), ("a",), ("b",)}, False),
    ({"filter": "type == 't' && subject == 'u'"}, set(), False),
    ({"filter": "source == 's' || data.a == 1"}, {("a",)}, True),
    ({"dimensions": {"d": "$.l[*]"}}, None, False),
    ({"dimensions": {"d": "$"}}, None, False),
    ({"subject": "$..s"}, None, False),
    ({"filter": "data.o.a == 1 && source == 's'"}, None, False),
    ({"filter": "data['a'] == 1"}, None, False),
    ({"filter": "has(data.a)"}, None, False),
]


@pytest.mark.parametrize(("changes", "fields", "reads_source"), PLACED)
def test_what_decides_where_a_reading_belongs_is_named_if_it_is_certain(
    changes: dict[str, Any], fields: set[tuple[object, ...]] | None, reads_source: bool
) -> None:
    compiled = compile_meter(meter(**changes))
    assert (fields, reads_source) == (compiled.fields, compiled.reads_source)


def test_a_place_is_found_whatever_the_value() -> None:
    compiled = compile_meter(
        meter(dimensions={"d": "$.d"}, customer="$.c", filter="data.d != 'test'")
    )
    assert ("u", "acme", ("5",)) == compiled.place({"d": 5, "c": "acme"}, "t", "s", "u")
    assert ("", "", ("",)) == compiled.place({"n": "many", "d": ""}, "t", "s", None)
    assert None is compiled.place({"d": "test", "c": []}, "t", "s", "u")
    assert ReadingRefusal(ReadingCode.CUSTOMER_NOT_SCALAR, "m", "customer", "$.c") == (
        compiled.place({"d": "", "c": []}, "t", "s", "u")
    )


def test_a_value_is_read_wherever_it_belongs() -> None:
    assert Decimal("1.5") == compile_meter(meter()).value({"n": "1.5"})
    assert [("in", Decimal(3))] == compile_meter(SPREAD).value({"i": 3, "o": 0})
    assert "5" == compile_meter(meter(**UNIQUE)).value({"n": 5})
    assert Decimal(1) == compile_meter(meter(aggregation=Aggregation.COUNT, value=None)).value({})
    refusal = ReadingRefusal(ReadingCode.VALUE_MISSING, "m", "value", "$.n")
    assert refusal == compile_meter(meter()).value({})
