"""What was refused is stored whichever way it was asked, though nothing moved by it."""

from typing import Any

import pytest

NOWHERE = 999
"""The number of no hold and no draw."""


@pytest.fixture
def sold(api: Any) -> Any:
    """Return the API of a vendor with a pool of ten credits, of which a call costs two."""
    api.ok("PUT", "/v1/features/chat?publish=true", {})
    meter = {"event_type": "call", "aggregation": "sum", "value": "$.calls"}
    api.ok("PUT", "/v1/meters/calls?publish=true", meter)
    rate = {"meter": "calls", "price": {"model": "per_unit", "unit": "2"}}
    card = {"currency": "credit", "custom_unit": True, "rates": [rate]}
    api.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    pool = {"unit": "credit", "customer": "acme", "rate_card": "credits"}
    api.ok("PUT", "/v1/pools/credits", pool)
    api.ok("POST", "/v1/pools/credits/grants", {"amount": 10})
    return api


def stored(api: Any) -> list[tuple[str, str, int]]:
    """Return code, subject and count of each row."""
    found = api.ok("GET", "/v1/refusals?pool=credits")
    return sorted((one["code"], one["subject"], one["count"]) for one in found)


def use(calls: int) -> dict[str, Any]:
    return {"type": "call", "data": {"calls": calls}}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "settle-1"}])
def test_a_refused_settling_of_a_use(sold: Any, headers: dict[str, str]) -> None:
    body = {**use(1), "pool": "credits", "hold": {"seconds": 60}}
    hold = sold.ok("POST", "/v1/uses", body)["decision"]["hold"]
    path = f"/v1/uses/{hold}/settle"
    sold.ok("POST", path, use(2))
    for _ in range(2):
        assert (409, "hold_settled") == sold.code("POST", path, use(2), headers=headers)
    unknown = f"{hold.rpartition('_')[0]}_{NOWHERE}"
    answer = sold.code("POST", f"/v1/uses/{unknown}/settle", use(2), headers=headers)
    assert (404, "hold_unknown") == answer
    assert [("hold_settled", "", 2), ("hold_unknown", "", 1)] == stored(sold)
    assert "6" == sold.ok("GET", "/v1/pools/credits")["available"]


def test_refused_access_and_a_refused_taking_back(sold: Any) -> None:
    body = {"feature": "chat", "amount": 11, "seconds": 60, "subject": "ann"}
    assert (402, "insufficient_balance") == sold.code("POST", "/v1/pools/credits/access", body)
    asked = {"pool": "credits", "amount": 3, "subject": "bob"}
    draw = sold.ok("POST", "/v1/authorize", asked)["id"]
    path = f"/v1/draws/{draw}/reverse"
    assert (422, "reversal_exceeds_draw") == sold.code("POST", path, {"amount": 4})
    sold.ok("POST", path, {})
    assert (409, "draw_reversed") == sold.code("POST", path, {})
    assert [
        ("draw_reversed", "bob", 1),
        ("insufficient_balance", "ann", 1),
        ("reversal_exceeds_draw", "bob", 1),
    ] == stored(sold)


def test_nothing_is_stored_of_what_no_pool_was_asked_for(sold: Any) -> None:
    for answer, body in (
        ((403, "feature_not_entitled"), {"feature": "chat", "customer": "acme"}),
        ((422, "unknown_customer"), {"feature": "chat", "customer": "nobody"}),
        ((404, "pool_unknown"), {"pool": "nowhere"}),
        ((422, "unit_mismatch"), {"pool": "credits", "unit": "token"}),
    ):
        assert answer == sold.code("POST", "/v1/authorize", {**body, "amount": 1})
    assert [] == sold.ok("GET", "/v1/refusals")


def test_what_was_used_or_given_back_resolves_no_refusal(sold: Any) -> None:
    """Only that units were asked for anew, and given."""
    asked = {"pool": "credits", "amount": 4, "hold": {"seconds": 60}}
    first, second = (sold.ok("POST", "/v1/authorize", asked)["hold"] for _ in range(2))
    assert (402, "insufficient_balance") == sold.code("POST", "/v1/authorize", asked)
    sold.ok("POST", f"/v1/holds/{first}/settle", {"amount": 1})
    (refusal,) = sold.ok("GET", "/v1/refusals?pool=credits")
    assert refusal["resolved_at"] is None
    sold.ok("POST", f"/v1/holds/{second}/release", {})
    sold.ok("POST", "/v1/authorize", asked)
    (refusal,) = sold.ok("GET", "/v1/refusals?pool=credits")
    assert refusal["resolved_at"] is not None


def test_refusals_are_listed_of_one_customer_or_one_pool(sold: Any) -> None:
    sold.ok("PUT", "/v1/customers/globex", {"name": "Globex"})
    pools = {"credits": "acme", "extra": "acme", "theirs": "globex", "nobodys": None}
    for pool, customer in pools.items():
        if pool != "credits":
            sold.ok("PUT", f"/v1/pools/{pool}", {"unit": "credit", "customer": customer})
        asked = {"pool": pool, "amount": 11, "subject": "ann"}
        assert (402, "insufficient_balance") == sold.code("POST", "/v1/authorize", asked)

    def listed(query: str) -> list[str]:
        return [one["pool"] for one in sold.ok("GET", f"/v1/refusals?{query}")]

    assert sorted(pools) == sorted(listed(""))
    assert ["credits", "extra"] == listed("customer=acme")
    assert ["theirs"] == listed("customer=globex&subject=ann")
    assert ["extra"] == listed("customer=acme&pool=extra")
    assert [] == listed("customer=acme&pool=theirs")
    assert [] == listed("customer=nobody")
    assert (404, "pool_unknown") == sold.code("GET", "/v1/refusals?pool=nowhere")


def test_refusals_of_no_time_are_refused(sold: Any) -> None:
    span = "since=2026-10-02T00:00:00Z&until=2026-10-02T00:00:00Z"
    assert (422, "range_empty") == sold.code("GET", f"/v1/refusals?{span}")
