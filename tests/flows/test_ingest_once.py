"""An event counts once: sent again, read by an older catalog, sent from many sides at once."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.flows.ingest import StaleCatalog
from farebox.postgres.session import Pool, open_pool, transaction

NOON = at("2026-09-05 12:00")
CALLS = Meter(
    key="calls",
    event_type="call",
    aggregation=Aggregation.SUM,
    value="units",
    dimensions={"model": "$.model"},
)
ACCEPTED, DUPLICATE, CONFLICT = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT


def call(identifier: object, units: int = 1, model: str = "m", kind: str = "call") -> Event:
    return Event(
        id=str(identifier),
        source="test",
        type=kind,
        subject="acme",
        time=NOON,
        data={"units": units, "model": model},
    )


def rows(world: World, query: str) -> list[tuple[Any, ...]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute(query).fetchall()


def sequences(world: World) -> list[int]:
    return [row[0] for row in rows(world, "select sequence from event order by sequence")]


def take(world: World, *events: Event, known: set[str] | None = None) -> list[Outcome]:
    return world.ingest(*world.prepare(*events), known=known).outcomes


def test_every_event_of_a_batch_gets_its_own_answer(world: World) -> None:
    world.publish(CALLS)
    assert [ACCEPTED, ACCEPTED] == take(world, call(1), call(2))
    assert [DUPLICATE, CONFLICT, ACCEPTED, DUPLICATE, CONFLICT, ACCEPTED] == take(
        world, call(1), call(2, units=9), call(3), call(3), call(3, units=9), call(4)
    )
    assert [1, 2, 3, 4] == sequences(world)
    assert [("1",), ("2",), ("3",), ("4",)] == rows(world, "select id from event order by sequence")
    assert [(1, 1), (2, 2), (3, 3), (4, 4)] == rows(
        world,
        "select e.sequence, k.sequence from event e"
        " join event_key k using (organization_id, sequence) order by 1",
    )


def test_a_batch_of_duplicates_appends_nothing(world: World) -> None:
    world.publish(CALLS)
    take(world, call(1))
    before = rows(world, "select last_sequence, ctid from stream_head")
    assert [DUPLICATE, DUPLICATE] == take(world, call(1), call(1))
    assert [1] == sequences(world)
    # Not even the head is written anew: whoever sends again for ever leaves no dead rows.
    assert before == rows(world, "select last_sequence, ctid from stream_head")
    assert 1 == before[0][0]


def test_two_organizations_may_have_the_same_event(new_world: Callable[[], World]) -> None:
    one, two = new_world(), new_world()
    for world in (one, two):
        world.publish(CALLS)
        assert [ACCEPTED] == take(world, call(1))
        assert [1] == sequences(world)


def test_a_newer_catalog_reads_events_again(world: World) -> None:
    world.publish(CALLS)
    batch, revision = world.prepare(call(1), call(2, kind="unread"))
    world.publish(
        Meter(key="other", event_type="call", aggregation=Aggregation.COUNT), since=world.now
    )
    for wrong in (revision, revision + 2):
        for may_know in (True, False):
            with pytest.raises(StaleCatalog):
                world.ingest(batch, wrong, may_know=may_know)
    for table in ("event", "event_key", "series", "unread_type"):
        assert [] == rows(world, f"select from {table}"), table
    assert [(0,)] == rows(world, "select last_sequence from stream_head")
    assert [ACCEPTED] == world.ingest(batch[:1], revision + 1).outcomes


def test_series_of_a_refused_event_are_not_kept(world: World) -> None:
    """Neither a duplicate nor a conflict makes a series: nothing was ever read into it."""
    world.publish(CALLS)
    take(world, call(1, model="a"))
    assert [CONFLICT, ACCEPTED] == take(world, call(1, model="b"), call(2, model="c"))
    assert [(["a"],), (["c"],)] == rows(world, "select dimensions from series order by dimensions")


def test_types_that_no_meter_reads_are_counted(world: World) -> None:
    world.publish(CALLS)
    earlier, later = NOON - timedelta(days=3), NOON + timedelta(hours=1)

    def other(identifier: int, time: object) -> Event:
        return Event(id=f"o{identifier}", source="test", type="other", time=time)  # type: ignore[arg-type]

    take(world, call(1), other(1, NOON), other(2, later), call(2, kind="third"))
    take(world, other(1, NOON), other(3, earlier))
    assert [("other", 3, earlier, later, 5), ("third", 1, NOON, NOON, 4)] == rows(
        world,
        "select type, events, first_time, last_time, last_sequence from unread_type order by type",
    )


def test_an_event_that_no_version_reads_is_known_all_the_same(world: World) -> None:
    """Its type has a meter, so it is not an unread type; the meter's filter said no."""
    world.publish(
        Meter(
            key="calls",
            event_type="call",
            aggregation=Aggregation.COUNT,
            filter="data.model == 'big'",
        )
    )
    assert [ACCEPTED, ACCEPTED] == take(world, call(1), call(2, model="big"))
    assert [(1, None), (2, 1)] == rows(
        world, "select sequence, cardinality(series) from event order by sequence"
    )
    assert [] == rows(world, "select from unread_type")


