"""It makes no difference when a pass comes: not to a decision, a limit, a count or a balance.

Of two customers with the same plans one is synced at every turn, the other as late as may be.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from farebox_world import World, at, new_id

from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Override
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Plan
from farebox.flows.entitle import sync_entitlements
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal
from farebox.period.cycle import Unit
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import transaction

D = Decimal
START = at("2026-09-01 00:00")
OVERAGE = EntitlementLimit.OVERAGE
EARLY, LATE = "acme", "late"


def plan(key: str, interval: Unit = Unit.MONTH, *, add_on: bool = False, **said: object) -> Plan:
    calls = Entitlement(feature="calls", **said)  # type: ignore[arg-type]
    return Plan(key=key, currency="USD", interval=interval, add_on=add_on, entitlements=(calls,))


PLANS = (
    plan("free", limit=D(100)),
    plan("roll", limit=D(300), rollover_percent=D(50)),
    plan("cheap", limit=D(100), beyond=OVERAGE, price=D("0.01")),
    plan("dear", limit=D(200), beyond=OVERAGE, price=D("0.05")),
    plan("soft", limit=D(80), beyond=EntitlementLimit.SOFT),
    plan("enterprise", unlimited=True),
    plan("annual", Unit.YEAR, limit=D(1000)),
    plan("quarter", Unit.QUARTER, limit=D(400)),
    plan("extra", add_on=True, limit=D(50)),
    Plan(key="nothing", currency="USD"),
)
OVERRIDES = (
    None,
    Override(limit=D(30)),
    Override(limit=D(700)),
    Override(unlimited=True),
    Override(enabled=False),
)


class Twins:
    """Two customers who are sold the same, and use the same at the same time."""

    def __init__(self, world: World, chance: Random) -> None:
        self.world, self.chance = world, chance
        self.sold: dict[int, tuple[str, datetime, datetime | None]] = {}
        self.behind = False
        world.now = START
        world.publish(Feature(key="calls"), *PLANS)
        for who in (EARLY, LATE):
            world.customer(who)

    def hour(self, first: int, last: int) -> datetime:
        return self.world.now + timedelta(hours=self.chance.randint(first, last))

    def put(self, number: int, plan: str, start: datetime, end: datetime | None) -> None:
        self.sold[number] = plan, start, end
        for who in (EARLY, LATE):
            one = Subscription(key=f"{who}-{number}", customer=who, plan=plan, start=start, end=end)
            world = self.world
            done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
            assert isinstance(done, PutSubscription), done
            self.sync(who)  # also where that changed nothing
        self.behind = False

    def override(self, given: Override | None) -> None:
        for who in (EARLY, LATE):
            with transaction(self.world.pool, self.world.organization_id) as connection:
                scope = connection, self.world.organization_id, who, "calls"
                if given is None:
                    entitlement.drop_override(*scope)
                else:
                    entitlement.put_override(*scope, given, self.world.now)
            self.sync(who)
        self.behind = False

    def sync(self, who: str) -> None:
        with transaction(self.world.pool, self.world.organization_id) as connection:
            lock_organization(connection, self.world.organization_id)
            sync_entitlements(connection, self.world.organization_id, who, self.world.now, new_id)

    def pass_until(self, time: datetime) -> None:
        """Pass every turn until then; the late one is synced only before the next."""
        times = {at for _, start, end in self.sold.values() for at in (start, end) if at}
        for turn in sorted(one for one in times if self.world.now < one <= time):
            if self.behind:
                self.sync(LATE)
            self.world.now = turn
            self.sync(EARLY)
            self.behind = True
            self.compare()
            for _ in range(self.chance.randint(0, 3)):
                self.use()
        self.world.now = time

    def use(self) -> None:
        pools, amount = self.pools(), self.chance.choice([1, 30, 90, 210, 500])
        if pools:
            early, late = (self.world.draw(one, amount) for one in pools)
            assert said(early) == said(late)
        self.compare()

    def pools(self) -> list[UUID]:
        """Return the pools of both, or none while neither was ever sold the feature."""
        found = []
        with transaction(self.world.pool, self.world.organization_id) as connection:
            for who in (EARLY, LATE):
                scope = connection, self.world.organization_id, who
                found += [one for one, _ in entitlement.pools_of_features(*scope).values()]
        return found if len(found) == 2 else []

    def compare(self) -> None:
        pools = self.pools()
        with transaction(self.world.pool, self.world.organization_id, snapshot=True) as connection:
            books = books_now(connection, self.world.organization_id, pools, self.world.now)
        found = [books[one].pool for one in pools]
        stands = [(one.policy, one.counters, one.balances) for one in found]
        assert stands[:1] == stands[1:]


def said(outcome: Answer | Refusal) -> object:
    if isinstance(outcome, Refusal):
        return outcome.code, outcome.left
    return outcome.covered, outcome.beyond, outcome.available, outcome.over_limit


@pytest.mark.parametrize("seed", range(8))
def test_it_makes_no_difference_when_a_pass_comes(world: World, seed: int) -> None:
    chance = Random(seed)
    twins = Twins(world, chance)
    twins.put(0, "free", START, twins.hour(100, 700))
    for _ in range(25):
        twins.pass_until(twins.hour(1, 90) + timedelta(minutes=chance.randint(1, 50)))
        match chance.choice(("use", "use", "use", "put", "put", "end", "override")):
            case "use":
                twins.use()
            case "put":
                start = chance.choice([world.now, twins.hour(1, 400)])
                ends = [end for _, _, end in twins.sold.values() if end and end > world.now]
                if ends and chance.random() < 0.4:  # a change of plan
                    start = chance.choice(ends)
                end = chance.choice([None, start + timedelta(hours=chance.randint(1, 720))])
                twins.put(len(twins.sold), chance.choice(PLANS).key, start, end)
            case "end":
                number = chance.choice(list(twins.sold))
                key, start, end = twins.sold[number]
                if end is None or end > world.now:
                    later = max(start, world.now) + timedelta(hours=chance.randint(1, 200))
                    twins.put(number, key, start, chance.choice([None, later, later]))
            case "override":
                twins.override(chance.choice(OVERRIDES))
        twins.compare()
    faults: list[object] = []
    verify_ledger(world.pool, world.organization_id, faults.append)
    assert [] == faults
