"""Usage that a draw paid for, when it becomes another customer's, is read anew or is undone."""

from decimal import Decimal

import pytest
from farebox_burned_shop import brought
from farebox_late_shop import (
    OPENED,
    SEPTEMBER,
    acmes,
    billed,
    burn_all,
    burned,
    card,
    credits_of,
    drawn,
    meter,
    move,
    open_shop,
    paid,
    put,
    take_back,
)
from farebox_world import World, days
from msgspec import structs

from farebox.flows.backfill_meter import Preview, backfill_meter
from farebox.flows.burn_usage import burn_usage
from farebox.flows.explain_event import explain_event
from farebox.flows.place_reading import Fate
from farebox.flows.undo_import import Undone, undo_import
from farebox.flows.use_priced import PricedUse, Wanted, use_priced
from farebox.flows.verify_ledger import verify_ledger
from farebox.postgres.session import transaction


@pytest.fixture
def shop(world: World) -> World:
    """Return a shop where bot uses for Acme and app for Beta; both have pools that usage burns."""
    open_shop(world)
    world.now = OPENED
    credits_of(world, "beta", serves_children=True)
    world.now = OPENED + days(15)
    put(world, "acme", "bot")
    put(world, "beta", "app")
    return world


def both(shop: World) -> tuple[Decimal, Decimal]:
    found = burned(shop)
    return found["acme-credits"], found["beta-credits"]


# A subject that was nobody's ----------------------------------------------------------------------


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize(("customer", "expected"), [("acme", (2, 0)), ("beta", (2, 2))])
def test_usage_of_nobody_that_becomes_anothers_burns_that_ones_pool(
    shop: World, customer: str, expected: tuple[int, int], passed: bool, folded: bool
) -> None:
    """Events of nobody may name any draw. Whether the steps have passed it or not."""
    event = paid(shop, drawn(shop), "new")
    assert ["accepted"] == shop.send(event)
    if passed:
        burn_all(shop)
    if folded:
        shop.fold()
    put(shop, customer, "new")
    burn_all(shop)
    assert expected == both(shop)
    told = explain_event(shop.pool, shop.organization_id, "test", event["id"])
    assert told is not None
    place = told.meters[0].readings[0].burn
    assert place is not None
    assert (Fate.BURNED_POOL, f"{customer}-credits") == (told.fate, place.pool)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


@pytest.mark.parametrize(("parent", "expected"), [("acme", (2, 0)), ("beta", (2, 2))])
def test_usage_that_named_a_customer_who_comes_later_burns_as_that_ones(
    shop: World, parent: str, expected: tuple[int, int]
) -> None:
    shop.publish(meter("named", "job", "$.payer"), card("named", "tokens"))
    shop.now += days(1)
    event = shop.event("job", shop.now, None, n=100, model="large", payer="gamma")
    assert ["accepted"] == shop.send({**event, "fareboxdraw": drawn(shop)})
    burn_all(shop)
    assert (2, 0) == both(shop)
    put(shop, "gamma", parent=parent)
    assert expected == both(shop)


# A subject that was another's ---------------------------------------------------------------------


@pytest.mark.parametrize("passed", [0, 1])
def test_usage_that_a_draw_paid_for_does_not_become_anothers(shop: World, passed: int) -> None:
    """Also where usage burns no pool of the former customer: the later one's would be spared."""
    put(shop, "gamma", "cat")
    plain = shop.pool_of("calls", unit="call", customer="gamma")
    shop.grant(plain, 100)
    draw = drawn(shop, plain)
    assert ["accepted"] == shop.send(paid(shop, draw, "cat"))
    burn_usage(shop.pool, shop.organization_id, shop.now, up_to=passed)
    if not passed:
        burn_all(shop)
    refused = move(shop, "beta", SEPTEMBER, "cat")
    assert "usage_burned" in str(refused)
    assert "the pool 'calls'" in str(refused)
    assert move(shop, "beta", OPENED + days(4), "cat") is True
    assert (0, 0) == both(shop)


def test_usage_whose_draw_was_taken_back_may_move_and_burns_then(shop: World) -> None:
    draw = drawn(shop)
    shop.send(paid(shop, draw))
    burn_all(shop)
    take_back(shop, draw, "1")
    assert "usage_burned" in str(move(shop, "beta", SEPTEMBER))
    take_back(shop, draw)
    assert move(shop, "beta", SEPTEMBER) is True
    assert (0, 2) == both(shop)


def test_a_use_that_cost_nothing_may_move(shop: World) -> None:
    """Its event names a draw, but there is none that could be taken back."""
    wanted = Wanted(type="llm", data={"n": 0, "model": "large"}, subject="bot")
    with transaction(shop.pool, shop.organization_id) as connection:
        done = use_priced(connection, shop.organization_id, acmes(shop), wanted, shop.now)
    assert isinstance(done, PricedUse)
    burn_all(shop)
    assert move(shop, "beta", SEPTEMBER) is True
    assert (0, 0) == both(shop)


