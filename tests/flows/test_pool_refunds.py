"""What comes back of a purchase after it was taken back is refunded, to the cent."""

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import pytest
from farebox_world import World, at

from farebox.catalog.plan import Fee, Plan
from farebox.flows.grant_units import change_grant
from farebox.flows.move_units import move_units
from farebox.flows.preview_invoice import Preview, preview_invoice
from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.account import Account
from farebox.ledger.command import Answer, Release, Reserve, Settle
from farebox.ledger.grant import Basis, Grant, GrantStatus
from farebox.ledger.policy import Limit, LimitMode
from farebox.money.amount import to_currency
from farebox.postgres.book import find_grants, read_books
from farebox.postgres.session import transaction
from farebox.postgres.verify import Finding

D = Decimal


@pytest.fixture
def sold(world: World) -> World:
    """Return a world with a customer on a plan since September; it is September now."""
    world.now = at("2026-09-01 00:00")
    world.publish(Plan(key="base", currency="USD", fees=(Fee(key="fee", amount=D(10)),)))
    world.customer("acme")
    world.subscribe("acme", "base", at("2026-09-01 00:00"), key="acme-base")
    world.now = at("2026-09-03 00:00")
    return world


def opened(world: World, key: str = "credits", **fields: object) -> UUID:
    return world.pool_of(key, customer="acme", subscription="acme-base", currency="USD", **fields)


def bought(world: World, pool: UUID, amount: int, cost: str, **facts: Any) -> Grant:
    facts = {"key": "po"} | facts
    return world.grant(pool, amount, basis=Basis.PURCHASED, cost=D(cost), on_invoice=True, **facts)


def void(world: World, pool: UUID, grant: Grant) -> Grant:
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, pool
        done = change_grant(*scope, grant.number, "void", world.now)
    assert isinstance(done, Grant)
    return done


def hold(world: World, pool: UUID, amount: int) -> int:
    (answer,) = world.ask(pool, Reserve(amount=D(amount), seconds=3600))
    assert isinstance(answer, Answer)
    assert answer.hold is not None
    return answer.hold


def draw(world: World, pool: UUID, amount: int) -> int:
    answer = world.draw(pool, amount)
    assert isinstance(answer, Answer)
    return answer.operation


def reverse(world: World, pool: UUID, operation: int, amount: int | None = None) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        part = None if amount is None else D(amount)
        scope = connection, world.organization_id, pool
        assert isinstance(reverse_draw(*scope, operation, part, world.now), Answer)


def charged(world: World, now: datetime) -> list[list[tuple[str, Decimal | None, Decimal]]]:
    """Bill until `now`, prove invoices and ledgers; return the lines of pools, by period."""
    world.now = now
    world.bill(now)
    rows = [row for row in world.invoices() if row.kind == "period"]
    for row in rows:
        assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)
    found: list[Finding] = []
    verify_ledger(world.pool, world.organization_id, tell=found.append)
    assert [] == found
    return [
        [(line.kind, line.quantity, line.amount) for line in world.lines(row) if line.kind != "fee"]
        for row in sorted(rows, key=lambda row: row.period_start)
    ]


def test_what_was_held_when_a_purchase_was_voided_is_refunded_as_it_comes_back(
    sold: World,
) -> None:
    pool = opened(sold)
    grant = bought(sold, pool, 300, "10")
    released, settled, kept, ended = (hold(sold, pool, amount) for amount in (50, 60, 70, 20))
    assert GrantStatus.VOIDED is void(sold, pool, grant).status
    sold.ask(pool, Release(hold=released))
    sold.ask(pool, Settle(hold=settled, amount=D(45)))
    sold.ask(pool, Settle(hold=kept, amount=D(70)))
    assert ended  # nobody asks for it again: it ends by itself
    assert [
        [("purchase", D(300), D("10.00")), ("refund", D(-185), D("-6.17"))],
    ] == charged(sold, at("2026-10-02 12:00"))
    with transaction(sold.pool, sold.organization_id) as connection:
        (stands,) = find_grants(connection, sold.organization_id, pool, [grant.number])
    assert (GrantStatus.VOIDED, D(0), D(0)) == (stands.status, stands.available, stands.held)


def test_each_period_refunds_what_came_back_in_it_and_no_cent_is_lost(sold: World) -> None:
    pool = opened(sold, undo_seconds=86_400 * 90)
    grant = bought(sold, pool, 3, "0.05")  # a third of it is 0.01666...
    first, second = draw(sold, pool, 1), draw(sold, pool, 1)
    void(sold, pool, grant)
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    sold.now = at("2026-10-10 00:00")
    reverse(sold, pool, first)
    sold.now = at("2026-11-02 00:00")
    sold.bill(sold.now)
    sold.now = at("2026-11-10 00:00")
    reverse(sold, pool, second)
    assert [
        [("purchase", D(3), D("0.05")), ("refund", D(-1), D("-0.02"))],
        [("refund", D(-1), D("-0.01"))],
        [("refund", D(-1), D("-0.02"))],
    ] == charged(sold, at("2026-12-02 00:00"))


