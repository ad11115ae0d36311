"""Who asks a decider in tests of the intake: of pools of 100 units, and of an empty one."""

import asyncio
import time
from collections.abc import Awaitable
from decimal import Decimal
from typing import Any, TypeVar

import psycopg
import pytest
from farebox_pools import Pools, digest

from farebox.flows.decide_pools import Asked, Outcome, Round
from farebox.intake.authorize import Decider
from farebox.intake.intake import Intake
from farebox.ledger.command import Command, Draw, Reserve
from farebox.postgres.posting import Posted

Result = TypeVar("Result")


def run(intake: Intake, story: Awaitable[Result]) -> Result:
    """Let the story happen on an event loop on which the intake is opened."""

    async def opened() -> Result:
        async with intake.opened():
            return await asyncio.wait_for(story, 30)

    return asyncio.run(opened())


class Desk:
    """Asks one decider about the pools of a world."""

    def __init__(self, pools: Pools, decider: Decider) -> None:
        self._pools, self._decider = pools, decider

    async def ask(self, pool: str, *commands: Command) -> list[Outcome]:
        asked = [Asked(self._pools.ids[pool], command) for command in commands]
        return await self._decider.decide(asked)

    async def one(self, pool: str, command: Command) -> Outcome:
        return (await self.ask(pool, command))[0]


def draw(amount: object = 1, key: str | None = None, **fields: Any) -> Draw:
    return Draw(amount=Decimal(str(amount)), key=key, digest=digest(amount, key), **fields)


def hold(amount: object = 1, key: str | None = None) -> Reserve:
    return Reserve(amount=Decimal(str(amount)), key=key, digest=digest("hold", amount, key))


def versions(pools: Pools, pool: str = "pool") -> int:
    """Return how many commits a pool has seen."""
    return int(pools.rows("select version from pool where pool_id = %s", pools.ids[pool])[0][0])


def drawn(pools: Pools) -> Decimal:
    return Decimal(pools.rows("select sum(used) from pool")[0][0])


class Gate:
    """Holds the decider's commits until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()
        post = Decider._post

        async def wait_then_post(decider: Decider, decided: Round) -> Posted:
            self.entered.set()
            await self.open.wait()
            return await post(decider, decided)

        monkeypatch.setattr(Decider, "_post", wait_then_post)


def cut_who_waits(superuser_url: str, function: str) -> None:
    """Cut the connections that wait for a lock in a function, as soon as there is one."""
    with psycopg.connect(superuser_url, autocommit=True) as killer:
        for _ in range(1000):
            cut = killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where wait_event_type = 'Lock' and query like %s",
                (f"%{function}%",),
            ).fetchall()
            if cut:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")
