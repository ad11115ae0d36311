"""A small world of pools for tests: one organization on real PostgreSQL, moved by the flows."""

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, TypeVar
from uuid import UUID

from msgspec.structs import asdict

from farebox.access.id import uuidv7
from farebox.flows.decide_pools import Asked, Outcome, decide_pools
from farebox.flows.grant_units import change_grant, grant_units, recur, stop_recurring
from farebox.flows.move_units import move_units
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.share_pool import Share, Shared, share_pool
from farebox.flows.verify_ledger import Verified, verify_ledger
from farebox.ledger.account import Account
from farebox.ledger.administer import NewGrant, NewRecurrence
from farebox.ledger.book import Book
from farebox.ledger.command import (
    Answer,
    Command,
    Draw,
    Extend,
    Release,
    Reserve,
    Reverse,
    Settle,
)
from farebox.ledger.grant import Grant, Recurrence, Rollover
from farebox.ledger.hold import Slice
from farebox.ledger.policy import Burst, Limit, LimitMode, Payment, Policy, Refill, Renewal, TopUp
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.refusal import Refusal
from farebox.period.cycle import Unit
from farebox.postgres.book import read_books
from farebox.postgres.session import Pool, transaction
from farebox.postgres.verify import Finding


def new_id() -> UUID:
    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


def digest(*parts: object) -> str:
    """Return what tells a request from others under its key."""
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def number(value: object) -> Decimal:
    return Decimal(str(value))


class WasRefused(Exception):
    """What was done to a pool was refused; its text is the code, or what is wrong."""


Done = TypeVar("Done")


def _allowed(done: object, kind: type[Done]) -> Done:
    if not isinstance(done, kind):
        raise WasRefused(done.code.value if isinstance(done, Refusal) else repr(done))
    return done


class Pools:
    """The pools of one organization; `now` is what its clock shows, and a test moves it."""

    def __init__(self, pool: Pool, organization_id: UUID, now: datetime) -> None:
        self.pool = pool
        self.organization_id = organization_id
        self.now = now
        self.ids: dict[str, UUID] = {}

    def clock(self) -> datetime:
        return self.now

    def later(self, **step: float) -> None:
        self.now += timedelta(**step)

    # What is done to pools: each call is a transaction of its own, and raises on a refusal.

    def put(self, key: str, policy: Policy | None = None, **fields: Any) -> UUID:
        definition = PoolDefinition(
            key=key, **{"unit": "token", **fields}, policy=policy or Policy()
        )
        done = put_pool(self.pool, self.organization_id, definition, self.now, new_id())
        done = _allowed(done, PutPool)
        self.ids[key] = done.pool_id
        return done.pool_id

    def grant(self, pool: str, amount: object, **fields: Any) -> Grant:
        asked = NewGrant(amount=number(amount), **fields)
        with transaction(self.pool, self.organization_id) as connection:
            done = grant_units(connection, self.organization_id, self.ids[pool], asked, self.now)
        return _allowed(done, Grant)

    def change(self, pool: str, grant: Grant, verb: str) -> Grant:
        ids = self.organization_id, self.ids[pool]
        with transaction(self.pool, self.organization_id) as connection:
            done = change_grant(connection, *ids, grant.number, verb, self.now)
        return _allowed(done, Grant)

    def recur(self, pool: str, key: str, amount: object, **fields: Any) -> Recurrence:
        asked = NewRecurrence(key=key, amount=number(amount), **fields)
        with transaction(self.pool, self.organization_id) as connection:
            done = recur(connection, self.organization_id, self.ids[pool], asked, self.now)
        return _allowed(done, Recurrence)

    def stop_recurring(self, pool: str, key: str) -> Recurrence:
        with transaction(self.pool, self.organization_id) as connection:
            done = stop_recurring(connection, self.organization_id, self.ids[pool], key, self.now)
        return _allowed(done, Recurrence)

    def share(self, pool: str, *shares: Share) -> None:
        with transaction(self.pool, self.organization_id) as connection:
            done = share_pool(connection, self.organization_id, self.ids[pool], shares, self.now)
        _allowed(done, Shared)

    def move(self, giving: str, taking: str, amount: object) -> Answer:
        ids = self.organization_id, self.ids[giving], self.ids[taking]
        with transaction(self.pool, self.organization_id) as connection:
            done = move_units(connection, *ids, number(amount), self.now)
        return _allowed(done, Answer)

    def reverse(self, pool: str, operation: int, amount: object = None, **fields: Any) -> Outcome:
        ids = self.organization_id, self.ids[pool]
        part = None if amount is None else number(amount)
        with transaction(self.pool, self.organization_id) as connection:
            return reverse_draw(connection, *ids, operation, part, self.now, **fields)

    # What is asked of pools.

    def decide(self, *asked: Asked) -> list[Outcome]:
        return decide_pools(self.pool, self.organization_id, asked, self.now)

    def ask(self, pool: str, command: Command) -> Outcome:
        return self.decide(Asked(self.ids[pool], command))[0]

    def draw(self, pool: str, amount: object, **fields: Any) -> Answer:
        return granted(self.ask(pool, Draw(amount=number(amount), **fields)))

    def hold(self, pool: str, amount: object, **fields: Any) -> int:
        found = granted(self.ask(pool, Reserve(amount=number(amount), **fields))).hold
        assert found is not None
        return found

    def settle(self, pool: str, hold: int, amount: object, **fields: Any) -> Answer:
        return granted(self.ask(pool, Settle(hold=hold, amount=number(amount), **fields)))

    def extend(self, pool: str, hold: int, amount: object = 0, **fields: Any) -> Answer:
        return granted(self.ask(pool, Extend(hold=hold, amount=number(amount), **fields)))

    def release(self, pool: str, hold: int, **fields: Any) -> Answer:
        return granted(self.ask(pool, Release(hold=hold, **fields)))

    # What is there.

    def book(self, pool: str) -> Book:
        with transaction(self.pool, self.organization_id, snapshot=True) as connection:
            pool_id = self.ids[pool]
            return read_books(connection, self.organization_id, [pool_id])[pool_id].book

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with transaction(self.pool, self.organization_id, snapshot=True) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def transfers(self, pool: str) -> list[tuple[str, str, str, Decimal]]:
        """Return reason, source, target and amount of every transfer."""
        query = "select reason, source, target, amount from transfer where pool_id = %s"
        return self.rows(f"{query} order by sequence", self.ids[pool])

    def verify(self) -> list[Finding]:
        return self.verified()[1]

    def verified(self) -> tuple[Verified, list[Finding]]:
        found: list[Finding] = []
        return verify_ledger(self.pool, self.organization_id, found.append), found