@pytest.mark.parametrize("seed", range(6))
def test_refunds_and_what_was_used_come_to_the_purchase_however_it_comes_back(
    sold: World, seed: int
) -> None:
    """Beside an own count of what left each grant and came back, unit by unit."""
    random = Random(seed)
    pool = opened(sold, undo_seconds=86_400 * 200)
    grants = [
        bought(
            sold, pool, random.randrange(5, 60), f"{random.randrange(1, 9999)}e-2", key=f"po-{n}"
        )
        for n in range(3)
    ]
    open_holds: list[int] = []
    draws: list[int] = []
    months = [at(f"2026-{month}-02 00:00") for month in ("09", "10", "11", "12")]
    for month in months:
        sold.now = month + timedelta(days=1)
        for _ in range(8):
            sold.now += timedelta(minutes=7)
            match random.randrange(5):
                case 0 if (amount := _some(sold, pool, random)) is not None:
                    draws.append(draw(sold, pool, amount))
                case 1 if (amount := _some(sold, pool, random)) is not None:
                    open_holds.append(hold(sold, pool, amount))
                case 2 if open_holds:
                    sold.ask(pool, Settle(hold=open_holds.pop(), amount=D(random.randrange(4))))
                case 3 if draws:
                    reverse(sold, pool, draws.pop(random.randrange(len(draws))))
                case _:
                    grant = random.choice(grants)
                    with transaction(sold.pool, sold.organization_id) as connection:
                        scope = connection, sold.organization_id, pool
                        change_grant(*scope, grant.number, "void", sold.now)
        sold.now = month.replace(day=1) + timedelta(days=32)
        sold.bill(sold.now)
        open_holds.clear()
    periods = charged(sold, at("2027-01-03 00:00"))
    with transaction(sold.pool, sold.organization_id) as connection:
        rows = connection.execute(
            "select grant_number, target, source, amount from transfer where pool_id = %s"
            " and grant_number is not null",
            (pool,),
        ).fetchall()
    back: dict[int, Decimal] = defaultdict(Decimal)
    for number, target, source, amount in rows:
        back[number] += amount if target == "source" else 0
        assert "expired" not in (target, source)
    expected = sum((-to_currency(_worth(one, back[one.number]), "USD") for one in grants), D(0))
    assert any(back.values())
    refunds = [line for lines in periods for line in lines if line[0] == "refund"]
    assert expected == sum((amount for _, _, amount in refunds), D(0))
    assert -sum(back.values()) == sum((quantity or D(0) for _, quantity, _ in refunds), D(0))


def _some(world: World, pool: UUID, random: Random) -> int | None:
    """Return some units that the pool has, none where it has not."""
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        book = read_books(connection, world.organization_id, [pool])[pool].book
    have = int(book.pool.available)
    return random.randrange(1, min(have, 9) + 1) if have else None


def _worth(grant: Grant, units: Decimal) -> Decimal:
    assert grant.cost is not None
    whole, rest = divmod(grant.cost * units * 10**6, grant.amount)
    return (whole + (rest * 2 >= grant.amount)).scaleb(-6)


def test_what_was_moved_away_or_repaid_a_debt_stays_charged(sold: World) -> None:
    """Both left the purchase for good, as what was used did; only the rest is refunded."""
    overdraft = Limit(mode=LimitMode.OVERDRAFT, units=D(100))
    pool, other = opened(sold, limit=overdraft, undo_seconds=86_400), opened(sold, "other")
    borrowed = draw(sold, pool, 40)
    grant = bought(sold, pool, 300, "30")
    with transaction(sold.pool, sold.organization_id) as connection:
        move_units(connection, sold.organization_id, pool, other, D(60), sold.now)
    void(sold, pool, grant)
    reverse(sold, pool, borrowed)  # what it had repaid is there again, and was paid for
    with transaction(sold.pool, sold.organization_id, snapshot=True) as connection:
        books = read_books(connection, sold.organization_id, [pool, other])
    assert [D(40), D(60)] == [books[one].book.pool.balances[Account.GRANT] for one in (pool, other)]
    (moved,) = books[other].book.grants.values()
    void(sold, other, moved)
    assert [
        [("purchase", D(300), D("30.00")), ("refund", D(-200), D("-20.00"))],
    ] == charged(sold, at("2026-10-02 12:00"))


def test_a_purchase_that_expires_before_it_is_paid_is_refunded(sold: World) -> None:
    pool = opened(sold)
    bought(sold, pool, 30, "3", pending=True, expires_at=at("2026-09-20 00:00"))
    assert [
        [("purchase", D(30), D("3.00")), ("refund", D(-30), D("-3.00"))],
    ] == charged(sold, at("2026-10-02 12:00"))


def test_the_upcoming_invoice_has_what_fell_due_since_anybody_asked(sold: World) -> None:
    pool = opened(sold)
    bought(sold, pool, 30, "3", pending=True, pay_by=at("2026-09-05 00:00"))
    now = at("2026-09-06 00:00")
    found = preview_invoice(sold.pool, sold.organization_id, "acme-base", now)
    assert isinstance(found, Preview)
    assert [("purchase", D("3.00")), ("refund", D("-3.00"))] == [
        (line.kind, line.amount) for line in found.body.lines if line.kind != "fee"
    ]