def test_every_event_counts_once_from_many_senders(world: World, runtime_url: str) -> None:
    """Two processes' pools, eight senders, every event three times, some in conflict.

    Half of the senders expect events that are there already, and half do not.
    """
    world.publish(CALLS)
    everything = [call(n, units=n, model=f"m{n % 7}") for n in range(300)]
    conflicts = [call(n, units=n + 1) for n in range(0, 300, 50)]
    sent = [*everything, *everything, *everything, *conflicts]
    random.Random(7).shuffle(sent)
    pools: list[Pool] = [world.pool, open_pool(runtime_url, size=4)]
    known: list[set[str]] = [set(), set()]
    batches = [world.prepare(*sent[at_ : at_ + 13]) for at_ in range(0, len(sent), 13)]
    barrier = threading.Barrier(8)

    def send(sender: int) -> list[tuple[str, Outcome]]:
        told = []
        barrier.wait()
        for batch, revision in batches[sender::8]:
            side, may_know = sender % 2, sender % 4 < 2
            ingested = world.ingest(
                batch, revision, known=known[side], may_know=may_know, pool=pools[side]
            )
            answers = zip(batch, ingested.outcomes, strict=True)
            told += [(one.key, outcome) for one, outcome in answers]
        return told

    with ThreadPoolExecutor(8) as senders:
        told = [answer for answers in senders.map(send, range(8)) for answer in answers]
    pools[1].close()
    accepted = Counter(key for key, outcome in told if outcome is ACCEPTED)
    assert {1} == set(accepted.values())
    assert 300 == len(accepted)
    assert len(sent) == len(told)
    assert list(range(1, 301)) == sequences(world)
    assert [(300, 300, 300)] == rows(
        world,
        "select count(*), count(distinct key), count(distinct sequence) from event_key",
    )
    world.fold()
    stored = rows(world, "select sum((payload->'data'->>'units')::int) from event")
    assert stored == rows(world, "select sum(total)::bigint from rollup")


def test_sequences_follow_the_order_of_commits(world: World, runtime_url: str) -> None:
    """Whoever has seen a sequence has seen every one before it: nothing commits behind a reader."""
    world.publish(CALLS)
    batches = [world.prepare(*[call(f"{b}/{n}") for n in range(5)]) for b in range(60)]
    other = open_pool(runtime_url, size=5)
    done = threading.Event()

    def send(sender: int) -> None:
        for batch, revision in batches[sender::4]:
            world.ingest(batch, revision, may_know=bool(sender % 2), pool=other)

    def watch() -> int:
        looks = 0
        while not done.is_set():
            count, highest, last = rows(
                world,
                "select count(*), coalesce(max(sequence), 0),"
                " (select last_sequence from stream_head) from event",
            )[0]
            assert count == highest == last
            looks += 1
        return looks

    with ThreadPoolExecutor(5) as threads:
        watching = threads.submit(watch)
        try:
            list(threads.map(send, range(4)))
        finally:
            done.set()
        assert watching.result() > 0
    other.close()
    assert list(range(1, 301)) == sequences(world)
