"""Usage that becomes a customer's afterwards burns its pool then, and is never accounted twice."""

from decimal import Decimal

import msgspec
import pytest
from farebox_late_shop import (
    NOW,
    SEPTEMBER,
    billed,
    burn_all,
    burned,
    card,
    credits_of,
    draws,
    meter,
    move,
    new_id,
    open_shop,
    pools_of,
    put,
    unbilled,
    use,
)
from farebox_world import World, at, days

from farebox.catalog.document import Document, read_document
from farebox.flows.apply_catalog import apply_catalog
from farebox.flows.burn_usage import BurnNote
from farebox.flows.move_subject import Moved, move_subject_in
from farebox.flows.reverse_draw import reverse_draw
from farebox.ledger.command import Answer
from farebox.postgres import burn
from farebox.postgres.session import transaction


@pytest.fixture
def shop(world: World) -> World:
    return open_shop(world)


# A subject that was nobody's ----------------------------------------------------------------------


@pytest.mark.parametrize("folded", [0, 1, 3])
def test_usage_of_nobody_burns_the_pool_of_whom_it_becomes(shop: World, folded: int) -> None:
    """Up to the opening of the pool it is billed; whether rollups hold it or not."""
    use(shop, 100, 3)
    use(shop, 200, 6)
    use(shop, 300, 8)
    burn_all(shop)
    shop.fold(up_to=folded)
    assert {"acme-credits": Decimal(0)} == burned(shop)
    assert [("no_customer", Decimal(600))] == unbilled(shop)
    put(shop, "acme", "bot")
    assert {"acme-credits": Decimal(10)} == burned(shop)
    assert [] == unbilled(shop)
    use(shop, 400, 12)
    burn_all(shop)
    assert {"acme-credits": Decimal(18)} == burned(shop)
    assert {"acme": Decimal(1), "beta": Decimal(0)} == billed(shop)
    assert [] == unbilled(shop)


@pytest.mark.parametrize("folded", [0, 2])
def test_what_the_steps_have_not_read_is_left_to_them(shop: World, folded: int) -> None:
    use(shop, 100, 6)
    burn_all(shop)
    use(shop, 200, 7)
    shop.fold(up_to=folded)
    put(shop, "acme", "bot")
    assert {"acme-credits": Decimal(2)} == burned(shop)
    burn_all(shop)
    assert {"acme-credits": Decimal(6)} == burned(shop)
    notes = [msgspec.json.decode(one.note or "", type=BurnNote) for one in draws(shop)]
    assert [(1, 1), (2, 2)] == sorted((one.first_sequence, one.last_sequence) for one in notes)


def test_a_repeat_burns_nothing_again(shop: World) -> None:
    use(shop, 200, 6)
    burn_all(shop)
    for _ in range(3):
        put(shop, "acme", "bot")
        move(shop, "acme", SEPTEMBER)
        burn_all(shop)
    assert {"acme-credits": Decimal(4)} == burned(shop)
    assert 1 == len(draws(shop))


def test_two_changes_in_one_transaction_burn_each_their_own(shop: World) -> None:
    for number, subject in enumerate(("bot", "gateway")):
        put(shop, "beta", *("bot", "gateway")[: number + 1])
        use(shop, 100 * (number + 1), 8, subject)
    burn_all(shop)
    with transaction(shop.pool, shop.organization_id) as connection:
        for subject in ("bot", "gateway"):
            ids = connection, shop.organization_id
            done = move_subject_in(*ids, subject, "acme", SEPTEMBER, shop.now)
            assert isinstance(done, Moved)
    assert {"acme-credits": Decimal(6)} == burned(shop)


def test_usage_without_a_rate_is_listed_with_its_pool(shop: World) -> None:
    use(shop, 7, 6, model="unheard-of")
    burn_all(shop)
    put(shop, "acme", "bot")
    with transaction(shop.pool, shop.organization_id) as connection:
        (row,) = burn.unburned(connection, shop.organization_id)
    assert ("acme-credits", "no_cell", 1) == (row.pool, row.reason, row.events)


def test_what_was_taken_out_of_the_stream_burns_nothing(shop: World) -> None:
    use(shop, 200, 6)
    use(shop, 300, 6)
    burn_all(shop)
    with transaction(shop.pool, shop.organization_id) as connection:
        connection.execute(
            "insert into void values (%s, 1, %s, 'import')", (shop.organization_id, shop.now)
        )
    put(shop, "acme", "bot")
    assert {"acme-credits": Decimal(6)} == burned(shop)


def test_a_new_customer_burns_the_pool_of_the_one_above(shop: World) -> None:
    """By what its subjects used, and by usage that named it before it was known."""
    world = shop
    world.publish(meter("named", "job", "$.payer"), card("named", "tokens"), since=SEPTEMBER)
    later = world.now + days(1)
    world.use("job", later, "bot", n=500, model="large", payer="acme-eu")
    world.use("llm", later, "bot", n=100, model="large")
    world.now = later
    burn_all(world)
    put(world, "acme-eu", "bot", parent="acme")
    assert {"acme-credits": Decimal(12)} == burned(world)
    put(world, "acme-eu", "bot", parent="acme")
    assert {"acme-credits": Decimal(12)} == burned(world)


