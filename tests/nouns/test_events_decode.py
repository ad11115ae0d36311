"""Every mode of the CloudEvents HTTP binding, by its conformance files, its schema, its letter."""

import base64
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from time import tzset
from urllib.parse import quote

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.events.decode import decode
from farebox.events.event import Event
from farebox.events.refusal import Rejection
from farebox.events.time import parse_time

CASES = Path(__file__).parents[1] / "cases" / "cloudevents"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
SCHEMA = jsonschema.Draft7Validator(json.loads((CASES / "cloudevents_v1_schema.json").read_text()))
MEMBERS = {"specversion": "1.0", "id": "1", "source": "gateway", "type": "llm.request"}


def one(content_type: str, headers: list[tuple[str, str]], body: bytes) -> Event:
    (event,) = decode(content_type, headers, body)
    assert isinstance(event, Event)
    return event


def structured(**changes: object) -> Event:
    return one(STRUCTURED, [], json.dumps({**MEMBERS, **changes}).encode())


# The conformance files --------------------------------------------------------------------------


def conformance() -> list[tuple[dict[str, str], str]]:
    """Attributes and data of each event in the conformance files, every scalar as text."""
    events = []
    for name in ("conformance_v1.yaml", "conformance_v1_minimum.yaml"):
        for document in yaml.load_all((CASES / name).read_text(), yaml.BaseLoader):
            attributes = dict(document["ContextAttributes"])
            attributes.update(attributes.pop("Extensions", {}))
            events.append((attributes, document["Data"]))
    return events


@pytest.mark.parametrize(("attributes", "data"), conformance())
def test_conformance_event_is_the_same_in_every_mode(attributes: dict[str, str], data: str) -> None:
    content_type = attributes.get("datacontenttype", "application/json")
    is_json = "json" in content_type
    members = {**attributes, "datacontenttype": content_type}
    members["data"] = json.loads(data) if is_json else data
    in_base64 = {**members, "data_base64": base64.b64encode(data.encode()).decode()}
    del in_base64["data"]
    headers = [
        (f"Ce-{name.title()}", quote(value, safe=" /:;=,{}"))
        for name, value in attributes.items()
        if name != "datacontenttype"
    ]
    text = json.dumps(members).encode()
    modes = {
        "binary": one(content_type, headers, data.encode()),
        "structured": one(STRUCTURED, [], text),
        "structured, base64": one(STRUCTURED, [], json.dumps(in_base64).encode()),
        "batch": one(BATCH, [], b"[" + text + b"]"),
        "lines": one("application/x-ndjson", [], text + b"\r\n"),
        "plain, one": one("application/json", [], text),
        "plain, array": one("application/json", [], b"[" + text + b"]"),
    }
    event = modes["structured"]
    assert attributes["id"] == event.id
    assert attributes["source"] == event.source
    assert (json.loads(data) if is_json else data) == event.data
    extensions = {name for name in attributes if name.startswith("comexample")}
    assert {name: attributes[name] for name in extensions} == event.extensions
    assert dict.fromkeys(modes, event) == modes


def feature_requests() -> list[tuple[str, str]]:
    """Each request of the HTTP binding's scenarios, with each of its content types."""
    text = (CASES / "http-protocol-binding.feature").read_text()
    requests = []
    for scenario in text.split("Scenario Outline:")[1:]:
        request = scenario.split('"""')[1]
        for content_type in re.findall(r"^\s*\| (application/\S.*?)\s*\|$", scenario, re.MULTILINE):
            requests.append((content_type, request.replace("<contentType>", content_type)))
    return requests


@pytest.mark.parametrize(("content_type", "request_text"), feature_requests())
def test_conformance_request_gives_its_attributes(content_type: str, request_text: str) -> None:
    lines = [line.strip() for line in request_text.strip().splitlines()]
    blank = lines.index("")
    headers = [(name, value) for name, _, value in (x.partition(": ") for x in lines[1:blank])]
    event = one(dict(headers)["Content-Type"], headers, "\n".join(lines[blank:]).encode())
    in_binary_mode = "cloudevents" not in content_type
    assert event == Event(
        id="1234-1234-1234",
        source="/mycontext/subcontext",
        type="com.example.someevent",
        time=datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC),
        data={"message": "Hello World!"},
        datacontenttype=content_type if in_binary_mode else "application/json",
    )


