"""Appending side by side: what two connections, two organizations and the catalog do to each other.

Every test runs with the look for known keys before the insertion, and without it.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from farebox_world import World, at
from psycopg import errors

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.flows.ingest import Ingested, StaleCatalog, ingest_in
from farebox.postgres import stream
from farebox.postgres.event_row import Prepared
from farebox.postgres.session import transaction

NOON = at("2026-09-05 12:00")
CALLS = Meter(
    key="calls",
    event_type="call",
    aggregation=Aggregation.SUM,
    value="units",
    dimensions={"model": "$.model"},
)
ACCEPTED, DUPLICATE, CONFLICT = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT

pytestmark = pytest.mark.parametrize("may_know", [True, False])


def call(identifier: object, units: int = 1, model: str = "m") -> Event:
    data: Any = {"units": units, "model": model}
    return Event(id=str(identifier), source="test", type="call", subject="a", time=NOON, data=data)


@pytest.fixture
def worlds(new_world: Callable[[], World]) -> tuple[World, World]:
    """Return two worlds with the same meter."""
    found = new_world(), new_world()
    for world in found:
        world.publish(CALLS)
    return found


@pytest.fixture
def side() -> Iterator[ThreadPoolExecutor]:
    """Return a thread for what happens meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def ids(world: World) -> list[str]:
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute("select id from event order by sequence").fetchall()
    return [row[0] for row in found]


def append(
    connection: psycopg.Connection,
    world: World,
    events: tuple[list[Prepared], int],
    may_know: bool,
) -> Ingested:
    batch, revision = events
    return ingest_in(
        connection, world.organization_id, batch, revision, NOON, set(), may_know=may_know
    )


def wait_until_blocked(superuser_url: str) -> None:
    """Return when some call of append_events waits for a lock."""
    with psycopg.connect(superuser_url, autocommit=True) as watcher:
        for _ in range(1000):
            row = watcher.execute(
                "select count(*) from pg_stat_activity"
                " where wait_event_type = 'Lock' and query like '%append_events%'"
            ).fetchone()
            if row != (0,):
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_a_call_by_itself_is_bound_to_its_organization_and_then_to_none(
    world: World, may_know: bool
) -> None:
    world.publish(CALLS)
    events = world.prepare(call(1))
    with world.pool.connection() as connection:
        assert [ACCEPTED] == append(connection, world, events, may_know).outcomes
        bound_to = connection.execute("select current_organization()").fetchone()
        assert (None,) == bound_to
        assert [] == connection.execute("select from event").fetchall()
    assert ["1"] == ids(world)


def test_a_call_binds_the_transaction_around_it_to_the_organization_it_names(
    worlds: tuple[World, World], may_know: bool
) -> None:
    """What is named by the call is written, and nothing of the other organization, ever."""
    one, two = worlds
    with transaction(one.pool, one.organization_id) as connection:
        append(connection, one, one.prepare(call(1)), may_know)
        ingested = append(connection, two, two.prepare(call(1), call(2)), may_know)
        assert ([ACCEPTED, ACCEPTED], 1) == (ingested.outcomes, ingested.first_sequence)
        seen = connection.execute("select distinct organization_id from event").fetchall()
        assert [(two.organization_id,)] == seen
        changed = connection.execute(
            "update stream_head set last_sequence = 99 where organization_id = %s",
            (one.organization_id,),
        )
        assert 0 == changed.rowcount
    assert (["1"], ["1", "2"]) == (ids(one), ids(two))


def test_a_call_that_fails_unbinds_what_it_bound(
    worlds: tuple[World, World], may_know: bool
) -> None:
    one, two = worlds
    (event,), revision = two.prepare(call(1))
    row: Any = (*event.row[:-1], "{")
    broken = [Prepared(row, event.kind, event.series, event.unread)], revision
    with transaction(one.pool, one.organization_id) as connection:
        with pytest.raises(errors.InvalidTextRepresentation), connection.transaction():
            append(connection, two, broken, may_know)
        bound_to = connection.execute("select current_organization()").fetchone()
        assert (one.organization_id,) == bound_to
        append(connection, one, one.prepare(call(1)), may_know)
    assert (["1"], []) == (ids(one), ids(two))


def test_whoever_comes_second_waits_and_knows_what_the_first_committed(
    world: World, superuser_url: str, side: ThreadPoolExecutor, may_know: bool
) -> None:
    world.publish(CALLS)
    first = world.prepare(call(1), call(2), call(3))
    second = world.prepare(call(0), call(1), call(2, units=9), call(4), call(3), call(5))
    with transaction(world.pool, world.organization_id) as connection:
        append(connection, world, first, may_know)
        later: Future[Ingested] = side.submit(world.ingest, *second, may_know=may_know)
        wait_until_blocked(superuser_url)
        assert not later.done()
    found = later.result()
    expected = [ACCEPTED, DUPLICATE, CONFLICT, ACCEPTED, DUPLICATE, ACCEPTED]
    assert (expected, 4, 3) == (found.outcomes, found.first_sequence, found.appended)
    assert ["1", "2", "3", "0", "4", "5"] == ids(world)


def test_what_the_first_takes_back_was_never_there(
    world: World, superuser_url: str, side: ThreadPoolExecutor, may_know: bool
) -> None:
    class Stop(Exception):
        pass

    world.publish(CALLS)
    events = world.prepare(call(1, model="a"), call(2, model="b"))
    laters: list[Future[Ingested]] = []

    def append_and_stop() -> None:
        with transaction(world.pool, world.organization_id) as connection:
            append(connection, world, events, may_know)
            laters.append(side.submit(world.ingest, *events, may_know=may_know))
            wait_until_blocked(superuser_url)
            raise Stop

    with pytest.raises(Stop):
        append_and_stop()
    found = laters[0].result()
    assert ([ACCEPTED, ACCEPTED], 1, 2) == (found.outcomes, found.first_sequence, found.appended)
    assert 2 == len(found.series)
    assert ["1", "2"] == ids(world)


def test_organizations_do_not_wait_for_each_other(
    worlds: tuple[World, World], side: ThreadPoolExecutor, may_know: bool
) -> None:
    one, two = worlds
    events = two.prepare(call(1))
    with transaction(one.pool, one.organization_id) as connection:
        append(connection, one, one.prepare(call(1)), may_know)
        later: Future[Ingested] = side.submit(two.ingest, *events, may_know=may_know)
        assert [ACCEPTED] == later.result(timeout=10).outcomes
        assert ["1"] == ids(two)
    assert ["1"] == ids(one)


@pytest.mark.parametrize("kept", [True, False])
def test_a_catalog_about_to_change_is_waited_for(
    world: World, superuser_url: str, side: ThreadPoolExecutor, kept: bool, may_know: bool
) -> None:
    """A revision that comes into force makes the events stale; one that does not, does not."""
    world.publish(CALLS)
    events = world.prepare(call(1))
    with world.pool.connection() as connection:
        connection.execute(
            f"begin; set local farebox.organization = '{world.organization_id}'".encode()
        )
        stream.raise_catalog_revision(connection, world.organization_id)
        later: Future[Ingested] = side.submit(world.ingest, *events, may_know=may_know)
        wait_until_blocked(superuser_url)
        connection.execute("commit" if kept else "rollback")
    if kept:
        with pytest.raises(StaleCatalog):
            later.result()
        assert [] == ids(world)
    else:
        assert [ACCEPTED] == later.result().outcomes
        assert ["1"] == ids(world)
