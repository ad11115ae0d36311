"""Lines of pools over HTTP: what they say of their price, their episodes and their entries."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest


@pytest.fixture
def billed(api: Any, clock: Any) -> Iterator[Any]:
    """Return the API of a vendor two days after a customer went beyond a pool, now invoiced."""
    plan = {"currency": "USD", "interval": "day", "fees": [{"key": "fee", "amount": "1"}]}
    api.ok("PUT", "/v1/plans/daily?publish=true", plan)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    subscription = {"customer": "acme", "plan": "daily", "start": start.isoformat()}
    api.ok("PUT", "/v1/subscriptions/main", subscription)
    policy = {"currency": "USD", "limit": {"mode": "overage", "price": "0.0150"}}
    pool = {"unit": "token", "customer": "acme", "subscription": "main", "policy": policy}
    api.ok("PUT", "/v1/pools/tokens", pool)
    bought = {"key": "po-7", "amount": "10", "basis": "purchased", "cost": "2.50"}
    api.ok("POST", "/v1/pools/tokens/grants", {**bought, "on_invoice": True})
    for subject, amount in (("ann", "12.5"), ("bob", "3"), ("ann", "4")):
        body = {"pool": "tokens", "amount": amount, "subject": subject, "key": f"{subject}{amount}"}
        api.ok("POST", "/v1/authorize", body)
    clock.ahead = timedelta(days=2)
    api.ok("POST", "/v1/billing_runs", {})
    yield api
    clock.ahead = timedelta()


def explained(api: Any, kind: str, query: str = "") -> Any:
    """Return the line of this kind, opened."""
    for listed in api.ok("GET", "/v1/invoices")["items"]:
        for line in api.ok("GET", f"/v1/invoices/{listed['id']}")["lines"]:
            if line["kind"] == kind:
                path = f"/v1/invoices/{listed['id']}/lines/{line['position']}/explain"
                return api.ok("GET", path + query)
    raise AssertionError(kind)


def test_overage_opens_to_pages_of_its_draws(billed: Any) -> None:
    first = explained(billed, "overage", "?limit=2")
    assert ("tokens: overage at 0.015 USD per token", "9.5", "0.14") == tuple(
        first["line"][name] for name in ("description", "quantity", "amount")
    )
    assert {"model": "per_unit", "unit": "0.015", "per": "1"} == first["price"]
    pool = first["pool"]
    assert ("tokens", "overage", "token", "0.1425", None) == tuple(
        pool[name] for name in ("pool", "kind", "unit", "exact", "grant")
    )
    (episode,) = pool["episodes"]
    assert (1, "9.5", "0.1425", 3, 1, False) == tuple(
        episode[name] for name in ("number", "units", "amount", "entries", "count", "earlier")
    )
    second = explained(billed, "overage", f"?limit=2&cursor={first['next_cursor']}")
    assert second["next_cursor"] is None
    entries = [*pool["entries"], *second["pool"]["entries"]]
    assert [
        ("ann", "ann12.5", "drawn", "2.5", "0.0375", 1),
        ("bob", "bob3", "drawn", "3", "0.045", 1),
        ("ann", "ann4", "drawn", "4", "0.06", 1),
    ] == [
        tuple(one[name] for name in ("subject", "key", "reason", "units", "amount", "episode"))
        for one in entries
    ]
    assert (episode["from"], episode["to"]) == (entries[0]["time"], entries[-1]["time"])
    draw = billed.ok("GET", f"/v1/draws/{entries[0]['id']}")
    assert ["10", "2.5"] == [one["amount"] for one in draw["entries"]]
    assert [] == first["events"]


def test_a_purchase_opens_to_its_grant(billed: Any) -> None:
    found = explained(billed, "purchase")
    (grant,) = billed.ok("GET", "/v1/pools/tokens/grants")["items"]
    assert {
        **{name: grant[name] for name in ("id", "key", "amount", "basis", "issued_at")},
        "cost": "2.5",
    } == found["pool"]["grant"]
    assert (None, [], "2.5") == (found["price"], found["pool"]["episodes"], found["pool"]["exact"])
    assert [("grant_issued", "10", "2.5")] == [
        (one["reason"], one["units"], one["amount"]) for one in found["pool"]["entries"]
    ]


def test_a_fee_is_of_no_pool(billed: Any) -> None:
    found = explained(billed, "fee")
    assert (None, None, []) == (found["pool"], found["price"], found["events"])


def test_a_page_that_begins_nowhere_is_empty(billed: Any) -> None:
    first = explained(billed, "overage", "?limit=1")
    path = f"/v1/invoices/{first['invoice']['id']}/lines/{first['line']['position']}/explain"
    assert (400, "cursor_invalid") == billed.code("GET", f"{path}?cursor=nonsense")


def test_what_a_pool_cost_that_nobody_pays_is_listed_with_its_amount(api: Any) -> None:
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    policy = {"currency": "USD", "limit": {"mode": "overage", "price": "0.0150"}}
    pool = {"unit": "token", "customer": "acme", "policy": policy}
    api.ok("PUT", "/v1/pools/tokens", pool)
    bought = {"key": "po-7", "amount": "10", "basis": "purchased", "cost": "2.50"}
    api.ok("POST", "/v1/pools/tokens/grants", {**bought, "on_invoice": True})
    api.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": "12.5", "key": "one"})
    today = datetime.now(UTC).date()
    span = f"from={today - timedelta(days=1)}T00:00:00Z&to={today + timedelta(days=2)}T00:00:00Z"
    items, cursor = [], ""
    while cursor is not None:
        page = api.ok("GET", f"/v1/unbilled?{span}{cursor}")
        items += page["items"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    told = ("reason", "pool", "customer", "events", "quantity", "amount", "currency")
    assert [
        ("no_pool_subscription", "tokens", "acme", 1, "2.5", "0.0375", "USD"),
        ("no_purchase_invoice", "tokens", "acme", 1, "10", "2.5", "USD"),
    ] == [tuple(item[name] for name in told) for item in items]
