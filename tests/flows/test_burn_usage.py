"""Usage events burn the pools of their customers, each once, by the rate card of their time."""

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.burn_usage import BurnNote, burn_usage
from farebox.flows.read_pool import books_now
from farebox.flows.replay_invoice import replay_invoice
from farebox.ledger.account import Account
from farebox.ledger.policy import Limit, LimitMode
from farebox.postgres import burn
from farebox.postgres.session import transaction
from farebox.postgres.transfer import Entry, statement

CALLS = Meter(
    key="tokens",
    event_type="llm.request",
    aggregation=Aggregation.SUM,
    value="$.tokens",
    dimensions={"model": "$.model"},
)
CELLS = (
    Cell(match={"model": "large"}, unit=Decimal("0.02")),
    Cell(match={"model": "small"}, unit=Decimal("0.001")),
)


def card(large: str = "0.02") -> RateCard:
    cells = (Cell(match={"model": "large"}, unit=Decimal(large)), CELLS[1])
    price = Matrix(dimensions=("model",), cells=cells)
    return RateCard(
        key="credits",
        currency="credit",
        custom_unit=True,
        rates=(Rate(meter="tokens", price=price),),
    )


@pytest.fixture
def sold(world: World) -> World:
    world.now = at("2026-09-01 00:00")
    plan = Plan(
        key="base",
        currency="USD",
        charges=(Charge(key="tokens", meter="tokens", price=PerUnit(unit=Decimal("0.01"))),),
    )
    world.publish(CALLS, plan, card())
    world.customer("acme")
    world.map("acme-dev", "acme")
    world.subscribe("acme", "base", at("2026-09-01 00:00"), key="acme-base")
    return world


def call(world: World, tokens: int, model: str = "large", subject: str = "acme-dev") -> str:
    (outcome,) = world.send(
        world.event("llm.request", world.now, subject, tokens=tokens, model=model)
    )
    return outcome


def burn_all(world: World) -> None:
    while burn_usage(world.pool, world.organization_id, world.now):
        pass


def entries(world: World, pool_id: object) -> list[Entry]:
    with transaction(world.pool, world.organization_id) as connection:
        found = statement(connection, world.organization_id, pool_id, limit=1000)  # type: ignore[arg-type]
    return [one for one in found if one.reason == "metered"]


def available(world: World, pool_id: object) -> Decimal:
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        books = books_now(connection, world.organization_id, [pool_id], world.now)  # type: ignore[list-item]
    return books[pool_id].pool.available  # type: ignore[index]


def test_each_model_burns_what_the_card_says_and_each_event_once(sold: World) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 1000)
    sold.now += timedelta(hours=1)
    assert "accepted" == call(sold, 100)
    call(sold, 1000, "small")
    burn_all(sold)
    burn_all(sold)
    assert Decimal(1000) - 2 - 1 == available(sold, pool)
    (entry,) = entries(sold, pool)
    assert ("acme-dev", Decimal(3), sold.now) == (entry.subject, entry.amount, entry.used_at)
    assert entry.note is not None
    note = msgspec.json.decode(entry.note, type=BurnNote)
    assert [("large", Decimal(2)), ("small", Decimal(1))] == [
        (part.dimensions["model"], part.units) for part in note.uses
    ]


def test_steps_of_any_size_burn_the_same(sold: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 1000)
    sold.now += timedelta(hours=1)
    for tokens in range(1, 8):
        call(sold, tokens * 100)
    monkeypatch.setattr("farebox.flows.burn_usage.EVENTS_A_STEP", 3)
    burn_all(sold)
    assert Decimal(1000) - 28 * 2 == available(sold, pool)
    assert 3 == len(entries(sold, pool))


def test_a_new_version_of_the_card_counts_for_use_from_its_time(sold: World) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 1000)
    sold.now += timedelta(hours=2)
    sold.publish(card("0.5"), since=sold.now - timedelta(hours=1))
    early = sold.event(
        "llm.request", sold.now - timedelta(minutes=90), "acme", tokens=100, model="large"
    )
    late = sold.event("llm.request", sold.now, "acme", tokens=100, model="large")
    sold.send(early, late)
    burn_all(sold)
    assert Decimal(1000) - 2 - 50 == available(sold, pool)


