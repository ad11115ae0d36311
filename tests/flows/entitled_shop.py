"""A shop whose plans entitle to calls, which usage events use up: subscribe, call, see, bill."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Entitlement, EntitlementLimit, Feature, Plan
from farebox.catalog.price import PerUnit
from farebox.flows.burn_usage import burn_usage
from farebox.flows.list_unbilled import Stage, all_unbilled
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.pool import Pool
from farebox.postgres import entitlement
from farebox.postgres.session import transaction

CALLS = Meter(key="calls", event_type="call", aggregation=Aggregation.COUNT)
D = Decimal


def plan(key: str, *, charge: str | None = None, **said: object) -> Plan:
    price = None if charge is None else PerUnit(unit=D(charge))
    return Plan(
        key=key,
        currency="USD",
        charges=() if price is None else (Charge(key="usage", meter="calls", price=price),),
        entitlements=(Entitlement(feature="calls", **said),),  # type: ignore[arg-type]
    )


def open_entitled_shop(world: World) -> World:
    """Return a world where calls are counted, sold by many plans, and acme has none of them."""
    world.now = at("2026-09-01 00:00")
    overage = EntitlementLimit.OVERAGE
    world.publish(
        CALLS,
        Feature(key="calls", meter="calls"),
        plan("free", limit=D(10)),
        plan("hybrid", limit=D(10), beyond=overage, price=D("0.01")),
        plan("charged", charge="0.03", limit=D(10), beyond=EntitlementLimit.SOFT),
        plan("both", charge="0.03", limit=D(10), beyond=overage, price=D("0.01")),
        plan("enterprise", unlimited=True),
        Plan(
            key="paygo",
            currency="USD",
            charges=(Charge(key="usage", meter="calls", price=PerUnit(unit=D("0.03"))),),
        ),
    )
    world.customer("acme")
    return world


def subscribe(world: World, plan: str, end: datetime | None = None) -> None:
    start = world.now if end is None else at("2026-09-01 00:00")
    one = Subscription(key=f"acme-{plan}", customer="acme", plan=plan, start=start, end=end)
    done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
    assert isinstance(done, PutSubscription), done


def pool_id(world: World) -> UUID:
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, "acme")
    return found["calls"][0]


def call(world: World, times: int, **fields: object) -> None:
    """Send so many calls an instant apart, and let them burn."""
    world.now += timedelta(hours=1)
    for _ in range(times):
        event = world.event("call", world.now, "acme")
        assert ["accepted"] == world.send({**event, **fields})
    while burn_usage(world.pool, world.organization_id, world.now):
        pass


def pool(world: World) -> Pool:
    one = pool_id(world)
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        book = books_now(connection, world.organization_id, [one], world.now)[one]
    faults: list[object] = []
    verify_ledger(world.pool, world.organization_id, faults.append)
    assert [] == faults
    return book.pool


def billed(world: World) -> list[tuple[str, str, Decimal | None, Decimal]]:
    """Bill September and return its lines, but for those of nothing."""
    world.now = at("2026-10-02 00:00")
    world.fold()
    world.bill(world.now)
    rows = [one for one in world.invoices() if one.kind == "period"]
    for row in rows:
        assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)
    return [
        (line.kind, line.charge_key, line.quantity, line.amount)
        for row in rows
        for line in world.lines(row)
        if line.quantity
    ]


def unpaid(world: World, since: datetime | None = None) -> list[Decimal]:
    """Return the units of September of which the listing says that nobody pays for them."""
    span = since or at("2026-09-01 00:00"), at("2026-10-01 00:00")
    found = all_unbilled(world.pool, world.organization_id, *span, (Stage.POOLS,))
    return [one.quantity for one in found if one.quantity is not None]
