"""Features that usage uses up beside pools with rate cards, other features, and draws by asking."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from farebox_burned_shop import brought, undo
from farebox_entitled_shop import (
    CALLS,
    D,
    billed,
    call,
    open_entitled_shop,
    plan,
    pool,
    pool_id,
    subscribe,
    unpaid,
)
from farebox_late_shop import put
from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.diff import Change
from farebox.catalog.document import Document
from farebox.catalog.plan import Entitlement, Feature, Plan, Rate, RateCard
from farebox.catalog.price import PerUnit
from farebox.flows.apply_catalog import apply_catalog
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.read_pool import books_now
from farebox.flows.reverse_draw import reverse_draw
from farebox.ledger.command import Answer
from farebox.postgres import entitlement
from farebox.postgres import pool as pools
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import transaction

DOUBLE = RateCard(
    key="double",
    currency="credit",
    custom_unit=True,
    rates=(Rate(meter="calls", price=PerUnit(unit=D(2))),),
)
OWN = msgspec.structs.replace(DOUBLE, key="own", currency="use")


@pytest.fixture
def sold(world: World) -> World:
    return open_entitled_shop(world)


def used(world: World, one: UUID) -> Decimal:
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        books = books_now(connection, world.organization_id, [one], world.now)
    return books[one].pool.counters.used


@pytest.mark.parametrize("named", ["free", "charged", "both"])
@pytest.mark.parametrize("key", ["a-credits", "z-credits"])
@pytest.mark.parametrize("whose", ["acme", "mother"])
def test_a_pool_with_a_rate_card_pays_before_the_entitlement(
    sold: World, named: str, key: str, whose: str
) -> None:
    sold.publish(DOUBLE)
    if whose == "mother":
        sold.customer("mother")
        put(sold, "acme", "acme", parent="mother")
    subscribe(sold, named)
    serves = whose != "acme"
    fields = {"unit": "credit", "customer": whose, "serves_children": serves}
    paying = sold.pool_of(key, rate_card="double", **fields)
    sold.grant(paying, 100)
    call(sold, 14)
    assert (D(28), D(0)) == (used(sold, paying), used(sold, pool_id(sold)))
    sold.pool_of(key, **fields)
    call(sold, 3)
    assert (D(28), D(3)) == (used(sold, paying), used(sold, pool_id(sold)))
    charged = [("usage", "usage", D(3), D("0.09"))]
    assert (charged if named == "charged" else []) == billed(sold)


def test_of_features_that_shared_a_meter_before_the_first_by_key_is_used_up(world: World) -> None:
    world.now = at("2026-09-01 00:00")
    entitlements = tuple(Entitlement(feature=one, limit=D(10)) for one in ("calls", "requests"))
    world.publish(
        CALLS,
        Feature(key="requests", meter="calls"),
        Feature(key="calls", meter="calls"),
        Plan(key="free", currency="USD", entitlements=entitlements),
    )
    world.customer("acme")
    subscribe(world, "free")
    call(world, 3)
    with transaction(world.pool, world.organization_id) as connection:
        pools = entitlement.pools_of_features(connection, world.organization_id, "acme")
    assert {"calls": D(3), "requests": D(0)} == {
        feature: used(world, one) for feature, (one, _) in pools.items()
    }


def take_back(world: World, draw: str, units: int) -> None:
    number = int(draw.rpartition("_")[2])
    with transaction(world.pool, world.organization_id) as connection:
        lock_organization(connection, world.organization_id)
        one = pool_id(world)
        done = reverse_draw(connection, world.organization_id, one, number, D(units), world.now)
    assert isinstance(done, Answer), done


def change(world: World, **fields: object) -> None:
    """Put the feature's pool as it stands, but for these fields."""
    with transaction(world.pool, world.organization_id) as connection:
        found = pools.find_definition(connection, world.organization_id, "calls:acme")
    assert found is not None
    definition = msgspec.structs.replace(found[1], **fields)
    done = put_pool(world.pool, world.organization_id, definition, world.now, new_id())
    assert isinstance(done, PutPool), done


@pytest.mark.parametrize("named", ["free", "charged"])
def test_whom_a_features_pool_serves_does_not_end_that_usage_uses_it_up(
    sold: World, named: str
) -> None:
    subscribe(sold, named)
    call(sold, 2)
    for serves in (True, False):
        change(sold, serves_children=serves)
        call(sold, 3)
    assert D(8) == pool(sold).counters.used
    charged = [("usage", "usage", D(8), D("0.24"))]
    assert (charged if named == "charged" else []) == billed(sold)


