"""Pools over HTTP: what is shown can be put back."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from farebox.ledger.policy import Burst, Policy
from farebox.ledger.pool import PoolDefinition
from farebox.postgres.pool import find_definition, put_definition
from farebox.postgres.session import transaction


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


def test_a_pool_from_before_a_rule_can_be_put_back_as_it_is(api: Any, farebox: Any) -> None:
    policy = {"currency": "USD", "burst": {"units": "0", "price": "1"}}
    body = {"unit": "token", "policy": policy}
    assert (422, "amount_not_positive") == api.code("PUT", "/v1/pools/old", body)
    api.ok("PUT", "/v1/pools/old", {"unit": "token"})
    with transaction(farebox.pool, api.organization_id) as connection:
        scope = connection, api.organization_id
        found = find_definition(*scope, "old")
        assert found is not None
        burst = Policy(currency="USD", burst=Burst(units=Decimal(0), price=Decimal(1)))
        put_definition(*scope, found[0], msgspec.structs.replace(found[1], policy=burst))
    assert not api.ok("PUT", "/v1/pools/old", body)["changed"]
    other = {**body, "name": "Renamed"}
    assert (422, "amount_not_positive") == api.code("PUT", "/v1/pools/old", other)