def test_usage_moves_to_whom_the_pool_of_its_draw_serves_too(shop: World) -> None:
    """From the child that used it to the parent whose pool paid; it burns nothing again."""
    shop.now = OPENED
    put(shop, "acme-eu", "eu", parent="acme")
    shop.now = OPENED + days(15)
    shop.send(paid(shop, drawn(shop), "eu"))
    burn_all(shop)
    assert move(shop, "acme", SEPTEMBER, "eu") is True
    assert (2, 0) == both(shop)


def test_a_subject_that_is_left_off_keeps_what_a_draw_paid_for_ahead_of_time(shop: World) -> None:
    ahead = shop.now + days(1) / 48
    shop.send(paid(shop, drawn(shop), "bot", ahead))
    burn_all(shop)
    put(shop, "acme")
    put(shop, "beta", "app", "bot")
    burn_all(shop)
    assert (2, 0) == both(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


# Read anew, and undone ----------------------------------------------------------------------------


def test_a_backfill_that_reads_another_customer_burns_that_ones_pool(shop: World) -> None:
    """The draw pays for what the event's subject uses, not for whom a later meter finds in it."""
    payers = ("acme", "beta")
    draw = drawn(shop)
    for payer in payers:
        event = shop.event("job", shop.now, "bot", n=100, model="large", payer=payer)
        assert ["accepted"] == shop.send({**event, "fareboxdraw": draw})
    shop.now += days(1)
    shop.publish(meter("named", "job", "$.payer"), since=SEPTEMBER)
    shop.now -= days(1)
    shop.publish(card("named", "tokens"))
    shop.now += days(1)
    burn_all(shop)
    done = backfill_meter(shop.pool, shop.organization_id, "named", 1, shop.now)
    assert isinstance(done, Preview), done
    assert [("beta-credits", Decimal(2))] == [(one.pool, one.units) for one in done.pools]
    assert (2, 2) == both(shop)
    shop.map("late", "acme")
    assert (2, 2) == both(shop)


@pytest.mark.parametrize("mapped", ["first", "last"])
def test_newer_versions_of_the_meter_burn_what_they_read_beyond(shop: World, mapped: str) -> None:
    """What had burned though it named a draw counts as burned, and an undo gives all of it back."""
    import_id = brought(shop, paid(shop, drawn(shop), "new"))
    burn_all(shop)
    if mapped == "first":
        put(shop, "beta", "app", "new")
        assert (2, 2) == both(shop)
    found = []
    for version, factor in ((2, 2), (3, 5)):
        newer = structs.replace(meter("tokens", "llm"), value=f"{factor} * n")
        shop.publish(newer, since=SEPTEMBER)
        backfill_meter(shop.pool, shop.organization_id, "tokens", version, shop.now)
        found.append(both(shop))
    put(shop, "beta", "app", "new")
    assert ([(2, 4), (2, 10)] if mapped == "first" else [(2, 0), (2, 0)]) == found
    assert (2, 10) == both(shop)
    assert isinstance(undo_import(shop.pool, shop.organization_id, import_id, shop.now), Undone)
    assert (2, 0) == both(shop)


def test_what_a_draw_paid_for_neither_burns_nor_returns_with_backfills(shop: World) -> None:
    """Amid events of the same subject that burn: 200 tokens at first, 1000 in the end."""
    draw = drawn(shop)
    shop.use("llm", OPENED + days(3), "bot", n=100, model="large")
    import_id = brought(shop, paid(shop, draw))
    shop.use("llm", OPENED + days(3), "bot", n=100, model="large")
    burn_all(shop)
    found = [both(shop)]
    for version, factor in ((2, 2), (3, 5)):
        newer = structs.replace(meter("tokens", "llm"), value=f"{factor} * n")
        shop.publish(newer, since=SEPTEMBER)
        backfill_meter(shop.pool, shop.organization_id, "tokens", version, shop.now)
        found.append(both(shop))
    assert [(6, 0), (10, 0), (22, 0)] == found
    done = undo_import(shop.pool, shop.organization_id, import_id, shop.now)
    assert Undone(1, 0) == done
    assert (22, 0) == both(shop)


@pytest.mark.parametrize("passed", [True, False])
def test_an_undo_gives_back_what_burned_though_it_named_a_draw(shop: World, passed: bool) -> None:
    """Of three events that name Acme's draw the two of nobody became Beta's and burned."""
    draw = drawn(shop)
    import_id = brought(shop, *(paid(shop, draw, subject) for subject in ("new", "bot", "new")))
    if passed:
        burn_all(shop)
    put(shop, "beta", "app", "new")
    burn_all(shop)
    assert (2, 4) == both(shop)
    done = undo_import(shop.pool, shop.organization_id, import_id, shop.now)
    assert isinstance(done, Undone), done
    assert (2, 0) == both(shop)
    found: list[object] = []
    verify_ledger(shop.pool, shop.organization_id, found.append)
    assert [] == found
