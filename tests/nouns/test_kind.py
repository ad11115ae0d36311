"""The meters of one type remember places; whatever came before, an event is filed as if read anew.

The oracle has no memory, not even of filters: it reads by each meter and names the series.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from farebox.catalog.filter import Filter, compile_program, evaluate
from farebox.catalog.meter import Aggregation, Meter, Spread
from farebox.catalog.meter_check import check_meter
from farebox.catalog.path import Fault
from farebox.metering import kind as metering_kind
from farebox.metering import reading
from farebox.metering.kind import Filed, Kind, MeterVersion
from farebox.metering.reading import CompiledMeter, ReadingRefusal, compile_meter
from farebox.metering.series import keeping_of, series_of
from farebox.period.instant import BEGINNING, END

ORGANIZATION = bytes(range(16))
CHANGE = datetime(2026, 9, 10, tzinfo=UTC)


def meter(key: str, **fields: Any) -> Meter:
    usual = {"aggregation": Aggregation.SUM, "value": "n"}
    if "spread" in fields:
        del usual["value"]
    return Meter(**{"key": key, "event_type": "call", **usual, **fields})


COUNT = {"aggregation": Aggregation.COUNT, "value": None}
UNIQUE = {"aggregation": Aggregation.UNIQUE_COUNT}
FILTERS = (
    "data.a == 'a'", "data.a != 'a'", "data.a == 1", "data.a == 1.0", "data.b == true",
    "data.a == data.b", "data.a in ['a', '1']", "!data.b", "data.b", "data.a > 0",
    "data.a.startsWith('a')", "size(data.a) > 0", "int(data.a) == 1", "string(data.a) == '1'",
    "data.a == null", "type == 'call'", "source == 's'", "subject == ''", "subject == 'u'",
    "source == 's' || data.a == 'a'", "data.a == 1 || data.b == 1", "has(data.a)",
    "data.o.b == 'a'", "data.o.b == 1 || data.a == 'a'", "type(data.a) == int",
    "data.a / data.b > 1", "data.list[0] == 'a'", "data.n > 1", "string(data.a) == '-0'",
    "data.o.b != 'a'", "data.list == data.o",
)  # fmt: skip
METERS = (
    meter("count", **COUNT),
    meter("plain", dimensions={"a": "$.a"}),
    meter("path", value="$.n", dimensions={"a": "$.a", "b": "$['b']"}),
    meter("nested", dimensions={"b": "$.o.b", "c": "$.o.b.c"}),
    meter("index", dimensions={"first": "$.list[0]", "last": "$.list[-1]"}),
    meter("no_key", dimensions={"x": "$[0]", "a": "$.a"}),
    meter("wildcard", dimensions={"any": "$.list[*]", "a": "$.a"}),
    meter("whole", **COUNT, dimensions={"all": "$"}),
    meter("user", **COUNT, subject="$.a"),
    meter("payer", dimensions={"b": "$.b"}, customer="$.o.b"),
    meter("people", **COUNT, subject="$.b", customer="$.a"),
    meter("unique", **{**UNIQUE, "value": "b"}, dimensions={"a": "$.a"}),
    meter("unique_path", **{**UNIQUE, "value": "$.o.b"}),
    meter(
        "percentile",
        aggregation=Aggregation.PERCENTILE,
        percentile=Decimal(95),
        dimensions={"a": "$.a"},
    ),
    meter("latest", aggregation=Aggregation.LATEST, value="n * 2", dimensions={"b": "$.b"}),
    meter("kept", per_event=True, dimensions={"a": "$.a"}),
    meter("divided", value="1 / n"),
    meter("spread", spread=Spread(dimension="kind", values={"n": "$.n", "m": "m", "b": "b * 2"})),
    meter(
        "spread_by",
        spread=Spread(dimension="kind", values={"n": "n", "m": "$.m"}),
        dimensions={"a": "$.a"},
        filter="data.b != 'a'",
        per_event=True,
    ),
    *[
        meter(f"filter_{place}", **COUNT, filter=text, dimensions={"b": "$.b"} if place % 2 else {})
        for place, text in enumerate(FILTERS)
    ],
)

# What is equal in Python, or in text, or nearly: each must be told from the others.
TEXTS = ["a", "b", "", "1", "0", "true", "null", "1.0", "-0", "x" * 128, "x" * 129, "x" * 257,
         "a\0", "é"]  # fmt: skip
INTEGERS = [0, 1, -1, 2, 999, 1000, -1000, -1001, 10**20, 2**61 - 1, 10**300]
DECIMALS = [Decimal(text) for text in ("1", "1.0", "0", "-0", "-1", "2.5", "1E+3", "1E+400")]
SCALARS: list[Any] = [None, True, False, *TEXTS, *INTEGERS, *DECIMALS]
STRUCTURES: list[Any] = [[], ["a"], [1], [True], [["a"]], {}, {"b": "a"}, {"b": 1}, {"b": True},
                         {"b": None}, {"b": {"c": "a"}}, {"b": ["a"]}, {"c": "a"}]  # fmt: skip
SELDOM = st.sampled_from([*SCALARS, *STRUCTURES])
OFTEN = st.sampled_from(["a", "1", 1, True, Decimal(1), None])
ABSENT = object()
FIELD = st.one_of(OFTEN, OFTEN, st.just(ABSENT), SELDOM)
NUMBER = st.one_of(st.sampled_from([1, 2, Decimal("0.5"), "3", 0]), SELDOM, st.just(ABSENT))


class Sent(Struct, frozen=True):
    """All that a kind is told of an event."""

    content: Any
    source: str
    subject: str | None
    time: datetime


def _data(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not ABSENT}


SENT = st.builds(
    Sent,
    content=st.one_of(
        *[
            st.fixed_dictionaries(
                {"n": NUMBER, "a": FIELD, "b": FIELD},
                optional={
                    "m": NUMBER,
                    "o": st.sampled_from([*STRUCTURES, "a", None]),
                    "list": st.sampled_from([*STRUCTURES, "a", None]),
                },
            ).map(_data)
        ]
        * 9,
        st.sampled_from([None, "a", 1, ["a"], {}]),
    ),
    source=st.sampled_from(["s", "s", "t", "s" * 129]),
    subject=st.sampled_from(["u", "u", None, "", "1", "u" * 129, "u\0"]),
    time=st.sampled_from([CHANGE, CHANGE, CHANGE - timedelta(microseconds=1), BEGINNING]),
)
SPANS = st.sampled_from(
    [(BEGINNING, END), (BEGINNING, END), (BEGINNING, CHANGE), (CHANGE, END), (CHANGE, CHANGE)]
)
VERSIONS = st.lists(st.tuples(st.sampled_from(METERS), SPANS), min_size=1, max_size=3).map(
    lambda some: tuple(
        MeterVersion(one, number, starts, ends) for number, (one, (starts, ends)) in enumerate(some)
    )
)
SENDING = st.lists(SENT, min_size=1, max_size=5).flatmap(
    lambda some: st.lists(st.sampled_from(some), min_size=1, max_size=12)
)


def filter_without_memory(text: str) -> Filter:
    program = compile_program(text)
    assert not isinstance(program, Fault)
    return lambda data, kind, source, subject: evaluate(program, data, kind, source, subject)


@cache
def compiled(key: str) -> CompiledMeter:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "compile_filter", filter_without_memory)
        return compile_meter(next(one for one in METERS if one.key == key))


def read_anew(versions: Sequence[MeterVersion], sent: Sent) -> list[Filed] | ReadingRefusal:
    filed: list[Filed] = []
    for version in versions:
        if not version.effective_from <= sent.time < version.effective_to:
            continue
        key = version.meter.key
        readings = compiled(key).read(sent.content, "call", sent.source, sent.subject)
        if isinstance(readings, ReadingRefusal):
            return readings
        for one in readings:
            place = one.subject, one.customer, one.dimensions
            series = series_of(ORGANIZATION, key, version.version, *place)
            keeping = keeping_of(version.meter)
            filed.append(Filed(series, one.value, keeping, version.meter.per_event))
    return filed


def read(kind: Kind, sent: Sent) -> list[Filed] | ReadingRefusal:
    return kind.read(sent.content, "call", sent.source, sent.subject, sent.time)


def test_the_meters_of_this_test_are_sound() -> None:
    assert [] == [problem for one in METERS for problem in check_meter(one, "")]


def test_some_of_the_meters_of_this_test_have_a_memory_and_some_have_not() -> None:
    remembering = {one.key for one in METERS if compiled(one.key).fields is not None}
    assert {"wildcard", "whole"} == {one.key for one in METERS[:19]} - remembering
    assert 20 < len([key for key in remembering if key.startswith("filter_")]) < len(FILTERS)
    source_reading = {one.filter for one in METERS if compiled(one.key).reads_source}
    assert {"source == 's'", "source == 's' || data.a == 'a'"} == source_reading


@pytest.mark.parametrize("remembered", [1, 2, 20_000])
@given(versions=VERSIONS, sending=SENDING)
@settings(max_examples=1000, deadline=None)
def test_what_is_remembered_changes_nothing(
    remembered: int, versions: tuple[MeterVersion, ...], sending: list[Sent]
) -> None:
    """Events come in any order, again and again; each is filed or refused as if it were alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metering_kind, "_PLACES_REMEMBERED", remembered)
        patched.setattr(metering_kind, "_SERIES_REMEMBERED", remembered)
        kind = Kind(ORGANIZATION, versions)
        for sent in (*sending, *sending):
            # By their text, because 1 and 1.0 and true are equal.
            assert repr(read_anew(versions, sent)) == repr(read(kind, sent))
            assert len(kind._places) <= remembered


