"""What pools cost stands on the invoice: purchases, overage, bursts, each with its own line."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from farebox_world import World, at

from farebox.catalog.plan import Fee, Plan
from farebox.flows.grant_units import change_grant
from farebox.flows.replay_invoice import replay_invoice
from farebox.invoicing.assemble import LineDetail
from farebox.ledger.command import Answer, Draw, Reserve, Settle
from farebox.ledger.grant import Basis, Grant
from farebox.ledger.policy import Burst, Limit, LimitMode
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.session import transaction

OVERAGE = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.0015"))


@pytest.fixture
def sold(world: World) -> World:
    """Return a world with a customer on a plan since September; it is September now."""
    world.now = at("2026-09-01 00:00")
    world.publish(Plan(key="base", currency="USD", fees=(Fee(key="fee", amount=Decimal(10)),)))
    world.customer("acme")
    world.subscribe("acme", "base", at("2026-09-01 00:00"), key="acme-base")
    return world


def lines_of_september(world: World) -> list[tuple[str, str, Decimal | None, Decimal]]:
    world.now = at("2026-10-02 12:00")
    world.bill(world.now)
    found = [line for row in world.invoices() if row.kind == "period" for line in world.lines(row)]
    return [
        (line.kind, line.description, line.quantity, line.amount)
        for line in found
        if line.kind != "fee"
    ]


def test_overage_has_its_own_line_by_price_and_what_grants_covered_has_none(sold: World) -> None:
    pool = sold.pool_of(
        "tokens", customer="acme", subscription="acme-base", currency="USD", limit=OVERAGE
    )
    sold.grant(pool, 1000)
    sold.now = at("2026-09-05 10:00")
    sold.draw(pool, 800)
    sold.draw(pool, 300)  # 100 beyond
    dearer = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.002"))
    sold.pool_of("tokens", customer="acme", subscription="acme-base", currency="USD", limit=dearer)
    sold.draw(pool, 50)

    assert [
        ("overage", "tokens: overage at 0.0015 USD per token", Decimal(100), Decimal("0.15")),
        ("overage", "tokens: overage at 0.002 USD per token", Decimal(50), Decimal("0.10")),
    ] == lines_of_september(sold)


def test_a_hold_is_billed_when_it_is_settled_and_what_is_taken_back_is_not(sold: World) -> None:
    pool = sold.pool_of(
        "tokens", customer="acme", subscription="acme-base", currency="USD", limit=OVERAGE
    )
    sold.now = at("2026-09-30 23:59")
    (held,) = sold.ask(pool, Reserve(amount=Decimal(1000)))
    assert isinstance(held, Answer)
    (other,) = sold.ask(pool, Reserve(amount=Decimal(500)))
    assert isinstance(other, Answer)
    assert other.hold is not None
    sold.ask(pool, Settle(hold=other.hold, amount=Decimal(400)))
    sold.now += timedelta(minutes=2)
    assert held.hold is not None
    sold.ask(pool, Settle(hold=held.hold, amount=Decimal(1000)))

    assert [
        ("overage", "tokens: overage at 0.0015 USD per token", Decimal(400), Decimal("0.60"))
    ] == lines_of_september(sold)


def test_each_burst_is_explained_on_its_line(sold: World) -> None:
    pool = sold.pool_of(
        "tokens",
        customer="acme",
        subscription="acme-base",
        currency="USD",
        burst=Burst(units=Decimal(500), price=Decimal("0.01")),
    )
    sold.grant(pool, 100)
    first = sold.now = at("2026-09-10 08:00")
    sold.draw(pool, 130)  # 30 in the first burst
    sold.now += timedelta(hours=1)
    sold.draw(pool, 20)
    sold.grant(pool, 100)
    sold.draw(pool, 10)  # the grants suffice again
    second = sold.now = at("2026-09-20 08:00")
    sold.draw(pool, 100)  # 10 in the second
    refused = sold.draw(pool, 1000)
    assert isinstance(refused, Refusal)
    assert (RefusalCode.INSUFFICIENT_BALANCE, Decimal(440)) == (refused.code, refused.left)

    assert [
        ("burst", "tokens: burst at 0.01 USD per token", Decimal(60), Decimal("0.60"))
    ] == lines_of_september(sold)
    (row,) = [row for row in sold.invoices() if row.kind == "period"]
    (line,) = [line for line in sold.lines(row) if line.kind == "burst"]
    detail = msgspec.json.decode(line.detail, type=LineDetail)
    assert detail.pool is not None
    assert [
        (first, first + timedelta(hours=1), Decimal(50)),
        (second, second, Decimal(10)),
    ] == [(one.start, one.end, one.units) for one in detail.pool.episodes]


def test_a_purchase_on_invoice_is_a_line_and_a_prepaid_one_is_not(sold: World) -> None:
    pool = sold.pool_of("credits", customer="acme", subscription="acme-base", currency="USD")
    sold.now = at("2026-09-03 00:00")
    sold.grant(
        pool, 100_000, basis=Basis.PURCHASED, cost=Decimal("950.005"), on_invoice=True, key="po-7"
    )
    sold.grant(pool, 5, basis=Basis.PURCHASED, cost=Decimal(1), key="prepaid")
    assert [
        ("purchase", "credits: 100000 token bought", Decimal(100_000), Decimal("950.01"))
    ] == lines_of_september(sold)


def test_what_is_taken_back_of_a_purchase_is_refunded(sold: World) -> None:
    """All of one, what was left of another; of what was used nothing."""
    pool = sold.pool_of("credits", customer="acme", subscription="acme-base", currency="USD")
    sold.now = at("2026-09-03 00:00")
    used, whole = (
        sold.grant(pool, 300, basis=Basis.PURCHASED, cost=Decimal(10), on_invoice=True, key=key)
        for key in ("used", "whole")
    )
    prepaid = sold.grant(pool, 5, basis=Basis.PURCHASED, cost=Decimal(1), key="prepaid")
    sold.draw(pool, 100)
    for grant in (used, whole, prepaid):
        change(sold, pool, grant, "void")
    assert [
        ("purchase", "credits: 300 token bought", Decimal(300), Decimal("10.00")),
        ("purchase", "credits: 300 token bought", Decimal(300), Decimal("10.00")),
        ("refund", "credits: 200 token taken back", Decimal(-200), Decimal("-6.67")),
        ("refund", "credits: 300 token taken back", Decimal(-300), Decimal("-10.00")),
    ] == lines_of_september(sold)
    (row,) = [row for row in sold.invoices() if row.kind == "period"]
    assert () == replay_invoice(sold.pool, sold.organization_id, row.invoice_id)


def test_a_purchase_that_is_never_paid_is_refunded_when_it_falls_back(sold: World) -> None:
    pool = sold.pool_of("credits", customer="acme", subscription="acme-base", currency="USD")
    sold.now = at("2026-09-03 00:00")
    grant = sold.grant(
        pool, 30, basis=Basis.PURCHASED, cost=Decimal(3), on_invoice=True, pending=True, key="po"
    )
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    sold.now = at("2026-10-05 00:00")
    change(sold, pool, grant, "fail")
    sold.now = at("2026-11-02 00:00")
    sold.bill(sold.now)
    rows = [row for row in sold.invoices() if row.kind == "period"]
    told = [
        [(line.kind, line.amount) for line in sold.lines(row) if line.kind != "fee"]
        for row in sorted(rows, key=lambda row: row.period_start)
    ]
    assert [[("purchase", Decimal("3.00"))], [("refund", Decimal("-3.00"))]] == told


def change(world: World, pool: UUID, grant: Grant, verb: str) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, pool
        assert isinstance(change_grant(*scope, grant.number, verb, world.now), Grant)


def test_what_moves_after_the_period_was_closed_counts_for_the_next(sold: World) -> None:
    pool = sold.pool_of(
        "tokens", customer="acme", subscription="acme-base", currency="USD", limit=OVERAGE
    )
    sold.now = at("2026-09-30 23:00")
    sold.draw(pool, 1000)
    assert [
        ("overage", "tokens: overage at 0.0015 USD per token", Decimal(1000), Decimal("1.50"))
    ] == lines_of_september(sold)
    # Another process whose clock is four seconds late: no earlier than the period that is closed.
    sold.now = at("2026-09-30 23:59:56")
    answer = sold.draw(pool, 500)
    assert isinstance(answer, Answer)
    assert datetime(2026, 10, 1, tzinfo=UTC) == answer.time
    sold.now = at("2026-09-30 23:59")
    refused = sold.draw(pool, 500)
    assert isinstance(refused, Refusal)
    assert RefusalCode.CLOCK_WENT_BACK == refused.code


def test_an_invoice_with_pools_replays_to_the_same_lines(sold: World) -> None:
    pool = sold.pool_of(
        "tokens",
        customer="acme",
        subscription="acme-base",
        currency="USD",
        limit=OVERAGE,
        burst=Burst(units=Decimal(5), price=Decimal("0.5")),
    )
    sold.now = at("2026-09-15 00:00")
    sold.ask(pool, *[Draw(amount=Decimal("1.5")) for _ in range(10)])
    assert 2 == len(lines_of_september(sold))
    for row in sold.invoices():
        assert () == replay_invoice(sold.pool, sold.organization_id, row.invoice_id)
