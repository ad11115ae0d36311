"""A customer with a plan and perhaps a pool, and imports of its usage that are undone."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from farebox_world import World, at, new_id

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.import_events import ImportRefusal
from farebox.flows.read_pool import books_now
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.undo_import import Undone, undo_import
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.account import Account
from farebox.ledger.command import Answer
from farebox.ledger.policy import Limit, LimitMode
from farebox.postgres import burn, imports, stream
from farebox.postgres.imports import ImportRow
from farebox.postgres.session import transaction
from farebox.postgres.transfer import Entry, statement
from farebox.postgres.verify import Finding

SEPTEMBER, NOW = at("2026-09-01"), at("2026-09-20")
OVERAGE = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.05"))


def meter(key: str = "tokens", value: str = "$.n") -> Meter:
    return Meter(
        key=key,
        event_type="llm",
        aggregation=Aggregation.SUM,
        value=value,
        dimensions={"model": "$.model"},
    )


def card(*meters: str, large: str = "0.02") -> RateCard:
    cells = (
        Cell(match={"model": "large"}, unit=Decimal(large)),
        Cell(match={"model": "small"}, unit=Decimal("0.001")),
    )
    price = Matrix(dimensions=("model",), cells=cells)
    rates = tuple(Rate(meter=one, price=price) for one in meters or ("tokens",))
    return RateCard(key="credits", currency="credit", custom_unit=True, rates=rates)


def open_burned_shop(world: World) -> World:
    """Return a world in which Acme, who is `bot` and `app`, subscribes to a plan."""
    world.now = SEPTEMBER
    charge = Charge(key="tokens", meter="tokens", price=PerUnit(unit=Decimal("0.01")))
    world.publish(meter(), Plan(key="base", currency="USD", charges=(charge,)), card())
    world.customer("acme")
    world.subscribe("acme", "base", SEPTEMBER)
    for subject in ("bot", "app"):
        world.map(subject, "acme")
    return world


def credits_of(world: World, granted: int | None = 1000, **fields: object) -> UUID:
    """Open Acme's pool; a day later it is `NOW` or so."""
    given: dict[str, Any] = {"customer": "acme", "rate_card": "credits", **fields}
    pool = world.pool_of("credits", unit="credit", **given)
    if granted is not None:
        world.grant(pool, granted)
    world.now = NOW
    return pool


def call(
    world: World, tokens: object, model: str = "large", subject: str = "bot"
) -> dict[str, Any]:
    return world.event("llm", world.now, subject, n=tokens, model=model)


def brought(world: World, *events: Mapping[str, Any]) -> UUID:
    """Send events as one import."""
    import_id = new_id()
    row = ImportRow(
        import_id=import_id,
        name=str(import_id),
        file_digest="",
        mapping_digest="",
        status="finished",
        last_row=0,
        accepted=0,
        duplicates=0,
        conflicts=0,
        rejected=0,
        started_at=world.now,
        updated_at=world.now,
    )
    world.send(*events)
    with transaction(world.pool, world.organization_id) as connection:
        imports.add_import(connection, world.organization_id, row)
        last = stream.read_head(connection, world.organization_id).last_sequence
        first = last - len(events) + 1
        imports.add_range(connection, world.organization_id, import_id, first, last)
    return import_id


def undo(world: World, import_id: UUID) -> tuple[int, int] | str:
    """Return how many events count no more and how many draws gave back, or why not."""
    done = undo_import(world.pool, world.organization_id, import_id, world.now)
    if isinstance(done, ImportRefusal):
        return done.code.value
    assert isinstance(done, Undone)
    found: list[Finding] = []
    verify_ledger(world.pool, world.organization_id, found.append)
    assert [] == found
    return done.events, done.draws


def balances(world: World, pool: UUID) -> dict[str, Decimal]:
    """Return what the pool has used, has left and owes, without what is zero."""
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        books = books_now(connection, world.organization_id, [pool], world.now)
    kept = (Account.USED, Account.GRANT, Account.OVERDRAFT, Account.OVERAGE, Account.EXPIRED)
    found = {one.value: books[pool].pool.balances[one] for one in kept}
    return {name: amount for name, amount in found.items() if amount}


def left(used: object, granted: object = None) -> dict[str, Decimal]:
    rest = Decimal(1000) - Decimal(str(used)) if granted is None else Decimal(str(granted))
    found = {"used": Decimal(str(used)), "grant": rest}
    return {name: amount for name, amount in found.items() if amount}


def entries(world: World, pool: UUID, reason: str) -> list[Entry]:
    with transaction(world.pool, world.organization_id) as connection:
        found = statement(connection, world.organization_id, pool, limit=1000)
    return [one for one in reversed(found) if one.reason == reason]


def take_back(world: World, draw: Entry, amount: object = None) -> None:
    part = None if amount is None else Decimal(str(amount))
    with transaction(world.pool, world.organization_id) as connection:
        ids = connection, world.organization_id, draw.pool_id, draw.operation
        assert isinstance(reverse_draw(*ids, part, world.now), Answer)


def unburned(world: World) -> list[tuple[str, str, int, Decimal]]:
    with transaction(world.pool, world.organization_id) as connection:
        rows = burn.unburned(connection, world.organization_id)
    return [(row.meter, row.reason, row.events, row.quantity) for row in rows]