EVENTS = [
    Sent({"n": n, "a": a, name: value}, "s", "u", CHANGE)
    for n in (1, "many")
    for a in ("a", 1)
    for name in ("o", "list")
    for value in [*STRUCTURES, *SCALARS]
]
EVENTS += [
    Sent({"n": 1, "a": a, "b": b}, source, "u", CHANGE)
    for a in [*SCALARS, [], {}]
    for b in ("a", 1, True)
    for source in ("s", "t")
]
EVENTS += [
    Sent({"n": n}, "s", subject, CHANGE) for n in SCALARS for subject in (None, "", "u", "1", "é")
]


@pytest.mark.parametrize("key", [one.key for one in METERS])
def test_each_meter_tells_each_value_from_each_other(key: str) -> None:
    """Every field takes every value, forth and back, so that each is met by what others left."""
    version = MeterVersion(compiled(key).meter, 1, BEGINNING, END)
    forth, back = Kind(ORGANIZATION, [version]), Kind(ORGANIZATION, [version])
    expected = [repr(read_anew([version], sent)) for sent in EVENTS]
    for _ in range(2):
        assert expected == [repr(read(forth, sent)) for sent in EVENTS]
        assert expected[::-1] == [repr(read(back, sent)) for sent in EVENTS[::-1]]


def test_an_event_of_known_texts_is_filed_without_a_look_at_the_filter() -> None:
    version = MeterVersion(meter("m", filter="data.a == 'a'"), 1, BEGINNING, END)
    kind = Kind(ORGANIZATION, [version])
    first = read(kind, Sent({"n": 1, "a": "a"}, "s", "u", CHANGE))
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(CompiledMeter, "place")
        second = read(kind, Sent({"n": 2, "a": "a"}, "t", "u", CHANGE))
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert first[0].series is second[0].series
    assert (Decimal(1), Decimal(2)) == (first[0].value, second[0].value)
