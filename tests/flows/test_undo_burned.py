"""Undoing an import gives back what its events burned: once, and to where it came from."""

from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_burned_shop import (
    NOW,
    OVERAGE,
    SEPTEMBER,
    balances,
    brought,
    call,
    card,
    credits_of,
    entries,
    left,
    open_burned_shop,
    take_back,
    unburned,
    undo,
)
from farebox_late_shop import burn_all
from farebox_world import World, at, days

from farebox.catalog.meter import Alias
from farebox.flows.list_unbilled import all_unbilled


@pytest.fixture
def shop(world: World) -> World:
    return open_burned_shop(world)


# What is given back -------------------------------------------------------------------------------


def test_a_draw_gives_back_what_was_voided_of_it_and_keeps_the_rest(shop: World) -> None:
    pool = credits_of(shop)
    shop.send(call(shop, 100), call(shop, 100, "small"))
    july = brought(shop, call(shop, 300), call(shop, 400, "small"), call(shop, 50, subject="app"))
    shop.send(call(shop, 200))
    burn_all(shop)
    assert left("13.5") == balances(shop, pool)
    shop.now += days(3)
    assert (3, 2) == undo(shop, july)
    assert left("6.1") == balances(shop, pool)
    assert [("bot", Decimal("6.4")), ("app", Decimal(1))] == [
        (one.subject, one.amount)
        for one in sorted(entries(shop, pool, "voided"), key=lambda one: -one.amount)
    ]
    assert [] == list(all_unbilled(shop.pool, shop.organization_id, SEPTEMBER, shop.now))


def test_an_undo_is_done_once(shop: World) -> None:
    pool = credits_of(shop)
    july = brought(shop, call(shop, 300))
    burn_all(shop)
    assert (1, 1) == undo(shop, july)
    assert "import_undone" == undo(shop, july)
    burn_all(shop)
    assert left(0) == balances(shop, pool)


def test_what_is_undone_before_its_step_never_burns(shop: World) -> None:
    pool = credits_of(shop)
    shop.send(call(shop, 100))
    burn_all(shop)
    july = brought(shop, call(shop, 300))
    shop.send(call(shop, 200))
    assert (1, 0) == undo(shop, july)
    burn_all(shop)
    assert left(6) == balances(shop, pool)


def test_the_parts_of_a_draw_come_to_it_whatever_is_undone_of_it(shop: World) -> None:
    """Three tenths of 10 ** -18 each: rated one by one they would come to nothing at all."""
    shop.publish(card(large="0.3"), since=SEPTEMBER)
    pool = credits_of(shop)
    small = "0.000000000000000001"
    parts = [brought(shop, call(shop, small)) for _ in range(5)]
    shop.send(call(shop, small), call(shop, small))
    burn_all(shop)
    assert Decimal("0.000000000000000002") == balances(shop, pool)["used"]  # 2.1
    used = []
    for one in parts:
        undo(shop, one)
        used.append(balances(shop, pool)["used"].scaleb(18))
    assert [2, 2, 1, 1, 1] == used  # 1.8, 1.5, 1.2, 0.9, 0.6


def test_units_return_to_where_they_came_from_what_is_owed_first(shop: World) -> None:
    limit = OVERAGE
    pool = credits_of(shop, 5, currency="USD", limit=limit, subscription="acme-base")
    shop.send(call(shop, 200))
    july = brought(shop, call(shop, 300))
    burn_all(shop)
    assert {"used": Decimal(10), "overage": Decimal(-5)} == balances(shop, pool)
    assert (1, 1) == undo(shop, july)
    assert {"used": Decimal(4), "grant": Decimal(1)} == balances(shop, pool)
    shop.now = at("2026-10-02")
    shop.bill(shop.now)
    assert {} == shop.amounts("acme-base", SEPTEMBER)


def test_units_of_a_grant_that_has_expired_expire(shop: World) -> None:
    pool = credits_of(shop, None)
    shop.now = SEPTEMBER
    shop.grant(pool, 6, expires_at=NOW + days(1))
    shop.now = NOW
    july = brought(shop, call(shop, 300))
    burn_all(shop)
    shop.now += days(2)
    assert (1, 1) == undo(shop, july)
    assert {"expired": Decimal(6)} == balances(shop, pool)


def test_a_grant_that_was_used_up_is_there_again(shop: World) -> None:
    pool = credits_of(shop, 6)
    july = brought(shop, call(shop, 300))
    burn_all(shop)
    assert left(6, 0) == balances(shop, pool)
    assert (1, 1) == undo(shop, july)
    assert left(0, 6) == balances(shop, pool)


def test_a_closed_pool_gets_its_units_back(shop: World) -> None:
    pool = credits_of(shop)
    july = brought(shop, call(shop, 300))
    burn_all(shop)
    credits_of(shop, None, closed=True)
    assert (1, 1) == undo(shop, july)
    assert left(0) == balances(shop, pool)


