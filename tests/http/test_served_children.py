"""The pool of a customer serves those that are part of it, where it says so."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from farebox.access.key import Scope
from farebox.http.cover_memory import REMEMBERED_SECONDS
from farebox.http.pool_finder import PoolFinder

NOT_SERVED = (403, "subject_not_served")
BATCH = "/v1/authorize/batch"
POOL = {"unit": "token", "customer": "acme"}


@pytest.fixture
def family(api: Any) -> Any:
    """Return the API of a vendor: team is part of acme, crew of team, globex of nobody."""
    for key, parent in (("acme", None), ("team", "acme"), ("crew", "team"), ("globex", None)):
        api.ok("PUT", f"/v1/customers/{key}", {"name": key, "parent": parent})
    api.ok("PUT", "/v1/pools/family", {**POOL, "serves_children": True})
    api.ok("PUT", "/v1/pools/own", POOL)
    for key in ("family", "own"):
        api.ok("POST", f"/v1/pools/{key}/grants", {"amount": 100})
    return api


def asking(customer: str, **fields: Any) -> dict[str, Any]:
    return {"pool": "family", "amount": 1, "customer": customer, **fields}


def answers(api: Any, body: dict[str, Any]) -> list[str]:
    """Return what is answered to a request, to it in a batch, and to a check of it."""
    one = api("POST", "/v1/authorize", body).json()
    (each,) = api.ok("POST", BATCH, {"requests": [body]})["answers"]
    check = api.ok("POST", f"/v1/pools/{body['pool']}/check", body)
    told = (one, each["granted"] or each["refused"], check["refusal"] or check)
    return [each.get("code", "granted") for each in told]


@pytest.mark.parametrize("customer", ["acme", "team", "crew"])
def test_it_is_served_at_any_depth(family: Any, customer: str) -> None:
    assert ["granted"] * 3 == answers(family, asking(customer))
    assert ["granted"] * 3 == answers(family, asking(customer, hold={"seconds": 60}))
    assert "96" == family.ok("GET", "/v1/pools/family")["available"]


@pytest.mark.parametrize(
    "body",
    [
        asking("globex"),
        asking("nobody"),
        asking("team", pool="own"),
        asking("acme", pool="teams"),
    ],
)
def test_nobody_else_is_and_nothing_moves(family: Any, body: dict[str, Any]) -> None:
    family.ok("PUT", "/v1/pools/teams", {**POOL, "customer": "team", "serves_children": True})
    assert ["subject_not_served"] * 3 == answers(family, body)
    assert NOT_SERVED == family.code("POST", "/v1/authorize", body)
    assert "100" == family.ok("GET", "/v1/pools/family")["available"]
    assert [] == family.ok("GET", "/v1/refusals")


def test_whom_it_serves_changes_within_seconds(family: Any, clock: Any) -> None:
    later = timedelta(seconds=REMEMBERED_SECONDS + 1)
    assert ["granted"] * 3 == answers(family, asking("crew"))
    family.ok("PUT", "/v1/customers/crew", {"name": "crew", "parent": "globex"})
    clock.ahead += later
    assert ["subject_not_served"] * 3 == answers(family, asking("crew"))
    assert ["granted"] * 3 == answers(family, asking("team"))
    family.ok("PUT", "/v1/pools/family", POOL)
    clock.ahead += later
    assert ["subject_not_served"] * 3 == answers(family, asking("team"))


def test_it_is_read_once_for_many_draws(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    look_up = PoolFinder._read_served

    def counted(self: PoolFinder, principal: Any, pool: Any, customer: str, now: Any) -> bool:
        read.append(customer)
        return look_up(self, principal, pool, customer, now)

    monkeypatch.setattr(PoolFinder, "_read_served", counted)
    for customer in ("team", "acme", "globex"):
        for _ in range(5):
            family("POST", "/v1/authorize", asking(customer))
    assert ["team", "globex"] == read


def test_a_key_of_one_child_is_not_answered_what_another_got(family: Any) -> None:
    for customer in ("acme", "team"):
        assert not family.ok("POST", "/v1/authorize", asking(customer, key=customer))["repeated"]
        assert family.ok("POST", "/v1/authorize", asking(customer, key=customer))["repeated"]
    for body in (asking("crew", key="team"), asking("acme", key="team")):
        (each,) = family.ok("POST", BATCH, {"requests": [body]})["answers"]
        assert "idempotency_key_reused" == each["refused"]["code"]
        assert (422, "idempotency_key_reused") == family.code("POST", "/v1/authorize", body)
    # Whose the pool is goes without saying.
    said = {name: one for name, one in asking("acme", key="acme").items() if name != "customer"}
    assert family.ok("POST", "/v1/authorize", said)["repeated"]


def test_the_parents_own_key_asks_for_its_children_and_no_others(
    family: Any, new_key: Callable[..., Any]
) -> None:
    own = new_key(family, Scope.DRAW, Scope.READ, customer="acme")
    assert ["granted"] * 3 == answers(own, asking("crew"))
    assert ["subject_not_served"] * 3 == answers(own, asking("globex"))


def test_a_key_of_the_child_neither_sees_nor_draws_from_its_parents_pool(
    family: Any, new_key: Callable[..., Any]
) -> None:
    hold = family.ok("POST", "/v1/authorize", asking("team", hold={"seconds": 60}))["hold"]
    before = family.ok("GET", "/v1/pools/family/statement")
    child = new_key(family, Scope.MANAGE, Scope.READ, Scope.DRAW, customer="team")
    for customer in ("team", "crew", "acme", None):
        body = {"pool": "family", "amount": 1, "customer": customer}
        assert (404, "pool_unknown") == child.code("POST", "/v1/authorize", body)
        assert (404, "pool_unknown") == child.code("POST", "/v1/pools/family/check", body)
        (each,) = child.ok("POST", BATCH, {"requests": [body]})["answers"]
        assert "pool_unknown" == each["refused"]["code"]
    for verb, body in (("settle", {"amount": 1}), ("extend", {"amount": 1}), ("release", {})):
        assert (404, "hold_unknown") == child.code("POST", f"/v1/holds/{hold}/{verb}", body)
    for part in ("", "/grants", "/statement", "/usage", "/allotments", "/live"):
        assert (404, "pool_unknown") == child.code("GET", f"/v1/pools/family{part}")
    assert before == family.ok("GET", "/v1/pools/family/statement")


def test_units_buy_access_for_whom_the_pool_serves_and_nobody_else(family: Any) -> None:
    family.ok("PUT", "/v1/features/sso?publish=true", {})
    access = {"feature": "sso", "amount": 5, "seconds": 60}
    license = {"license": {"key": "L-9"}, "amount": 5, "seconds": 60}
    for body in (access, license):
        for pool, customer in (("family", "globex"), ("own", "team")):
            asked = {**body, "customer": customer}
            assert NOT_SERVED == family.code("POST", f"/v1/pools/{pool}/access", asked)
    assert ["100", "100"] == [
        family.ok("GET", f"/v1/pools/{pool}")["available"] for pool in ("family", "own")
    ]
    family.ok("POST", "/v1/pools/family/access", {**access, "customer": "crew"})
    family.ok("PUT", "/v1/pools/nobodys", {"unit": "token"})
    family.ok("POST", "/v1/pools/nobodys/grants", {"amount": 5})
    family.ok("POST", "/v1/pools/nobodys/access", {**access, "customer": "globex"})
