"""One process of a race for pools: it asks, and writes down what it was told.

    python pool_racer.py '{"url": ..., "organization": ..., "pools": {...}, "kind": "intake", ...}'

It waits for a line on its standard input, so that all begin together. What is asked under a number
follows from the number alone; so every process asks the same under the same key.
"""

import asyncio
import importlib.util
import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from farebox.flows.decide_pools import Asked, Outcome
from farebox.intake.intake import Intake
from farebox.ledger.command import Answer, Command, Draw, Extend, Release, Reserve, Settle
from farebox.ledger.policy import Policy
from farebox.postgres.session import open_pool

_spec = importlib.util.spec_from_file_location(
    "farebox_pools", Path(__file__).with_name("pools.py")
)
assert _spec is not None
assert _spec.loader is not None
sys.modules["farebox_pools"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["farebox_pools"])

from farebox_pools import Pools, WasRefused, digest, told  # noqa: E402


class LivePools(Pools):
    """Pools whose clock is the real one."""

    def __init__(self, race: dict[str, Any]) -> None:
        pool = open_pool(race["url"], size=4)
        super().__init__(pool, UUID(race["organization"]), datetime.now(UTC))
        self.ids = {key: UUID(text) for key, text in race["pools"].items()}

    def clock(self) -> datetime:
        self.now = datetime.now(UTC)
        return self.now


