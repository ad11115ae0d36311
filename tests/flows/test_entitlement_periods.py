"""Of an entitlement that changes within a period, what was used stays used; it resets on time."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Override
from farebox.catalog.plan import Entitlement, Feature, Plan
from farebox.flows.entitle import sync_entitlements
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.flows.renew_entitlement import resets_at
from farebox.flows.verify_ledger import verify_ledger
from farebox.flows.watch_pools import watch_pools
from farebox.ledger.book import Book
from farebox.ledger.command import Answer, Extend, Reserve, Settle
from farebox.ledger.refusal import Refusal
from farebox.period.cycle import Unit
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import transaction
from farebox.worker.sync import sync_due


@pytest.fixture
def sold(world: World) -> World:
    """Return a vendor whose plans bring calls a month, and one a year."""
    world.now = at("2026-09-01 00:00")
    world.publish(
        Feature(key="calls"),
        *(
            Plan(
                key=key,
                currency="USD",
                interval=interval,
                entitlements=(Entitlement(feature="calls", limit=Decimal(limit)),),
            )
            for key, interval, limit in (
                ("free", Unit.MONTH, 1000),
                ("pro", Unit.MONTH, 50_000),
                ("annual", Unit.YEAR, 12_000),
            )
        ),
    )
    world.customer("acme")
    return world


def subscribe(world: World, plan: str, start: datetime | None = None) -> None:
    one = Subscription(key=f"acme-{plan}", customer="acme", plan=plan, start=start or world.now)
    done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
    assert isinstance(done, PutSubscription), done


def override(world: World, given: Override | int | None) -> None:
    organization_id = world.organization_id
    with transaction(world.pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        if given is None:
            entitlement.drop_override(connection, organization_id, "acme", "calls")
        else:
            one = Override(limit=Decimal(given)) if isinstance(given, int) else given
            entitlement.put_override(connection, organization_id, "acme", "calls", one, world.now)
        for _ in range(2):  # syncing again changes nothing
            sync_entitlements(connection, organization_id, "acme", world.now, new_id)
    faults: list[object] = []
    verify_ledger(world.pool, organization_id, faults.append)
    assert [] == faults


def pool_id(world: World) -> UUID:
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, "acme")
    return found["calls"][0]


def book(world: World) -> Book:
    one = pool_id(world)
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        return books_now(connection, world.organization_id, [one], world.now)[one]


def left(world: World) -> Decimal:
    return book(world).pool.available


def use(world: World, amount: int) -> None:
    done = world.draw(pool_id(world), amount)
    assert not isinstance(done, Refusal), done


def test_an_override_of_what_is_used_up_refills_nothing(sold: World) -> None:
    subscribe(sold, "free")
    use(sold, 1000)
    sold.now = at("2026-09-10 00:00")
    for limit, expected in ((1000, 0), (1001, 1), (500, 0), (None, 0), (1500, 500)):
        override(sold, limit)
        assert Decimal(expected) == left(sold), limit
    assert Decimal(1000) == book(sold).pool.counters.used
    sold.now = at("2026-10-01 00:00")
    assert Decimal(1500) == left(sold)


def test_a_raised_limit_brings_the_difference_and_a_lowered_one_takes_it(sold: World) -> None:
    subscribe(sold, "free")
    use(sold, 400)
    sold.now = at("2026-09-10 00:00")
    for limit, expected in ((1000, 600), (1200, 800), (500, 100), (300, 0), (None, 600)):
        override(sold, limit)
        assert Decimal(expected) == left(sold), limit
    use(sold, 100)
    override(sold, 700)
    assert Decimal(200) == left(sold)
    sold.now = at("2026-10-01 00:00")
    assert Decimal(700) == left(sold)


def test_what_an_override_used_up_of_a_plan_that_ends_does_not_come_with_a_later_sync(
    sold: World,
) -> None:
    override(sold, 1500)
    subscribe_until(sold, "free", sold.now, at("2026-09-25 00:00"))
    use(sold, 1200)
    for _ in range(2):
        override(sold, None)
        assert Decimal(0) == left(sold)


@pytest.mark.parametrize("between", [Override(enabled=False), Override(unlimited=True)])
def test_what_was_used_before_a_feature_was_taken_away_or_freed_stays_used(
    sold: World, between: Override
) -> None:
    subscribe(sold, "free")
    use(sold, 400)
    override(sold, between)
    if between.unlimited:
        use(sold, 100)
    override(sold, None)
    assert Decimal(500 if between.unlimited else 600) == left(sold)


def test_an_override_without_a_plan_keeps_its_months_and_what_was_used(sold: World) -> None:
    override(sold, 1000)
    use(sold, 1000)
    sold.now = at("2026-09-20 00:00")
    for limit, expected in ((1000, 0), (None, 0), (1001, 1), (1001, 1), (900, 0)):
        override(sold, limit)
        assert Decimal(expected) == left(sold), limit
    sold.now = at("2026-10-01 00:00")
    assert Decimal(900) == left(sold)
    override(sold, 1000)
    assert Decimal(1000) == left(sold)


def test_an_override_of_two_subscriptions_gives_both_back_less_what_was_used(sold: World) -> None:
    subscribe(sold, "free")
    use(sold, 1000)
    sold.now = at("2026-09-10 00:00")
    subscribe(sold, "pro")
    assert Decimal(50_000) == left(sold)
    override(sold, 2000)
    assert Decimal(1000) == left(sold)
    override(sold, None)
    assert Decimal(50_000) == left(sold)


def test_an_override_of_a_yearly_plan_takes_from_the_year_what_was_used(sold: World) -> None:
    subscribe(sold, "annual")
    use(sold, 5000)
    sold.now = at("2026-11-10 00:00")
    override(sold, 1000)
    assert Decimal(1000) == left(sold)
    use(sold, 700)
    override(sold, None)
    assert Decimal(12_000 - 5700) == left(sold)


def test_units_of_a_grant_of_ones_own_do_not_count_as_used_of_the_limit(sold: World) -> None:
    subscribe(sold, "free")
    sold.grant(pool_id(sold), 500)
    use(sold, 1200)
    override(sold, 1500)
    assert Decimal(500 + 300) == left(sold)


def test_what_is_left_of_an_override_that_ends_by_itself_was_not_used(sold: World) -> None:
    subscribe(sold, "free")
    use(sold, 400)
    override(sold, Override(limit=Decimal(7000), ends_at=at("2026-09-15 00:00")))
    assert Decimal(6600) == left(sold)
    use(sold, 100)
    sold.now = at("2026-09-15 00:30")
    assert Decimal(0) == left(sold)
    sync_due(sold.pool, sold.now, timedelta(hours=1), new_id)
    assert Decimal(500) == left(sold)


def test_an_override_tells_of_no_expiry_and_of_no_exhaustion(sold: World) -> None:
    subscribe(sold, "free")
    use(sold, 400)
    sold.now = at("2026-09-10 00:00")
    override(sold, 1001)
    override(sold, None)
    watch_pools(sold.pool, sold.organization_id, [pool_id(sold)], sold.now)
    with transaction(sold.pool, sold.organization_id) as connection:
        rows = connection.execute("select type from notice").fetchall()
    assert not {"grant.expired", "pool.exhausted"} & {kind for (kind,) in rows}


def test_a_pool_counts_in_the_periods_of_a_subscription_that_began_earlier(sold: World) -> None:
    sold.now = at("2026-11-22 00:00")
    subscribe(sold, "free", at("2026-10-05 00:00"))
    use(sold, 1000)
    counters = book(sold).pool.counters
    assert (at("2026-11-05 00:00"), at("2026-12-05 00:00")) == (
        counters.period_start,
        counters.period_end,
    )
    refused = sold.draw(pool_id(sold), 1)
    assert isinstance(refused, Refusal)
    assert at("2026-12-05 00:00") == refused.refills_at
    override(sold, 1000)
    assert Decimal(0) == left(sold)
    sold.now = at("2026-12-05 00:00")
    assert (Decimal(1000), Decimal(0)) == (left(sold), book(sold).pool.counters.used)


# Without a limit ----------------------------------------------------------------------------------


def subscribe_until(world: World, plan: str, start: datetime, end: datetime | None) -> None:
    one = Subscription(key=f"acme-{plan}", customer="acme", plan=plan, start=start, end=end)
    done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
    assert isinstance(done, PutSubscription), done


def notices(world: World) -> list[str]:
    with transaction(world.pool, world.organization_id) as connection:
        rows = connection.execute("select type from notice order by notice_id").fetchall()
    return [kind for (kind,) in rows]


def test_who_goes_without_a_limit_and_back_has_the_limit_that_is_sold_anew(sold: World) -> None:
    """What was used in between used up nothing: it neither flags, nor nears a limit, nor costs."""
    sold.publish(
        Plan(
            key="enterprise",
            currency="USD",
            entitlements=(Entitlement(feature="calls", unlimited=True),),
        )
    )
    first, second = at("2026-09-10 00:00"), at("2026-09-20 00:00")
    subscribe(sold, "pro")
    subscribe_until(sold, "pro", sold.now, first)
    use(sold, 30_000)
    subscribe_until(sold, "enterprise", first, second)
    one = Subscription(key="acme-again", customer="acme", plan="pro", start=second)
    put_subscription(sold.pool, sold.organization_id, one, sold.now, new_id)
    for time in (first, second):
        sold.now = time
        sync_due(sold.pool, sold.now, timedelta(hours=1), new_id)
        use(sold, 10_000_000 if time == first else 100)
        watch_pools(sold.pool, sold.organization_id, [pool_id(sold)], sold.now)
    found = book(sold)
    assert (Decimal(49_900), Decimal(100), Decimal(0), Decimal(0)) == (
        left(sold),
        found.pool.counters.used,
        found.pool.counters.unlimited,
        found.pool.counters.overage,
    )
    assert not {"entitlement.limit_near", "pool.exhausted", "pool.overage_started"} & set(
        notices(sold)
    )
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    assert [] == [line.kind for row in sold.invoices() for line in sold.lines(row)]
    faults: list[object] = []
    verify_ledger(sold.pool, sold.organization_id, faults.append)
    assert [] == faults


def test_an_unlimited_hold_gives_back_what_was_not_used(sold: World) -> None:
    override(sold, Override(unlimited=True))
    one = pool_id(sold)
    held, extended, settled = sold.ask(
        one, Reserve(amount=Decimal(50)), Extend(hold=1, amount=Decimal(10))
    ) + sold.ask(one, Settle(hold=1, amount=Decimal(45)))
    for done in (held, extended, settled):
        assert isinstance(done, Answer), done
        assert (done.amount, {}) == (done.covered, done.beyond)
    counters = book(sold).pool.counters
    assert (Decimal(45), Decimal(45)) == (counters.used, counters.unlimited)
    override(sold, Override(unlimited=True, reason="verified again"))


def test_an_override_of_a_yearly_plan_counts_by_the_month(sold: World) -> None:
    subscribe(sold, "annual")
    use(sold, 5000)
    sold.now = at("2026-11-10 00:00")
    override(sold, 1000)
    use(sold, 300)
    found = book(sold)
    assert (at("2026-12-01 00:00"), Decimal(300)) == (
        found.pool.counters.period_end,
        found.pool.counters.used,
    )
    assert at("2026-12-01 00:00") == resets_at(found)
    sold.now = at("2026-12-01 00:00")
    assert (Decimal(1000), Decimal(0)) == (left(sold), book(sold).pool.counters.used)
    override(sold, None)
    assert Decimal(12_000 - 5300) == left(sold)
    assert at("2027-09-01 00:00") == resets_at(book(sold))
