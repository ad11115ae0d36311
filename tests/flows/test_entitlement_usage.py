"""Usage of a feature's meter uses up the entitlement; what of it is charged, is charged once."""

from datetime import timedelta

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

from farebox.catalog.entitled import Override
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Feature
from farebox.flows.backfill_meter import Preview, backfill_meter
from farebox.flows.entitle import sync_entitlements
from farebox.flows.explain_event import explain_event
from farebox.flows.place_reading import Fate
from farebox.ledger.account import Account
from farebox.ledger.command import Answer
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import transaction, unbound
from farebox.worker.sync import sync_due


@pytest.fixture
def sold(world: World) -> World:
    return open_entitled_shop(world)


def test_each_use_of_the_meter_uses_up_one_unit_once(sold: World) -> None:
    subscribe(sold, "free")
    call(sold, 7)
    call(sold, 0)
    assert (D(3), D(7)) == (pool(sold).available, pool(sold).counters.used)
    call(sold, 5)
    assert (D(0), D(12), D(2)) == (
        pool(sold).available,
        pool(sold).counters.used,
        pool(sold).counters.overage,
    )


def test_an_event_that_names_its_draw_counts_once(sold: World) -> None:
    subscribe(sold, "free")
    draw = sold.draw_id(pool_id(sold))
    call(sold, 1, fareboxdraw=draw)
    assert (D(9), D(1)) == (pool(sold).available, pool(sold).counters.used)


def test_what_is_beyond_the_included_calls_is_charged_once(sold: World) -> None:
    subscribe(sold, "hybrid")
    call(sold, 14)
    assert [("overage", "calls:acme", D(4), D("0.04"))] == billed(sold)
    assert [] == unpaid(sold)


def test_a_price_of_the_entitlement_goes_before_the_charge_of_a_plan(sold: World) -> None:
    subscribe(sold, "both")
    call(sold, 14)
    assert [("overage", "calls:acme", D(4), D("0.04"))] == billed(sold)


def test_what_a_plan_charges_itself_it_charges_in_full_and_the_entitlement_counts(
    sold: World,
) -> None:
    subscribe(sold, "charged")
    call(sold, 14)
    assert (D(0), D(4)) == (pool(sold).available, pool(sold).counters.overage)
    assert [("usage", "usage", D(14), D("0.42"))] == billed(sold)
    assert [] == unpaid(sold)


def test_what_a_hard_limit_could_not_stop_is_listed_as_unpaid(sold: World) -> None:
    subscribe(sold, "free")
    call(sold, 14)
    assert [D(4)] == unpaid(sold)


def test_an_unlimited_entitlement_of_a_plan_that_charges_is_still_charged(sold: World) -> None:
    subscribe(sold, "paygo")
    with transaction(sold.pool, sold.organization_id) as connection:
        scope = connection, sold.organization_id, "acme"
        lock_organization(connection, sold.organization_id)
        entitlement.put_override(*scope, "calls", Override(unlimited=True), sold.now)
        sync_entitlements(*scope, sold.now, new_id)
    call(sold, 3)
    assert D(3) == pool(sold).counters.used
    assert [("usage", "usage", D(3), D("0.09"))] == billed(sold)


def test_usage_after_the_last_subscription_is_the_plans_again(sold: World) -> None:
    subscribe(sold, "free")
    call(sold, 2)
    subscribe(sold, "free", end=sold.now + timedelta(hours=1))
    sold.now += timedelta(hours=1)
    subscribe(sold, "paygo")
    call(sold, 5)
    assert D(2) == pool(sold).counters.used
    assert [("usage", "usage", D(5), D("0.15"))] == billed(sold)


def test_a_pool_that_was_given_a_rate_card_keeps_it(sold: World) -> None:
    subscribe(sold, "free")
    call(sold, 1)
    with transaction(sold.pool, sold.organization_id) as connection:
        connection.execute(
            "update pool_burn set rate_card_key = 'credits' where pool_id = %s", (pool_id(sold),)
        )
    subscribe(sold, "enterprise")
    with transaction(sold.pool, sold.organization_id) as connection:
        rows = connection.execute("select rate_card_key, until from pool_burn").fetchall()
    assert [("credits", None)] == rows


