"""Subjects over HTTP: a move that would take burned usage away from its pool is refused."""

from typing import Any

from farebox.flows.burn_usage import burn_usage
from farebox.http.state import State

METER = {"event_type": "llm", "aggregation": "sum", "value": "$.n"}
RATE = {"meter": "tokens", "price": {"model": "per_unit", "unit": "0.02"}}


def test_burned_usage_is_not_moved_and_a_repeat_under_a_key_is_answered_alike(
    api: Any, farebox: State
) -> None:
    api.ok("PUT", "/v1/meters/tokens?publish=true", METER)
    card = {"currency": "credit", "custom_unit": True, "rates": [RATE]}
    api.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    api.ok("PUT", "/v1/customers/acme", {"subjects": ["bot"]})
    api.ok("PUT", "/v1/customers/beta", {})
    pool = {"unit": "credit", "customer": "acme", "rate_card": "credits"}
    api.ok("PUT", "/v1/pools/acme-credits", pool)
    api.ok("POST", "/v1/pools/acme-credits/grants", {"amount": "100"})
    event = {"specversion": "1.0", "id": "e1", "source": "s", "type": "llm", "subject": "bot"}
    headers = {"Content-Type": "application/cloudevents+json"}
    api.ok("POST", "/v1/events", {**event, "data": {"n": 50}}, headers=headers)
    assert 1 == burn_usage(farebox.pool, api.organization_id, farebox.clock())

    path = "/v1/subjects/bot/move"
    past = {"customer": "beta", "from": "2026-01-01T00:00:00Z"}
    assert (409, "usage_burned") == api.code("POST", path, past)
    (mapping,) = api.ok("GET", "/v1/subjects/bot")["mappings"]
    assert ("acme", None) == (mapping["customer"], mapping["until"])
    now = {"customer": "beta", "from": farebox.clock().isoformat()}
    once = {"Idempotency-Key": "move"}
    answers = [api.ok("POST", path, now, headers=once) for _ in range(2)]
    assert [True, True] == [one["changed"] for one in answers]
    assert "99" == api.ok("GET", "/v1/pools/acme-credits")["available"]
