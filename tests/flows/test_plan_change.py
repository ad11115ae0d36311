"""A customer's plan changes at an instant: what is used from then on counts for the next one.

Nothing is synced between the change and the use: a pass may come as late as it likes.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Override
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Plan
from farebox.flows.entitle import sync_entitlements
from farebox.flows.follow_pools import settle_pool
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.flows.renew_entitlement import resets_at
from farebox.flows.verify_ledger import verify_ledger
from farebox.flows.watch_pools import watch_pools
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.period.cycle import Unit
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.notice import notices
from farebox.postgres.session import transaction
from farebox.worker.sync import sync_due

D = Decimal
START = at("2026-09-01 00:00")
TURN = at("2026-09-20 12:00")
MOMENT = timedelta(milliseconds=1)
OVERAGE = EntitlementLimit.OVERAGE


def plan(key: str, interval: Unit = Unit.MONTH, **said: object) -> Plan:
    calls = Entitlement(feature="calls", **said)  # type: ignore[arg-type]
    return Plan(key=key, currency="USD", interval=interval, entitlements=(calls,))


PLANS = {
    one.key: one
    for one in (
        plan("free", limit=D(100)),
        plan("pro", limit=D(500)),
        plan("cheap", limit=D(100), beyond=OVERAGE, price=D("0.01")),
        plan("dear", limit=D(200), beyond=OVERAGE, price=D("0.05")),
        plan("enterprise", unlimited=True),
        plan("annual", Unit.YEAR, limit=D(1000)),
    )
}


@pytest.fixture
def sold(world: World) -> World:
    world.now = START
    world.publish(Feature(key="calls"), *PLANS.values())
    world.customer("acme")
    return world


def put(
    world: World, plan: str, start: datetime, end: datetime | None = None, who: str = "acme"
) -> None:
    one = Subscription(key=f"{who}-{plan}", customer=who, plan=plan, start=start, end=end)
    done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
    assert isinstance(done, PutSubscription), done


def change(world: World, before: str, after: str | None) -> None:
    """Put the customer on a plan until the turn, and from then on on another; use 60 calls."""
    put(world, before, START, TURN)
    if after is not None:
        put(world, after, TURN)
    assert isinstance(use(world, 60), Answer)


def pool_id(world: World, who: str = "acme") -> UUID:
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, who)
    return found["calls"][0]


def use(world: World, amount: int, who: str = "acme") -> Answer | Refusal:
    return world.draw(pool_id(world, who), amount)


def book(world: World) -> Book:
    one = pool_id(world)
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        return books_now(connection, world.organization_id, [one], world.now)[one]


def override(world: World, given: Override | None) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, "acme"
        if given is None:
            entitlement.drop_override(*scope, "calls")
        else:
            entitlement.put_override(*scope, "calls", given, world.now)
    sync_one(world, "acme")


def sync(world: World) -> None:
    """Let a pass come; it finds nothing to do that has not happened by itself."""
    before = book(world)
    sync_due(world.pool, world.now, timedelta(hours=1), new_id)
    after = book(world)
    assert (before.pool.sequence, before.pool.balances) == (
        after.pool.sequence,
        after.pool.balances,
    )
    assert before.pool.policy == after.pool.policy
    assert before.pool.counters == after.pool.counters
    faults: list[object] = []
    verify_ledger(world.pool, world.organization_id, faults.append)
    assert [] == faults


def test_the_next_plan_brings_its_limit_at_the_turn(sold: World) -> None:
    change(sold, "free", "pro")
    sold.now = TURN - MOMENT
    assert TURN == resets_at(book(sold))
    assert isinstance(use(sold, 41), Refusal)
    sold.now = TURN
    answer = use(sold, 300)
    assert isinstance(answer, Answer)
    assert (D(300), D(200)) == (answer.covered, answer.available)
    sold.now += MOMENT
    sync(sold)


def test_nobody_is_told_that_a_pool_is_empty_which_another_plan_fills(sold: World) -> None:
    change(sold, "free", "pro")
    sold.now = TURN + MOMENT
    settle_pool(sold.pool, sold.organization_id, pool_id(sold), sold.now)
    watch_pools(sold.pool, sold.organization_id, [pool_id(sold)], sold.now)
    with transaction(sold.pool, sold.organization_id) as connection:
        told = {one.type for one in notices(connection, sold.organization_id)}
    assert {"grant.expired"} == told  # what was left of the plan before


@pytest.mark.parametrize("before", ["free", "cheap"])
def test_an_unlimited_plan_bounds_nothing_from_the_turn_on(sold: World, before: str) -> None:
    change(sold, before, "enterprise")
    sold.now = TURN
    answer = use(sold, 10_000)
    assert isinstance(answer, Answer)
    assert (D(10_000), {}) == (answer.covered, answer.beyond)
    sync(sold)


def test_a_plan_that_ends_an_unlimited_one_bounds_from_the_turn_on(sold: World) -> None:
    change(sold, "enterprise", "free")
    sold.now = TURN - MOMENT
    assert isinstance(use(sold, 10_000), Answer)
    sold.now = TURN
    assert isinstance(use(sold, 101), Refusal)
    assert isinstance(use(sold, 100), Answer)
    sync(sold)


def test_without_a_further_plan_nothing_is_sold_beyond_the_last(sold: World) -> None:
    change(sold, "cheap", None)
    sold.now = TURN
    refusal = use(sold, 1)
    assert isinstance(refusal, Refusal)
    assert RefusalCode.INSUFFICIENT_BALANCE == refusal.code
    sync(sold)


def test_what_is_beyond_the_next_plan_costs_what_that_one_says_on_its_invoice(sold: World) -> None:
    change(sold, "cheap", "dear")
    sold.now = TURN - MOMENT
    assert isinstance(use(sold, 50), Answer)
    sold.now = TURN
    assert isinstance(use(sold, 230), Answer)
    sold.now += MOMENT
    sync(sold)
    sold.bill(at("2026-11-01 00:00"))
    found = {
        (row.subscription_key, line.kind, line.quantity, line.amount)
        for row in sold.invoices()
        for line in sold.lines(row)
        if line.kind == "overage"
    }
    assert {
        ("acme-cheap", "overage", D(10), D("0.10")),
        ("acme-dear", "overage", D(30), D("1.50")),
    } == found


def test_periods_of_another_length_begin_at_the_turn(sold: World) -> None:
    change(sold, "free", "annual")
    sold.now = TURN
    assert isinstance(use(sold, 7), Answer)
    counters = book(sold).pool.counters
    assert (TURN, at("2027-09-20 00:00"), D(7)) == (
        counters.period_start,
        counters.period_end,
        counters.used,
    )
    sold.now = at("2026-10-15 00:00")  # the month before it would have ended by now
    assert isinstance(use(sold, 1), Answer)
    assert D(8) == book(sold).pool.counters.used
    sync(sold)


def test_an_upcoming_plan_may_be_cut_short_or_overridden_and_still_brings_its_limit(
    sold: World,
) -> None:
    change(sold, "free", "pro")
    put(sold, "pro", TURN, at("2026-12-01 00:00"))
    override(sold, Override(limit=D(300)))
    assert D(240) == book(sold).pool.available
    override(sold, None)
    sync(sold)
    assert D(40) == book(sold).pool.available
    sold.now = TURN
    assert D(500) == book(sold).pool.available
    sync(sold)
    sold.now = at("2026-12-01 00:00")
    assert D(0) == book(sold).pool.available


def test_a_pool_that_is_put_before_the_turn_keeps_what_was_put(sold: World) -> None:
    change(sold, "free", "cheap")
    pool = book(sold).pool
    sold.pool_of(
        pool.key,
        unit=pool.unit,
        customer="acme",
        subscription="acme-free",
        currency="USD",
        renewal=pool.policy.renewal,
        hold_seconds=77,
    )
    sold.now = TURN
    answer = use(sold, 150)
    assert isinstance(answer, Answer)
    assert {Account.OVERAGE: D(50)} == answer.beyond
    assert 77 == book(sold).pool.policy.hold_seconds


@pytest.mark.parametrize("seed", range(8))
def test_it_makes_no_difference_when_a_pass_comes(sold: World, seed: int) -> None:
    """One customer is synced at every turn, another of the same plans only before the next one."""
    chance = Random(seed)
    sold.customer("late")
    turns = sorted(START + timedelta(hours=hours) for hours in chance.sample(range(1, 1400), 5))
    keys = chance.sample(list(PLANS), 6)
    for key, start, end in zip(keys, [START, *turns], [*turns, None], strict=True):
        for who in ("acme", "late"):
            put(sold, key, start, end, who)
    for turn in turns:
        sold.now = turn
        sync_one(sold, "acme")
        for _ in range(chance.randint(0, 6)):
            amount = chance.choice([1, 30, 90, 210])
            assert said(use(sold, amount)) == said(use(sold, amount, "late"))
            sold.now += timedelta(seconds=chance.randint(0, 40))
        sync_one(sold, "late")


def sync_one(world: World, who: str) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        lock_organization(connection, world.organization_id)
        sync_entitlements(connection, world.organization_id, who, world.now, new_id)


def said(outcome: Answer | Refusal) -> object:
    if isinstance(outcome, Refusal):
        return outcome.code, outcome.left
    return outcome.covered, outcome.beyond, outcome.available, outcome.over_limit
