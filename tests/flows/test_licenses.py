"""Licenses beside the pools that they have and that pay for them, also when all happens at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from farebox_burned_shop import balances as balances_of
from farebox_burned_shop import call, credits_of, left, open_burned_shop
from farebox_late_shop import burn_all
from farebox_world import World, new_id

from farebox.catalog.license import License
from farebox.flows.buy_access import Bought, buy_license
from farebox.flows.decide_pools import Asked, decide_pools
from farebox.flows.put_license import PutLicense, put_license, revoke_license
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.command import Answer, Draw
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.license import find_license
from farebox.postgres.session import transaction
from farebox.postgres.verify import Finding

ONE = Decimal(1)
TERM = 3600


def put(world: World, key: str = "L-1", **fields: object) -> License:
    asked = License(key=key, customer="acme", **fields)  # type: ignore[arg-type]
    done = put_license(world.pool, world.organization_id, asked, world.now)
    assert isinstance(done, PutLicense), done
    return done.row.license


def standing(world: World) -> License:
    with transaction(world.pool, world.organization_id) as connection:
        row = find_license(connection, world.organization_id, "L-1")
    assert row is not None
    return row.license


def buy(world: World, payer: UUID) -> Bought:
    asked = License(key="L-1", customer="acme")
    ids = world.organization_id, payer
    with transaction(world.pool, world.organization_id) as connection:
        done = buy_license(connection, *ids, asked, ONE, TERM, world.now, new_id())
    assert isinstance(done, Bought), done
    return done


def take_back(world: World, payer: UUID, bought: Bought) -> None:
    ids = world.organization_id, payer, bought.answer.operation
    with transaction(world.pool, world.organization_id) as connection:
        assert isinstance(reverse_draw(connection, *ids, None, world.now), Answer)


def proved(world: World) -> list[Finding]:
    found: list[Finding] = []
    verify_ledger(world.pool, world.organization_id, found.append)
    return found


def test_purchases_changes_and_draws_of_many_go_on_beside_each_other(world: World) -> None:
    """The license's pools stand on both sides of the one that pays, in the order of locks."""
    world.customer("acme")
    begun = put(world, ends_at=world.now + timedelta(days=1))
    assert begun.ends_at is not None
    low = world.pool_of("low", license="L-1")
    payer = world.pool_of("credits", customer="acme")
    high = world.pool_of("high", license="L-1")
    for pool in (low, payer, high):
        world.grant(pool, 10_000)
    asked = [Asked(pool, Draw(amount=ONE)) for pool in (high, payer, low)]

    def buys() -> None:
        for turn in range(12):
            bought = buy(world, payer)
            if turn % 2:
                take_back(world, payer, bought)

    def draws() -> int:
        outcomes = [
            one
            for _ in range(25)
            for one in decide_pools(world.pool, world.organization_id, asked, world.now)
        ]
        return sum(isinstance(one, Answer) for one in outcomes)

    with ThreadPoolExecutor(4) as threads:
        buying = [threads.submit(buys) for _ in range(2)]
        drawing = [threads.submit(draws) for _ in range(2)]
        assert [None, None] == [one.result() for one in buying]
        assert [75, 75] == [one.result() for one in drawing]
    assert begun.ends_at + timedelta(seconds=12 * TERM) == standing(world).ends_at
    assert [] == proved(world)
    taken = {low: 50, payer: 50 + 12, high: 50}
    assert taken == {pool: int(balances_of(world, pool)["used"]) for pool in taken}


def test_a_license_that_somebody_made_endless_stays_so_when_its_purchase_is_taken_back(
    world: World,
) -> None:
    world.customer("acme")
    payer = world.pool_of("credits", customer="acme")
    world.grant(payer, 10)
    bought = buy(world, payer)
    put(world)
    take_back(world, payer, bought)
    assert standing(world).ends_at is None


def test_a_purchase_that_somebody_cut_short_is_not_prolonged_by_taking_it_back(
    world: World,
) -> None:
    world.customer("acme")
    payer = world.pool_of("credits", customer="acme")
    world.grant(payer, 10)
    bought = buy(world, payer)
    world.now += timedelta(minutes=2)
    cut = world.now - timedelta(minutes=1)
    put(world, ends_at=cut)
    take_back(world, payer, bought)
    assert cut == standing(world).ends_at


def test_usage_burns_the_pool_of_a_license_that_is_over_and_is_not_lost(world: World) -> None:
    open_burned_shop(world)
    put(world, ends_at=world.now + timedelta(hours=1))
    pool = credits_of(world, customer=None, license="L-1")
    refused = world.draw(pool, 1)
    assert isinstance(refused, Refusal)
    assert RefusalCode.LICENSE_OVER == refused.code
    world.send(call(world, 100))
    burn_all(world)
    assert left(2) == balances_of(world, pool)


def test_revoked_is_revoked_for_a_clock_that_is_behind(world: World) -> None:
    world.customer("acme")
    put(world)
    pool = world.pool_of("tokens", license="L-1")
    world.grant(pool, 10)
    with transaction(world.pool, world.organization_id) as connection:
        ahead = world.now + timedelta(seconds=3)
        revoke_license(connection, world.organization_id, "L-1", ahead)
    refused = world.draw(pool, 1)
    assert isinstance(refused, Refusal)
    assert RefusalCode.LICENSE_REVOKED == refused.code
