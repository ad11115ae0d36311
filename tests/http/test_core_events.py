"""Events over HTTP: every mode, every answer, and nothing stored that was cut short."""

import asyncio
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from farebox.http.app import create_app
from farebox.postgres.session import transaction

EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"n": 1}}
BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"


def _stored(farebox: Any, api: Any) -> int:
    with transaction(farebox.pool, api.organization_id) as connection:
        row = connection.execute(
            "select count(*), max(sequence) from event where organization_id = %s",
            (api.organization_id,),
        ).fetchone()
    assert row is not None
    assert row[0] == (row[1] or 0)
    return int(row[0])


def _post(api: Any, body: Any, kind: str, query: str = "", **headers: str) -> Any:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    options = {"headers": {"Content-Type": kind, **headers}, "content": content}
    return api("POST", f"/v1/events{query}", **options)


def test_each_event_of_a_batch_gets_its_own_answer(api: Any, farebox: Any) -> None:
    batch = [
        EVENT,
        EVENT,
        {**EVENT, "data": {"n": 2}},
        {**EVENT, "id": None},
        "no event",
        {**EVENT, "id": "2"},
    ]
    response = _post(api, batch, BATCH)
    assert 200 == response.status_code
    answer = response.json()
    counts = ("accepted", "duplicates", "conflicts", "rejected")
    assert [2, 1, 1, 2] == [answer[name] for name in counts]
    assert [
        (0, "1", "accepted", None, None),
        (1, "1", "duplicate", None, None),
        (2, "1", "conflict", None, None),
        (3, None, "rejected", "id_missing", "/id"),
        (4, None, "rejected", "not_an_object", ""),
        (5, "2", "accepted", None, None),
    ] == [
        (one["index"], one["id"], one["outcome"], one.get("code"), one.get("pointer"))
        for one in answer["events"]
    ]
    assert 2 == _stored(farebox, api)


def test_only_failures_are_told_when_asked(api: Any) -> None:
    batch = [EVENT, {**EVENT, "id": "2"}, {**EVENT, "id": ""}]
    answer = _post(api, batch, BATCH, "?answers=failures").json()
    assert (2, 1) == (answer["accepted"], answer["rejected"])
    assert [2] == [one["index"] for one in answer["events"]]
    response = _post(api, batch, BATCH, "?answers=some")
    assert (400, "parameter_invalid") == (response.status_code, response.json()["code"])


def test_one_event_is_answered_by_the_status(api: Any) -> None:
    first = _post(api, EVENT, STRUCTURED)
    assert 200 == first.status_code
    assert {"index": 0, "id": "1", "source": "s", "outcome": "accepted"} == first.json()
    again = _post(api, EVENT, STRUCTURED)
    assert (200, "duplicate") == (again.status_code, again.json()["outcome"])
    other = _post(api, {**EVENT, "data": {}}, STRUCTURED)
    assert (409, "event_conflict") == (other.status_code, other.json()["code"])
    bad = _post(api, {**EVENT, "time": "yesterday"}, STRUCTURED)
    assert (422, "time_invalid") == (bad.status_code, bad.json()["code"])
    assert ["/time"] == [one["pointer"] for one in bad.json()["errors"]]
    assert "application/problem+json" == bad.headers["content-type"]


def test_plain_json_is_one_event_or_many(api: Any) -> None:
    assert "accepted" == _post(api, EVENT, "application/json").json()["outcome"]
    assert 1 == _post(api, [EVENT], "application/json; charset=utf-8").json()["duplicates"]


def test_binary_mode(api: Any, farebox: Any) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
    first = _post(api, '{"n": 1}', "application/json", **headers)
    assert (200, "accepted") == (first.status_code, first.json()["outcome"])
    again = _post(api, '[{"n": 1}]', "application/json", **headers)
    assert (409, "event_conflict") == (again.status_code, again.json()["code"])
    bad = _post(api, "{", "application/json", **{**headers, "ce-id": "2"})
    assert (422, "data_not_json") == (bad.status_code, bad.json()["code"])
    assert 1 == _stored(farebox, api)


