"""Nothing that is sent raises, takes long, or spoils the event beside it."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farebox.events.admit import Admitted, admit
from farebox.events.decode import decode
from farebox.events.event import Event
from farebox.events.json_text import NotJson, _cut_deep_parts, _standard_decode, decode_json
from farebox.events.refusal import Malformed, Rejection

NOW = datetime(2026, 10, 17, 9, tzinfo=UTC)
BATCH = "application/cloudevents-batch+json"
TYPES = [BATCH, "application/cloudevents+json", "application/json", "application/x-ndjson"]
GOOD = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":1,"x":0.5}}'


def with_data(text: str) -> bytes:
    return GOOD.replace(b'{"n":1,"x":0.5}', text.encode())


HOSTILE = [
    with_data("[" * 100_000 + "]" * 100_000),
    with_data('{"a":' * 100_000 + "1" + "}" * 100_000),
    with_data('[{"a":' * 3_000 + "1" + "}]" * 3_000),
    b"[" * 5_000 + b"]" * 5_000,
    with_data("1" * 10_000),
    with_data("-1e400"),
    with_data('"\\ud800"'),
    with_data('{"\\udc00":"\\ud800\\ud800"}'),
    with_data('"\\u0000"'),
    with_data('"]}\\"[[{"'),
    GOOD.replace(b'"1"', b"1"),
    GOOD.replace(b'"1.0"', b"[]"),
    GOOD.replace(b'"data"', b'"time"'),
    GOOD.replace(b'"type"', b'"typ\\u0000"'),
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"1e999",
    GOOD,
]


def codes(results: object) -> list[str | None]:
    assert isinstance(results, list)
    return [getattr(result, "code", None) for result in results]


def alone(event: bytes) -> Event | Rejection:
    (result,) = decode(BATCH, (), b"[" + event + b"]")
    assert isinstance(result, Event | Rejection)
    return result


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(HOSTILE), max_size=6))
@example(HOSTILE)
def test_each_event_of_a_batch_is_read_as_if_it_were_alone(events: list[bytes]) -> None:
    expected = [alone(event) for event in events]
    for content_type, body in (
        (BATCH, b"[" + b",".join(events) + b"]"),
        ("application/x-ndjson", b"\n".join(events)),
    ):
        results = decode(content_type, (), body)
        assert isinstance(results, list)
        assert codes(expected) == codes(results)
        for index, (one, result) in enumerate(zip(expected, results, strict=True)):
            if isinstance(result, Rejection):
                assert isinstance(one, Rejection)
                assert (index, one.pointer, one.id) == (result.index, result.pointer, result.id)
            else:
                assert one == result


def test_hostile_events_get_their_codes() -> None:
    expected = [
        *["nested_too_deep"] * 3,
        "not_an_object",
        *["number_out_of_range"] * 2,
        *["lone_surrogate"] * 2,
        *["null_character", None],
        *["id_invalid", "specversion_unsupported", "time_invalid", "type_missing"],
        *["not_an_object", "not_an_object", "specversion_unsupported"],
        *["not_an_object", "not_an_object", None],
    ]
    assert expected == codes(decode(BATCH, (), b"[" + b",".join(HOSTILE) + b"]"))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000 + b"]" * 1_000_000,
        b"[" * 2_000_000,
        b'[{"a":' * 300_000,
        b"[1,[1," * 300_000,
        b'"' * 2_000_000,
        b'"' + b'\\"' * 1_000_000,
        b'["' * 1_000_000,
        b"[" + b"1" * 2_000_000 + b"]",
        b"[" + b"0." + b"1" * 2_000_000 + b"]",
        b"[1e" + b"9" * 2_000_000 + b"]",
        b"[" + b"{}," * 600_000 + b"{}]",
        b"\n" * 2_000_000,
        b"{\n" * 1_000_000,
        b"[" * 2_000 + b'"",' * 500_000,
    ],
    ids=lambda body: repr(body[:8]),
)
def test_a_large_body_is_answered_in_bounded_time(body: bytes) -> None:
    # Seconds for what takes tenths of one; what is quadratic would take hours.
    start = time.monotonic()
    for content_type in TYPES:
        assert decode(content_type, (), body) is not None
    assert time.monotonic() - start < 20


@settings(deadline=None)
@given(st.sampled_from(TYPES), st.binary(max_size=60))
def test_random_bytes_never_raise(content_type: str, body: bytes) -> None:
    assert isinstance(decode(content_type, (), body), list | Malformed)
    headers = [("ce-id", body.decode("latin-1")), ("ce-specversion", "1.0")]
    assert isinstance(decode("application/json", headers, body), list)


FRAGMENTS = st.sampled_from(
    [
        *(b"[", b"]", b"{", b"}", b'"', b",", b":", b" ", b"\n", b"\\", b"-", b"null", b"NaN"),
        *(b"\\u0000", b"\\ud800", b"1e400", b"\xff", b"\x00"),
        *(b"9" * 5_000, b"[" * 1_500, b"]" * 1_500),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(TYPES),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 4), FRAGMENTS), max_size=4),
)
def test_mutated_events_never_raise(
    content_type: str, changes: list[tuple[int, int, bytes]]
) -> None:
    body = b"[" + GOOD + b"," + GOOD + b"]"
    for place, cut, fragment in changes:
        body = body[:place] + fragment + body[place + cut :]
    results = decode(content_type, (), body)
    if isinstance(results, Malformed):
        return
    for index, result in enumerate(results):
        if isinstance(result, Rejection):
            assert index == result.index
            continue
        admitted = admit(index, result, bytes(16), NOW)
        assert isinstance(admitted, Admitted)
        assert "\\u0000" not in admitted.payload.replace("\\\\", "")
        json.loads(admitted.payload.encode())


@settings(deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_both_readers_read_the_same(value: object) -> None:
    text = json.dumps(value)
    assert decode_json(text.encode()) == _standard_decode(text) == _cut_and_read(text)


def _cut_and_read(text: str) -> object:
    return _standard_decode(_cut_deep_parts(text))


@settings(deadline=None)
@given(st.text('[]{}":,\\ 1a', max_size=30))
def test_what_is_not_json_for_one_reader_is_not_for_the_other(text: str) -> None:
    try:
        expected: object = json.loads(text)
    except ValueError:
        with pytest.raises(NotJson):
            decode_json(text.encode())
    else:
        assert expected == decode_json(text.encode())


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 300))
def test_cutting_keeps_what_stands_around_the_deep_part(before: int, deep: int) -> None:
    text = "[" + "[1]," * before + "[" * deep + "]" * deep + ',{"a":"]]"}]'
    value = _standard_decode(_cut_deep_parts(text))
    assert isinstance(value, list)
    assert [[1]] * before == value[:before]
    assert {"a": "]]"} == value[-1]
    assert before + 2 == len(value)