def test_conformance_scenarios_were_found() -> None:
    assert 4 == len(feature_requests())
    assert 8 == len(conformance())


# The JSON schema as the oracle ------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)
DECIMALS = st.floats(-1e9, 1e9).map(lambda number: round(number, 6))
SCALARS = st.none() | st.booleans() | st.integers() | NAMES | DECIMALS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)
TIMES = st.datetimes(timezones=st.timezones() | st.just(UTC)).map(
    lambda time: time.replace(microsecond=0).isoformat()[:19] + "Z"
)
VALID = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": NAMES, "source": NAMES, "type": NAMES},
    optional={
        "subject": st.none() | NAMES,
        "time": st.none() | TIMES,
        "data": VALUES,
        "datacontenttype": st.none() | st.just("application/json"),
        "dataschema": st.none() | st.just("https://example.com/usage"),
        "traceparent": NAMES,
        "attempt": st.integers(-(2**31), 2**31 - 1),
        "sampled": st.booleans(),
    },
)
ANY_MEMBER = st.sampled_from([*MEMBERS, "subject", "time", "datacontenttype", "dataschema"])


@settings(deadline=None)
@given(VALID)
def test_what_the_schema_allows_is_read(members: dict[str, object]) -> None:
    SCHEMA.validate(members)
    event = one(STRUCTURED, [], json.dumps(members).encode())
    assert members["id"] == event.id
    assert members.get("subject") == event.subject
    time = members.get("time")
    assert (None if time is None else datetime.fromisoformat(str(time))) == event.time
    expected = json.loads(json.dumps(members.get("data")), parse_float=Decimal)
    assert expected == event.data
    extensions = {x: members[x] for x in ("traceparent", "attempt", "sampled") if x in members}
    assert extensions == event.extensions


@settings(deadline=None)
@given(VALID, ANY_MEMBER, SCALARS | st.just("") | st.lists(st.integers(), max_size=1))
def test_what_the_schema_refuses_is_refused(
    members: dict[str, object], name: str, value: object
) -> None:
    members[name] = value
    (result,) = decode(STRUCTURED, (), json.dumps(members).encode())
    if not SCHEMA.is_valid(members):
        assert isinstance(result, Rejection)
        assert f"/{name}" == result.pointer


# The letter of the binding ----------------------------------------------------------------------

HEADERS = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "gateway")]
HEADERS += [("ce-type", "llm.request")]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u20ac \U0001f600"),
        ("100%25%20sure%2520", "100% sure%20"),
        ('"quoted \\"inside\\" \\\\ "', 'quoted "inside" \\ '),
        ('"%41"', "A"),
        (" spaces around\t", "spaces around"),
        ("50% off", "50% off"),
        ('half "quoted"', 'half "quoted"'),
    ],
)
def test_binary_mode_decodes_header_values(sent: str, read: str) -> None:
    assert read == one("application/json", [*HEADERS, ("CE-Subject", sent)], b"{}").subject


def test_binary_mode_refuses_bytes_that_are_not_utf8() -> None:
    (result,) = decode("", [*HEADERS, ("ce-note", "%FF%C3%28")], b"")
    assert ("lone_surrogate", "/note") == (result.code, result.pointer)
    (result,) = decode("", [*HEADERS, ("ce-note", "a%00b")], b"")
    assert ("null_character", "/note") == (result.code, result.pointer)


@pytest.mark.parametrize(
    "name", ["ce-id", "ce-data", "ce-data_base64", "ce-datacontenttype", "ce-", "ce-trace-id"]
)
def test_binary_mode_refuses_a_header_that_is_no_attribute(name: str) -> None:
    (result,) = decode("", [*HEADERS, (name, "x")], b"")
    assert ("attribute_invalid", "/" + name[3:]) == (result.code, result.pointer)


@pytest.mark.parametrize(
    ("content_type", "body", "data", "data_base64"),
    [
        ("", b'{"tokens": 1.50}', {"tokens": Decimal("1.50")}, None),
        ("application/vnd.usage+json", b"[1]", [1], None),
        ("Application/JSON; charset=UTF-8", b"\xef\xbb\xbf1", 1, None),
        ("application/x-ndjson", b"1\n2", None, "MQoy"),
        ("text/plain", "\u00e9".encode(), "\u00e9", None),
        ("text/plain; charset=latin-1", b"\xe9", None, "6Q=="),
        ("text/plain; charset=utf-16", b"ab", None, "YWI="),
        ("text/plain", b"\xe9", None, "6Q=="),
        ("image/png", b"\x89PNG", None, "iVBORw=="),
        ("application/json", b"", None, None),
    ],
)
def test_binary_mode_reads_its_body_by_its_content_type(
    content_type: str, body: bytes, data: object, data_base64: str | None
) -> None:
    event = one(content_type, HEADERS, body)
    assert (data, data_base64) == (event.data, event.data_base64)
    if body:
        encoded = base64.b64encode(body).decode()
        same = structured(data_base64=encoded, datacontenttype=content_type or None)
        assert event == same


