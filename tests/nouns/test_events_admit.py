"""Names that count once: the key of an event, the digest and payload of what it says."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.events.admit import Admitted, admit, event_key
from farebox.events.answer import Answer, Outcome, answer_event, answer_rejection
from farebox.events.decode import decode
from farebox.events.event import Event
from farebox.events.refusal import EventCode, Rejection

NOW = datetime(2026, 10, 17, 9, tzinfo=UTC)
ORGANIZATION = bytes(range(16))
TEXT = (
    '{"specversion":"1.0","id":"1","source":"gateway","type":"llm.request","subject":"acme",'
    '"time":"2026-10-17T08:14:22.123Z","data":{"model":"gpt","tokens":1154,"cost":1.50}}'
)


def admitted(text: str) -> Admitted:
    (event,) = decode("application/json", (), text.encode())
    assert isinstance(event, Event)
    result = admit(0, event, ORGANIZATION, NOW)
    assert isinstance(result, Admitted)
    return result


def test_names_of_an_event_never_change() -> None:
    """Stored for ever beside every event: another digest would make a resent event a conflict."""
    event = admitted(TEXT)
    assert "5afe8d91a43a64ac8f9a4ea2c7e25f15" == event.key.hex()
    assert "a33b262e982baf01c1151d939c45c10f" == event.digest.hex()
    assert '{"data":{"cost":1.50,"model":"gpt","tokens":1154}}' == event.payload


def test_time_is_that_of_receipt_where_none_was_sent_and_the_digest_knows_none() -> None:
    event = admitted(TEXT.replace('"time":"2026-10-17T08:14:22.123Z",', ""))
    assert (NOW, None) == (event.time, event.event.time)
    assert (
        admitted(TEXT.replace("2026-10-17T08:14:22.123Z", NOW.isoformat())).digest != event.digest
    )
    later = admit(0, event.event, ORGANIZATION, NOW.replace(hour=23))
    assert isinstance(later, Admitted)
    assert event.digest == later.digest


@pytest.mark.parametrize(
    ("same", "old", "new"),
    [
        (True, '"specversion":"1.0","id":"1"', ' "id" : "1" , "specversion" :"1.0"'),
        (True, '"model":"gpt","tokens":1154', '"tokens":1154,"model":"gpt"'),
        (True, "gpt", "\\u0067pt"),
        (True, "22.123Z", "22.123000000+00:00"),
        (True, "08:14:22.123Z", "10:14:22.123+02:00"),
        (True, "22.123Z", "22.1230009Z"),
        (True, '"data"', '"dataschema":null,"data"'),
        (True, "acme\\u0020", "acme "),
        (False, "1.50", "1.5"),
        (False, "1154", "1154.0"),
        (False, "1154", '"1154"'),
        (False, "1154", "1155"),
        (False, "1154", "true"),
        (False, '"cost":1.50', '"cost":1.50,"x":null'),
        (False, "llm.request", "llm.Request"),
        (False, "acme", "acme2"),
        (False, '"subject":"acme",', ""),
        (False, "22.123Z", "22.124Z"),
        (False, '"data"', '"region":"eu","data"'),
        (False, '"data"', '"dataschema":"a:b","data"'),
        (False, '"data"', '"datacontenttype":"application/json","data"'),
        (False, '"data":{"model":"gpt","tokens":1154,"cost":1.50}', '"data":{}'),
        (False, '"data":{"model":"gpt","tokens":1154,"cost":1.50}', '"subject":"acme"'),
    ],
)
def test_digest_covers_what_is_said_and_not_how(same: bool, old: str, new: str) -> None:
    changed = admitted(TEXT.replace(old, new))
    assert same == (admitted(TEXT).digest == changed.digest)
    assert admitted(TEXT).key == changed.key


def test_digest_tells_base64_from_text_and_extension_types_apart() -> None:
    plain = '{"specversion":"1.0","id":"1","source":"s","type":"t",%s}'
    said = [
        '"data":"AAEC"',
        '"data_base64":"AAEC","datacontenttype":"image/png"',
        '"data":"AAEC","datacontenttype":"image/png"',
        '"n":1',
        '"n":"1"',
        '"n":true',
        '"data":null',
        '"data":[]',
        '"data":"null"',
        '"data":false',
        '"data":0',
        '"data":-0.0',
        '"data":0.0',
    ]
    assert len(said) == len({admitted(plain % members).digest for members in said})
    assert admitted(plain % '"data":null').digest == admitted(plain % '"n":null').digest


MEMBER = st.text(max_size=8) | st.integers() | st.booleans() | st.none()
DATA = st.recursive(
    MEMBER,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
)
EVENTS = st.builds(
    Event,
    id=st.text(min_size=1, max_size=5),
    source=st.text(min_size=1, max_size=5),
    type=st.text(min_size=1, max_size=5),
    subject=st.none() | st.text(min_size=1, max_size=5),
    time=st.none() | st.just(NOW),
    data=DATA,
    extensions=st.dictionaries(st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True), st.text()),
)


def shuffled(value: object) -> object:
    """Return the same JSON value, the keys of its objects in the reverse order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(member) for member in value] if isinstance(value, list) else value


