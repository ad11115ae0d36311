"""Customers with and without a pool, and a subject that is mapped to them afterwards."""

import os
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from farebox_world import World, at, days

from farebox.access.id import uuidv7
from farebox.catalog.customer import Customer
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.burn_usage import burn_usage
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.move_subject import Moved, move_subject_in
from farebox.flows.put_customer import PutCustomer, put_customer
from farebox.flows.reverse_draw import reverse_draw
from farebox.ledger.command import Answer
from farebox.postgres.book import read_books
from farebox.postgres.session import transaction
from farebox.postgres.transfer import Entry, statement

SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")
OPENED, NOW = at("2026-09-05"), at("2026-09-20")
PAID_AT = at("2026-09-08")
GRANTED = 10**15


def meter(key: str, event_type: str, payer: str | None = None) -> Meter:
    return Meter(
        key=key,
        event_type=event_type,
        aggregation=Aggregation.SUM,
        value="$.n",
        dimensions={"model": "$.model"},
        customer=payer,
    )


def card(*meters: str) -> RateCard:
    cells = (Cell(match={"model": "large"}, unit=Decimal("0.02")),)
    price = Matrix(dimensions=("model",), cells=cells)
    rates = tuple(Rate(meter=one, price=price) for one in meters)
    return RateCard(key="credits", currency="credit", custom_unit=True, rates=rates)


def open_shop(world: World) -> World:
    """Return a world in which Acme has a pool from 5 September on, and Beta none.

    A token costs 0.02 credits; what burns no pool is billed at 0.01 each.
    """
    world.now = SEPTEMBER
    charge = Charge(key="tokens", meter="tokens", price=PerUnit(unit=Decimal("0.01")))
    world.publish(
        meter("tokens", "llm"),
        Plan(key="base", currency="USD", charges=(charge,)),
        card("tokens"),
    )
    for customer in ("acme", "beta"):
        world.customer(customer)
        world.subscribe(customer, "base", SEPTEMBER)
    world.now = OPENED
    credits_of(world, "acme", serves_children=True)
    world.now = NOW
    return world


def credits_of(world: World, customer: str, **fields: object) -> UUID:
    pool = world.pool_of(
        f"{customer}-credits", unit="credit", customer=customer, rate_card="credits", **fields
    )
    world.grant(pool, GRANTED)
    return pool


def use(world: World, tokens: int, day: int, subject: str = "bot", **data: object) -> None:
    time = SEPTEMBER + days(day - 1)
    world.use("llm", time, subject, **{"n": tokens, "model": "large", **data})


def burn_all(world: World) -> None:
    while burn_usage(world.pool, world.organization_id, world.now):
        pass


def put(world: World, key: str, *subjects: str, **fields: object) -> PutCustomer:
    customer = Customer(key=key, subjects=subjects, **fields)  # type: ignore[arg-type]
    done = put_customer(world.pool, world.organization_id, customer, world.now, new_id())
    assert isinstance(done, PutCustomer), done
    return done


def new_id() -> UUID:
    return uuidv7(1, os.urandom(10))


def move(world: World, customer: str, since: datetime, subject: str = "bot") -> bool | str:
    """Return whether the move changed anything, or why it was refused."""
    with transaction(world.pool, world.organization_id) as connection:
        done = move_subject_in(
            connection, world.organization_id, subject, customer, since, world.now
        )
    if isinstance(done, Moved):
        return done.changed
    (problem,) = done
    return f"{problem.code.value}: {problem.message}"


def pools_of(world: World) -> list[tuple[UUID, str]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute(
            "select pool_id, key from pool where organization_id = %s order by key",
            (world.organization_id,),
        ).fetchall()


def burned(world: World) -> dict[str, Decimal]:
    """Return by pool the credits that are used up."""
    pools = dict(pools_of(world))
    with transaction(world.pool, world.organization_id) as connection:
        books = read_books(connection, world.organization_id, list(pools))
    return {key: GRANTED - books[one].book.pool.available for one, key in pools.items()}


def draws(world: World) -> list[Entry]:
    found = []
    for pool_id, _ in pools_of(world):
        with transaction(world.pool, world.organization_id) as connection:
            found += statement(connection, world.organization_id, pool_id, limit=1000)
    return [one for one in found if one.reason == "metered"]


def billed(world: World) -> dict[str, Decimal]:
    """Return by customer what its invoice of September says."""
    world.now = OCTOBER + days(1)
    burn_all(world)
    world.bill(world.now)
    return {
        one.customer_key: sum((line.amount for line in world.lines(one)), Decimal(0))
        for one in world.invoices()
        if one.kind == "period"
    }


def unbilled(world: World) -> list[tuple[str, Decimal | None]]:
    items = all_unbilled(world.pool, world.organization_id, SEPTEMBER, OCTOBER)
    return [(one.reason.value, one.quantity) for one in items]


# Draws that events name ---------------------------------------------------------------------------


def acmes(world: World) -> UUID:
    return next(pool_id for pool_id, key in pools_of(world) if key == "acme-credits")


def paid(
    world: World,
    draw: object,
    subject: str | None = "bot",
    time: datetime = PAID_AT,
    **data: object,
) -> Mapping[str, Any]:
    """Return an event of 100 tokens, which are two credits, that names a draw."""
    event = world.event("llm", time, subject, **{"n": 100, "model": "large", **data})
    return {**event, "fareboxdraw": draw}


def drawn(world: World, pool: UUID | None = None, amount: int = 2, **fields: object) -> str:
    return world.draw_id(acmes(world) if pool is None else pool, amount, **fields)


def take_back(world: World, draw: str, amount: str | None = None) -> None:
    number = int(draw.rsplit("_", 1)[1])
    pool_id = acmes(world)
    part = None if amount is None else Decimal(amount)
    with transaction(world.pool, world.organization_id) as connection:
        done = reverse_draw(connection, world.organization_id, pool_id, number, part, world.now)
    assert isinstance(done, Answer), done