class Racer:
    """Asks for what its numbers say, in an order of its own, each thing twice."""

    def __init__(self, race: dict[str, Any]) -> None:
        self.race = race
        self.rng = random.Random(f"{race['seed']}/{race['name']}")
        self.pools = LivePools(race)
        self.told: list[dict[str, Any]] = []

    def numbers(self) -> list[int]:
        """Return all numbers twice, near to where the other processes are."""
        found = [*range(self.race["numbers"])] * 2
        found.sort(key=lambda number: number + self.rng.random() * 40)
        return found

    def note(self, key: str, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            what = {name: plain(value) for name, value in told(outcome).items()}
            self.told.append({"key": key, "answer": what, "fresh": not outcome.repeated})
        else:
            self.told.append({"key": key, "refused": outcome.code})

    def story(self, number: int) -> "Story":
        return Story(self.race["seed"], number, list(self.pools.ids))


class Story:
    """What is done under a number: a draw, or a hold and what becomes of it."""

    def __init__(self, seed: int, number: int, pools: list[str]) -> None:
        self.rng = random.Random(f"{seed}/{number}")
        self.number = number
        self.pool = self.rng.choice(pools)
        self.amount = Decimal(self.rng.randrange(1, 400)).scaleb(-2)
        self.subject = self.rng.choice((None, "ann", "bob"))
        self.held = self.rng.random() < 0.4

    def first(self) -> tuple[str, Command]:
        key = f"first/{self.number}"
        fields = {"key": key, "digest": digest(key), "subject": self.subject}
        if not self.held:
            return key, Draw(amount=self.amount, **fields)
        seconds = self.rng.choice((1, 60))
        return key, Reserve(amount=self.amount, seconds=seconds, **fields)

    def then(self, hold: int) -> Iterator[tuple[str, Command]]:
        key = f"more/{self.number}"
        if self.rng.random() < 0.3:
            amount = Decimal(self.rng.randrange(1, 100)).scaleb(-2)
            yield key, Extend(hold=hold, amount=amount, key=key, digest=digest(key, amount))
        key = f"last/{self.number}"
        if self.rng.random() < 0.2:
            yield key, Release(hold=hold, key=key, digest=digest(key, "release"))
        else:
            used = self.amount * self.rng.randrange(0, 5) / 4
            yield key, Settle(hold=hold, amount=used, key=key, digest=digest(key, used))


class SyncRacer(Racer):
    """Decides with the pools locked."""

    def run(self) -> None:
        for number in self.numbers():
            story = self.story(number)
            answer = self.ask(story.pool, *story.first())
            if story.held and isinstance(answer, Answer) and answer.hold is not None:
                for key, command in story.then(answer.hold):
                    self.ask(story.pool, key, command)

    def ask(self, pool: str, key: str, command: Command) -> Outcome:
        self.pools.clock()
        outcome = self.pools.ask(pool, command)
        self.note(key, outcome)
        return outcome


class IntakeRacer(Racer):
    """Decides on books in memory, for many clients at once."""

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        intake = Intake(self.pools.pool, self.race["url"], self.pools.clock)
        async with intake.opened():
            self.decider = intake.decider(self.pools.organization_id)
            waiting = iter(self.numbers())
            await asyncio.gather(*(self._client(waiting) for _ in range(16)))

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            story = self.story(number)
            answer = await self._ask(story.pool, *story.first())
            if story.held and isinstance(answer, Answer) and answer.hold is not None:
                for key, command in story.then(answer.hold):
                    await self._ask(story.pool, key, command)

    async def _ask(self, pool: str, key: str, command: Command) -> Outcome:
        outcome = (await self.decider.decide([Asked(self.pools.ids[pool], command)]))[0]
        self.note(key, outcome)
        return outcome


class OperatorRacer(Racer):
    """Grants, takes back, moves and changes policies, until its numbers are done."""

    def run(self) -> None:
        keys = list(self.pools.ids)
        for number in range(self.race["numbers"]):
            self.pools.clock()
            pool = self.rng.choice(keys)
            match self.rng.randrange(5):
                case 0 | 1:
                    self._grant(number)
                case 2:
                    other = self.rng.choice([key for key in keys if key != pool])
                    self._move(pool, other)
                case 3 if pool in self.race["policies"]:
                    text = self.rng.choice(self.race["policies"][pool])
                    self.pools.put(pool, msgspec.json.decode(text, type=Policy))
                case _:
                    self._take_back(pool)

    def _grant(self, number: int) -> None:
        """Grant under a key that every operator uses."""
        rng = random.Random(f"{self.race['seed']}/grant/{number}")
        key, amount = f"grant/{number}", Decimal(rng.randrange(1, 500)).scaleb(-2)
        pool = rng.choice(list(self.pools.ids))
        # Where it was taken back since, it is no longer as it is asked for.
        with suppress(WasRefused):
            grant = self.pools.grant(pool, amount, key=key)
            self.told.append({"key": key, "grant": grant.number, "amount": str(amount)})

    def _move(self, giving: str, taking: str) -> None:
        try:
            answer = self.pools.move(giving, taking, "0.75")
        except WasRefused:
            return  # there was not so much
        self.told.append({"key": "move", "amount": str(answer.amount)})

    def _take_back(self, pool: str) -> None:
        """Take one of the smaller grants back; what is held of it goes when it comes back."""
        found = [one for one in self.pools.book(pool).grants.values() if one.key is not None]
        if found:
            one = min(found, key=lambda grant: grant.amount)
            with suppress(WasRefused):  # somebody else was first
                self.pools.change(pool, one, self.rng.choice(("void", "expire")))


class RateRacer(Racer):
    """Draws as fast as it can for some seconds; tells how often, and the longest wait."""

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        intake = Intake(self.pools.pool, self.race["url"], self.pools.clock)
        async with intake.opened():
            decider = intake.decider(self.pools.organization_id)
            pool_id = self.pools.ids["hot"]
            end, waits = time.monotonic() + self.race["seconds"], [0.0]

            async def client() -> None:
                while (start := time.monotonic()) < end:
                    await decider.decide([Asked(pool_id, Draw(amount=Decimal(1)))])
                    waits.append(time.monotonic() - start)

            await asyncio.gather(*(client() for _ in range(self.race["clients"])))
        self.told.append({"draws": len(waits) - 1, "longest": max(waits)})


def plain(value: object) -> object:
    """Return a value as JSON has it; the zeros at the end of a number say nothing."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value if isinstance(value, int | None) else str(value)


KINDS = {
    "sync": SyncRacer,
    "intake": IntakeRacer,
    "operator": OperatorRacer,
    "rate": RateRacer,
}


def main() -> None:
    race = json.loads(sys.argv[1])
    racer = KINDS[race["kind"]](race)
    print("ready", flush=True)
    sys.stdin.readline()
    racer.run()
    racer.pools.pool.close()
    Path(race["told"]).write_text("\n".join(json.dumps(one) for one in racer.told))


if __name__ == "__main__":
    main()
