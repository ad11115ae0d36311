"""Alert rules and alerts over HTTP: put, listed, narrowed, and closed to other customers' keys."""

from collections.abc import Callable
from typing import Any

import pytest

from farebox.access.key import Scope
from farebox.alerts import rule_check
from farebox.flows import put_alert_rule
from farebox.flows.watch_pools import watch_all
from farebox.http.state import State

RULE = {"kind": "balance_below", "threshold": "100"}


def open_pool(api: Any, key: str, customer: str | None, units: int) -> None:
    if customer is not None:
        api.ok("PUT", f"/v1/customers/{customer}", {"name": customer})
    body = {"unit": "token", **({} if customer is None else {"customer": customer})}
    api.ok("PUT", f"/v1/pools/{key}", body)
    api.ok("POST", f"/v1/pools/{key}/grants", {"amount": units})


@pytest.fixture
def watched(api: Any, farebox: State) -> Any:
    """Return the API of an organization with four pools of which three are low."""
    for key, customer, units in (
        ("a-1", "acme", 5),
        ("a-2", "acme", 50),
        ("a-3", "acme", 500),
        ("g-1", "globex", 7),
    ):
        open_pool(api, key, customer, units)
    api.ok("PUT", "/v1/alert_rules/low", RULE)
    watch_all(farebox.pool, api.organization_id, farebox.clock())
    return api


def fired(api: Any, query: str = "") -> list[str]:
    return sorted(one["pool"] for one in api.ok("GET", f"/v1/alerts{query}")["items"])


def test_a_rule_is_put_once_changed_and_deleted(api: Any) -> None:
    path = "/v1/alert_rules/low"
    first = api("PUT", path, {**RULE, "metadata": {"team": "growth"}})
    assert (201, True) == (first.status_code, first.json()["changed"])
    again = api("PUT", path, {**RULE, "metadata": {"team": "growth"}})
    assert (200, False) == (again.status_code, again.json()["changed"])
    changed = api.ok("PUT", path, {**RULE, "clear_at": "150"})
    assert (True, "150", {}) == (
        changed["changed"],
        changed["rule"]["clear_at"],
        changed["rule"]["metadata"],
    )
    assert changed["rule"] == api.ok("GET", path)
    assert [changed["rule"]] == api.ok("GET", "/v1/alert_rules")["items"]
    assert 204 == api("DELETE", path).status_code
    assert (404, "not_found") == api.code("DELETE", path)
    assert (404, "not_found") == api.code("GET", path)


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"pool": "nowhere"}, "unknown_pool", "/pool"),
        ({"customer": "nobody"}, "unknown_customer", "/customer"),
        ({"threshold": "0"}, "threshold_out_of_range", "/threshold"),
        ({"clear_at": "50"}, "clear_at_wrong_side", "/clear_at"),
        ({"window_minutes": 5}, "field_not_of_kind", "/window_minutes"),
        ({"key": "other"}, "key_mismatch", "/key"),
    ],
)
def test_a_rule_is_refused_with_the_field_at_fault(
    api: Any, body: dict[str, Any], code: str, pointer: str
) -> None:
    answer = api("PUT", "/v1/alert_rules/low", {**RULE, **body})
    problem = answer.json()
    assert (422, code) == (answer.status_code, problem["code"])
    assert [pointer] == [one["pointer"] for one in problem["errors"]]


def test_rules_have_an_end(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rule_check.RULES_MAX == put_alert_rule.RULES_MAX
    monkeypatch.setattr(put_alert_rule, "RULES_MAX", 2)
    for key in ("a", "b", "a"):
        api.ok("PUT", f"/v1/alert_rules/{key}", RULE)
    assert (422, "too_many_alert_rules") == api.code("PUT", "/v1/alert_rules/c", RULE)


def test_alerts_are_narrowed(watched: Any) -> None:
    assert ["a-1", "a-2", "g-1"] == fired(watched)
    assert ["a-1", "a-2"] == fired(watched, "?customer=acme&state=firing")
    assert ["g-1"] == fired(watched, "?pool=g-1")
    assert ["a-1", "a-2", "g-1"] == fired(watched, "?rule=low")
    assert [] == fired(watched, "?rule=other") == fired(watched, "?state=cleared")
    assert (404, "pool_unknown") == watched.code("GET", "/v1/alerts?pool=nowhere")
    assert (400, "parameter_invalid") == watched.code("GET", "/v1/alerts?state=loud")
    assert (400, "cursor_invalid") == watched.code("GET", "/v1/alerts?cursor=x")


def test_alerts_come_in_pages(watched: Any) -> None:
    found, cursor = [], ""
    for _ in range(3):
        page = watched.ok("GET", f"/v1/alerts?limit=1{cursor}")
        found += [one["pool"] for one in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert ["a-1", "a-2", "g-1"] == sorted(found)


def test_what_clears_stays_in_the_history(watched: Any, farebox: State) -> None:
    watched.ok("POST", "/v1/pools/a-1/grants", {"amount": 500})
    watch_all(farebox.pool, watched.organization_id, farebox.clock())
    (alert,) = watched.ok("GET", "/v1/alerts?state=cleared")["items"]
    assert ("a-1", "cleared", "5", "505", "value") == (
        alert["pool"],
        alert["state"],
        alert["value"],
        alert["cleared_value"],
        alert["cleared_by"],
    )
    watched.ok("DELETE", "/v1/alert_rules/low")
    assert [] == fired(watched, "?state=firing")
    assert 3 == len(fired(watched))


def test_the_notice_has_the_alert_as_the_list_has_it(watched: Any) -> None:
    told = watched.ok("GET", "/v1/notices?type=alert.fired&customer=globex")["items"]
    (alert,) = watched.ok("GET", "/v1/alerts?customer=globex")["items"]
    assert [alert] == [one["data"] for one in told]


def test_a_key_of_a_customer_reads_its_own_alerts_and_no_rules(
    watched: Any, new_key: Callable[..., Any]
) -> None:
    bound = new_key(watched, Scope.READ, customer="acme")
    assert ["a-1", "a-2"] == fired(bound)
    assert (403, "customer_key_refused") == bound.code("GET", "/v1/alerts?customer=globex")
    assert (404, "pool_unknown") == bound.code("GET", "/v1/alerts?pool=g-1")
    assert (403, "customer_key_refused") == bound.code("GET", "/v1/alert_rules")
    reader = new_key(watched, Scope.READ)
    assert (403, "scope_missing") == reader.code("PUT", "/v1/alert_rules/x", RULE)
    assert (403, "scope_missing") == reader.code("DELETE", "/v1/alert_rules/low")


def test_another_organization_sees_nothing(watched: Any, new_api: Callable[[], Any]) -> None:
    other = new_api()
    assert [] == fired(other)
    assert [] == other.ok("GET", "/v1/alert_rules")["items"]
    assert (404, "not_found") == other.code("DELETE", "/v1/alert_rules/low")
    assert ["a-1", "a-2", "g-1"] == fired(watched, "?state=firing")
