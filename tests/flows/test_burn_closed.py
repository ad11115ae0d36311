"""A closed pool pays for nothing: what is used from then on is for whoever pays next."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_burned_shop import balances, call, credits_of, left, open_burned_shop, unburned
from farebox_entitled_shop import billed, open_entitled_shop, pool, subscribe
from farebox_entitled_shop import call as call_feature
from farebox_late_shop import burn_all
from farebox_world import World, new_id
from msgspec.structs import replace

from farebox.flows.entitle import sync_entitlements
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.use_priced import PricedUse, UseRefusal, Wanted, use_priced
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.draft import lock_organization
from farebox.postgres.pool import find_definition
from farebox.postgres.session import transaction

D = Decimal


@pytest.fixture
def shop(world: World) -> World:
    return open_burned_shop(world)


def pool_in(world: World, key: str, **fields: object) -> UUID:
    made = world.pool_of(key, unit="credit", rate_card="credits", **fields)
    world.grant(made, 1000)
    world.now += timedelta(hours=1)
    return made


def closes(world: World, key: str, *, closed: bool = True) -> None:
    """Close a pool, or open it again; an hour later."""
    with transaction(world.pool, world.organization_id) as connection:
        found = find_definition(connection, world.organization_id, key)
    assert found is not None
    definition = replace(found[1], closed=closed)
    done = put_pool(world.pool, world.organization_id, definition, world.now, new_id())
    assert isinstance(done, PutPool), done
    world.now += timedelta(hours=1)


def used(world: World, tokens: int, *pools: UUID, subject: str = "bot") -> list[Decimal]:
    """Use tokens and return what has burned of each of these pools by then."""
    world.send(call(world, tokens, subject=subject))
    burn_all(world)
    world.now += timedelta(hours=1)
    return [balances(world, one).get("used", D(0)) for one in pools]


def test_the_pool_of_whom_the_customer_is_part_of_pays_next(shop: World) -> None:
    shop.customer("mother")
    shop.customer("child", parent="mother")
    family = pool_in(shop, "family", customer="mother", serves_children=True)
    own = pool_in(shop, "own", customer="child")
    assert [D(2), D(0)] == used(shop, 100, own, family, subject="child")
    closes(shop, "own")
    assert [D(2), D(4)] == used(shop, 200, own, family, subject="child")
    closes(shop, "own", closed=False)
    assert [D(3), D(4)] == used(shop, 50, own, family, subject="child")
    assert [] == unburned(shop)


def test_the_plan_pays_next_where_there_is_no_other_pool(shop: World) -> None:
    own = credits_of(shop)
    assert [D(20)] == used(shop, 1000, own)
    closes(shop, "credits")
    late = call(shop, 3)
    late["time"] = (shop.now - timedelta(hours=2)).isoformat()
    shop.send(late)  # of before: listed, as what a closed pool refuses is
    assert [D(20)] == used(shop, 200, own)
    assert [("tokens", "pool_closed", 1, D(3))] == unburned(shop)
    assert left(20) == balances(shop, own)
    shop.now += timedelta(days=20)
    shop.bill(shop.now)
    (row,) = (one for one in shop.invoices() if one.kind == "period")
    assert [D(200)] == [one.quantity for one in shop.lines(row) if one.quantity]


def test_a_pool_that_was_opened_closed_pays_from_when_it_is_opened(shop: World) -> None:
    own = credits_of(shop, None, closed=True)
    assert ([D(0)], []) == (used(shop, 100, own), unburned(shop))
    closes(shop, "credits", closed=False)
    assert [D(4)] == used(shop, 200, own)


def test_a_feature_whose_pool_is_closed_counts_nothing_and_the_plan_charges(world: World) -> None:
    sold = open_entitled_shop(world)
    subscribe(sold, "both")
    call_feature(sold, 4)
    closes(sold, "calls:acme")
    with transaction(sold.pool, sold.organization_id) as connection:
        lock_organization(connection, sold.organization_id)
        sync_entitlements(connection, sold.organization_id, "acme", sold.now, new_id)
    call_feature(sold, 3)
    assert D(4) == pool(sold).counters.used
    closes(sold, "calls:acme", closed=False)
    call_feature(sold, 2)
    assert D(6) == pool(sold).counters.used
    assert [("usage", "usage", D(3), D("0.09"))] == billed(sold)


def ask(world: World, pool_id: UUID, **fields: object) -> PricedUse | UseRefusal:
    data = {"n": 100, "model": "large"}
    values: dict[str, object] = {"type": "llm", "data": data, "subject": "bot", **fields}
    with transaction(world.pool, world.organization_id) as connection:
        wanted = Wanted(**values)  # type: ignore[arg-type]
        return use_priced(connection, world.organization_id, pool_id, wanted, world.now)


@pytest.mark.parametrize("subject", ["bot", "child"])
def test_a_use_asked_of_a_closed_pool_is_refused_and_one_that_is_held_may_be_settled(
    shop: World, subject: str
) -> None:
    shop.customer("child", parent="acme")
    own = credits_of(shop, serves_children=True)
    held = ask(shop, own, subject=subject, hold=True, seconds=7200)
    assert isinstance(held, PricedUse)
    assert isinstance(held.answer, Answer)
    closes(shop, "credits")
    refused = ask(shop, own, subject=subject)
    assert isinstance(refused, PricedUse)
    assert isinstance(refused.answer, Refusal)
    assert RefusalCode.POOL_CLOSED is refused.answer.code
    settled = ask(shop, own, subject=subject, settle=held.answer.hold)
    assert isinstance(settled, PricedUse)
    assert isinstance(settled.answer, Answer)
    burn_all(shop)
    assert left(2) == balances(shop, own)