def granted(outcome: Outcome) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def refused(outcome: Outcome) -> str:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


def told(answer: Answer) -> dict[str, object]:
    """Return what an answer says of what was moved, the same however often it is asked for."""
    fields = asdict(answer)
    del fields["repeated"], fields["expires_at"]
    return fields


HARD = Policy()
OVERAGE = Policy(
    currency="EUR",
    limit=Limit(mode=LimitMode.OVERAGE, price=Decimal("0.05"), spend_cap=Decimal(50)),
    burst=Burst(units=Decimal(20), price=Decimal("0.08")),
    hold_seconds_max=86_400 * 60,
)
OVERDRAFT = Policy(
    limit=Limit(mode=LimitMode.OVERDRAFT, units=Decimal(100)), hold_seconds_max=86_400 * 60
)
TOPPED_UP = Policy(
    currency="EUR",
    top_up=TopUp(
        below=Decimal(10),
        amount=Decimal(100),
        cost=Decimal(9),
        payment=Payment.PREPAID,
        times=2,
        expires_after_seconds=86_400 * 20,
    ),
)
REFILLED = Policy(refill=Refill(amount=Decimal(10), seconds=60, capacity=Decimal(50)))
UNLIMITED = Policy(limit=Limit(mode=LimitMode.UNLIMITED))
SOFT = Policy(limit=Limit(mode=LimitMode.SOFT), renewal=Renewal(unit=Unit.WEEK))


def live_through_two_months(pools: Pools) -> None:
    """Let everything happen that can happen to pools, over a turn of every pool's period."""
    open_pools(pools)
    for _ in range(2):
        use_grants(pools)
        go_beyond(pools)
        use_shares(pools)
        use_bought(pools)
        pools.later(days=31)
    pools.stop_recurring("recurring", "monthly")
    draw_everywhere(pools)