def test_a_feature_that_gets_a_meter_counts_from_then_on(world: World) -> None:
    world.now = at("2026-09-01 00:00")
    world.publish(CALLS, Feature(key="calls"), plan("free", limit=D(10)))
    world.customer("acme")
    subscribe(world, "free")
    call(world, 2)
    assert D(0) == pool(world).counters.used
    world.publish(Feature(key="calls", meter="calls"))
    world.now += timedelta(minutes=1)
    for _ in range(2):
        sync_due(world.pool, world.now, timedelta(hours=1), new_id)
    call(world, 3)
    assert D(3) == pool(world).counters.used
    with unbound(world.pool) as connection:
        due = entitlement.customers_to_sync(connection, world.now - timedelta(hours=2), world.now)
    assert world.organization_id not in {organization_id for organization_id, _ in due}


@pytest.mark.parametrize("named", ["free", "charged"])
def test_an_event_says_that_the_entitlements_pool_counts_it(sold: World, named: str) -> None:
    subscribe(sold, named)
    sold.now += timedelta(hours=1)
    event = sold.event("call", sold.now, "acme")
    sold.send(event)
    for fate in (Fate.BURNS_POOL, Fate.BURNED_POOL):
        found = explain_event(sold.pool, sold.organization_id, event["source"], event["id"])
        assert found is not None
        ((place,),) = [one.readings for one in found.meters]
        assert place.burn is not None
        assert ("calls:acme", D(1), None, fate.value) == (
            place.burn.pool,
            place.burn.units,
            place.burn.rate_card,
            place.burn.fate.value,
        )
        assert (1 if named == "charged" else 0) == len(place.lines)
        call(sold, 0)


def test_unlimited_use_is_plain_use(sold: World) -> None:
    subscribe(sold, "enterprise")
    answer = sold.draw(pool_id(sold), 1000, key="one")
    again = sold.draw(pool_id(sold), 1000, key="one")
    for one in (answer, again):
        assert isinstance(one, Answer)
        assert (D(1000), {}, False) == (one.covered, one.beyond, one.over_limit)
    call(sold, 5)
    found = pool(sold)
    assert (D(1005), D(1005), D(0)) == (
        found.counters.used,
        found.counters.unlimited,
        found.counters.overage,
    )
    assert D(-1005) == found.balances[Account.SOURCE]
    assert [] == billed(sold)
    assert [] == unpaid(sold)


# Corrections --------------------------------------------------------------------------------------


def test_what_an_undone_import_used_up_comes_back(sold: World) -> None:
    subscribe(sold, "hybrid")
    sold.now += timedelta(hours=1)
    brought_in = brought(sold, *(sold.event("call", sold.now, "acme") for _ in range(6)))
    call(sold, 7)
    assert (D(0), D(3)) == (pool(sold).available, pool(sold).counters.overage)
    assert (6, 1) == undo(sold, brought_in)
    assert (D(3), D(7), D(0)) == (
        pool(sold).available,
        pool(sold).counters.used,
        pool(sold).counters.overage,
    )
    assert [] == billed(sold)


def test_use_of_a_subject_that_becomes_the_customers_afterwards_uses_it_up(sold: World) -> None:
    subscribe(sold, "hybrid")
    sold.now += timedelta(hours=1)
    sold.send(*(sold.event("call", sold.now, "app") for _ in range(4)))
    call(sold, 1)
    put(sold, "acme", "app")
    assert D(5) == pool(sold).counters.used
    call(sold, 0)
    assert D(5) == pool(sold).counters.used


def test_what_a_backfilled_meter_reads_uses_it_up(world: World) -> None:
    world.now = at("2026-09-01 00:00")
    world.publish(
        CALLS,
        Meter(key="tokens", event_type="call", aggregation=Aggregation.SUM, value="$.tokens"),
        Feature(key="calls", meter="tokens"),
        plan("free", limit=D(1000)),
    )
    world.customer("acme")
    subscribe(world, "free")
    world.now += timedelta(hours=1)
    world.send(world.event("call", world.now, "acme", tokens=30, more=400))
    call(world, 0)
    world.publish(
        Meter(key="tokens", event_type="call", aggregation=Aggregation.SUM, value="$.more"),
        since=at("2026-09-01 00:00"),
    )
    world.fold()
    done = backfill_meter(world.pool, world.organization_id, "tokens", 2, world.now)
    assert isinstance(done, Preview), done
    assert D(400) == pool(world).counters.used