def test_every_line_of_ndjson_stands_alone(api: Any) -> None:
    lines = "\n".join([json.dumps(EVENT), "{", "", json.dumps({**EVENT, "id": "2"})])
    answer = _post(api, lines, "application/x-ndjson").json()
    outcomes = [one["outcome"] for one in answer["events"]]
    assert ["accepted", "rejected", "accepted"] == outcomes
    assert "malformed_json" == answer["events"][1]["code"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        ("[{", BATCH, 400, "malformed_json"),
        ("", BATCH, 400, "malformed_json"),
        ('[{"id": NaN}]', BATCH, 400, "malformed_json"),
        ("{}", BATCH, 400, "malformed_json"),
        (b'["\xff"]', BATCH, 400, "not_utf8"),
        ("a,b", "text/csv", 415, "unsupported_media_type"),
        ("[]", f"{BATCH}; charset=utf-16", 415, "unsupported_media_type"),
        ("[" + "1," * 10_000 + "1]", BATCH, 413, "batch_too_large"),
        (b" " * (8 * 1024 * 1024 + 1), BATCH, 413, "body_too_large"),
    ],
)
def test_requests_that_are_refused_whole(
    api: Any, farebox: Any, body: str | bytes, kind: str, status: int, code: str
) -> None:
    response = _post(api, body, kind)
    assert (status, code) == (response.status_code, response.json()["code"])
    assert 0 == _stored(farebox, api)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"data": {"text": "\0"}}, "null_character"),
        ({"data": {"text": "x" * 70_000}}, "event_too_large"),
        ({"time": "3026-01-01T00:00:00Z"}, "time_in_future"),
        ({"time": "1026-01-01T00:00:00Z"}, "time_too_old"),
        ({"time": "2026-10-17T08:14:22\ud800Z"}, "time_invalid"),
        ({"subject": "a\x1fb"}, "subject_invalid"),
        ({"type": "\x1f"}, "type_invalid"),
    ],
)
def test_a_bad_event_leaves_the_others(
    api: Any, farebox: Any, change: dict[str, Any], code: str
) -> None:
    answer = _post(api, [{**EVENT, **change}, {**EVENT, "id": "2"}], BATCH).json()
    assert [code, None] == [one.get("code") for one in answer["events"]]
    assert 1 == _stored(farebox, api)


def test_hostile_numbers_and_depths_are_refused_one_by_one(api: Any) -> None:
    good = json.dumps({**EVENT, "id": "good"})
    deep = '{"specversion":"1.0","id":"d","source":"s","type":"t","data":' + "[" * 100_000
    huge = '{"specversion":"1.0","id":"h","source":"s","type":"t","data":{"n":1e999999}}'
    answer = _post(api, f"[{deep}{']' * 100_000}}},{huge},{good}]", BATCH).json()
    codes = ["nested_too_deep", "number_out_of_range", None]
    assert codes == [one.get("code") for one in answer["events"]]


def test_compressed_bodies(api: Any, farebox: Any) -> None:
    body = gzip.compress(json.dumps([EVENT]).encode())
    packed = {"Content-Encoding": "gzip"}
    assert 1 == _post(api, body, BATCH, **packed).json()["accepted"]
    two = gzip.compress(b"[") + gzip.compress(json.dumps({**EVENT, "id": "2"}).encode() + b"]")
    assert 1 == _post(api, two, BATCH, **packed).json()["accepted"]
    for broken in (body[:-9], b"nonsense", body + b"x"):
        response = _post(api, broken, BATCH, **packed)
        assert (400, "encoding_invalid") == (response.status_code, response.json()["code"])
    bomb = _post(api, gzip.compress(b" " * 100_000_000), BATCH, **packed)
    assert (413, "body_too_large") == (bomb.status_code, bomb.json()["code"])
    other = _post(api, body, BATCH, **{"Content-Encoding": "br"})
    assert (415, "unsupported_encoding") == (other.status_code, other.json()["code"])
    assert 2 == _stored(farebox, api)


def test_a_retry_counts_nothing_twice_whoever_sends_it(api: Any, farebox: Any) -> None:
    batch = [{**EVENT, "id": str(n)} for n in range(200)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: _post(api, batch, BATCH).json(), range(16)))
    assert 200 == sum(answer["accepted"] for answer in answers)
    assert 200 * 15 == sum(answer["duplicates"] for answer in answers)
    assert 200 == _stored(farebox, api)


def test_the_same_id_in_two_organizations_is_two_events(api: Any, new_api: Any) -> None:
    assert "accepted" == _post(api, EVENT, STRUCTURED).json()["outcome"]
    assert "accepted" == _post(new_api(), EVENT, STRUCTURED).json()["outcome"]


def _raw(api: Any, farebox: Any, messages: list[Any], headers: list[Any]) -> list[Any]:
    """Speak ASGI to the app directly, as a server does whose client goes away."""
    sent: list[Any] = []
    waiting = list(messages)

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/events",
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {api.key}".encode()),
            (b"content-type", b"application/x-ndjson"),
            *headers,
        ],
    }
    asyncio.run(create_app(farebox)(scope, receive, send))  # type: ignore[arg-type]
    return sent


def test_a_request_cut_in_the_middle_stores_nothing(api: Any, farebox: Any) -> None:
    line = json.dumps(EVENT).encode() + b"\n"
    part = {"type": "http.request", "body": line, "more_body": True}
    assert [] == _raw(api, farebox, [part], [])
    end = {"type": "http.request", "body": b"", "more_body": False}
    announced = [(b"content-length", str(len(line) * 2).encode())]
    sent = _raw(api, farebox, [part, end], announced)
    assert 400 == sent[0]["status"]
    assert "body_cut_short" == json.loads(sent[1]["body"])["code"]
    assert 0 == _stored(farebox, api)


def test_a_body_that_grows_past_the_limit_is_not_read_to_its_end(api: Any, farebox: Any) -> None:
    part = {"type": "http.request", "body": b" " * 1_000_000, "more_body": True}
    sent = _raw(api, farebox, [part] * 50, [])
    assert 413 == sent[0]["status"]
    far = _raw(api, farebox, [], [(b"content-length", b"9" * 30)])
    assert 413 == far[0]["status"]
