"""One row per refusal, in order of precedence: what is sent, and the code and field it gets."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farebox.events.admit import TimePolicy, admit
from farebox.events.decode import decode
from farebox.events.limits import Limits
from farebox.events.refusal import EventCode, Malformed, Rejection, RequestCode

NOW = datetime(2026, 10, 17, 9, tzinfo=UTC)
ORGANIZATION = bytes(range(16))
BATCH = "application/cloudevents-batch+json"
NDJSON = "application/x-ndjson"
GOOD = {"specversion": "1.0", "id": "1", "source": "gateway", "type": "llm.request"}
GOOD["subject"] = "acme"
DOCS = Path(__file__).parents[2] / "docs" / "events.md"


def event(**changes: object) -> bytes:
    members = {**GOOD, **changes}
    return json.dumps({name: value for name, value in members.items() if value != "-"}).encode()


def data(text: str) -> bytes:
    return event(data="@").replace(b'"@"', text.encode())


# The order is that of EventCode: code, pointer, the line as sent.
ROWS = [
    (EventCode.NOT_UTF8, "", b'{"id": "\xff"}'),
    (EventCode.MALFORMED_JSON, "", b'{"id": '),
    (EventCode.NOT_AN_OBJECT, "", b"[1]"),
    (EventCode.SPECVERSION_UNSUPPORTED, "/specversion", event(specversion="0.3")),
    (EventCode.ID_MISSING, "/id", event(id="-")),
    (EventCode.ID_INVALID, "/id", event(id=7)),
    (EventCode.SOURCE_MISSING, "/source", event(source=None)),
    (EventCode.SOURCE_INVALID, "/source", event(source="")),
    (EventCode.TYPE_MISSING, "/type", event(type="-")),
    (EventCode.TYPE_INVALID, "/type", event(type=["llm"])),
    (EventCode.SUBJECT_INVALID, "/subject", event(subject="a\nb")),
    (EventCode.TIME_INVALID, "/time", event(time="yesterday")),
    (EventCode.DATA_NOT_JSON, "/data", event(data_base64="e30u")),
    (EventCode.ATTRIBUTE_INVALID, "/traceParent", event(traceParent="x")),
    (EventCode.NULL_CHARACTER, "/data/a~1b", event(data={"a/b": "\0"})),
    (EventCode.LONE_SURROGATE, "/data/model", event(data={"model": "\ud800"})),
    (EventCode.NUMBER_OUT_OF_RANGE, "/data/tokens/1", data('{"tokens": [1, 1e101]}')),
    (EventCode.NESTED_TOO_DEEP, "/data" + "/0" * 64, data("[" * 65 + "]" * 65)),
    (EventCode.EVENT_TOO_LARGE, "", event(data="x" * 65_536)),
    (EventCode.TIME_TOO_OLD, "/time", event(time="1026-10-17T09:00:00Z")),
    (EventCode.TIME_IN_FUTURE, "/time", event(time="3026-10-17T09:00:00Z")),
]


def refused(line: bytes) -> Rejection:
    (result,) = decode(NDJSON, (), line)
    if not isinstance(result, Rejection):
        result = admit(0, result, ORGANIZATION, NOW)
    assert isinstance(result, Rejection)
    return result


def test_every_code_has_its_row_in_order_of_precedence() -> None:
    assert list(EventCode) == [code for code, _, _ in ROWS]


@pytest.mark.parametrize(("code", "pointer", "line"), ROWS, ids=[code for code, _, _ in ROWS])
def test_event_is_refused_by_its_code(code: EventCode, pointer: str, line: bytes) -> None:
    rejection = refused(line)
    assert (code, pointer) == (rejection.code, rejection.pointer)
    assert rejection.message


def test_of_two_faults_the_one_that_stands_first_is_named() -> None:
    """Every member that a row spoils, spoiled at once; mended from the first to the last."""
    faults: list[tuple[EventCode, str, object]] = [
        (EventCode.SPECVERSION_UNSUPPORTED, "specversion", "2.0"),
        (EventCode.ID_INVALID, "id", "x" * 257),
        (EventCode.SOURCE_INVALID, "source", "x" * 513),
        (EventCode.TYPE_INVALID, "type", "x" * 257),
        (EventCode.SUBJECT_INVALID, "subject", "x" * 257),
        (EventCode.TIME_INVALID, "time", "2026-02-30T00:00:00Z"),
        (EventCode.ATTRIBUTE_INVALID, "dataschema", ""),
        (EventCode.NULL_CHARACTER, "note", "\0"),
        (EventCode.LONE_SURROGATE, "memo", "\udfff"),
    ]
    members = {name: value for _, name, value in faults}
    deep: list[object] = []
    for _ in range(64):
        deep = [deep]
    members["data"] = [10**100, deep]
    for code, name, _ in faults:
        assert code == refused(json.dumps(members).encode()).code
        members[name] = GOOD.get(name, "2026-10-17T08:00:00Z" if name == "time" else "x")
    assert EventCode.NUMBER_OUT_OF_RANGE == refused(json.dumps(members).encode()).code
    members["data"] = [*deep, "x" * 70_000]
    assert EventCode.NESTED_TOO_DEEP == refused(json.dumps(members).encode()).code
    members.update(data="x" * 70_000, time="1999-01-01T00:00:00Z")
    assert EventCode.EVENT_TOO_LARGE == refused(json.dumps(members).encode()).code


@pytest.mark.parametrize(
    ("code", "content_type", "body"),
    [
        (RequestCode.BODY_TOO_LARGE, "text/plain", b" " * 1_001),
        (RequestCode.UNSUPPORTED_MEDIA_TYPE, "text/plain", event()),
        (RequestCode.UNSUPPORTED_MEDIA_TYPE, "", event()),
        (RequestCode.UNSUPPORTED_MEDIA_TYPE, f"{BATCH}; charset=iso-8859-1", b"[]"),
        (RequestCode.UNSUPPORTED_MEDIA_TYPE, "application/cloudevents+avro", b""),
        (RequestCode.NOT_UTF8, BATCH, b"[" + event() + b', "\xff"]'),
        (RequestCode.NOT_UTF8, BATCH, '[{"id": "1"}]'.encode("utf-16")),
        (RequestCode.MALFORMED_JSON, BATCH, b"[" + event()),
        (RequestCode.MALFORMED_JSON, BATCH, b"[" + event() + b", {]"),
        (RequestCode.MALFORMED_JSON, BATCH, data("NaN").join([b"[", b"]"])),
        (RequestCode.MALFORMED_JSON, BATCH, data("-Infinity").join([b"[", b"]"])),
        (RequestCode.MALFORMED_JSON, BATCH, b""),
        (RequestCode.MALFORMED_JSON, BATCH, event()),
        (RequestCode.MALFORMED_JSON, "application/cloudevents+json", b"[" + event() + b"]"),
        (RequestCode.MALFORMED_JSON, "application/json", b'"event"'),
        (RequestCode.BATCH_TOO_LARGE, BATCH, b"[1,2,3,4]"),
        (RequestCode.BATCH_TOO_LARGE, NDJSON, b"1\n2\n\n3\n4\n"),
    ],
)
def test_request_is_refused_as_a_whole(code: RequestCode, content_type: str, body: bytes) -> None:
    result = decode(content_type, (), body, Limits(body_bytes_max=1_000, events_max=3))
    assert isinstance(result, Malformed)
    assert code == result.code


def test_request_bounds_are_inclusive() -> None:
    body = b"[" + event() + b"," + event() + b"]"
    limits = Limits(body_bytes_max=len(body), events_max=2)
    assert not isinstance(decode(BATCH, (), body, limits), Malformed)
    lines = event() + b"\n" + event() + b"\n"
    assert not isinstance(decode(NDJSON, (), lines, limits), Malformed)


def test_every_request_code_is_reached() -> None:
    (mark,) = test_request_is_refused_as_a_whole.pytestmark  # type: ignore[attr-defined]
    assert list(RequestCode) == list(dict.fromkeys(code for code, _, _ in mark.args[1]))


def test_a_refusal_tells_the_sender_which_event() -> None:
    rejection = refused(event(type=""))
    assert ("1", "gateway") == (rejection.id, rejection.source)
    hidden = refused(event(id="\0", source="x" * 513))
    assert (None, None) == (hidden.id, hidden.source)


def test_a_pointer_can_be_stored_and_sent_whatever_the_name() -> None:
    rejection = refused(event(data={"~/\ud800" + "n" * 5_000: "\0"}))
    assert EventCode.NULL_CHARACTER == rejection.code
    assert "/data/~0~1\ufffd" + "n" * 125 == rejection.pointer
    assert "/data/\ufffd" == refused(event(data={"\0": 1})).pointer


@pytest.mark.parametrize(
    ("accepted", "name", "value"),
    [
        (True, "id", "x" * 256),
        (False, "id", "x" * 257),
        (True, "id", "a\u00a0b"),  # cannot be printed as ASCII would, yet is no control character
        (False, "id", "a\x85b"),
        (True, "source", "x" * 512),
        (False, "source", "x" * 513),
        (True, "type", "x" * 256),
        (False, "type", "x" * 257),
        (False, "type", "x\t"),
        (True, "subject", "\N{GRINNING FACE}" * 256),
        (True, "subject", None),
        (False, "subject", ""),
        (False, "subject", 5),
        (False, "time", 1_792_224_000),
        (False, "time", ""),
        (True, "datacontenttype", None),
        (False, "datacontenttype", {}),
        (False, "dataschema", 1),
        (True, "x" * 64, "long"),
        (False, "x" * 65, "long"),
        (False, "", "no name"),
        (False, "data_base_64", "x"),
        (True, "sampled", True),
        (True, "attempt", 3),
        (True, "unset", None),
        (False, "ratio", 0.5),
        (False, "context", {"a": 1}),
        (False, "data_base64", "e30"),
        (False, "data_base64", "\u00e9"),
        (False, "data_base64", "e3!0="),
        (False, "data_base64", 5),
        (False, "attempt", 10**100),
    ],
)
def test_bounds_of_attributes(accepted: bool, name: str, value: object) -> None:
    for subject in ("acme", "-"):  # an event that names its subject takes a shorter way
        (result,) = decode(NDJSON, (), event(**{"subject": subject, name: value}))
        assert accepted == (not isinstance(result, Rejection))


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "datacontenttype", "note"])
def test_characters_that_cannot_be_stored_are_found_in_every_attribute(name: str) -> None:
    for code, character in (("null_character", "\0"), ("lone_surrogate", "\udc00")):
        rejection = refused(event(**{"data": {"a": 1}, name: f"a{character}b"}))
        assert (code, f"/{name}") == (rejection.code, rejection.pointer)


@pytest.mark.parametrize(
    ("code", "pointer", "data"),
    [
        ("null_character", "/data/a", b'{"a": "\\u0000"}'),
        ("lone_surrogate", "/data/0", b'["\\ud800"]'),
        ("number_out_of_range", "/data", b"1e400"),
        ("nested_too_deep", "/data" + "/0" * 64, b"[" * 100_000 + b"]" * 100_000),
        ("data_not_json", "/data", b"{"),
    ],
)
def test_data_that_came_as_bytes_is_looked_through(code: str, pointer: str, data: bytes) -> None:
    headers = [(f"ce-{name}", value) for name, value in GOOD.items()]
    (binary,) = decode("application/json", headers, data)
    rejection = refused(event(data_base64=base64.b64encode(data).decode()))
    assert binary == rejection
    assert (code, pointer) == (rejection.code, rejection.pointer)


@pytest.mark.parametrize(
    ("accepted", "number"),
    [
        (True, "9" * 100),
        (False, "1" + "0" * 100),
        (True, "-" + "9" * 99),
        (False, "-1" + "0" * 99),
        (False, "1" * 5_000),
        (True, "0." + "1" * 98),
        (False, "0." + "1" * 99),
        (True, "1e100"),
        (True, "1E-100"),
        (False, "1e101"),
        (False, "1e400"),
        (False, "1E-101"),
        (False, "1e99999999999999999999999"),
        (False, "1e" + "9" * 10_000),
    ],
)
def test_bounds_of_numbers(accepted: bool, number: str) -> None:
    for text in (number, f'{{"a": [{number}]}}'):
        results = decode(BATCH, (), b"[" + event() + b"," + data(text) + b"]")
        assert [True, accepted] == [not isinstance(result, Rejection) for result in results]


def test_data_and_data_base64_exclude_each_other() -> None:
    rejection = refused(event(data=1, data_base64="e30="))
    assert (EventCode.ATTRIBUTE_INVALID, "/data_base64") == (rejection.code, rejection.pointer)


@pytest.mark.parametrize(
    ("code", "lies"),
    [
        (None, timedelta(hours=1)),
        (EventCode.TIME_IN_FUTURE, timedelta(hours=1, microseconds=1)),
        (None, timedelta(days=-400)),
        (EventCode.TIME_TOO_OLD, timedelta(days=-400, microseconds=-1)),
    ],
)
def test_time_policy_bounds_are_inclusive(code: EventCode | None, lies: timedelta) -> None:
    (sent,) = decode(NDJSON, (), event(time=(NOW + lies).isoformat()))
    assert code == getattr(admit(0, sent, ORGANIZATION, NOW), "code", None)


def test_time_policy_can_be_open() -> None:
    for time in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        (sent,) = decode(NDJSON, (), event(time=time))
        policy = TimePolicy(late=None, future=None)
        assert not isinstance(admit(0, sent, ORGANIZATION, NOW, policy), Rejection)


def test_event_size_bound_is_inclusive_and_counts_no_spaces() -> None:
    (sent,) = decode(NDJSON, (), event(data={"a": 1}).replace(b" ", b"  "))
    size = len(b'["1","gateway","llm.request","acme",null]{"data":{"a":1}}')
    assert not isinstance(
        admit(0, sent, ORGANIZATION, NOW, limits=Limits(event_bytes_max=size)), Rejection
    )
    rejection = admit(3, sent, ORGANIZATION, NOW, limits=Limits(event_bytes_max=size - 1))
    assert isinstance(rejection, Rejection)
    assert (3, EventCode.EVENT_TOO_LARGE) == (rejection.index, rejection.code)


def test_every_code_has_its_heading_in_the_docs() -> None:
    headings = re.findall(r"^#+ `([a-z0-9_]+)`", DOCS.read_text(), re.MULTILINE)
    assert [*dict.fromkeys([*RequestCode, *EventCode])] == headings
