"""Every way to be refused for want of units names what would cover, with its price, or nothing."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from farebox.access.key import Scope
from farebox.flows import resolve_feature
from farebox.http import cover_memory
from farebox.http.state import State

TOP_UP = {"units": 500, "price": 5, "currency": "USD"}
BOUGHT = ("top_up", "calls", "5")
"""The top-up of 500 calls, once; as `names` tells it."""
PRO = ("plan", "pro", "49")


@pytest.fixture
def sold(api: Any, farebox: State) -> Any:
    """Return the API of a vendor whose customer has a thousand calls a month."""
    api.ok("PUT", "/v1/features/calls?publish=true", {"unit": "call", "top_ups": [TOP_UP]})
    api.ok("PUT", "/v1/features/sso?publish=true", {})
    for key, fee, more in (
        ("free", 0, {"entitlements": [{"feature": "calls", "limit": 1000}]}),
        ("pro", 49, {"entitlements": [{"feature": "calls", "limit": 50_000}], "features": ["sso"]}),
    ):
        fees = [{"key": "fee", "amount": fee}]
        plan = {"currency": "USD", "fees": fees, **more}
        api.ok("PUT", f"/v1/plans/{key}?publish=true", plan)
    for key in ("acme", "newcomer"):
        api.ok("PUT", f"/v1/customers/{key}", {"name": key})
    start = farebox.clock().isoformat()
    body = {"customer": "acme", "plan": "free", "start": start}
    api.ok("PUT", "/v1/subscriptions/acme-free", body)
    api.ok("POST", "/v1/authorize", asking(900))
    return api


def asking(amount: int, **fields: Any) -> dict[str, Any]:
    named = {} if "pool" in fields else {"feature": "calls", "customer": "acme"}
    return {**named, "amount": amount, **fields}


def change(api: Any, **fields: Any) -> None:
    """Put the pool of the calls as it is, but for these fields."""
    path = "/v1/pools/calls:acme"
    view = api.ok("GET", path)
    kept = ("name", "unit", "customer", "subscription", "timezone", "policy")
    same = {name: view[name] for name in kept}
    api.ok("PUT", path, {**same, **fields})


def names(problem: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what a refusal says may be bought."""
    return [
        (one["kind"], one["key"], one["price"]) for one in problem["help"] if one["kind"] != "wait"
    ]


def refused(api: Any, path: str, body: Any) -> list[tuple[str, str, str]]:
    response = api("POST", path, body)
    assert response.status_code in (402, 403, 409, 429), response.text
    return names(response.json())


def test_one_request_and_a_pool_named_by_its_key_say_the_same(sold: Any) -> None:
    for body in (asking(150), asking(150, pool="calls:acme")):
        assert [BOUGHT, PRO] == refused(sold, "/v1/authorize", body)


def test_to_wait_is_named_only_where_what_comes_will_do(sold: Any) -> None:
    renews = sold.ok("GET", "/v1/pools/calls:acme")["period"]["end"]
    for amount, helps in ((1000, True), (1001, False)):
        problem = sold("POST", "/v1/authorize", asking(amount)).json()
        waits = [one["at"] for one in problem["help"] if one["kind"] == "wait"]
        assert ([renews] if helps else []) == waits
        assert renews == problem["refills_at"]  # some come by themselves in either case
        assert ["top_up", "plan"] == [one[0] for one in names(problem)]


def test_a_top_up_is_named_as_often_as_it_takes(sold: Any) -> None:
    (found, _) = sold("POST", "/v1/authorize", asking(701)).json()["help"][1:]
    assert ("10", "1000", "2 x 500 call") == (found["price"], found["units"], found["name"])


