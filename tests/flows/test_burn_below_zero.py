"""Usage of less than nothing burns nothing and takes nothing back, however events are batched."""

from decimal import Decimal

import pytest
from farebox_burned_shop import (
    NOW,
    balances,
    brought,
    call,
    credits_of,
    left,
    open_burned_shop,
    unburned,
    undo,
)
from farebox_late_shop import burn_all
from farebox_world import World

from farebox.flows.explain_event import explain_event
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.place_reading import Fate

LISTED = ("tokens", "below_zero", 1, Decimal(-500))


@pytest.fixture
def shop(world: World) -> World:
    return open_burned_shop(world)


@pytest.mark.parametrize("apart", [False, True])
def test_units_are_the_same_in_one_step_and_in_several(shop: World, apart: bool) -> None:
    pool = credits_of(shop)
    for tokens in (100, -500, 300):
        shop.send(call(shop, tokens))
        if apart:
            burn_all(shop)
    shop.send(call(shop, 200, subject="app"))
    burn_all(shop)
    assert left(12) == balances(shop, pool)
    assert [LISTED] == unburned(shop)


def test_such_an_event_says_that_it_burned_nothing_and_why(shop: World) -> None:
    pool = credits_of(shop)
    shop.send(call(shop, 100), below := call(shop, -500))
    for _ in range(2):  # before its step, and after
        explained = explain_event(shop.pool, shop.organization_id, below["source"], below["id"])
        assert explained is not None
        ((place,),) = [one.readings for one in explained.meters]
        assert place.burn is not None
        assert (Fate.UNBURNED, pool, None, None, "below_zero") == (
            explained.fate,
            place.burn.pool_id,
            place.burn.units,
            place.burn.draw,
            place.burn.reason,
        )
        burn_all(shop)


def test_no_bill_counts_it_either(shop: World) -> None:
    credits_of(shop)
    shop.send(call(shop, -500))
    burn_all(shop)
    assert [] == list(all_unbilled(shop.pool, shop.organization_id, NOW, shop.now))
    assert [LISTED] == unburned(shop)


def test_undone_it_is_listed_no_more_and_what_burned_stays(shop: World) -> None:
    pool = credits_of(shop)
    shop.send(call(shop, 100))
    below = brought(shop, call(shop, -500))
    above = brought(shop, call(shop, 300))
    burn_all(shop)
    assert left(8) == balances(shop, pool)
    assert (1, 0) == undo(shop, below)
    assert left(8) == balances(shop, pool)
    assert [] == unburned(shop)
    assert (1, 1) == undo(shop, above)
    assert left(2) == balances(shop, pool)