def test_binary_mode_without_its_required_headers_is_still_binary_mode() -> None:
    (result,) = decode("application/json", [("ce-id", "1")], b"{}")
    assert ("specversion_unsupported", "1") == (result.code, result.id)


def test_structured_mode_does_not_look_at_headers() -> None:
    body = json.dumps(MEMBERS).encode()
    assert "1" == one(STRUCTURED, [("ce-id", "other")], body).id


def test_numbers_are_exact_and_the_last_of_two_keys_counts() -> None:
    body = json.dumps(MEMBERS)[:-1] + ', "data": {"a": 1, "a": 0.1, "b": 12345678901234567890123}}'
    data = {"a": Decimal("0.1"), "b": 12345678901234567890123}
    event = one(STRUCTURED, [], body.encode())
    assert data == event.data
    assert isinstance(event.data, dict)
    assert [Decimal, int] == [type(value) for value in event.data.values()]


def test_lines_are_answered_one_by_one_and_blank_ones_are_none() -> None:
    good = json.dumps(MEMBERS).encode()
    results = decode("application/x-ndjson", (), b"\n".join([good, b"{", b" ", b"5", good[:9]]))
    assert isinstance(results, list)
    codes = [None, "malformed_json", "not_an_object", "malformed_json"]
    assert codes == [getattr(result, "code", None) for result in results]
    assert [1, 2, 3] == [result.index for result in results if isinstance(result, Rejection)]
    assert [] == decode("application/x-ndjson", (), b"\n")
    assert [] == decode(BATCH, (), b"[]")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-10-17T08:14:22Z", "2026-10-17T08:14:22+00:00"),
        ("2026-10-17t08:14:22.5z", "2026-10-17T08:14:22.500000+00:00"),
        ("2026-10-17T08:14:22.1234569Z", "2026-10-17T08:14:22.123456+00:00"),
        ("2026-10-17T08:14:22.99999999999999999999+02:00", "2026-10-17T06:14:22.999999+00:00"),
        ("2026-10-17 08:14:22", "2026-10-17T08:14:22+00:00"),
        ("2026-10-17T08:14:22-05:30", "2026-10-17T13:44:22+00:00"),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:00:00-05:00", None),
        ("2026-02-29T00:00:00Z", None),
        ("2026-10-17T24:00:00Z", None),
        ("2016-12-31T23:59:60Z", None),
        ("2026-10-17T08:14:22+24:00", None),
        ("2026-10-17T08:14:22.Z", None),
        ("2026-10-17T08:14:22,5Z", None),
        ("2026-10-17T08:14Z", None),
        ("2026-W42-6T08:14:22Z", None),
        ("20261017T081422Z", None),
        ("2026-10-17", None),
        ("\u0662026-10-17T08:14:22Z", None),
        ("2026-10-17T08:14:22Z\n", None),
        ("2026-10-17T08:14:22\ud800Z", None),
        ("2026-10-17T08:14:2\udcff+00:00", None),
        ("+12026-10-17T08:14:22Z", None),
    ],
)
def test_time(text: str, time: str | None) -> None:
    parsed = parse_time(text)
    assert time == (None if parsed is None else parsed.isoformat())


def test_a_time_without_offset_is_utc_wherever_the_server_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        tzset()
        parsed = parse_time("2026-10-17T08:14:22")
    tzset()
    assert datetime(2026, 10, 17, 8, 14, 22, tzinfo=UTC) == parsed


@pytest.mark.parametrize("parameters", ["; charset=UTF-8", ';CharSet="utf-8"; q=1', "; profile=x"])
def test_media_type_parameters_and_case_make_no_difference(parameters: str) -> None:
    body = json.dumps(MEMBERS).encode()
    assert structured() == one(STRUCTURED.title() + parameters, [], body)