def test_each_of_a_batch_says_it_and_what_is_sold_is_read_once(
    sold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = resolve_feature.offers_of

    def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(cover_memory, "offers_of", counted)
    requests = [
        *[asking(150 + number) for number in range(20)],
        asking(1),
        {"feature": "calls", "customer": "newcomer", "amount": 1},
        asking(5, pool="nowhere"),
    ]
    found = sold.ok("POST", "/v1/authorize/batch", {"requests": requests})["answers"]
    assert [[BOUGHT, PRO]] * 20 == [names(one["refused"]) for one in found[:20]]
    assert found[20]["granted"]["granted"] is True
    # Nothing entitles the newcomer, so units alone would not do.
    assert [[("plan", "free", "0")], []] == [names(one["refused"]) for one in found[21:]]
    assert 1 == len(reads)


def test_what_was_granted_is_answered_also_where_no_help_can_be_read(
    sold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Any:
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(cover_memory, "offers_of", lost)
    body = {"requests": [asking(1), asking(150), asking(160)]}
    with capture_logs() as logs:
        first, second, _ = sold.ok("POST", "/v1/authorize/batch", body)["answers"]
    assert (True, []) == (first["granted"]["granted"], names(second["refused"]))
    assert ["help_not_read"] == [one["event"] for one in logs]


def test_a_hold_that_wants_more_says_it_for_whoever_holds(sold: Any) -> None:
    hold = sold.ok("POST", "/v1/authorize", asking(60, hold={"seconds": 60}))["hold"]
    path = f"/v1/holds/{hold}"
    assert [BOUGHT, PRO] == refused(sold, f"{path}/extend", {"amount": 41})
    sold.ok("POST", f"{path}/settle", {"amount": 999})  # what was used is never refused
    assert [] == refused(sold, f"{path}/extend", {"amount": 41})


def test_a_check_says_it_and_stores_nothing(sold: Any) -> None:
    path = "/v1/pools/calls:acme/check"
    answer = sold.ok("POST", path, {"pool": "calls:acme", "amount": 101})
    assert [BOUGHT, PRO] == names(answer["refusal"])
    assert [] == sold.ok("GET", "/v1/refusals")


def test_a_use_by_its_event_says_it_and_is_stored(sold: Any) -> None:
    meter = {"event_type": "call", "aggregation": "sum", "value": "$.calls"}
    sold.ok("PUT", "/v1/meters/calls?publish=true", meter)
    rate = {"meter": "calls", "price": {"model": "per_unit", "unit": "2"}}
    card = {"currency": "call", "custom_unit": True, "rates": [rate]}
    sold.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    change(sold, rate_card="credits")
    use = {"pool": "calls:acme", "type": "call", "data": {"calls": 51}, "subject": "ann"}
    assert [BOUGHT, PRO] == refused(sold, "/v1/uses", use)
    (stored,) = sold.ok("GET", "/v1/refusals")
    assert ("insufficient_balance", "ann", 1) == (
        stored["code"],
        stored["subject"],
        stored["count"],
    )
    taken = sold.ok("POST", "/v1/uses", {**use, "data": {"calls": 25}})
    assert Decimal(50) == Decimal(taken["units"])
    # What the newcomer uses is on the newcomer's bill.
    for more in ({}, {"dry_run": True}, {"hold": {"seconds": 60}}):
        asked = {**use, "data": {"calls": 1}, "subject": "newcomer", **more}
        assert (403, "subject_not_served") == sold.code("POST", "/v1/uses", asked)


def test_a_feature_that_is_simply_on_is_sold_by_a_plan(sold: Any) -> None:
    body = {"feature": "sso", "customer": "acme", "amount": 1}
    assert [PRO] == refused(sold, "/v1/authorize", body)


def test_where_an_override_stands_no_plan_is_said_to_help(sold: Any) -> None:
    path = "/v1/customers/acme/entitlements"
    sold.ok("PUT", f"{path}/calls", {"limit": "10"})
    sold.ok("PUT", f"{path}/sso", {"enabled": False})
    assert [BOUGHT] == refused(sold, "/v1/authorize", asking(150, pool="calls:acme"))
    body = {"feature": "sso", "customer": "acme", "amount": 1}
    assert [] == refused(sold, "/v1/authorize", body)


def test_a_share_is_told_of_units_that_it_would_get_and_not_of_others(sold: Any) -> None:
    path = "/v1/pools/calls:acme/allotments"
    shares = [{"key": "ann", "cap": 40}, {"key": "bob", "guarantee": 90}]
    sold.ok("PUT", path, {"allotments": shares})
    # A top-up does not raise the cap of a share; units kept for others it does make up for.
    assert [] == refused(sold, "/v1/authorize", asking(41, subject="ann", pool="calls:acme"))
    assert [BOUGHT, PRO] == refused(
        sold, "/v1/authorize", asking(30, subject="ann", pool="calls:acme")
    )
    sold.ok("PUT", path, {"allotments": [{"key": "bob", "weight": 1}]})
    assert [] == refused(sold, "/v1/authorize", asking(30, pool="calls:acme"))


def test_a_closed_pool_is_not_said_to_open_for_money(sold: Any) -> None:
    change(sold, closed=True)
    assert [] == refused(sold, "/v1/authorize", asking(30, pool="calls:acme"))


def test_a_key_of_the_customer_is_told_too(sold: Any, new_key: Callable[..., Any]) -> None:
    own = new_key(sold, Scope.DRAW, customer="acme")
    body = {"feature": "calls", "amount": 150}
    assert [BOUGHT, PRO] == refused(own, "/v1/authorize", body)


def test_a_move_of_more_than_there_is_says_it(sold: Any) -> None:
    sold.ok("PUT", "/v1/pools/spare", {"unit": "call", "customer": "acme"})
    path = "/v1/pools/calls:acme/moves"
    assert [BOUGHT, PRO] == refused(sold, path, {"to": "spare", "amount": 150})
    # What may be taken beyond the grants cannot be moved, so it is missing all the same.
    policy = sold.ok("GET", "/v1/pools/calls:acme")["policy"]
    change(sold, policy={**policy, "limit": {"mode": "overdraft", "units": "500"}})
    assert [BOUGHT, PRO] == refused(sold, path, {"to": "spare", "amount": 150})
    sold.ok("POST", "/v1/authorize", asking(450, pool="calls:acme"))
    twice = ("top_up", "calls", "10")
    assert [twice, PRO] == refused(sold, path, {"to": "spare", "amount": 151})
    assert [] == refused(sold, "/v1/pools/spare/moves", {"to": "calls:acme", "amount": 1})


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "access-1"}])
def test_so_does_access_that_costs_more(sold: Any, headers: dict[str, str]) -> None:
    path = "/v1/pools/calls:acme/access"
    body = {"feature": "sso", "amount": 150, "seconds": 3600, "subject": "ann"}
    answer = sold("POST", path, body, headers=headers)
    assert (402, [BOUGHT, PRO]) == (answer.status_code, names(answer.json()))
    (stored,) = sold.ok("GET", "/v1/refusals")
    assert ("insufficient_balance", "ann") == (stored["code"], stored["subject"])
    sold.ok("POST", "/v1/pools/calls:acme/grants", {"amount": 50})
    sold.ok("POST", path, body, headers=headers)
    assert "0" == sold.ok("GET", "/v1/pools/calls:acme")["available"]


@pytest.mark.parametrize("verb", ["moves", "access"])
def test_the_description_shows_a_refusal_with_what_would_help(api: Any, verb: str) -> None:
    paths = api.ok("GET", "/openapi.json")["paths"]
    (content,) = paths[f"/v1/pools/{{key}}/{verb}"]["post"]["responses"]["402"]["content"].values()
    assert ["chat"] == [one["key"] for one in content["examples"]["1"]["value"]["help"]]
