"""What begins and ends by its date is felt a moment later: the loop that keeps entitlements so."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Override
from farebox.catalog.plan import Entitlement, Feature, Plan
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal
from farebox.postgres.entitlement import put_override
from farebox.postgres.pool import find_pool
from farebox.postgres.session import transaction
from farebox.worker.sync import Syncing

TURN = at("2026-09-20 12:00")
SECOND = timedelta(seconds=1)


@pytest.fixture
def sold(world: World) -> World:
    """Return a world in which an override holds Acme down until the 20th, and is used up."""
    world.now = at("2026-09-01 00:00")
    calls = Entitlement(feature="calls", limit=Decimal(50_000))
    world.publish(
        Feature(key="calls", unit="call"), Plan(key="pro", currency="USD", entitlements=(calls,))
    )
    world.customer("acme")
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, "acme", "calls"
        put_override(*scope, Override(limit=Decimal(1000), ends_at=TURN), world.now)
    asked = Subscription(key="pro", customer="acme", plan="pro", start=world.now)
    done = put_subscription(world.pool, world.organization_id, asked, world.now, new_id)
    assert isinstance(done, PutSubscription), done
    assert isinstance(use(world, 1000), Answer)
    return world


def use(world: World, amount: int) -> Answer | Refusal:
    with transaction(world.pool, world.organization_id) as connection:
        pool = find_pool(connection, world.organization_id, key="calls:acme")
    assert pool is not None
    return world.draw(pool.pool_id, amount)


def test_a_pass_after_the_turn_lets_the_plan_count(sold: World) -> None:
    syncing = Syncing(sold.pool, lambda: sold.now, new_id)
    sold.now = TURN - SECOND
    syncing.sync_all()
    assert isinstance(use(sold, 1), Refusal)
    sold.now = TURN + SECOND
    assert syncing.sync_all() >= 1
    assert isinstance(use(sold, 49_000), Answer)


def test_what_turned_while_nobody_ran_is_found_by_the_first_pass(sold: World) -> None:
    sold.now = TURN + timedelta(minutes=50)
    assert isinstance(use(sold, 1), Refusal)
    Syncing(sold.pool, lambda: sold.now, new_id).sync_all()
    assert isinstance(use(sold, 1), Answer)


def test_one_customer_that_fails_keeps_no_other_waiting(
    sold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (UUID(int=1), "nobody")

    def found(connection: object, *span: object) -> list[tuple[UUID, str]]:
        return [broken, (sold.organization_id, "acme")]

    monkeypatch.setattr("farebox.worker.sync.customers_to_sync", found)
    sold.now = TURN + SECOND
    assert 2 == Syncing(sold.pool, lambda: sold.now, new_id).sync_all()
    assert isinstance(use(sold, 1), Answer)


def test_later_passes_look_back_no_further_than_the_last(
    sold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[timedelta] = []

    def look(*asked: object) -> int:
        assert isinstance(asked[2], timedelta)
        spans.append(asked[2])
        if len(spans) == 3:
            raise RuntimeError("the database is gone")
        return 0

    monkeypatch.setattr("farebox.worker.sync.sync_due", look)
    syncing = Syncing(sold.pool, lambda: sold.now, new_id)
    for step in (0, 1, 2, 4):
        sold.now = TURN + step * SECOND
        try:
            syncing.sync_all()
        except RuntimeError:
            assert 3 == len(spans)
    assert [3600, 11, 11, 13] == [one.total_seconds() for one in spans]