# A subject that was another's ---------------------------------------------------------------------


def test_usage_that_burned_nothing_burns_the_pool_of_whom_it_becomes(shop: World) -> None:
    put(shop, "beta", "bot")
    use(shop, 100, 6)
    use(shop, 200, 8)
    burn_all(shop)
    assert move(shop, "acme", SEPTEMBER + days(6))
    assert {"acme-credits": Decimal(4)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(1)} == billed(shop)
    assert [] == unbilled(shop)


def test_usage_that_burned_a_pool_does_not_become_anothers(shop: World) -> None:
    put(shop, "acme", "bot")
    use(shop, 100, 6)
    use(shop, 200, 8)
    burn_all(shop)
    refused = move(shop, "beta", SEPTEMBER + days(6))
    assert (
        "usage_burned: usage up to 2026-09-08T00:00:00+00:00 has burned the pool 'acme-credits';"
        " move the subject from later on, or take those draws back first"
    ) == refused
    assert {"acme-credits": Decimal(6)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)
    assert [] == unbilled(shop)


def test_a_move_from_now_on_changes_nothing(shop: World) -> None:
    put(shop, "acme", "bot")
    use(shop, 100, 6)
    burn_all(shop)
    assert move(shop, "beta", shop.now) is True
    use(shop, 300, 25)
    burn_all(shop)
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(3)} == billed(shop)


def test_usage_of_which_the_draws_were_taken_back_may_move(shop: World) -> None:
    put(shop, "acme", "bot")
    use(shop, 200, 8)
    burn_all(shop)
    (draw,) = draws(shop)
    for part, left in ((Decimal(1), True), (None, False)):
        with transaction(shop.pool, shop.organization_id) as connection:
            done = reverse_draw(
                connection, shop.organization_id, draw.pool_id, draw.operation, part, shop.now
            )
        assert isinstance(done, Answer)
        moved = move(shop, "beta", SEPTEMBER)
        assert left is (moved is not True)
    assert {"acme-credits": Decimal(0)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(2)} == billed(shop)


def test_both_customers_have_a_pool_and_the_use_burns_one(shop: World) -> None:
    """Before Beta had one its usage burned nothing, and after that it burned Beta's."""
    put(shop, "beta", "bot")
    shop.now = at("2026-09-10")
    credits_of(shop, "beta")
    shop.now = NOW
    use(shop, 100, 8)
    use(shop, 200, 12)
    burn_all(shop)
    assert {"acme-credits": Decimal(0), "beta-credits": Decimal(4)} == burned(shop)
    assert "usage_burned" in str(move(shop, "acme", SEPTEMBER))
    assert {"acme-credits": Decimal(0), "beta-credits": Decimal(4)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(1)} == billed(shop)


def test_usage_between_customers_that_one_pool_serves_stays_burned(shop: World) -> None:
    put(shop, "acme-eu", "bot", parent="acme")
    use(shop, 100, 8)
    burn_all(shop)
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert move(shop, "acme", SEPTEMBER) is True
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


def test_usage_of_nobody_amid_what_burned_is_not_taken_for_it(shop: World) -> None:
    """A draw names a range of events; those of another time in it have not burned."""
    shop.map("bot", "acme", at("2026-09-10"))
    use(shop, 100, 11)
    use(shop, 200, 7)
    use(shop, 300, 12)
    burn_all(shop)
    assert {"acme-credits": Decimal(8)} == burned(shop)
    assert move(shop, "acme", SEPTEMBER) is True
    assert {"acme-credits": Decimal(12)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


def test_usage_that_was_asked_for_first_does_not_become_anothers(shop: World) -> None:
    put(shop, "acme", "bot")
    (pool_id, _), *_ = pools_of(shop)
    draw = shop.draw_id(pool_id, 2, subject="bot")
    event = shop.event("llm", at("2026-09-08"), "bot", n=100, model="large")
    shop.send({**event, "fareboxdraw": draw})
    burn_all(shop)
    assert "usage_burned" in str(move(shop, "beta", SEPTEMBER))
    assert {"acme-credits": Decimal(2)} == burned(shop)


def test_without_any_pool_a_move_is_as_it_was(world: World) -> None:
    world.customer("acme")
    world.customer("beta")
    world.map("bot", "acme")
    assert move(world, "beta", SEPTEMBER) is True


# Catalogs -----------------------------------------------------------------------------------------


def test_a_dry_run_of_a_catalog_burns_nothing(shop: World) -> None:
    use(shop, 100, 8)
    burn_all(shop)
    document = read_document(b"customers: [{key: acme, subjects: [bot]}, {key: beta}]")
    assert isinstance(document, Document), document
    for dry_run, expected in ((True, 0), (False, 2), (False, 2)):
        done = apply_catalog(
            shop.pool, shop.organization_id, document, shop.now, new_id, dry_run=dry_run
        )
        assert isinstance(done, list)
        assert {"acme-credits": Decimal(expected)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)
