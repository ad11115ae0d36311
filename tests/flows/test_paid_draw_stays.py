"""What a draw has paid for, or usage has burned, stays so, whomever a pool serves later."""

from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from farebox_burned_shop import brought
from farebox_late_shop import (
    OPENED,
    PAID_AT,
    SEPTEMBER,
    burn_all,
    burned,
    credits_of,
    drawn,
    meter,
    move,
    open_shop,
    paid,
    put,
)
from farebox_world import World, days
from msgspec import structs

from farebox.flows.backfill_meter import Preview, backfill_meter
from farebox.flows.undo_import import Undone, undo_import


@pytest.fixture
def shop(world: World) -> World:
    """Return a shop where app uses for Beta, a part of Acme; both have pools that usage burns."""
    open_shop(world)
    world.now = OPENED
    put(world, "beta", "app", parent="acme")
    credits_of(world, "beta")
    world.now = OPENED + days(15)
    return world


def calls_of(shop: World, *, serves_children: bool) -> UUID:
    """Put Acme's pool that no usage burns."""
    return shop.pool_of("calls", unit="call", customer="acme", serves_children=serves_children)


def betas(shop: World) -> Decimal:
    return burned(shop)["beta-credits"]


def read_twice(shop: World) -> None:
    """Let a newer version of the meter count each token twice, from the beginning on."""
    shop.publish(structs.replace(meter("tokens", "llm"), value="2 * n"), since=SEPTEMBER)
    done = backfill_meter(shop.pool, shop.organization_id, "tokens", 2, shop.now)
    assert isinstance(done, Preview), done


def undo(shop: World, import_id: UUID) -> None:
    done = undo_import(shop.pool, shop.organization_id, import_id, shop.now)
    assert isinstance(done, Undone), done


@pytest.mark.parametrize("twice", [1, 2])
@pytest.mark.parametrize("card", [None, "credits"])
def test_what_was_paid_stays_paid_after_its_pool_ceased_to_serve_children(
    shop: World, card: str | None, twice: int
) -> None:
    """Amid usage that burned: two of the three events of the import and one beside it."""
    named = {"unit": "credit" if card else "call", "customer": "acme", "rate_card": card}
    paying = shop.pool_of("paying", **named, serves_children=True)
    shop.grant(paying, 100)
    draw = drawn(shop, paying)
    shop.use("llm", PAID_AT, "app", n=100, model="large")
    plain = [shop.event("llm", PAID_AT, "app", n=100, model="large") for _ in range(2)]
    july = brought(shop, plain[0], paid(shop, draw, "app"), plain[1])
    burn_all(shop)
    assert 6 == betas(shop)
    shop.pool_of("paying", **named, serves_children=False)
    if twice == 2:
        read_twice(shop)
    assert 6 * twice == betas(shop)
    undo(shop, july)
    assert 2 * twice == betas(shop)


@pytest.mark.parametrize("twice", [1, 2])
def test_what_burned_stays_burned_after_the_pool_of_its_draw_began_to_serve_children(
    shop: World, twice: int
) -> None:
    """What was nobody's named the draw of a pool that did not serve whose it became."""
    calls = calls_of(shop, serves_children=False)
    shop.grant(calls, 100)
    draw = drawn(shop, calls)
    shop.use("llm", PAID_AT, "new", n=100, model="large")
    plain = shop.event("llm", PAID_AT, "new", n=100, model="large")
    july = brought(shop, plain, paid(shop, draw, "new"))
    burn_all(shop)
    put(shop, "beta", "app", "new", parent="acme")
    assert 6 == betas(shop)
    calls_of(shop, serves_children=True)
    if twice == 2:
        read_twice(shop)
    assert 6 * twice == betas(shop)
    undo(shop, july)
    assert 2 * twice == betas(shop)


