"""Following pools: each entry counts once and what is due is posted, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from farebox_world import World, at

from farebox.flows import follow_pools as flow
from farebox.flows.follow_pools import TOUCHES_A_STEP, follow_pools, settle_pool
from farebox.ledger.command import Reserve
from farebox.postgres import pool_due, pool_usage
from farebox.postgres.pool_usage import Used, fold_use, total_use
from farebox.postgres.session import Pool, transaction, unbound
from farebox.worker import follow_pools as worker
from farebox.worker.follow_pools import follow_all


@pytest.fixture(autouse=True)
def fold_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_usage, "FOLD_AT", 1)


def used(world: World, pool_id: UUID) -> Used:
    with transaction(world.pool, world.organization_id) as connection:
        return total_use(
            connection, world.organization_id, pool_id, at("2026-01-01"), at("2027-01-01")
        )


def entries(world: World, pool_id: UUID) -> list[tuple[str, str, datetime]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute(
            "select source, target, time from transfer where pool_id = %s", (pool_id,)
        ).fetchall()


def test_a_follower_that_dies_counts_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after each of its statements, in every order of who follows."""
    pool_id = world.pool_of("p")
    world.grant(pool_id, 1000)
    for step in ("fold_use", "drop_touched", "lock_touched", None):
        world.draw(pool_id, 10, subject="ann")
        if step is not None:
            original = getattr(flow, step)

            def broken(*args: Any, _original: Any = original) -> None:
                _original(*args)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(flow, step, broken)
                with pytest.raises(KeyboardInterrupt):
                    follow_pools(world.pool, world.organization_id, world.now)
        before = used(world, pool_id)
        follow_pools(world.pool, world.organization_id, world.now)
        assert before == used(world, pool_id)
    assert (40, 40, 0, 4) == (before.used, before.covered, before.beyond, before.operations)
    assert 0 == follow_pools(world.pool, world.organization_id, world.now)


def test_a_killed_process_that_follows_changes_nothing(world: World, runtime_url: str) -> None:
    """Two processes follow while units are drawn, and are killed again and again."""
    pool_ids = [world.pool_of(key) for key in "ab"]
    for pool_id in pool_ids:
        world.grant(pool_id, 100_000)
    process = Path(__file__).with_name("follow_process.py")
    command = [sys.executable, str(process), runtime_url, str(world.organization_id)]
    random, running = Random(3), [subprocess.Popen(command) for _ in range(2)]
    ends = time.monotonic() + 6
    drawn = dict.fromkeys(pool_ids, 0)
    try:
        while time.monotonic() < ends:
            for _ in range(20):
                pool_id = random.choice(pool_ids)
                world.now += timedelta(minutes=1)
                world.draw(pool_id, 1, subject=random.choice("xyz"))
                drawn[pool_id] += 1
            victim = random.randrange(2)
            if random.random() < 0.3:
                os.kill(running[victim].pid, signal.SIGKILL)
                running[victim].wait()
                running[victim] = subprocess.Popen(command)
    finally:
        for one in running:
            one.kill()
            one.wait()
    for pool_id in pool_ids:
        assert drawn[pool_id] == used(world, pool_id).used
    while follow_pools(world.pool, world.organization_id, world.now):
        pass
    for pool_id in pool_ids:
        use = used(world, pool_id)
        assert drawn[pool_id] == use.used == use.operations


def test_a_follower_that_fails_is_asked_again_and_the_sums_are_kept(world: World) -> None:
    pool_id = world.pool_of("p")
    world.grant(pool_id, 100)
    world.draw(pool_id, 5)
    heard: list[list[UUID]] = []

    def hear(_: Pool, __: UUID, pool_ids: Any, ___: datetime) -> None:
        heard.append(list(pool_ids))
        if len(heard) == 1:
            raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        follow_pools(world.pool, world.organization_id, world.now, [hear])
    assert 5 == folded(world, pool_id)
    assert 1 == follow_pools(world.pool, world.organization_id, world.now, [hear])
    assert [[pool_id], [pool_id]] == heard
    assert 5 == folded(world, pool_id)


def test_pools_that_two_follow_at_once_are_taken_by_one(world: World) -> None:
    pool_id = world.pool_of("p")
    world.grant(pool_id, 100)
    with transaction(world.pool, world.organization_id) as connection:
        assert pool_due.lock_touched(connection, world.organization_id, TOUCHES_A_STEP).rows
        assert 0 == follow_pools(world.pool, world.organization_id, world.now)
    assert 1 == follow_pools(world.pool, world.organization_id, world.now)


def test_two_who_follow_one_pool_count_each_entry_once(world: World) -> None:
    """Each has taken another row of the outbox, and both name the same pool."""
    pool_id = world.pool_of("p")
    world.grant(pool_id, 100)
    world.draw(pool_id, 5)
    with transaction(world.pool, world.organization_id) as connection:
        assert pool_due.lock_touched(connection, world.organization_id, TOUCHES_A_STEP).rows
        world.draw(pool_id, 2)
        fold_use(connection, world.organization_id, [pool_id])
        with ThreadPoolExecutor(1) as thread:
            other = thread.submit(follow_pools, world.pool, world.organization_id, world.now)
            with pytest.raises(TimeoutError):
                other.result(0.5)  # it waits for what the first one says of the pool
            connection.execute("commit; begin")
            assert 1 == other.result(10)
    assert 7 == folded(world, pool_id)
    assert 7 == used(world, pool_id).used


def folded(world: World, pool_id: UUID) -> int:
    with transaction(world.pool, world.organization_id) as connection:
        row = connection.execute(
            "select coalesce(sum(used), 0) from pool_usage where pool_id = %s", (pool_id,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_few_entries_are_not_added_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_usage, "FOLD_AT", 4)
    pool_id = world.pool_of("p")
    world.grant(pool_id, 100)
    world.draw(pool_id, 5)
    world.draw(pool_id, 6)
    follow_pools(world.pool, world.organization_id, world.now)
    assert folded(world, pool_id) == 0
    assert Decimal(11) == used(world, pool_id).used
    world.draw(pool_id, 7)
    follow_pools(world.pool, world.organization_id, world.now)
    assert folded(world, pool_id) == 18
    assert Decimal(18) == used(world, pool_id).used


def test_what_is_due_is_posted_where_nobody_asks(world: World) -> None:
    pool_id = world.pool_of("p")
    world.grant(pool_id, 100, expires_at=at("2026-10-04"))
    world.ask(pool_id, Reserve(amount=Decimal(10), seconds=60))
    world.now = at("2026-10-05")
    assert settle_pool(world.pool, world.organization_id, pool_id, world.now)
    assert not settle_pool(world.pool, world.organization_id, pool_id, world.now)
    rows = entries(world, pool_id)
    assert ("held", "grant", at("2026-10-02 12:01")) in rows
    ends = [row[2] for row in rows if row[1] == "expired"]
    assert [at("2026-10-04")] == ends


def test_a_pass_settles_and_follows_and_goes_on_where_one_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_id = world.pool_of("p")
    world.grant(pool_id, 100, expires_at=at("2026-10-04"))
    world.now = at("2026-10-05")
    tried: list[UUID] = []

    def fail_first(pool: Pool, organization_id: UUID, due: UUID, now: datetime) -> bool:
        tried.append(due)
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(worker, "settle_pool", fail_first)
        follow_all(world.pool, world.clock)
    assert pool_id in tried
    while follow_all(world.pool, world.clock):
        pass
    assert any(row[1] == "expired" for row in entries(world, pool_id))
    with unbound(world.pool) as connection:
        assert world.organization_id not in pool_due.touched_organizations(connection)
