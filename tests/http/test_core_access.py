"""Who may come in: keys, scopes, keys of one customer, and organizations kept apart."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from farebox.access.key import Scope

PLAN = {"currency": "USD"}
INGESTING = {("post", "/v1/events"), ("put", "/v1/sources/controls")}
"""What the scope to send events opens: to send them, and to say how many were sent."""
SUBSCRIPTION = {"plan": "p", "start": "2026-01-01T00:00:00Z"}


@pytest.fixture
def two_customers(api: Any) -> Any:
    api.ok("PUT", "/v1/plans/p?publish=true", PLAN)
    for key in ("a", "b"):
        api.ok("PUT", f"/v1/customers/{key}", {"metadata": {"tier": key}})
        api.ok("PUT", f"/v1/subscriptions/s-{key}", {**SUBSCRIPTION, "customer": key})
    return api


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"Authorization": "Bearer "}, "key_missing"),
        ({"Authorization": "Bearer nonsense"}, "key_malformed"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "key_malformed"),
        ({"X-API-Key": f"fbx_{'a' * 16}_{'a' * 52}"}, "key_unknown"),
        ({"Authorization": f"Bearer fbx_{'a' * 16}_{'a' * 52}"}, "key_unknown"),
    ],
)
def test_a_key_that_opens_nothing(
    anonymous: TestClient[Any], headers: dict[str, str], code: str
) -> None:
    for method, path in (("GET", "/v1/meters"), ("POST", "/v1/events")):
        response = anonymous.request(method, path, headers=headers)
        assert (401, code) == (response.status_code, response.json()["code"])
        assert "Bearer" == response.headers["www-authenticate"]


def test_a_wrong_secret_is_as_unknown_as_a_wrong_id(api: Any) -> None:
    wrong = api.key[:-1] + ("a" if api.key[-1] != "a" else "b")
    assert (401, "key_unknown") == api.with_key(wrong).code("GET", "/v1/meters")


def test_both_headers_carry_a_key(api: Any) -> None:
    assert 200 == api.client.get("/v1/meters", headers={"X-API-Key": api.key}).status_code


def test_a_revoked_key_ends_at_once_here_and_within_seconds_elsewhere(
    api: Any, new_key: Callable[..., Any], farebox: Any, clock: Any
) -> None:
    made = api.ok("POST", "/v1/api_keys", {"scopes": ["read"]})
    reader = api.with_key(made["key"])
    reader.ok("GET", "/v1/meters")
    assert 204 == api("DELETE", f"/v1/api_keys/{made['id']}").status_code
    assert (401, "key_revoked") == reader.code("GET", "/v1/meters")
    assert 204 == api("DELETE", f"/v1/api_keys/{made['id']}").status_code
    # As another process would have revoked it: behind the back of this one's memory.
    other = api.ok("POST", "/v1/api_keys", {"scopes": ["read"]})
    reader = api.with_key(other["key"])
    reader.ok("GET", "/v1/meters")
    with farebox.pool.connection() as connection:
        connection.execute(
            f"begin; set local farebox.organization = '{api.organization_id}';"
            f" update api_key set revoked_at = now() where revoked_at is null and name = ''; commit"
        )
    clock.ahead += timedelta(seconds=5)
    assert (401, "key_revoked") == reader.code("GET", "/v1/meters")


def test_a_secret_is_shown_once(api: Any) -> None:
    body, once = {"name": "ci", "scopes": ["ingest"]}, {"Idempotency-Key": "k-1"}
    first = api.ok("POST", "/v1/api_keys", body, headers=once)
    again = api.ok("POST", "/v1/api_keys", body, headers=once)
    assert first["key"].startswith("fbx_")
    assert {**first, "key": None} == again
    listed = api.ok("GET", "/v1/api_keys")["items"]
    assert ["owner", "ci"] == [key["name"] for key in listed]
    assert "fbx_" not in str(listed)


def test_what_a_new_key_may_be(api: Any, new_api: Callable[[], Any]) -> None:
    path = "/v1/api_keys"
    assert (422, "wrong_type") == api.code("POST", path, {"scopes": []})
    assert (422, "wrong_type") == api.code("POST", path, {"scopes": ["root"]})
    assert (422, "missing_field") == api.code("POST", path, {})
    assert (422, "unknown_customer") == api.code(
        "POST", path, {"scopes": ["read"], "customer": "nobody"}
    )
    assert (404, "not_found") == api.code("DELETE", f"{path}/key_nonsense")
    other = new_api().ok("GET", path)["items"][0]["id"]
    assert (404, "not_found") == api.code("DELETE", f"{path}/{other}")


def test_every_route_asks_for_a_scope(api: Any, new_key: Callable[..., Any]) -> None:
    """Whoever has only the scope to send events can do nothing else, route by route."""
    sender = new_key(api, Scope.INGEST)
    asked = 0
    for path, methods in api.client.get("/openapi.json").json()["paths"].items():
        if not path.startswith("/v1"):
            continue
        place = re.sub(r"\{\w+\}", "x", re.sub(r"\{(version|position)\}", "1", path))
        for method in methods:
            response = sender(method.upper(), place)
            if (method, path) in INGESTING:
                assert response.status_code in (400, 415), place
                continue
            assert (403, "scope_missing") == (response.status_code, response.json()["code"]), place
            asked += 1
    assert asked > 30


def test_reading_is_not_managing(api: Any, new_key: Callable[..., Any]) -> None:
    reader = new_key(api, Scope.READ)
    reader.ok("GET", "/v1/meters")
    assert (403, "scope_missing") == reader.code("PUT", "/v1/meters/m", {})
    assert (403, "scope_missing") == reader.code("POST", "/v1/events", {})


def test_asking_without_taking_is_for_who_may_draw_or_read(
    api: Any, new_key: Callable[..., Any]
) -> None:
    meter = {"event_type": "call", "aggregation": "count"}
    api.ok("PUT", "/v1/meters/calls?publish=true", meter)
    rates = [{"meter": "calls", "price": {"model": "per_unit", "unit": "1"}}]
    card = {"currency": "credit", "custom_unit": True, "rates": rates}
    api.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    api.ok("PUT", "/v1/pools/p", {"unit": "credit", "customer": "acme", "rate_card": "credits"})
    api.ok("POST", "/v1/pools/p/grants", {"amount": 5})
    used = {"pool": "p", "type": "call", "data": {}}
    dry = {**used, "dry_run": True}
    for scope in (Scope.DRAW, Scope.READ):
        asker = new_key(api, scope)
        assert asker.ok("POST", "/v1/pools/p/check", {"amount": 1})["granted"]
        decision = asker.ok("POST", "/v1/uses", dry)["decision"]
        assert ("1", None, None) == (decision["amount"], decision["id"], decision["hold"])
    reader, sender = new_key(api, Scope.READ), new_key(api, Scope.INGEST)
    for body in (used, {**used, "dry_run": False}):
        assert (403, "scope_missing") == reader.code("POST", "/v1/uses", body)
    assert (403, "scope_missing") == sender.code("POST", "/v1/uses", dry)
    assert (403, "scope_missing") == sender.code("POST", "/v1/pools/p/check", {"amount": 1})
    assert "5" == api.ok("GET", "/v1/pools/p")["available"]


def test_a_key_of_one_customer_sees_that_customer(
    two_customers: Any, new_key: Callable[..., Any]
) -> None:
    own = new_key(two_customers, Scope.READ, customer="a")
    assert ["a"] == [one["key"] for one in own.ok("GET", "/v1/customers")["items"]]
    assert [] == own.ok("GET", "/v1/customers?metadata.tier=b")["items"]
    assert "a" == own.ok("GET", "/v1/customers/a")["key"]
    assert (404, "not_found") == own.code("GET", "/v1/customers/b")
    assert ["s-a"] == [one["key"] for one in own.ok("GET", "/v1/subscriptions")["items"]]
    assert (403, "customer_key_refused") == own.code("GET", "/v1/subscriptions?customer=b")
    assert (404, "not_found") == own.code("GET", "/v1/subscriptions/s-b")
    assert "s-a" == own.ok("GET", "/v1/subscriptions/s-a")["key"]


def test_a_key_of_one_customer_reaches_no_further(
    two_customers: Any, new_key: Callable[..., Any]
) -> None:
    """Even with every scope, what cannot be filtered by its customer is refused."""
    own = new_key(two_customers, Scope.MANAGE, customer="a")
    for method, path in (
        ("GET", "/v1/meters"),
        ("GET", "/v1/organization"),
        ("GET", "/v1/api_keys"),
        ("GET", "/v1/subjects/b"),
        ("PUT", "/v1/customers/a"),
        ("PUT", "/v1/plans/p"),
        ("POST", "/v1/catalog/apply"),
        ("POST", "/v1/events"),
    ):
        assert (403, "customer_key_refused") == own.code(method, path, {}), path


def test_two_organizations_see_nothing_of_each_other(
    two_customers: Any, new_api: Callable[[], Any]
) -> None:
    other = new_api()
    for path in ("customers", "subscriptions", "plans", "meters"):
        assert [] == other.ok("GET", f"/v1/{path}")["items"]
    for path in ("customers/a", "subscriptions/s-a", "plans/p", "plans/p/versions/1"):
        assert (404, "not_found") == other.code("GET", f"/v1/{path}")
    # The same keys are free there, and what happens to them stays there.
    other.ok("PUT", "/v1/customers/a", {"name": "Other"})
    assert "" == two_customers.ok("GET", "/v1/customers/a")["name"]
    assert other.ok("GET", "/v1/organization") != two_customers.ok("GET", "/v1/organization")


def test_every_answer_makes_the_least_of_a_browser(api: Any) -> None:
    for response in (
        api("GET", "/v1/meters"),
        api("GET", "/v1/nowhere"),
        api("POST", "/v1/events", []),
        api.client.get("/healthz"),
    ):
        assert "nosniff" == response.headers["x-content-type-options"]
        assert (
            "default-src 'none'; frame-ancestors 'none'"
            == (response.headers["content-security-policy"])
        )
        assert "access-control-allow-origin" not in response.headers


def test_paths_and_methods_that_are_not_there(api: Any) -> None:
    assert (404, "not_found") == api.code("GET", "/v1/nowhere")
    assert (405, "method_not_allowed") == api.code("DELETE", "/v1/meters")
    assert (400, "parameter_invalid") == api.code("GET", "/v1/meters/a%00b")
    assert (400, "parameter_invalid") == api.code("GET", "/v1/customers?metadata.a=%00")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/meters/m?pubish=true"),
        ("GET", "/v1/meters?page=2"),
        ("GET", "/v1/customers?crm=1"),
        ("POST", "/v1/events?answer=failures"),
        ("POST", "/v1/catalog/apply?dryrun=true"),
    ],
)
def test_a_misspelt_parameter_never_fails_silently(api: Any, method: str, path: str) -> None:
    assert (400, "parameter_invalid") == api.code(method, path, {} if method != "GET" else None)


def test_no_route_is_left_without_a_guard(anonymous: TestClient[Any]) -> None:
    public = {"/", "/healthz", "/readyz", "/openapi.json", "/docs", "/docs/problems"}
    bare = [
        route.path
        for route in anonymous.app.routes
        if isinstance(route, HTTPRoute) and not route.path.startswith("/console")
        for handler in route.route_handlers
        if not handler.guards and handler.http_methods != {"OPTIONS"}
    ]
    assert public == set(bare)