def test_whom_a_pool_serves_counts_from_right_after_what_is_dated_ahead_and_was_dealt_with(
    shop: World,
) -> None:
    calls = calls_of(shop, serves_children=True)
    shop.grant(calls, 100)
    draw = drawn(shop, calls)
    # The second is dated as far ahead as may be.
    ahead = [shop.now + days(1) / 48 * part for part in (1, 2, 3)]
    shop.send(paid(shop, draw, "app", ahead[0]))
    july = brought(shop, paid(shop, draw, "app", ahead[1]))
    burn_all(shop)
    calls_of(shop, serves_children=False)
    shop.use("llm", ahead[1], "app", n=100, model="large")
    sent = shop.send(*(paid(shop, draw, "app", time) for time in ahead))
    assert ["accepted", "accepted", "subject_not_served"] == sent
    burn_all(shop)
    assert 2 == betas(shop)
    undo(shop, july)
    assert 2 == betas(shop)


# Events from before the draws that they name were looked up ---------------------------------------


def looked_up_from_here(shop: World, owner_url: str, named: dict[str, str]) -> None:
    """Let events name what they did not, by id, and none that comes later be believed."""
    with psycopg.connect(owner_url) as connection:
        for event_id, text in named.items():
            connection.execute(
                "update event set payload ="
                " (payload::jsonb || jsonb_build_object('fareboxdraw', %s::text))::json"
                " where organization_id = %s and id = %s",
                (text, shop.organization_id, event_id),
            )
        connection.execute(
            "insert into draw_believed select organization_id, last_sequence from stream_head"
            " where organization_id = %s",
            (shop.organization_id,),
        )


@pytest.mark.parametrize("twice", [1, 2])
@pytest.mark.parametrize("whose", ["text", "nobody", "acme"])
def test_an_event_of_before_that_named_anything_has_not_burned(
    shop: World, owner_url: str, whose: str, twice: int
) -> None:
    nobodys = shop.pool_of("nobodys")
    shop.grant(nobodys, 100)
    text = {
        "text": "order-17",
        "nobody": drawn(shop, nobodys),
        "acme": drawn(shop, calls_of_acme(shop)),
    }[whose]
    shop.use("llm", PAID_AT, "app", n=100, model="large")
    plain, named = (shop.event("llm", PAID_AT, "app", n=100, model="large") for _ in range(2))
    july = brought(shop, named, plain)
    looked_up_from_here(shop, owner_url, {named["id"]: text})
    burn_all(shop)
    assert 4 == betas(shop)
    if twice == 2:
        read_twice(shop)
    assert 4 * twice == betas(shop)
    undo(shop, july)
    assert 2 * twice == betas(shop)


def calls_of_acme(shop: World) -> UUID:
    calls = calls_of(shop, serves_children=False)
    shop.grant(calls, 100)
    return calls


@pytest.mark.parametrize("whose", ["text", "acme"])
@pytest.mark.parametrize("former", ["acme", "nobody"])
def test_an_event_of_before_that_named_anything_moves_and_burns_nothing_then(
    shop: World, owner_url: str, former: str, whose: str
) -> None:
    text = "order-17" if whose == "text" else drawn(shop, calls_of_acme(shop))
    if former == "acme":
        put(shop, "acme", "bot")
    event = shop.event("llm", PAID_AT, "bot", n=100, model="large")
    assert ["accepted"] == shop.send(event)
    looked_up_from_here(shop, owner_url, {event["id"]: text})
    burn_all(shop)
    if former == "acme":
        assert move(shop, "beta", SEPTEMBER) is True
    else:
        put(shop, "beta", "app", "bot", parent="acme")
    found = burned(shop)
    assert (0, 0) == (found["acme-credits"], found["beta-credits"])


def test_an_event_that_comes_later_is_looked_up(shop: World, owner_url: str) -> None:
    shop.use("llm", PAID_AT, "app", n=100, model="large")
    looked_up_from_here(shop, owner_url, {})
    draw = drawn(shop, calls_of_acme(shop))
    assert ["draw_unknown", "accepted"] == shop.send(
        paid(shop, "order-17", "new"), paid(shop, draw, "new")
    )
    burn_all(shop)
    put(shop, "beta", "app", "new", parent="acme")
    assert 4 == betas(shop)
