"""Events over HTTP that name the draw that paid for them: every mode refuses what did not."""

import json
from typing import Any

import pytest

BATCH = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"


@pytest.fixture
def draw(api: Any) -> str:
    """Return a draw from the pool of Acme, whose subject alice is; bob is Beta's."""
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme", "subjects": ["alice"]})
    api.ok("PUT", "/v1/customers/beta", {"name": "Beta", "subjects": ["bob"]})
    api.ok("PUT", "/v1/pools/tokens", {"unit": "token", "customer": "acme"})
    api.ok("POST", "/v1/pools/tokens/grants", {"amount": "100"})
    answer = api.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": "2"})
    return str(answer["id"])


def event(name: str, draw: str, subject: str = "alice") -> dict[str, Any]:
    fixed = {"specversion": "1.0", "source": "s", "type": "t", "data": {"n": 1}}
    return {**fixed, "id": name, "subject": subject, "fareboxdraw": draw}


def post(api: Any, body: str, kind: str, **headers: str) -> Any:
    return api(
        "POST", "/v1/events", headers={"Content-Type": kind, **headers}, content=body.encode()
    )


def told(answer: Any) -> list[tuple[int, str, str | None, str | None]]:
    return [
        (one["index"], one["outcome"], one.get("code"), one.get("pointer"))
        for one in answer["events"]
    ]


def test_of_a_batch_each_event_is_told_what_is_wrong_with_its_draw(api: Any, draw: str) -> None:
    api.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": "1"})
    events = [
        event("1", draw),
        event("2", "drw_1"),
        event("3", draw, "bob"),
        {name: value for name, value in event("4", "").items() if name != "fareboxdraw"},
        event("1", draw),
    ]
    expected = [
        (0, "accepted", None, None),
        (1, "rejected", "draw_unknown", "/fareboxdraw"),
        (2, "rejected", "subject_not_served", "/fareboxdraw"),
        (3, "accepted", None, None),
        (4, "duplicate", None, None),
    ]
    answer = post(api, json.dumps(events), BATCH).json()
    assert expected == told(answer)
    assert (2, 1, 2) == (answer["accepted"], answer["duplicates"], answer["rejected"])


def test_of_ndjson_each_line_is(api: Any, draw: str) -> None:
    lines = "\n".join(json.dumps(one) for one in (event("1", draw), event("2", draw[:-1] + "77")))
    answer = post(api, lines, "application/x-ndjson").json()
    assert [
        (0, "accepted", None, None),
        (1, "rejected", "draw_unknown", "/fareboxdraw"),
    ] == told(answer)


def test_one_event_is_answered_with_a_problem(api: Any, draw: str) -> None:
    assert 200 == post(api, json.dumps(event("1", draw)), STRUCTURED).status_code
    refused = post(api, json.dumps(event("2", draw, "bob")), STRUCTURED)
    assert (422, "subject_not_served") == (refused.status_code, refused.json()["code"])
    assert ["/fareboxdraw"] == [one["pointer"] for one in refused.json()["errors"]]
    assert "application/problem+json" == refused.headers["content-type"]


def test_binary_mode_is_looked_at_too(api: Any, draw: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-source": "s", "ce-type": "t", "ce-subject": "alice"}
    named = {**headers, "ce-FareboxDraw": draw}
    assert 200 == post(api, "{}", "application/json", **named, **{"ce-id": "1"}).status_code
    named["ce-FareboxDraw"] = "drw_1"
    refused = post(api, "{}", "application/json", **named, **{"ce-id": "2"})
    assert (422, "draw_unknown") == (refused.status_code, refused.json()["code"])


def test_a_draw_that_was_taken_back_pays_for_nothing_more(api: Any, draw: str) -> None:
    sent = json.dumps(event("1", draw))
    assert "accepted" == post(api, sent, STRUCTURED).json()["outcome"]
    policy = {"undo_seconds": 600}
    api.ok("PUT", "/v1/pools/tokens", {"unit": "token", "customer": "acme", "policy": policy})
    api.ok("POST", f"/v1/draws/{draw}/reverse", {})
    assert "duplicate" == post(api, sent, STRUCTURED).json()["outcome"]
    refused = post(api, json.dumps(event("2", draw)), STRUCTURED)
    assert (422, "draw_reversed") == (refused.status_code, refused.json()["code"])


def test_what_a_settled_hold_answers_may_be_named(api: Any, draw: str) -> None:
    asked = {"pool": "tokens", "amount": "5", "hold": {"seconds": 60}}
    held = api.ok("POST", "/v1/authorize", asked)
    early = post(api, json.dumps(event("1", held["id"])), STRUCTURED)
    assert (422, "draw_unknown") == (early.status_code, early.json()["code"])
    settled = api.ok("POST", f"/v1/holds/{held['hold']}/settle", {"amount": "7"})
    assert (
        "accepted" == post(api, json.dumps(event("1", settled["id"])), STRUCTURED).json()["outcome"]
    )
