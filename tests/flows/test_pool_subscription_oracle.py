"""Each unit beyond the grants is on one invoice or unpaid, whoever paid for the pool when.

Beside it stands a simpler computation, which notes by hand for each entry who pays for it.
"""

import random
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_pool_lines import OVERAGE, SEPTEMBER, adds_up, draw, sell, take_back
from farebox_world import World, at

from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.reverse_draw import left_of
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.command import Answer, Reserve, Settle
from farebox.money.rounding import exact_sum
from farebox.postgres.session import transaction
from farebox.postgres.transfer import Entry, operation, statement, undoing

DECEMBER = at("2026-12-01")
# From when to when each subscription runs, and the ends of its periods until December.
STARTS = {"acme-base": SEPTEMBER, "late": at("2026-09-10"), "short": SEPTEMBER}
SHORT_END = at("2026-10-07")
PERIODS = {
    "acme-base": [at(f"2026-{month}-01") for month in ("09", "10", "11", "12")],
    "late": [at(f"2026-{month}-10") for month in ("09", "10", "11", "12")],
    "short": [SEPTEMBER, at("2026-10-01"), SHORT_END],
}
Place = tuple[str, datetime]
"""A subscription, and when the period begins."""


@pytest.fixture
def sold(world: World) -> World:
    sell(world)
    world.subscribe("acme", "base", STARTS["late"], key="late")
    world.subscribe("acme", "base", SEPTEMBER, key="short", end=SHORT_END)
    return world


class Payers:
    """A pool, and who pays for each of its entries: for what is taken, for what comes back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.named: str | None = "acme-base"
        self.credited: str | None = "acme-base"
        self.of: list[tuple[str | None, str | None]] = []
        self.pool = self._put()

    def _put(self) -> UUID:
        return self._world.pool_of(
            "tokens",
            customer="acme",
            subscription=self.named,
            currency="USD",
            limit=OVERAGE,
            undo_seconds=86_400 * 90,
            hold_seconds_max=86_400 * 60,
        )

    def entries(self) -> list[Entry]:
        with transaction(self._world.pool, self._world.organization_id) as connection:
            found = statement(connection, self._world.organization_id, self.pool, limit=100_000)
        return found[::-1]

    def name(self, subscription: str | None) -> None:
        before, credited, now = self.named, self.credited, self._world.now
        if subscription == before:
            return
        self.named = subscription
        self._put()
        times = self.note()
        if before == "short" and now >= SHORT_END:
            for at_ in range(len(times)):
                if times[at_] >= SHORT_END and self.of[at_][0] == "short":
                    self.of[at_] = None, "short"
        if subscription is not None:
            final = [
                row.period_end
                for row in self._world.invoices()
                if row.kind == "period" and row.subscription_key in (credited, subscription)
            ]
            stays = max(final, default=SEPTEMBER)
            for at_ in range(len(times) - 1, -1, -1):
                if self.of[at_][0] is not None or times[at_] < stays:
                    break
                self.of[at_] = subscription, subscription
            self.credited = subscription

    def note(self) -> list[datetime]:
        """Note who pays for what moved since; return when each entry moved."""
        times = [one.time for one in self.entries()]
        payer = self.of_now
        self.of += [payer] * (len(times) - len(self.of))
        self.of_now = self.named, self.named or self.credited
        return times

    of_now: tuple[str | None, str | None] = ("acme-base", "acme-base")

    def expected(self) -> tuple[dict[Place, Decimal], Decimal]:
        """Return units by the period that bills them, and those that none does."""
        self.note()
        entries = self.entries()
        found: dict[Place, Decimal] = defaultdict(Decimal)
        unpaid = Decimal(0)
        for one, (user, returned) in zip(entries, self.of, strict=True):
            if "overage" not in (one.source, one.origin) or "used" not in (one.source, one.target):
                continue
            whose, time = (user if one.target == "used" else returned), one.time
            if one.reason == "voided":
                assert one.undoes is not None
                whose, time = self.of[one.undoes - 1][0], entries[one.undoes - 1].time
            units = one.amount if one.target == "used" else -one.amount
            start = None if whose is None else period(whose, time)
            if whose is None or start is None:
                unpaid += units
            else:
                found[whose, start] += units
        return {place: units for place, units in found.items() if units}, unpaid


def period(subscription: str, time: datetime) -> datetime | None:
    edges = PERIODS[subscription]
    if not edges[0] <= time < edges[-1]:
        return None
    return max(edge for edge in edges if edge <= time)


def step(world: World, payers: Payers, chance: random.Random, drawn: list[int]) -> None:
    """Do one of what may be done to the pool; often at the instant of what was done before."""
    if chance.random() < 0.5:
        world.now += timedelta(hours=chance.randint(1, 60))
    amount = Decimal(chance.randint(1, 60)) / 4
    match chance.choice(("draw", "draw", "grant", "hold", "back", "name", "name", "bill")):
        case "draw":
            drawn.append(draw(world, payers.pool, str(amount)).operation)
        case "grant":
            world.grant(payers.pool, str(amount))
        case "hold":
            (held,) = world.ask(payers.pool, Reserve(amount=amount, seconds=86_400 * 20))
            assert isinstance(held, Answer)
            assert held.hold is not None
            payers.name(chance.choice((*STARTS, None)))
            (settled,) = world.ask(payers.pool, Settle(hold=held.hold, amount=amount + 1))
            assert isinstance(settled, Answer)
            drawn.append(settled.operation)
        case "back" if drawn:
            number = chance.choice(drawn)
            with transaction(world.pool, world.organization_id) as connection:
                scope = connection, world.organization_id, payers.pool
                taken = operation(*scope, number)
                left = left_of(taken, undoing(*scope, number))
            if left:
                ends = [row.period_end for row in world.invoices() if row.kind == "period"]
                voided = chance.random() < 0.5 and taken[0].time >= max(ends, default=SEPTEMBER)
                half = exact_sum([one.amount for one in left]) / 2
                take_back(world, payers.pool, number, half, voided=voided)
        case "name":
            payers.name(chance.choice((*STARTS, None)))
        case "bill":
            world.bill(world.now)


@pytest.mark.parametrize("seed", range(10))
def test_each_unit_is_billed_once_or_unpaid_whoever_the_pool_names(sold: World, seed: int) -> None:
    chance = random.Random(seed)
    payers = Payers(sold)
    drawn: list[int] = []
    while sold.now < at("2026-11-20"):
        step(sold, payers, chance, drawn)
    expected, unpaid = payers.expected()
    sold.now = at("2026-12-12")
    sold.bill(sold.now)
    found: dict[Place, Decimal] = {}
    rows = [row for row in sold.invoices() if row.kind == "period"]
    for row in rows:
        adds_up(sold, row)
        assert () == replay_invoice(sold.pool, sold.organization_id, row.invoice_id)
        for line in sold.lines(row):
            if line.kind == "overage":
                assert line.quantity is not None
                found[row.subscription_key, row.period_start] = line.quantity
    assert expected == found
    listed = [
        one.quantity
        for one in all_unbilled(sold.pool, sold.organization_id, SEPTEMBER, DECEMBER)
        if one.pool is not None
    ]
    assert ([unpaid] if unpaid > 0 else []) == listed
    faults: list[object] = []
    verify_ledger(sold.pool, sold.organization_id, faults.append)
    assert [] == faults
    assert len({place[0] for place in expected}) > 1