def open_pools(pools: Pools) -> None:
    for key, policy in (
        ("plain", HARD),
        ("recurring", HARD),
        ("overage", OVERAGE),
        ("overdraft", OVERDRAFT),
        ("topped-up", TOPPED_UP),
        ("refilled", REFILLED),
        ("soft", SOFT),
        ("shared", OVERAGE),
        ("idle", HARD),
    ):
        pools.put(key, policy)
    kept = Rollover(percent=Decimal(50), units=Decimal(30))
    pools.recur("recurring", "monthly", 100, rollover=kept)
    pools.recur("recurring", "weekly", 7, renewal=Renewal(unit=Unit.WEEK), priority=-1)
    pools.grant("shared", 300)
    pools.share(
        "shared",
        Share(key="team", guarantee=Decimal(100), cap=Decimal(500), subjects=("ann",)),
        Share(key="intern", parent="team", guarantee=Decimal(10), overdraft=Decimal(500)),
        Share(key="rest", weight=1),
    )


def use_grants(pools: Pools) -> None:
    """Grants that are bought, paid, not paid, taken back, expire, are moved."""
    pools.grant("plain", 50, priority=1)
    pools.grant("plain", "10.5", expires_at=pools.now + timedelta(days=3))
    later = pools.grant("plain", 20, effective_at=pools.now + timedelta(days=2))
    paid = pools.grant("plain", 30, pending=True)
    unpaid = pools.grant("plain", 40, pending=True, pay_by=pools.now + timedelta(hours=1))
    failed = pools.grant("plain", 41, pending=True)
    void = pools.grant("plain", 42)
    early = pools.grant("plain", 43)
    pools.change("plain", paid, "pay")
    pools.change("plain", failed, "fail")
    hold = pools.hold("plain", 15, seconds=86_400)
    pools.change("plain", void, "void")
    pools.change("plain", early, "expire")
    assert (later.status, unpaid.status) == ("scheduled", "pending")
    pools.move("plain", "idle", 5)
    drawn = pools.draw("plain", "12.25")
    pools.later(days=1, hours=1)
    assert "hold_expired" == refused(pools.ask("plain", Release(hold=hold)))
    pools.reverse("plain", drawn.operation, 2)
    pools.draw("recurring", 20)
    pools.move("idle", "plain", 2)
    pools.settle("idle", pools.hold("idle", 1), 10)


def go_beyond(pools: Pools) -> None:
    """Overage, burst, overdraft and soft limits; holds that outlast the period."""
    pools.grant("overage", 10)
    first = pools.draw("overage", 25)
    hold = pools.hold("overage", 8, seconds=86_400)
    pools.extend("overage", hold, 4)
    pools.settle("overage", hold, 20)
    pools.settle("overage", pools.hold("overage", 9), 2)
    pools.settle("overage", pools.hold("overage", 3), 0)
    pools.reverse("overage", first.operation, 7)
    pools.release("overage", pools.hold("overage", 11))
    pools.hold("overage", 13, seconds=86_400 * 33)
    owed = pools.draw("overdraft", 30)
    pools.hold("overdraft", 20, seconds=86_400 * 33)
    pools.grant("overdraft", 25)
    pools.reverse("overdraft", owed.operation, 15)
    pools.draw("soft", 5)
    used = pools.draw("soft", 3, forced=True)
    voided = Reverse(
        operation=used.operation,
        taken=(Slice(Account.OVERAGE, number(3)),),
        taken_at=used.time,
        amount=number(1),
        forced=True,
    )
    granted(pools.ask("soft", voided))


def use_shares(pools: Pools) -> None:
    pools.draw("shared", 40, subject="ann")
    pools.draw("shared", 5, subject="intern")
    pools.draw("shared", 5, allotment="rest")
    pools.draw("shared", 6, subject="nobody")
    pools.hold("shared", 7, subject="intern", seconds=86_400 * 33)
    taken = pools.draw("shared", 9, subject="ann")
    pools.reverse("shared", taken.operation)
    back = pools.hold("shared", 11, subject="intern")
    pools.settle("shared", back, 4)


def use_bought(pools: Pools) -> None:
    """A purchase that is paid and used, and one that nobody pays; a rate that flows in."""
    pools.grant("topped-up", 10)
    pools.draw("topped-up", 6)
    (bought,) = [one for one in pools.book("topped-up").grants.values() if one.pay_by is not None]
    pools.change("topped-up", bought, "pay")
    pools.draw("topped-up", 100)
    for _ in range(3):
        pools.draw("refilled", 17)
        pools.later(seconds=61.5)


def draw_everywhere(pools: Pools) -> None:
    for key in pools.ids:
        pools.ask(key, Draw(amount=Decimal(1)))
    pools.draw("shared", 2, subject="intern")
