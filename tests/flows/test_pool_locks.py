"""Whoever changes who pays for a pool waits for an undo before it locks the pool, not after."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from threading import Thread
from uuid import UUID

import pytest
from farebox_world import World, at, new_id
from msgspec.structs import replace

from farebox.catalog.customer import Subscription
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Entitlement, EntitlementLimit, Feature, Plan
from farebox.catalog.price import PerUnit
from farebox.flows.entitle import sync_entitlements
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.postgres import rollup
from farebox.postgres.book import read_books
from farebox.postgres.draft import lock_organization
from farebox.postgres.entitlement import pools_of_features
from farebox.postgres.pool import find_definition
from farebox.postgres.session import transaction

START, TURN = at("2026-09-01"), at("2026-09-20 12:00")


def sell(world: World) -> UUID:
    """Sell a limit of calls and, from the turn on, an add-on that charges them; return the pool."""
    world.now = START
    limit = Entitlement(feature="calls", limit=Decimal(100))
    charge = Charge(key="c", meter="calls", price=PerUnit(unit=Decimal("0.01")))
    more = Entitlement(feature="calls", limit=Decimal(50), beyond=EntitlementLimit.SOFT)
    world.publish(
        Meter(key="calls", event_type="call", aggregation=Aggregation.COUNT),
        Feature(key="calls", meter="calls"),
        Plan(key="a", currency="USD", entitlements=(limit,)),
        Plan(key="b", currency="USD", add_on=True, charges=(charge,), entitlements=(more,)),
    )
    world.customer("acme")
    for key, start in (("a", START), ("b", TURN)):
        one = Subscription(key=key, customer="acme", plan=key, start=start)
        done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
        assert isinstance(done, PutSubscription), done
    with transaction(world.pool, world.organization_id) as connection:
        return pools_of_features(connection, world.organization_id, "acme")["calls"][0]


def sync(world: World) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        lock_organization(connection, world.organization_id)
        sync_entitlements(connection, world.organization_id, "acme", world.now, new_id)


def put(world: World) -> None:
    """Put the pool with what it names already; terms that have come may change who pays."""
    with transaction(world.pool, world.organization_id) as connection:
        found = find_definition(connection, world.organization_id, "calls:acme")
    assert found is not None
    definition = replace(found[1], policy=replace(found[1].policy, undo_seconds=9))
    done = put_pool(world.pool, world.organization_id, definition, world.now, new_id())
    assert isinstance(done, PutPool), done


@pytest.mark.parametrize("change", [sync, put])
def test_an_undo_that_has_the_stream_gets_the_pool_before_whoever_changes_it(
    world: World, change: Callable[[World], None]
) -> None:
    pool = sell(world)
    world.now = TURN + timedelta(seconds=2)
    world.draw(pool, 10)
    thread = Thread(target=change, args=(world,))
    with transaction(world.pool, world.organization_id) as undo:
        rollup.hold_watermark(undo, world.organization_id)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        read_books(undo, world.organization_id, [pool], lock=True)
    thread.join()
