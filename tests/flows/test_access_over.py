"""Access that units bought, once its term is over."""

from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_world import World, at, new_id

from farebox.flows.buy_access import Bought, buy_access
from farebox.flows.reverse_draw import reverse_draw
from farebox.ledger.command import Answer
from farebox.postgres.session import transaction


@pytest.fixture
def sold(world: World) -> World:
    world.now = at("2026-09-01 00:00")
    world.customer("acme")
    return world


def test_a_draw_reversed_when_its_access_is_over_gives_units_back_and_leaves_what_was_had(
    sold: World,
) -> None:
    """`undo_seconds` alone says for how long; it is longer than the term here."""
    pool = sold.pool_of("coins", customer="acme", undo_seconds=7200)
    sold.grant(pool, 50)
    with transaction(sold.pool, sold.organization_id) as connection:
        scope = connection, sold.organization_id, pool
        done = buy_access(*scope, "acme", "sso", Decimal(20), 3600, sold.now, new_id())
    assert isinstance(done, Bought)
    sold.now += timedelta(seconds=3601)
    with transaction(sold.pool, sold.organization_id) as connection:
        scope = connection, sold.organization_id, pool
        back = reverse_draw(*scope, done.answer.operation, None, sold.now)
        assert isinstance(back, Answer)
        assert Decimal(50) == back.available
        rows = connection.execute("select ends_at, revoked_at from access").fetchall()
    assert [(done.access.ends_at, None)] == rows
