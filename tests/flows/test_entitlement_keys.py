"""Whose a recurring grant of an entitlement is, is told from whatever else is called likewise."""

from decimal import Decimal
from uuid import UUID

import pytest
from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Override
from farebox.catalog.plan import Entitlement, Feature, Plan
from farebox.flows.entitle import sync_entitlements
from farebox.flows.grant_units import recur
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.ledger.administer import NewRecurrence
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import transaction


@pytest.fixture
def sold(world: World) -> World:
    """Return a vendor whose plan brings a thousand calls a month."""
    world.now = at("2026-09-01 00:00")
    limit = Entitlement(feature="calls", limit=Decimal(1000))
    world.publish(Feature(key="calls"), Plan(key="free", currency="USD", entitlements=(limit,)))
    world.customer("acme")
    return world


def subscribe(world: World, key: str) -> None:
    subscription = Subscription(key=key, customer="acme", plan="free", start=world.now)
    done = put_subscription(world.pool, world.organization_id, subscription, world.now, new_id)
    assert isinstance(done, PutSubscription), done


def override(world: World, limit: int | None) -> None:
    organization_id = world.organization_id
    with transaction(world.pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        if limit is None:
            entitlement.drop_override(connection, organization_id, "acme", "calls")
        else:
            given = Override(limit=Decimal(limit))
            entitlement.put_override(connection, organization_id, "acme", "calls", given, world.now)
        sync_entitlements(connection, organization_id, "acme", world.now, new_id)


def pool_id(world: World) -> UUID:
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, "acme")
    return found["calls"][0]


def available(world: World) -> Decimal:
    one = pool_id(world)
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        books = books_now(connection, world.organization_id, [one], world.now)
    return books[one].pool.available


def test_a_subscription_may_be_called_as_what_overrides_it_is(sold: World) -> None:
    """Both bring a thousand, of which what was used is gone: the one ends and the other begins."""
    subscribe(sold, "override")
    sold.now = at("2026-09-10 00:00")
    sold.draw(pool_id(sold), 400)
    override(sold, 1000)
    assert Decimal(600) == available(sold)
    sold.draw(pool_id(sold), 400)
    assert Decimal(200) == available(sold)
    sold.now = at("2026-10-01 00:00")
    assert Decimal(1000) == available(sold)


@pytest.mark.parametrize("key", ["override", "acme-free", "subscription:acme-free"])
def test_a_recurring_grant_that_somebody_put_there_stays(sold: World, key: str) -> None:
    subscribe(sold, "acme-free")
    asked = NewRecurrence(key=key, amount=Decimal(1000))
    with transaction(sold.pool, sold.organization_id) as connection:
        recur(connection, sold.organization_id, pool_id(sold), asked, sold.now)
    override(sold, 7)
    assert Decimal(1007) == available(sold)
    override(sold, None)
    assert Decimal(2000) == available(sold)


def test_what_ended_is_not_taken_for_what_came_after_it(sold: World) -> None:
    """In whatever order PostgreSQL gives the rows: an old one may come to lie behind a new one."""
    for limit in (7, 8):
        override(sold, limit)
    with transaction(sold.pool, sold.organization_id) as connection:
        for key in ("reverse(key)", "reverse(key)"):
            connection.execute(f"update pool_recurrence set key = {key} where number = -1")
    override(sold, 8)
    assert Decimal(8) == available(sold)
