"""What tests of a pool's invoice lines share: who pays for a pool, its lines, what is unpaid."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from farebox_world import World, at

from farebox.catalog.plan import Fee, Plan
from farebox.flows.decide_pools import Asked, Round
from farebox.flows.explain_line import LineExplained, explain_line
from farebox.flows.explain_pool import PoolExplained
from farebox.flows.grant_units import change_grant
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.reverse_draw import left_of, reverse_draw
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.command import Answer, Reverse
from farebox.ledger.grant import Basis, Grant
from farebox.ledger.policy import Limit, LimitMode
from farebox.money.amount import to_currency
from farebox.money.rounding import exact_sum
from farebox.postgres.book import find_grants, read_books
from farebox.postgres.explain import Place
from farebox.postgres.invoice import InvoiceRow, LineRow
from farebox.postgres.posting import posted
from farebox.postgres.session import transaction
from farebox.postgres.transfer import operation, undoing

SEPTEMBER, OCTOBER, NOVEMBER = at("2026-09-01"), at("2026-10-01"), at("2026-11-01")
OVERAGE = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.0015"))
Told = tuple[str, str, Decimal | None, Decimal]
"""Of a line: subscription, kind, units, amount."""


def sell(world: World) -> World:
    """Put a customer on a plan since September; it is September now."""
    world.now = SEPTEMBER
    world.publish(Plan(key="base", currency="USD", fees=(Fee(key="fee", amount=Decimal(10)),)))
    world.customer("acme")
    world.subscribe("acme", "base", SEPTEMBER, key="acme-base")
    return world


def pool_of(world: World, **policy: Any) -> UUID:
    fields: dict[str, Any] = {"hold_seconds_max": 86_400 * 60, **policy}
    return world.pool_of(
        "tokens", customer="acme", subscription="acme-base", currency="USD", **fields
    )


def draw(world: World, pool: UUID, amount: str | int, **fields: Any) -> Answer:
    answer = world.draw(pool, amount, **fields)
    assert isinstance(answer, Answer), answer
    return answer


def take_back(
    world: World, pool: UUID, number: int, amount: Decimal | None = None, *, voided: bool = False
) -> Answer:
    """Take back a draw; where what it was for is voided, as an undone import does."""
    scope = world.organization_id, pool
    if not voided:
        with transaction(world.pool, world.organization_id) as connection:
            done = reverse_draw(connection, *scope, number, amount, world.now)
        assert isinstance(done, Answer), done
        return done
    with transaction(world.pool, world.organization_id) as connection:
        entries = operation(connection, *scope, number)
        left = left_of(entries, undoing(connection, *scope, number))
        books = read_books(connection, world.organization_id, [pool], lock=True)
        numbers = [one.grant for one in left if one.grant is not None]
        for grant in find_grants(connection, *scope, numbers):
            books[pool].book.adopt(grant)
        command = Reverse(
            operation=number, taken=left, taken_at=entries[0].time, amount=amount, forced=True
        )
        decided = Round(books, [Asked(pool, command)], world.now, {})
        query, parameters = decided.call(world.organization_id)
        assert posted(connection.execute(query, parameters).fetchone())
    (outcome,) = decided.outcomes
    assert isinstance(outcome, Answer), outcome
    return outcome


def invoice_of(world: World, start: datetime, *, finalize: bool = True) -> InvoiceRow:
    """Bill what has ended by now, and return the invoice of the period that began at `start`."""
    world.bill(world.now, finalize=finalize)
    (row,) = [one for one in world.invoices() if one.kind == "period" and one.period_start == start]
    return row


def pool_lines(world: World, row: InvoiceRow) -> list[LineRow]:
    return [line for line in world.lines(row) if line.kind != "fee"]


def opened(world: World, row: InvoiceRow, line: LineRow, **options: Any) -> LineExplained:
    found = explain_line(
        world.pool, world.organization_id, row.invoice_id, line.position, **options
    )
    assert found is not None
    return found


def whole(world: World, row: InvoiceRow, line: LineRow, limit: int = 4) -> PoolExplained:
    """Return a line with all pages of its entries, each within its limit."""
    after: Place | None = None
    entries: list[Any] = []
    while True:
        found = opened(world, row, line, after=after, limit=limit).pool
        assert found is not None
        assert len(found.entries) <= limit
        entries += found.entries
        after = found.after
        if after is None:
            return msgspec.structs.replace(found, entries=entries)


def adds_up(world: World, row: InvoiceRow) -> None:
    """What is explained is the line, to the last digit."""
    for line in pool_lines(world, row):
        found = whole(world, row, line)
        assert line.quantity == exact_sum([one.entry.units for one in found.entries])
        assert found.exact == exact_sum([one.amount for one in found.entries])
        assert line.amount == to_currency(found.exact, row.currency)
        if found.grant is None:
            assert line.quantity == exact_sum([one.units for one, _ in found.episodes])
            assert found.exact == exact_sum([amount for _, amount in found.episodes])
            numbers = [one.episode for one in found.entries]
            for place, (episode, _) in enumerate(found.episodes, 1):
                of_it = [one.entry for one in found.entries if one.episode == place]
                assert (episode.entries, episode.units) == (
                    numbers.count(place),
                    exact_sum([one.units for one in of_it]),
                )


def name(
    world: World, subscription: str | None, currency: str | None = "USD", **policy: Any
) -> UUID:
    """Put the pool with a subscription of the customer, or with none."""
    return world.pool_of(
        "tokens",
        customer="acme",
        subscription=subscription,
        currency=currency,
        **{
            "limit": OVERAGE,
            "undo_seconds": 86_400 * 60,
            "hold_seconds_max": 86_400 * 60,
            **policy,
        },
    )


def billed(world: World, until: datetime) -> list[Told]:
    """Bill what ended by then; return what pools cost.

    Every line opens to what it is made of, every invoice replays, and the ledger is whole.
    """
    world.now = until + timedelta(days=1)
    world.bill(world.now)
    found: list[Told] = []
    rows = [row for row in world.invoices() if row.kind == "period"]
    for row in sorted(rows, key=lambda one: (one.period_start, one.subscription_key)):
        adds_up(world, row)
        assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)
        found += [
            (row.subscription_key, line.kind, line.quantity, line.amount)
            for line in world.lines(row)
            if line.kind != "fee"
        ]
    faults: list[object] = []
    verify_ledger(world.pool, world.organization_id, faults.append)
    assert [] == faults
    return found


def unpaid(world: World, start: datetime = SEPTEMBER, end: datetime = NOVEMBER) -> list[Decimal]:
    found = all_unbilled(world.pool, world.organization_id, start, end)
    return [one.quantity for one in found if one.pool is not None and one.quantity is not None]


def buy(world: World, pool: UUID, **fields: object) -> Grant:
    return world.grant(
        pool, 300, basis=Basis.PURCHASED, cost=Decimal(10), on_invoice=True, **fields
    )


def void(world: World, pool: UUID, grant: Grant) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, pool
        assert isinstance(change_grant(*scope, grant.number, "void", world.now), Grant)
