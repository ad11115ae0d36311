"""Every crossing is told once: whenever it is looked, however many look, whoever is killed.

A pool takes a random walk. An oracle that sees every balance counts the crossings.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from farebox_alerts import Watched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.alerts.rule import AlertKind
from farebox.flows.watch_pools import watch_all, watch_pools
from farebox.ledger.account import Account
from farebox.ledger.command import Draw, Release, Reserve, Settle

LOW, BACK = 40, 60
WATCHERS = 3
FIRED, CLEARED = "alert.fired", "alert.cleared"


class Counter:
    """The oracle: what a rule does that sees every number, one after another."""

    def __init__(self, fires: Callable[[Any], bool], clears: Callable[[Any], bool]) -> None:
        self.fires, self.clears = fires, clears
        self.told: list[str] = []

    def see(self, value: Any) -> None:
        firing = bool(self.told) and self.told[-1] == FIRED
        if not firing and self.fires(value):
            self.told.append(FIRED)
        elif firing and self.clears(value):
            self.told.append(CLEARED)


class Walk:
    """A pool that goes up and down, with what an independent bookkeeping says of it."""

    def __init__(self, watched: Watched) -> None:
        self.watched, self.pools = watched, watched.pools
        self.holds: list[tuple[int, int]] = []
        self.granted = self.used = 0
        self.pools.put("walked")
        self.grant(100)
        self.watched.look()
        self.balance = Counter(lambda value: value < LOW, lambda value: value >= BACK)
        self.share = Counter(lambda value: value >= 80, lambda value: value < 70)
        watched.rule("low", AlertKind.BALANCE_BELOW, LOW, clear_at=Decimal(BACK))
        watched.rule("used", AlertKind.SHARE_USED_ABOVE, 80, clear_at=Decimal(70))
        self.watched.look()
        self.watched.told()

    @property
    def left(self) -> int:
        return self.granted - self.used

    def grant(self, units: int) -> None:
        self.pools.grant("walked", units)
        self.granted += units

    def step(self, verb: str, units: int) -> None:
        """Do something to the pool; what it cannot give is refused and changes nothing."""
        self.pools.later(seconds=1)
        match verb:
            case "grant":
                self.grant(units)
            case "draw":
                self.pools.ask("walked", Draw(amount=Decimal(units)))
                self.used += units if units <= self.left else 0
            case "hold":
                answer = self.pools.ask("walked", Reserve(amount=Decimal(units), seconds=86_400))
                if units <= self.left:
                    self.used += units
                    self.holds.append((answer.hold, units))
            case "settle" if self.holds:
                number, held = self.holds.pop()
                taken = min(units, held)
                self.pools.ask("walked", Settle(hold=number, amount=Decimal(taken)))
                self.used -= held - taken
            case "release" if self.holds:
                number, held = self.holds.pop()
                self.pools.ask("walked", Release(hold=number))
                self.used -= held
        self.balance.see(self.left)

    def seen(self) -> None:
        """Let the oracle of the share know that somebody looks: it sees levels, not the way."""
        self.share.see(Fraction(100 * self.used, self.granted))

    def check(self) -> None:
        by_rule: dict[str, list[str]] = {"low": [], "used": []}
        for kind, data in self.watched.notices():
            if kind in (FIRED, CLEARED):
                by_rule[data["rule"]].append(kind)
        assert {"low": self.balance.told, "used": self.share.told} == by_rule
        for key, told in by_rule.items():
            alerts = self.watched.alerts(rule_key=key)
            assert told.count(FIRED) == len(alerts)
            assert told.count(CLEARED) == len([one for one in alerts if one.cleared_at])
        assert self.left == self.pools.book("walked").pool.balances[Account.GRANT]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("draw", "grant", "hold", "settle")), st.integers(1, 60)),
        st.sampled_from((("release", 0), ("look", 0), ("look", 0))),
    ),
    max_size=25,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_as_many_are_told_as_an_oracle_counts_whenever_several_look(
    new_watched: Callable[[], Watched], steps: list[tuple[str, int]]
) -> None:
    walk = Walk(new_watched())
    with ThreadPoolExecutor(WATCHERS) as watchers:
        for verb, units in [*steps, ("look", 0)]:
            if verb == "look":
                list(watchers.map(lambda _: walk.watched.look("walked"), range(WATCHERS)))
                walk.seen()
            else:
                walk.step(verb, units)
    walk.check()


def walk_on(walk: Walk, drawn: random.Random, steps: int) -> None:
    verbs = ("draw", "draw", "grant", "hold", "settle", "release")
    for _ in range(steps):
        # The share is looked at while it changes, which no oracle can know; keep it far below.
        if walk.left < 10:
            walk.step("grant", 100)
        walk.step(drawn.choice(verbs), drawn.randrange(1, 70))


@contextmanager
def watching(walk: Walk) -> Iterator[None]:
    """Let several look all the time while the block runs."""
    over = threading.Event()
    pools = walk.pools

    def watch() -> None:
        while not over.is_set():
            watch_pools(pools.pool, pools.organization_id, [pools.ids["walked"]], pools.now)
            watch_all(pools.pool, pools.organization_id, pools.now)

    with ThreadPoolExecutor(WATCHERS) as watchers:
        running = [watchers.submit(watch) for _ in range(WATCHERS)]
        try:
            yield
        finally:
            over.set()
        for one in running:
            one.result()


def without_share(watched: Watched) -> Walk:
    walk = Walk(watched)
    watched.delete("used")
    watched.told()
    return walk


@pytest.mark.parametrize("seed", range(3))
def test_crossings_are_told_once_while_several_look_all_the_time(
    watched: Watched, seed: int
) -> None:
    walk = without_share(watched)
    with watching(walk):
        walk_on(walk, random.Random(seed), 150)
    watched.look()
    assert walk.balance.told
    walk.check()


LOOKER = """
import sys
from datetime import datetime
from uuid import UUID
from farebox.flows.watch_pools import watch_pools
from farebox.postgres.session import open_pool

url, organization_id, pool_id, now = sys.argv[1:]
pool = open_pool(url, size=1)
print("ready", flush=True)
while True:
    watch_pools(pool, UUID(organization_id), [UUID(pool_id)], datetime.fromisoformat(now))
"""


@pytest.mark.faults
def test_crossings_are_told_once_whoever_is_killed(watched: Watched, runtime_url: str) -> None:
    walk, drawn = without_share(watched), random.Random(7)
    pools = walk.pools
    arguments = [runtime_url, pools.organization_id, pools.ids["walked"], pools.now.isoformat()]
    for _ in range(6):
        looker = subprocess.Popen(
            [sys.executable, "-c", LOOKER, *map(str, arguments)], stdout=subprocess.PIPE
        )
        assert looker.stdout is not None
        try:
            assert b"ready\n" == looker.stdout.readline()
            walk_on(walk, drawn, 15)
            time.sleep(drawn.random() / 50)
        finally:
            looker.send_signal(signal.SIGKILL)
            looker.wait()
            looker.stdout.close()
        walk_on(walk, drawn, 5)
    watched.look()
    assert walk.balance.told
    walk.check()