@pytest.mark.parametrize("named", ["free", "charged"])
def test_a_features_pool_that_has_a_rate_card_no_more_is_used_up_by_the_meter_again(
    sold: World, named: str
) -> None:
    sold.publish(OWN)
    subscribe(sold, named)
    call(sold, 2)
    change(sold, rate_card="own")
    call(sold, 1)
    assert D(4) == pool(sold).counters.used
    change(sold, rate_card=None)
    call(sold, 3)
    assert D(7) == pool(sold).counters.used
    charged = [("usage", "usage", D(2), D("0.06")), ("usage", "usage", D(3), D("0.09"))]
    assert (charged if named == "charged" else []) == billed(sold)


def test_a_features_pool_to_which_nothing_entitles_any_more_is_used_up_by_nothing(
    sold: World,
) -> None:
    sold.publish(OWN)
    subscribe(sold, "free")
    change(sold, rate_card="own")
    subscribe(sold, "free", end=sold.now + timedelta(hours=1))
    sold.now += timedelta(hours=2)
    change(sold, rate_card=None)
    call(sold, 3)
    assert D(0) == pool(sold).counters.used


def test_what_was_asked_of_an_entitlement_that_only_counts_is_paid_where_an_event_stands_for_it(
    sold: World,
) -> None:
    subscribe(sold, "charged")
    call(sold, 14)
    assert [] == unpaid(sold)
    draws = [sold.draw_id(pool_id(sold), units) for units in (1, 2, 4)]
    assert [D(7)] == unpaid(sold)
    call(sold, 1, fareboxdraw=draws[0])
    assert [D(6)] == unpaid(sold)
    sold.now += timedelta(hours=1)
    brought_in = brought(sold, {**sold.event("call", sold.now, "acme"), "fareboxdraw": draws[1]})
    assert [D(4)] == unpaid(sold)
    undo(sold, brought_in)
    assert [D(6)] == unpaid(sold)
    for draw, units in ((draws[2], 3), (draws[0], 1)):  # an event stands for the last
        take_back(sold, draw, units)
        assert [D(3)] == unpaid(sold)


def test_what_comes_back_later_of_a_draw_that_an_event_names_is_not_counted_against_others(
    sold: World,
) -> None:
    subscribe(sold, "charged")
    draw = sold.draw_id(pool_id(sold), 15)
    call(sold, 1, fareboxdraw=draw)
    sold.now += timedelta(minutes=1)
    since = sold.now
    assert isinstance(sold.draw(pool_id(sold), 2), Answer)
    take_back(sold, draw, 4)
    assert [D(2)] == unpaid(sold, since)


def is_locked_first(world: World, first: UUID, last: UUID, change: Callable[[], object]) -> bool:
    """Tell whether a change locks one pool before it locks another."""
    lock = "select pool_id from pool where pool_id = %s for update"
    waiting = "select exists (select from pg_locks where not granted)"
    with ThreadPoolExecutor(1) as threads:
        with transaction(world.pool, world.organization_id) as connection:
            connection.execute(lock, (first,))
            changed = threads.submit(change)
            while connection.execute(waiting).fetchone() != (True,):
                assert not changed.done()
                time.sleep(0.005)
            free = connection.execute(f"{lock} skip locked", (last,)).fetchone()
        changed.result(timeout=20)
    return free == (last,)


def test_the_pools_of_features_are_locked_in_the_order_of_their_ids(world: World) -> None:
    """The second feature comes first by key, and its pool last by id."""
    world.now = at("2026-09-01 00:00")
    answers = Entitlement(feature="answers", limit=D(5))
    more = Plan(key="more", currency="USD", entitlements=(answers,))
    world.publish(Feature(key="calls"), Feature(key="answers"), plan("free", limit=D(10)), more)
    world.customer("acme")
    subscribe(world, "free")
    subscribe(world, "more")
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, "acme")
    first, last = found["calls"][0], found["answers"][0]
    assert first < last
    end = world.now + timedelta(hours=1)
    assert is_locked_first(world, first, last, lambda: subscribe(world, "free", end))


def test_a_catalog_locks_the_pools_of_all_its_customers_in_the_order_of_their_ids(
    sold: World,
) -> None:
    keys = ("mother", "acme")
    sold.customer("mother")

    def put_all(*keys: str, end: datetime | None) -> None:
        subscriptions = tuple(
            Subscription(key=key, customer=key, plan="free", start=sold.now, end=end)
            for key in keys
        )
        document = Document(subscriptions=subscriptions)
        done = apply_catalog(sold.pool, sold.organization_id, document, sold.now, new_id)
        assert len(keys) == len([one for one in done if isinstance(one, Change)])

    put_all(*keys, end=None)
    with transaction(sold.pool, sold.organization_id) as connection:
        ids = [
            entitlement.pools_of_features(connection, sold.organization_id, key)["calls"][0]
            for key in keys
        ]
    assert sorted(ids) == ids
    end = at("2026-12-01 00:00")
    assert is_locked_first(sold, *ids, lambda: put_all(*reversed(keys), end=end))
