"""Mappings that change while usage burns, and in any order: each event is in one place."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from random import Random
from threading import Barrier

import pytest
from farebox_late_shop import (
    OPENED,
    SEPTEMBER,
    billed,
    burn_all,
    burned,
    credits_of,
    move,
    new_id,
    open_shop,
    put,
    unbilled,
    use,
)
from farebox_world import World, days

from farebox.catalog.customer import Customer
from farebox.flows.burn_usage import burn_usage
from farebox.flows.move_subject import Moved, move_subject_in
from farebox.flows.put_customer import put_customer
from farebox.postgres import burn
from farebox.postgres.session import transaction


@pytest.fixture
def shop(world: World) -> World:
    return open_shop(world)


# Steps at the same time ---------------------------------------------------------------------------


def test_a_step_under_way_is_waited_for(shop: World) -> None:
    put(shop, "beta", "bot")
    use(shop, 100, 8)
    with ThreadPoolExecutor(1) as threads:
        with transaction(shop.pool, shop.organization_id) as step:
            assert 0 == burn.lock_watermark(step, shop.organization_id)
            moving = threads.submit(move, shop, "acme", SEPTEMBER)
            _wait_for_lock(shop)
            burn.set_watermark(step, shop.organization_id, 1)
        assert moving.result() is True
    assert {"acme-credits": Decimal(2)} == burned(shop)


def _wait_for_lock(world: World) -> None:
    for _ in range(10_000):
        with transaction(world.pool, world.organization_id) as connection:
            (waiting,) = connection.execute(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                " and query like '%from burn_watermark%'"
            ).fetchone() or (0,)
        if waiting:
            return
    raise AssertionError("nobody waits")


def test_no_step_goes_on_while_usage_burns_late(shop: World) -> None:
    put(shop, "beta", "bot")
    use(shop, 100, 8)
    burn_all(shop)
    use(shop, 200, 8)
    with transaction(shop.pool, shop.organization_id) as connection:
        ids = connection, shop.organization_id
        assert isinstance(move_subject_in(*ids, "bot", "acme", SEPTEMBER, shop.now), Moved)
        assert 0 == burn_usage(shop.pool, shop.organization_id, shop.now)
    burn_all(shop)
    assert {"acme-credits": Decimal(6)} == burned(shop)


def test_steps_and_mappings_that_race_burn_each_event_once(shop: World) -> None:
    subjects = [f"bot{number}" for number in range(12)]
    for number in range(60):
        use(shop, 100, 8, subjects[number % 12])
    start = Barrier(3)

    def steps() -> None:
        start.wait()
        for to in range(5, 61, 5):
            burn_usage(shop.pool, shop.organization_id, shop.now, up_to=to)

    def mappings(count: int) -> Callable[[], None]:
        def run() -> None:
            start.wait()
            for upto in range(1, count + 1):
                put(shop, "acme", *subjects[:upto])

        return run

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(one) for one in (steps, mappings(12), mappings(12))]:
            done.result()
    put(shop, "acme", *subjects)
    burn_all(shop)
    assert {"acme-credits": Decimal(120)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)
    assert [] == unbilled(shop)


# Anything in any order ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_done_each_event_is_in_one_place(shop: World, seed: int) -> None:
    """Event n uses 4 ** n tokens, so a sum says how often each is in it."""
    chance = Random(seed)
    subjects, customers = ("bot", "app", "gateway"), ("acme", "beta", "acme-eu")
    put(shop, "acme-eu", parent="acme")
    shop.subscribe("acme-eu", "base", SEPTEMBER)
    shop.now, opening = OPENED + days(1), chance.randrange(40, 80)
    count = 0
    for step in range(120):
        shop.now += days(1) / 6
        past = SEPTEMBER + chance.random() * (shop.now - SEPTEMBER)
        subject, customer = chance.choice(subjects), chance.choice(customers)
        match chance.randrange(6):
            case 0 | 1 if count < 24:
                shop.use("llm", past, subject, n=4**count, model="large")
                count += 1
            case 2:
                to = chance.randrange(count + 1)
                burn_usage(shop.pool, shop.organization_id, shop.now, up_to=to)
            case 3:
                shop.fold(up_to=chance.randrange(count + 1))
            case 4:
                move(shop, customer, past, subject)
            case 5:
                edit = Customer(
                    key=customer,
                    subjects=tuple(chance.sample(subjects, chance.randrange(3))),
                    parent="acme" if customer == "acme-eu" else None,
                )
                put_customer(shop.pool, shop.organization_id, edit, shop.now, new_id())
        if step == opening:
            credits_of(shop, "beta")
    bills = billed(shop)
    nobody = [used or 0 for reason, used in unbilled(shop) if reason == "no_customer"]
    whole = sum(burned(shop).values()) * 50 + sum(bills.values()) * 100 + sum(map(Decimal, nobody))
    assert sum(4**number for number in range(count)) == whole