def identity(event: Event) -> str:
    """What an event says, written by another encoder, as the oracle of the digest."""
    attributes = [event.id, event.source, event.type, event.subject, str(event.time)]
    return json.dumps([attributes, event.data, dict(event.extensions)], sort_keys=True)


@settings(deadline=None)
@given(EVENTS, EVENTS)
def test_digests_are_equal_when_events_are(one: Event, other: Event) -> None:
    mixed = msgspec.structs.replace(one, data=shuffled(one.data))
    for left, right in ((one, other), (one, mixed)):
        results = [admit(0, event, ORGANIZATION, NOW) for event in (left, right)]
        assert all(isinstance(result, Admitted) for result in results)
        a, b = results
        assert (identity(left) == identity(right)) == (a.digest == b.digest)
        assert ((left.id, left.source) == (right.id, right.source)) == (a.key == b.key)


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16), st.text(min_size=1), st.text(min_size=1))
def test_keys_keep_source_and_id_apart(organization: bytes, source: str, id_: str) -> None:
    key = event_key(organization, source, id_)
    assert 16 == len(key)
    for cut in range(len(source + id_) + 1):
        if cut != len(source):
            joined = source + id_
            assert key != event_key(organization, joined[:cut], joined[cut:])
    other = bytes([organization[0] ^ 1]) + organization[1:]
    assert key != event_key(other, source, id_)


def test_keys_keep_a_source_that_begins_with_digits_apart() -> None:
    assert event_key(ORGANIZATION, "1:a", "b") != event_key(ORGANIZATION, "1", "ab")
    assert event_key(ORGANIZATION, "a" * 11, "") != event_key(ORGANIZATION, "a", "a" * 10)


@settings(deadline=None)
@given(EVENTS)
def test_payload_is_one_line_of_json_that_reads_back(event: Event) -> None:
    result = admit(0, event, ORGANIZATION, NOW)
    assert isinstance(result, Admitted)
    assert not any(character < " " for character in result.payload)
    members = dict(event.extensions)
    if event.data is not None:
        members["data"] = event.data
    assert members == json.loads(result.payload)


def test_payload_keeps_numbers_as_they_were_sent() -> None:
    text = '{"specversion":"1.0","id":"1","source":"s","type":"t","data":[1.50,1e5,-0.0,1E-7,%s]}'
    event = admitted(text % ("9" * 100))
    assert '{"data":[1.50,1E+5,-0.0,1E-7,' + "9" * 100 + "]}" == event.payload
    exact = json.loads(event.payload, parse_float=Decimal)["data"]
    assert event.event.data == exact


def test_answers_say_what_happened_and_leave_out_what_is_not() -> None:
    event = admitted(TEXT).event
    encoded = msgspec.json.encode(answer_event(2, event, Outcome.DUPLICATE))
    assert b'{"index":2,"id":"1","source":"gateway","outcome":"duplicate"}' == encoded
    assert "conflict" == answer_event(0, event, Outcome.CONFLICT).outcome
    assert answer_event(0, event, Outcome.CONFLICT).message
    rejection = Rejection(4, EventCode.TIME_INVALID, "/time", "no", "1", None)
    assert answer_rejection(rejection) == Answer(
        4, "1", None, Outcome.REJECTED, "time_invalid", "/time", "no"
    )
