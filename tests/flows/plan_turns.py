"""Plans that follow each other at an instant: sell, use, change, override, sync, look."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Override
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Plan
from farebox.flows.entitle import sync_entitlements
from farebox.flows.follow_pools import settle_pool
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.flows.verify_ledger import verify_ledger
from farebox.flows.watch_pools import watch_pools
from farebox.ledger.book import Book
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal
from farebox.period.cycle import Unit
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.notice import notices
from farebox.postgres.session import transaction
from farebox.worker.sync import sync_due

D = Decimal
START = at("2026-09-01 00:00")
TURN = at("2026-09-20 12:00")
DAY = timedelta(days=1)
MOMENT = timedelta(milliseconds=1)
OVERAGE = EntitlementLimit.OVERAGE


def plan(key: str, interval: Unit = Unit.MONTH, *, currency: str = "USD", **said: object) -> Plan:
    calls = Entitlement(feature="calls", **said)  # type: ignore[arg-type]
    return Plan(key=key, currency=currency, interval=interval, entitlements=(calls,))


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


def sell(world: World) -> World:
    """Return a world in which plans bring calls, and acme has none of them."""
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


def told(world: World) -> list[str]:
    """Look at the pool; return what is told that was not before."""
    with transaction(world.pool, world.organization_id) as connection:
        before = {one.notice_id for one in notices(connection, world.organization_id)}
    settle_pool(world.pool, world.organization_id, pool_id(world), world.now)
    watch_pools(world.pool, world.organization_id, [pool_id(world)], world.now)
    with transaction(world.pool, world.organization_id) as connection:
        found = notices(connection, world.organization_id)
    return [one.type for one in found if one.notice_id not in before]


def waits(outcome: Answer | Refusal) -> tuple[datetime | None, datetime | None]:
    assert isinstance(outcome, Refusal)
    return outcome.refills_at, outcome.enough_at


def overage(world: World) -> set[tuple[str, Decimal | None, Decimal]]:
    """Bill what ended by November; return what was beyond, by the subscription that pays for it."""
    world.bill(at("2026-11-01 00:00"))
    return {
        (row.subscription_key, line.quantity, line.amount)
        for row in world.invoices()
        for line in world.lines(row)
        if line.kind == "overage"
    }


def sync_one(world: World, who: str) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        lock_organization(connection, world.organization_id)
        sync_entitlements(connection, world.organization_id, who, world.now, new_id)


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
