"""Live balances in one process: one look for all who listen, and none when nobody does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from farebox.flows.decide_pools import Asked, decide_pools
from farebox.flows.grant_units import grant_units
from farebox.flows.put_pool import PutPool, put_pool
from farebox.http import live_balance
from farebox.http.live_balance import BalanceEvent, LiveBalances
from farebox.ledger.administer import NewGrant
from farebox.ledger.command import Draw, Reserve
from farebox.ledger.policy import Policy, Refill
from farebox.ledger.pool import PoolDefinition
from farebox.postgres.session import transaction

START = datetime(2026, 10, 2, 12, tzinfo=UTC)


class Desk:
    """Pools of one organization with a clock that a test moves."""

    def __init__(self, pool: Any, organization_id: UUID, new_id: Callable[[], UUID]) -> None:
        self.pool = pool
        self.organization_id = organization_id
        self.new_id = new_id
        self.now = START
        self.live = LiveBalances(pool, lambda: self.now)

    def open(self, key: str, amount: int, policy: Policy | None = None, **fields: Any) -> UUID:
        definition = PoolDefinition(key=key, unit="token", policy=policy or Policy())
        done = put_pool(self.pool, self.organization_id, definition, self.now, self.new_id())
        assert isinstance(done, PutPool)
        if amount:
            asked = NewGrant(amount=Decimal(amount), **fields)
            with transaction(self.pool, self.organization_id) as connection:
                grant_units(connection, self.organization_id, done.pool_id, asked, self.now)
        return done.pool_id

    def ask(self, pool_id: UUID, command: Any) -> None:
        decide_pools(self.pool, self.organization_id, [Asked(pool_id, command)], self.now)

    def events(
        self, pool_id: UUID, allowed: Callable[[], Awaitable[bool]] | None = None
    ) -> AsyncIterator[bytes]:
        return self.live.events(self.organization_id, pool_id, allowed or always)


async def always() -> bool:
    return True


@pytest.fixture
def desk(farebox: Any, organization_id: UUID) -> Desk:
    return Desk(farebox.pool, organization_id, farebox.new_id)


def balance(event: bytes) -> BalanceEvent:
    name, number, data, *rest = event.split(b"\n")
    assert (b"event: balance", [b"", b""]) == (name, rest)
    found = msgspec.json.decode(data.removeprefix(b"data: "), type=BalanceEvent)
    assert number == b"id: %d" % found.version
    return found


async def following(events: AsyncIterator[bytes]) -> BalanceEvent:
    """Return the next balance, whatever comments come before."""
    async with asyncio.timeout(10):
        while not (event := await anext(events)).startswith(b"event"):
            continue
    return balance(event)


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story

    asyncio.run(bounded())


def test_a_thousand_listeners_are_one_look(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = [desk.open(key, 100) for key in "abc"]
    looks: list[int] = []
    look = LiveBalances._look

    def counted(self: LiveBalances, known: Any) -> Any:
        looks.append(sum(len(one) for one in known.values()))
        return look(self, known)

    monkeypatch.setattr(LiveBalances, "_look", counted)

    async def story() -> None:
        listeners = [desk.events(pools[at % 3]) for at in range(1000)]
        first = await asyncio.gather(*(following(one) for one in listeners))
        assert {Decimal(100)} == {one.available for one in first}
        assert 1000 == desk.live.listeners
        desk.ask(pools[0], Draw(amount=Decimal(7)))
        moved = await asyncio.gather(*(following(one) for one in listeners[::3]))
        assert {Decimal(93)} == {one.available for one in moved}
        assert len(looks) < 40
        assert max(looks) == 3
        for one in listeners:
            await one.aclose()  # type: ignore[attr-defined]
        assert 0 == desk.live.listeners
        await asyncio.sleep(3 * live_balance.POLL_SECONDS)
        before = len(looks)
        await asyncio.sleep(3 * live_balance.POLL_SECONDS)
        assert before == len(looks), "nobody listens, nobody looks"

    run(story())


def test_what_is_due_is_told_before_it_is_posted(desk: Desk) -> None:
    pool_id = desk.open("p", 100, expires_at=START + timedelta(hours=1))
    desk.ask(pool_id, Reserve(amount=Decimal(10), seconds=60))

    async def story() -> None:
        async with aclosing(desk.events(pool_id)) as events:  # type: ignore[type-var]
            first = await following(events)
            assert (90, 10, 100) == (first.available, first.held, first.capacity)
            desk.now += timedelta(minutes=2)
            back = await following(events)
            assert (100, 0, first.version) == (back.available, back.held, back.version)
            desk.now += timedelta(hours=1)
            assert 0 == (await following(events)).available

    run(story())


def test_the_next_change_is_told_of_a_pool_that_nobody_looked_at_since_the_last(desk: Desk) -> None:
    pool_id = desk.open("ends", 100, expires_at=START + timedelta(hours=1))
    desk.now += timedelta(hours=2)

    async def story() -> None:
        async with aclosing(desk.events(pool_id)) as events:
            told = await following(events)
            assert (Decimal(0), told.period.end) == (told.available, told.next_change_at)

    run(story())


def test_a_pool_that_units_flow_into_is_told_as_they_come(desk: Desk) -> None:
    refill = Refill(amount=Decimal(10), seconds=10, capacity=Decimal(50))
    pool_id = desk.open("p", 0, Policy(refill=refill))
    desk.ask(pool_id, Draw(amount=Decimal(50)))

    async def story() -> None:
        async with aclosing(desk.events(pool_id)) as events:  # type: ignore[type-var]
            first = await following(events)
            assert (0, 50) == (first.available, first.capacity)
            desk.now += timedelta(seconds=3)
            assert 3 == (await following(events)).available

    run(story())


def test_the_heartbeat_asks_whether_the_listener_still_may(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_balance, "HEARTBEAT_SECONDS", 0.1)
    pool_id = desk.open("p", 5)
    answers = [True, True, False]

    async def allowed() -> bool:
        return answers.pop(0)

    async def story() -> None:
        told = [event async for event in desk.events(pool_id, allowed)]
        assert [b"retry", b": still", b": still"] == [
            event[: len(want)]
            for event, want in zip(
                [one for one in told if not one.startswith(b"event")],
                (b"retry", b": still", b": still"),
                strict=True,
            )
        ]
        assert 1 == sum(one.startswith(b"event") for one in told)

    run(story())


def test_a_server_that_stops_ends_every_answer(desk: Desk) -> None:
    pool_id = desk.open("p", 5)

    async def story() -> None:
        events = desk.events(pool_id)
        await following(events)
        asyncio.get_running_loop().call_later(0.1, desk.live.close)
        assert [] == [event async for event in events]
        assert [b"retry"] == [event[:5] async for event in desk.events(pool_id)]

    run(story())


def test_a_look_that_fails_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_id = desk.open("p", 5)
    look, failed = LiveBalances._look, []

    def fail_first(self: LiveBalances, known: Any) -> Any:
        if len(failed) < 2:
            failed.append(known)
            raise OSError("no connection")
        return look(self, known)

    monkeypatch.setattr(LiveBalances, "_look", fail_first)

    async def story() -> None:
        async with aclosing(desk.events(pool_id)) as events:  # type: ignore[type-var]
            assert 5 == (await following(events)).available
        assert 2 == len(failed)

    run(story())


def test_more_listeners_than_a_server_can_have_are_refused(
    api: Any, anonymous: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.ok("PUT", "/v1/pools/p", {"unit": "token"})
    monkeypatch.setattr(live_balance, "LISTENERS_MAX", 0)
    assert (429, "overloaded") == api.code("GET", "/v1/pools/p/live")
