"""Events that are dated ahead of a change have burned as it was, and what comes later does not."""

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from farebox_late_shop import (
    NOW,
    OPENED,
    SEPTEMBER,
    billed,
    burn_all,
    burned,
    credits_of,
    meter,
    move,
    new_id,
    open_shop,
    put,
    unbilled,
)
from farebox_world import World, days

from farebox.access.id import uuidv7
from farebox.catalog.customer import Customer
from farebox.catalog.document import Document, read_document
from farebox.catalog.meter import Meter
from farebox.flows.apply_catalog import apply_catalog
from farebox.flows.backfill_meter import backfill_meter, preview_backfill
from farebox.flows.burn_usage import burn_usage
from farebox.flows.move_subject import move_subject_in
from farebox.flows.put_customer import put_customer
from farebox.period.instant import BEGINNING, END
from farebox.postgres.customer import SubjectRow, subject_rows
from farebox.postgres.session import transaction

TICK, MINUTE = timedelta(microseconds=1), timedelta(minutes=1)
AHEAD = NOW + 50 * MINUTE


@pytest.fixture
def shop(world: World) -> World:
    return open_shop(world)


def use_ahead(world: World, tokens: int, minutes: int = 50, subject: str = "bot") -> None:
    """Use so long ahead of 20 September, and let the steps pass it."""
    world.use("llm", NOW + minutes * MINUTE, subject, n=tokens, model="large")
    burn_all(world)


def rows(world: World, subject: str = "bot") -> list[SubjectRow]:
    with transaction(world.pool, world.organization_id) as connection:
        return subject_rows(connection, world.organization_id, [subject])


# Whom a customer is part of -----------------------------------------------------------------------


def test_what_burned_the_pool_above_is_not_billed_too(shop: World) -> None:
    put(shop, "acme-eu", "bot", parent="acme")
    shop.subscribe("acme-eu", "base", SEPTEMBER)
    use_ahead(shop, 100)
    put(shop, "acme-eu", "bot")
    use_ahead(shop, 200, 40)
    use_ahead(shop, 400, 55)
    assert {"acme-credits": Decimal(6)} == burned(shop)
    assert {"acme": 0, "acme-eu": Decimal(4), "beta": 0} == billed(shop)


def test_what_was_passed_before_there_was_one_above_is_billed(shop: World) -> None:
    put(shop, "acme-eu", "bot")
    shop.subscribe("acme-eu", "base", SEPTEMBER)
    use_ahead(shop, 100)
    put(shop, "acme-eu", "bot", parent="acme")
    use_ahead(shop, 400, 55)
    assert {"acme-credits": Decimal(8)} == burned(shop)
    assert {"acme": 0, "acme-eu": Decimal(1), "beta": 0} == billed(shop)


def test_what_those_below_used_counts_too(shop: World) -> None:
    put(shop, "acme-eu", parent="acme")
    put(shop, "acme-de", "bot", parent="acme-eu")
    shop.subscribe("acme-de", "base", SEPTEMBER)
    use_ahead(shop, 100)
    put(shop, "acme-eu")
    use_ahead(shop, 400, 55)
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": 0, "acme-de": Decimal(4), "beta": 0} == billed(shop)


def test_without_any_pool_that_burns_a_change_takes_effect_now(world: World) -> None:
    for key in ("acme", "beta"):
        put(world, key)
    put(world, "team", parent="acme")
    world.use("llm", world.now + MINUTE, "team", n=1, model="large")
    put(world, "team", parent="beta")
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute(
            "select parent_key, since, until from customer_parent order by 2"
        )
        assert [("acme", BEGINNING, world.now), ("beta", world.now, None)] == found.fetchall()
        found = connection.execute("select count(*) from burn_watermark")
        assert (0,) == found.fetchone()


# A subject that is left off its customer ----------------------------------------------------------


def test_a_subject_that_is_left_off_ends_after_what_has_burned(shop: World) -> None:
    put(shop, "acme", "bot")
    use_ahead(shop, 100)
    put(shop, "acme")
    assert [SubjectRow("bot", "acme", BEGINNING, AHEAD + TICK)] == rows(shop)
    use_ahead(shop, 300, 55)
    put(shop, "beta", "bot")
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": 0, "beta": Decimal(3)} == billed(shop)
    assert [] == unbilled(shop)


def test_what_burned_nothing_does_not_keep_a_subject(shop: World) -> None:
    put(shop, "beta", "bot")
    use_ahead(shop, 100)
    put(shop, "beta")
    assert [SubjectRow("bot", "beta", BEGINNING, NOW)] == rows(shop)
    put(shop, "acme", "bot")
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": 0, "beta": 0} == billed(shop)


def test_a_subject_that_is_listed_again_goes_on(shop: World) -> None:
    put(shop, "acme", "bot")
    use_ahead(shop, 100)
    for _ in range(2):
        put(shop, "acme")
    assert ("bot",) == put(shop, "acme", "bot").customer.subjects
    assert [SubjectRow("bot", "acme", BEGINNING, END)] == rows(shop)


