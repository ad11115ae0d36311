"""What a customer may use, as the API tells it: limited, used up by events, and without a limit."""

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from farebox.flows.burn_usage import burn_usage
from farebox.http.state import State

CALLS = "/v1/customers/acme/entitlements/calls"


@pytest.fixture
def sold(api: Any, farebox: State) -> Any:
    """Return the API of a vendor whose customer has a thousand calls a month."""
    meter = {"event_type": "call", "aggregation": "count"}
    api.ok("PUT", "/v1/meters/calls?publish=true", meter)
    api.ok("PUT", "/v1/features/calls?publish=true", {"unit": "call", "meter": "calls"})
    plan = {"currency": "USD", "entitlements": [{"feature": "calls", "limit": 1000}]}
    api.ok("PUT", "/v1/plans/free?publish=true", plan)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    start = farebox.clock().isoformat()
    body = {"customer": "acme", "plan": "free", "start": start}
    api.ok("PUT", "/v1/subscriptions/acme-free", body)
    return api


def told(api: Any) -> tuple[object, ...]:
    found = api.ok("GET", CALLS)
    return tuple(found[name] for name in ("limit", "used", "remaining", "overage", "unlimited"))


def test_what_is_unlimited_has_neither_limit_nor_rest_nor_overage(sold: Any) -> None:
    sold.ok("POST", "/v1/authorize", {"feature": "calls", "customer": "acme", "amount": 400})
    assert ("1000", "400", "600", "0", False) == told(sold)
    sold.ok("PUT", CALLS, {"unlimited": True, "reason": "pilot"})
    asked = {"feature": "calls", "customer": "acme", "amount": 5000, "key": "one"}
    for _ in range(2):
        answer = sold.ok("POST", "/v1/authorize", asked)
        assert ("5000", {}, False) == (
            answer["covered"],
            {name: units for name, units in answer["beyond"].items() if units != "0"},
            answer["over_limit"],
        )
    checked = sold.ok("POST", "/v1/pools/calls:acme/check", {"amount": 10})
    assert (True, "10", "0") == (checked["granted"], checked["covered"], checked["beyond"])
    assert (None, "5400", None, "0", True) == told(sold)


@pytest.mark.parametrize(
    "override",
    [
        {"enabled": False, "limit": 3},
        {"limit": 3, "unlimited": True},
        {"limit": -1},
        {"limit": 3, "ends_at": "2020-01-01T00:00:00Z"},
        {"limit": 3, "reason": "x" * 1001},
    ],
)
def test_an_override_that_contradicts_itself_is_refused(sold: Any, override: Any) -> None:
    assert (422, "entitlement_contradictory") == sold.code("PUT", CALLS, override)
    assert ("1000", "0", "1000", "0", False) == told(sold)


def test_events_of_its_meter_use_up_a_feature(sold: Any, farebox: State) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "gateway", "type": "call"}
    headers = {"Content-Type": "application/cloudevents+json"}
    sold.ok("POST", "/v1/events", {**event, "subject": "acme"}, headers=headers)
    burn_usage(farebox.pool, sold.organization_id, farebox.clock())
    assert ("1000", "1", "999", "0", False) == told(sold)


def test_what_begins_and_ends_by_its_date_is_felt_at_once(sold: Any, farebox: State) -> None:
    """Though what was answered before is remembered for seconds."""
    sold.ok("PUT", "/v1/customers/later", {"name": "Later"})
    start = farebox.clock() + timedelta(seconds=1.5)
    end = start + timedelta(seconds=1)
    body = {"customer": "later", "plan": "free", "start": start.isoformat(), "end": end.isoformat()}
    sold.ok("PUT", "/v1/subscriptions/later-free", body)
    asked = {"feature": "calls", "customer": "later", "amount": 1}
    answers = []
    for instant in (None, start, end):
        wait_until(farebox, instant)
        answers.append(sold("POST", "/v1/authorize", asked).status_code)
    assert [403, 200, 403] == answers


def wait_until(farebox: State, instant: datetime | None) -> None:
    while instant is not None and farebox.clock() < instant:
        time.sleep(0.01)
