"""Folding: in steps of any size, by several at once, rollups hold each reading exactly once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.flows import bill as billing
from farebox.flows import fold_rollups as folding
from farebox.flows.fold_rollups import fold_rollups
from farebox.postgres import rollup
from farebox.postgres.session import transaction
from farebox.worker import fold as worker

METERS = (
    Meter(key="sums", event_type="call", aggregation=Aggregation.SUM, value="units"),
    Meter(key="users", event_type="call", aggregation=Aggregation.UNIQUE_COUNT, value="user"),
    Meter(key="level", event_type="call", aggregation=Aggregation.LATEST, value="units"),
)
TABLES = (
    "select series_id, bucket, count, total, minimum, maximum from rollup order by 1, 2",
    "select series_id, bucket, value, count from value_count order by 1, 2, 3",
    "select series_id, time, sequence, value from point order by 1, 2, 3",
)


def use(world: World, count: int) -> None:
    """Send events that meet in few buckets, on both sides of their edges."""
    world.publish(*METERS)
    start = at("2026-09-05 12:00")
    times = [start - timedelta(microseconds=1), start, start + timedelta(minutes=14, seconds=59)]
    world.send(
        *(
            world.event("call", times[n % 3], f"s{n % 2}", units=n - 3, user=f"u{n % 4}")
            for n in range(count)
        )
    )


def folded(world: World) -> list[list[tuple[Any, ...]]]:
    with transaction(world.pool, world.organization_id) as connection:
        found = [connection.execute(query.encode()).fetchall() for query in TABLES]
    # Ids of series differ from one organization to the other; their rows do not.
    return [sorted(row[1:] for row in rows) for rows in found]


@pytest.mark.parametrize("step", [1, 2, 7, 23, 24, 1000])
def test_steps_of_any_size_come_to_the_same(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    at_once, in_steps = new_world(), new_world()
    for world in (at_once, in_steps):
        use(world, 24)
    assert 24 == at_once.fold()
    monkeypatch.setattr(folding, "EVENTS_A_STEP", step)
    steps = []
    while taken := in_steps.fold():
        steps.append(taken)
    assert 24 == sum(steps)
    assert max(steps) <= step
    assert folded(at_once) == folded(in_steps)
    assert 0 == in_steps.fold()


def test_a_bucket_begins_with_its_first_instant(world: World) -> None:
    use(world, 3)
    world.fold()
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute(
            "select bucket, sum(count), sum(total) from rollup group by 1 order by 1"
        ).fetchall()
    assert [
        (at("2026-09-05 11:45"), 1, Decimal(-3)),
        (at("2026-09-05 12:00"), 2, Decimal(-3)),
    ] == found


def test_folding_stops_where_it_is_told(world: World) -> None:
    use(world, 10)
    assert [4, 0, 6] == [world.fold(up_to=4), world.fold(up_to=4), world.fold(up_to=100)]


def test_many_folders_take_each_event_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use(world, 200)
    monkeypatch.setattr(folding, "EVENTS_A_STEP", 3)
    barrier = threading.Barrier(4)

    def run(_: int) -> int:
        barrier.wait()
        total = idle = 0
        while idle < 3:
            taken = fold_rollups(world.pool, world.organization_id, world.now)
            total, idle = total + taken, 0 if taken else idle + 1
        return total

    with ThreadPoolExecutor(4) as threads:
        total = sum(threads.map(run, range(4)))
    total += sum(iter(world.fold, 0))
    assert 200 == total
    with transaction(world.pool, world.organization_id) as connection:
        counted = connection.execute("select sum(count), sum(total) from rollup").fetchone()
    assert (200, sum(n - 3 for n in range(200))) == counted


def test_a_step_that_fails_is_done_again_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(world, 10)
    fold = rollup.fold

    def fold_then_die(*arguments: Any) -> None:
        fold(*arguments)
        raise psycopg.OperationalError("killed before the commit")

    with monkeypatch.context() as patched:
        patched.setattr(rollup, "fold", fold_then_die)
        with pytest.raises(psycopg.OperationalError):
            world.fold()
    assert [[], [], []] == folded(world)
    assert 10 == world.fold()
    assert 10 == sum(row[1] for row in folded(world)[0])


def test_a_billing_run_waits_for_who_is_folding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(world, 10)
    fold, started, go_on = rollup.fold, threading.Event(), threading.Event()

    def fold_slowly(*arguments: Any) -> None:
        started.set()
        assert go_on.wait(10)
        fold(*arguments)

    monkeypatch.setattr(rollup, "fold", fold_slowly)
    with ThreadPoolExecutor(2) as threads:
        folds = threads.submit(world.fold)
        assert started.wait(10)
        reaches = threads.submit(billing.reach, world.pool, world.organization_id, 10, world.clock)
        assert not reaches.done()
        go_on.set()
        assert 10 == folds.result()
        reaches.result()
    assert 0 == world.fold()


def test_one_organization_that_cannot_be_folded_does_not_stop_the_others(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = sorted((new_world(), new_world()), key=lambda one: str(one.organization_id))
    for world in (broken, sound):
        use(world, 5)
    fold = rollup.fold

    def fail_on_broken(connection: Any, organization_id: Any, *arguments: Any) -> None:
        if organization_id == broken.organization_id:
            raise psycopg.DataError("numeric field overflow")
        fold(connection, organization_id, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(rollup, "fold", fail_on_broken)
        patched.setattr(
            rollup,
            "organizations_to_fold",
            lambda _: [broken.organization_id, sound.organization_id],
        )
        assert 5 == worker.fold_all(sound.pool, sound.clock)
    assert (5, 0) == (broken.fold(), sound.fold())


def test_the_organizations_behind_are_found(new_world: Callable[[], World]) -> None:
    behind, level = new_world(), new_world()
    for world in (behind, level):
        use(world, 1)
    level.fold()
    with behind.pool.connection() as connection:
        found = set(rollup.organizations_to_fold(connection))
    assert behind.organization_id in found
    assert level.organization_id not in found
