"""Pools over HTTP: what is shown can be put back."""

from typing import Any

import pytest

from farebox.ledger.pool import PoolDefinition


@pytest.mark.parametrize("of", ["the pool", "the list"])
def test_a_pool_put_back_as_it_is_shown_is_as_it_was(api: Any, of: str) -> None:
    meter = {"event_type": "call", "aggregation": "count"}
    api.ok("PUT", "/v1/meters/calls?publish=true", meter)
    rates = [{"meter": "calls", "price": {"model": "per_unit", "unit": "0.5"}}]
    card = {"currency": "credit", "custom_unit": True, "rates": rates}
    api.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    put = {
        "name": "Credits",
        "unit": "credit",
        "customer": "acme",
        "rate_card": "credits",
        "serves_children": True,
        "policy": {"currency": "EUR", "limit": {"mode": "overage", "price": "0.25"}},
        "metadata": {"a": "b"},
    }
    assert api.ok("PUT", "/v1/pools/acme-credits", put)["changed"]
    shown = api.ok("GET", "/v1/pools/acme-credits")
    if of == "the list":
        (shown,) = api.ok("GET", "/v1/pools")["items"]
    assert put["rate_card"] == shown["rate_card"]
    members = {name: shown[name] for name in PoolDefinition.__struct_fields__ if name in shown}
    del members["key"]
    assert not api.ok("PUT", "/v1/pools/acme-credits", members)["changed"]
    other = {**members, "timezone": "Asia/Tokyo"}
    assert (422, "pool_fixed") == api.code("PUT", "/v1/pools/acme-credits", other)