def test_it_is_never_too_late_whatever_the_policy_says_of_reversals(shop: World) -> None:
    pool = credits_of(shop, undo_seconds=0)
    july = brought(shop, call(shop, 300))
    burn_all(shop)
    shop.now += days(5)
    assert (1, 1) == undo(shop, july)
    assert left(0) == balances(shop, pool)


def test_a_pool_that_is_ahead_of_the_clock_gives_back_at_its_own_time(shop: World) -> None:
    pool = credits_of(shop)
    july = brought(shop, call(shop, 300))
    shop.now += timedelta(minutes=1)
    burn_all(shop)
    shop.now -= timedelta(minutes=1)
    assert (1, 1) == undo(shop, july)
    assert left(0) == balances(shop, pool)


@pytest.mark.parametrize(("by_hand", "used"), [(None, 0), (2, 4), (7, 0)])
def test_what_was_taken_back_by_hand_is_not_given_back_again(
    shop: World, by_hand: int | None, used: int
) -> None:
    """10 credits burned, 4 of them by what is undone; at most what is left comes back."""
    pool = credits_of(shop)
    shop.send(call(shop, 300))
    july = brought(shop, call(shop, 200))
    burn_all(shop)
    (draw,) = entries(shop, pool, "metered")
    take_back(shop, draw, by_hand)
    assert (1, 0 if by_hand is None else 1) == undo(shop, july)
    assert left(used) == balances(shop, pool)


def test_usage_below_zero_that_is_voided_takes_nothing_more(shop: World) -> None:
    """Three credits were burned for 150 tokens, with it and without it."""
    pool = credits_of(shop)
    shop.send(call(shop, 100))
    more, less = brought(shop, call(shop, 50)), brought(shop, call(shop, -30))
    burn_all(shop)
    assert (1, 0) == undo(shop, less)
    assert left(3) == balances(shop, pool)
    assert (1, 1) == undo(shop, more)
    assert left(2) == balances(shop, pool)


# How it was rated ---------------------------------------------------------------------------------


def test_it_is_rated_as_it_was_whatever_the_catalog_says_since(shop: World) -> None:
    shop.publish(Alias(dimension="model", alias="latest", canonical="large"))
    pool = credits_of(shop)
    shop.send(call(shop, 100, "latest"))
    july = brought(shop, call(shop, 300, "latest"))
    burn_all(shop)
    shop.publish(Alias(dimension="model", alias="latest", canonical="small"), card(large="7"))
    assert left(8) == balances(shop, pool)
    assert (1, 1) == undo(shop, july)
    assert left(2) == balances(shop, pool)


def test_a_version_of_the_card_between_two_events_of_a_step(shop: World) -> None:
    pool = credits_of(shop)
    shop.publish(card(large="0.5"), since=NOW + timedelta(hours=1))
    early = [call(shop, 100), call(shop, 100)]
    shop.now += timedelta(hours=2)
    shop.send(early[0], call(shop, 10))
    july = brought(shop, early[1], call(shop, 20))
    burn_all(shop)
    assert left(4 + 15) == balances(shop, pool)
    assert (2, 1) == undo(shop, july)
    assert left(2 + 5) == balances(shop, pool)


# What burned nothing ------------------------------------------------------------------------------


def test_usage_that_burned_nothing_is_listed_no_more(shop: World) -> None:
    credits_of(shop)
    shop.send(call(shop, 5, "unheard-of"))
    july = brought(shop, call(shop, 7, "unheard-of"))
    august = brought(shop, call(shop, 9, "unknown"))
    burn_all(shop)
    assert (1, 0) == undo(shop, july)
    assert (1, 0) == undo(shop, august)
    assert [("tokens", "no_cell", 1, Decimal(5))] == unburned(shop)


def test_usage_that_no_step_has_passed_is_not_taken_off_the_list(shop: World) -> None:
    credits_of(shop)
    shop.send(call(shop, 5, "unheard-of"))
    waiting = call(shop, 7, "unheard-of")
    shop.now += timedelta(hours=1)
    shop.send(call(shop, 9, "unheard-of"))
    burn_all(shop)
    assert (1, 0) == undo(shop, brought(shop, waiting))
    burn_all(shop)
    assert [("tokens", "no_cell", 2, Decimal(14))] == unburned(shop)


def test_what_a_closed_pool_refused_is_listed_no_more(shop: World) -> None:
    credits_of(shop)
    late = call(shop, 7)
    credits_of(shop, None, closed=True)
    july = brought(shop, {**late, "time": (NOW - timedelta(hours=1)).isoformat()})
    burn_all(shop)
    assert [("tokens", "pool_closed", 1, Decimal(7))] == unburned(shop)
    assert (1, 0) == undo(shop, july)
    assert [] == unburned(shop)


def test_an_event_that_named_its_draw_gives_nothing_back(shop: World) -> None:
    pool = credits_of(shop)
    draw = shop.draw_id(pool, 3, subject="bot")
    shop.send(call(shop, 100))
    july = brought(shop, {**call(shop, 150), "fareboxdraw": draw})
    shop.send(call(shop, 100))
    burn_all(shop)
    assert (1, 0) == undo(shop, july)
    assert left(7) == balances(shop, pool)