def test_use_without_a_rate_is_listed_and_burns_nothing(sold: World) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 10)
    sold.now += timedelta(hours=1)
    call(sold, 7, "unheard-of")
    burn_all(sold)
    assert Decimal(10) == available(sold, pool)
    with transaction(sold.pool, sold.organization_id) as connection:
        (row,) = burn.unburned(connection, sold.organization_id)
    assert ("credits", "tokens", "no_cell", 1, Decimal(7)) == (
        row.pool,
        row.meter,
        row.reason,
        row.events,
        row.quantity,
    )


def test_what_was_used_is_drawn_also_beyond_a_hard_limit(sold: World) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 1)
    sold.now += timedelta(hours=1)
    call(sold, 100)
    burn_all(sold)
    assert {Account.GRANT: Decimal(1), Account.OVERAGE: Decimal(1)} == {
        Account(entry.source): entry.amount for entry in entries(sold, pool)
    }


def test_an_event_that_names_its_draw_does_not_burn_again(sold: World) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 10)
    sold.now += timedelta(hours=1)
    draw = sold.draw_id(pool, 2, subject="acme-dev")
    event = sold.event("llm.request", sold.now, "acme-dev", tokens=100, model="large")
    assert ["accepted"] == sold.send({**event, "fareboxdraw": draw})
    burn_all(sold)
    assert Decimal(8) == available(sold, pool)


def test_an_event_that_was_taken_out_of_the_stream_does_not_burn(sold: World) -> None:
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 10)
    sold.now += timedelta(hours=1)
    for tokens in (100, 200):
        call(sold, tokens)
    with transaction(sold.pool, sold.organization_id) as connection:
        connection.execute(
            "insert into void values (%s, 1, %s, 'import')", (sold.organization_id, sold.now)
        )
    burn_all(sold)
    assert Decimal(10) - 4 == available(sold, pool)


def test_the_pool_of_the_customer_above_serves_its_children(sold: World) -> None:
    sold.customer("acme-eu", parent="acme")
    pool = sold.pool_of(
        "credits", unit="credit", customer="acme", rate_card="credits", serves_children=True
    )
    sold.grant(pool, 10)
    sold.now += timedelta(hours=1)
    call(sold, 100, subject="acme-eu")
    sold.now += timedelta(hours=1)
    own = sold.pool_of("own", unit="credit", customer="acme-eu", rate_card="credits")
    sold.grant(own, 10)
    sold.now += timedelta(hours=1)
    call(sold, 100, subject="acme-eu")
    burn_all(sold)
    assert (Decimal(8), Decimal(8)) == (available(sold, pool), available(sold, own))


def test_the_invoice_bills_only_what_no_pool_covered(sold: World) -> None:
    """Before the pool named its card by the plan, after it by the pool's overage."""
    sold.now = at("2026-09-10 00:00")
    call(sold, 1000)  # 10.00 by the plan
    sold.now = at("2026-09-15 00:00")
    limit = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.05"))
    pool = sold.pool_of(
        "credits",
        unit="credit",
        customer="acme",
        subscription="acme-base",
        rate_card="credits",
        currency="USD",
        limit=limit,
    )
    sold.grant(pool, 30)
    sold.now = at("2026-09-20 00:00")
    call(sold, 2000)  # 40 credits: 30 covered, 10 at 0.05
    burn_all(sold)
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    (row,) = [one for one in sold.invoices() if one.kind == "period"]
    assert [
        ("usage", Decimal(1000), Decimal("10.00")),
        ("overage", Decimal(10), Decimal("0.50")),
    ] == [(line.kind, line.quantity, line.amount) for line in sold.lines(row)]
    assert () == replay_invoice(sold.pool, sold.organization_id, row.invoice_id)


def test_usage_sent_before_the_pool_named_its_card_never_burns(sold: World) -> None:
    sold.now = at("2026-09-10 00:00")
    call(sold, 1000)
    pool = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool, 30)
    sold.now += timedelta(hours=1)
    late = sold.event("llm.request", at("2026-09-09 00:00"), "acme", tokens=50, model="large")
    sold.send(late)
    burn_all(sold)
    assert [] == entries(sold, pool)


def test_a_pool_that_came_after_a_period_leaves_that_period_to_the_plan(sold: World) -> None:
    sold.now = at("2026-09-10 00:00")
    call(sold, 1000)
    sold.now = at("2026-10-01 00:00")
    sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    assert {"tokens": "10.00"} == sold.amounts("acme-base", at("2026-09-01"))