def test_a_catalog_may_hand_a_subject_on(shop: World) -> None:
    put(shop, "acme", "bot")
    use_ahead(shop, 100)
    document = read_document(b"customers: [{key: acme}, {key: beta, subjects: [bot]}]")
    assert isinstance(document, Document), document
    done = apply_catalog(shop.pool, shop.organization_id, document, shop.now, new_id)
    assert all(hasattr(one, "action") for one in done), done
    assert [("acme", AHEAD + TICK), ("beta", END)] == [
        (one.customer_key, one.valid_to) for one in rows(shop)
    ]
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": 0, "beta": 0} == billed(shop)


def test_a_planned_move_that_is_taken_back_leaves_the_subject_to_be_listed(shop: World) -> None:
    put(shop, "acme", "bot")
    move(shop, "beta", NOW + days(1))
    put(shop, "beta")
    assert [SubjectRow("bot", "acme", BEGINNING, NOW + days(1))] == rows(shop)
    put(shop, "acme", "bot")
    assert [SubjectRow("bot", "acme", BEGINNING, END)] == rows(shop)


# A move -------------------------------------------------------------------------------------------


def test_a_move_from_before_what_has_burned_ahead_is_refused(shop: World) -> None:
    put(shop, "acme", "bot")
    use_ahead(shop, 100)
    assert "usage up to 2026-09-20T00:50:00+00:00 has burned" in str(move(shop, "beta", NOW))
    assert move(shop, "beta", AHEAD + TICK) is True
    assert {"acme-credits": Decimal(2)} == burned(shop)


# Anything in any order ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(16))
def test_whatever_is_done_ahead_of_what_burned_each_event_is_in_one_place(
    shop: World, seed: int
) -> None:
    """Event n uses 4 ** n tokens; each version of the meter reads what the last one did, and more.

    So `burned + billed == used`, and a sum says how often each event is in it.
    """
    chance = Random(seed)
    subjects, customers = ("bot", "app", "gateway"), ("acme", "beta", "acme-eu")
    ids = shop.pool, shop.organization_id
    put(shop, "acme-eu", parent="acme")
    shop.subscribe("acme-eu", "base", SEPTEMBER)
    shop.now, count, version, sent = OPENED + days(1), 0, 1, list[int]()
    credits_of(shop, "beta")
    publish(shop, 1)
    version = 2
    fill(shop, version)
    for _ in range(120):
        shop.now += chance.choice((0, 0, 1, 20)) * MINUTE
        ago, ahead = chance.randrange(1, 1440) * MINUTE, chance.randrange(60) * MINUTE
        time = chance.choice((shop.now - ago, shop.now + ahead, shop.now + ahead))
        subject, customer = chance.choice(subjects), chance.choice(customers)
        parent = chance.choice((None, "acme")) if customer == "acme-eu" else None
        match chance.randrange(9):
            case 0 | 1 | 2 if count < 24:
                level = chance.randrange(1, 6)
                shop.use("llm", time, subject, n=4**count, model="large", level=level)
                sent.append(level)
                count += 1
            case 3:
                burn_usage(*ids, shop.now, up_to=chance.randrange(count + 1))
            case 4:
                shop.fold(up_to=chance.randrange(count + 1))
            case 5:
                with transaction(*ids) as connection:
                    since = chance.choice((time, shop.now))
                    move_subject_in(
                        connection, shop.organization_id, subject, customer, since, shop.now
                    )
            case 6:
                some = tuple(chance.sample(subjects, chance.randrange(3)))
                edit = Customer(key=customer, subjects=some, parent=parent)
                put_customer(*ids, edit, shop.now, uuidv7(1, chance.randbytes(10)))
            case 7 if version < 6:
                publish(shop, version)
                version += 1
                if chance.randrange(2):
                    preview_backfill(*ids, "tokens", version, shop.now)
                fill(shop, version)
            case 8:
                shop.pool_of(
                    "beta-credits",
                    unit="credit",
                    customer="beta",
                    rate_card=chance.choice((None, "credits")),
                )
    bills = billed(shop)
    nobody = [used or 0 for reason, used in unbilled(shop) if reason == "no_customer"]
    whole = sum(burned(shop).values()) * 50 + sum(bills.values()) * 100 + sum(map(Decimal, nobody))
    used = sum(4**number for number, level in enumerate(sent) if level < version)
    assert used == whole


def publish(world: World, level: int) -> None:
    """Publish a version of the meter that reads events of this level and below, at any time."""
    made: Any = meter("tokens", "llm")
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    world.publish(Meter(**{**fields, "filter": f"data.level <= {level}"}), since=BEGINNING)


def fill(world: World, version: int) -> None:
    done = backfill_meter(world.pool, world.organization_id, "tokens", version, world.now)
    assert not hasattr(done, "code"), done
