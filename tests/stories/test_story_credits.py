"""October 2026 of a team that buys 100,000 credits and shares them among three projects.

One project runs dry, borrows what another leaves idle, and the pool tops itself up; a promotional
grant expires; the month closes. Invoice and ledger statement agree to the unit.
"""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_world import World, at

from farebox.catalog.plan import Fee, Plan
from farebox.flows.read_pool import books_now
from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.share_pool import Share, Shared, share_pool
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.command import Answer, Reserve, Settle
from farebox.ledger.grant import Basis
from farebox.ledger.policy import Limit, LimitMode, Renewal, TopUp
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.session import transaction
from farebox.postgres.transfer import Entry, statement
from farebox.postgres.verify import Finding

OCTOBER, NOVEMBER = at("2026-10-01"), at("2026-11-01")
IDLE_SECONDS = 7 * 86_400


@pytest.fixture
def team(world: World) -> World:
    world.now = OCTOBER
    world.publish(
        Plan(key="team", currency="EUR", fees=(Fee(key="seat", amount=Decimal("99")),)),
    )
    world.customer("borealis")
    world.subscribe("borealis", "team", OCTOBER, key="borealis-team")
    return world


def open_pool(world: World) -> UUID:
    return world.pool_of(
        "borealis-credits",
        unit="credit",
        customer="borealis",
        subscription="borealis-team",
        currency="EUR",
        renewal=Renewal(anchor_day=1),
        limit=Limit(mode=LimitMode.OVERAGE, price=Decimal("0.012"), units=Decimal(2_000)),
        top_up=TopUp(
            below=Decimal(10_000),
            amount=Decimal(20_000),
            cost=Decimal(190),
            times=1,
        ),
    )


def share(world: World, pool: UUID) -> None:
    shares = [
        Share(key="search", guarantee=Decimal(60_000), lend_after_seconds=IDLE_SECONDS),
        Share(key="support", guarantee=Decimal(25_000), cap=Decimal(80_000)),
        Share(key="research", guarantee=Decimal(15_000), subjects=("ada", "grace")),
    ]
    with transaction(world.pool, world.organization_id) as connection:
        done = share_pool(connection, world.organization_id, pool, shares, world.now)
    assert isinstance(done, Shared), done


def standing(world: World, pool: UUID) -> Book:
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        return books_now(connection, world.organization_id, [pool], world.now)[pool]


def entries(world: World, pool: UUID) -> list[Entry]:
    with transaction(world.pool, world.organization_id) as connection:
        found = statement(connection, world.organization_id, pool, limit=1000)
    return found[::-1]


def test_a_month_of_a_team_with_credits(team: World) -> None:
    pool = open_pool(team)
    # The order: 100,000 credits on invoice, and 5,000 as a welcome that expire in mid-month.
    team.grant(pool, 100_000, key="po-1", basis=Basis.PURCHASED, cost=Decimal(950), on_invoice=True)
    team.grant(pool, 5_000, key="welcome", priority=-1, expires_at=at("2026-10-15"))
    share(team, pool)

    # Research holds an estimate, uses less, and gives the rest back. The welcome burns first.
    team.now = at("2026-10-02 09:00")
    (held,) = team.ask(pool, Reserve(amount=Decimal(3_000), subject="ada"))
    assert isinstance(held, Answer)
    assert held.hold is not None
    team.now += timedelta(minutes=3)
    (settled,) = team.ask(pool, Settle(hold=held.hold, amount=Decimal("2750.5")))
    assert isinstance(settled, Answer)
    assert Decimal("102249.5") == settled.available

    # Support works hard: its guarantee is gone by the 5th, and the others' is kept for them.
    team.now = at("2026-10-05 12:00")
    assert isinstance(team.draw(pool, 25_000, subject="support"), Answer)
    dry = team.draw(pool, 8_000, subject="support")
    assert isinstance(dry, Refusal)
    # 77,249.5 are there, 60,000 kept for search and 12,249.5 for research; 2,000 more as overage.
    assert (RefusalCode.OVERAGE_LIMIT_EXCEEDED, Decimal(7_000)) == (dry.code, dry.left)

    # A week later nobody has searched: what is kept for search is lent.
    team.now = at("2026-10-12 12:00")
    assert isinstance(team.draw(pool, 50_000, subject="support"), Answer)
    capped = team.draw(pool, 6_000, subject="support")
    assert isinstance(capped, Refusal)
    assert (RefusalCode.ALLOTMENT_CAP_EXCEEDED, Decimal(5_000)) == (capped.code, capped.left)

    # The welcome was used up before its day; another gift expires unused on the 15th.
    team.grant(pool, 1_000, key="apology", priority=9, expires_at=at("2026-10-15"))

    # Search wakes up on the 20th and takes what is not kept for research; then research draws, and
    # the pool tops itself up under its own lock.
    team.now = at("2026-10-20 08:00")
    assert Decimal("27249.5") == standing(team, pool).pool.available
    assert isinstance(team.draw(pool, 15_000, subject="search"), Answer)
    assert 0 == standing(team, pool).pool.counters.top_ups
    assert isinstance(team.draw(pool, 3_000, subject="grace"), Answer)
    assert (1, Decimal("29249.5")) == (
        standing(team, pool).pool.counters.top_ups,
        standing(team, pool).pool.available,
    )

    # The last days: everything goes, and 500 more at the overage price.
    team.now = at("2026-10-30 20:00")
    assert isinstance(team.draw(pool, "9249.5", subject="grace"), Answer)
    last = team.draw(pool, 20_500, subject="search")
    assert isinstance(last, Answer)
    assert {Account.OVERAGE: Decimal(500)} == last.beyond

    # The month closes.
    team.now = NOVEMBER + timedelta(hours=6)
    team.bill(team.now)
    (row,) = [one for one in team.invoices() if one.kind == "period"]
    lines = {
        (line.kind, line.description): (line.quantity, line.amount)
        for line in team.lines(row)
        if line.kind != "fee"
    }
    assert {
        ("purchase", "borealis-credits: 100000 credit bought"): (
            Decimal(100_000),
            Decimal("950.00"),
        ),
        ("purchase", "borealis-credits: 20000 credit bought"): (Decimal(20_000), Decimal("190.00")),
        ("overage", "borealis-credits: overage at 0.012 EUR per credit"): (
            Decimal(500),
            Decimal("6.00"),
        ),
    } == lines
    assert () == replay_invoice(team.pool, team.organization_id, row.invoice_id)

    agree(team, pool)
    findings: list[Finding] = []
    verify_ledger(team.pool, team.organization_id, findings.append)
    assert [] == findings


def agree(team: World, pool: UUID) -> None:
    """Invoice and statement agree to the unit: bought, given, used, expired, owed."""
    moved = entries(team, pool)
    came = sum(one.amount for one in moved if one.source == "source")
    used = sum(one.amount for one in moved if one.target == "used")
    expired = sum(one.amount for one in moved if one.target == "expired")
    owed = sum(one.amount for one in moved if one.source == "overage")
    assert Decimal(100_000 + 20_000 + 5_000 + 1_000) == came
    assert Decimal(1_000) == expired
    assert Decimal(500) == owed
    drawn = [25_000, 50_000, 15_000, 3_000, Decimal("9249.5"), 20_500]
    assert Decimal("2750.5") + sum(drawn) == used
    assert came + owed == used + expired
    by_share = {key: one.used for key, one in standing(team, pool).shares.by_key.items()}
    assert {"search": Decimal(0), "support": Decimal(0), "research": Decimal(0)} == by_share
