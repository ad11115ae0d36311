"""A call that fails anywhere leaves nothing behind: no row, no lock, no connection out of use."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from farebox_world import World, at
from psycopg import errors
from psycopg.pq import TransactionStatus

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.flows.ingest import Ingested, ingest_in
from farebox.postgres.event_row import Prepared
from farebox.postgres.session import Pool, bound, open_pool, transaction
from farebox.postgres.stream import SEPARATOR

NOON = at("2026-09-05 12:00")
METERS = (
    Meter(
        key="calls",
        event_type="call",
        aggregation=Aggregation.SUM,
        value="units",
        dimensions={"model": "$.model"},
        per_event=True,
    ),
    Meter(key="models", event_type="call", aggregation=Aggregation.UNIQUE_COUNT, value="$.model"),
)
COLUMNS = (
    *("time", "key", "digest", "source", "id", "type", "subject", "series", "quantities"),
    *("value_series", "value_texts", "point_series", "point_quantities", "payload"),
)
TABLES = ("event", "event_key", "series", "unread_type", "stream_head")
ACCEPTED, DUPLICATE = Outcome.ACCEPTED, Outcome.DUPLICATE


def call(identifier: object, model: str = "m", kind: str = "call") -> Event:
    data: Any = {"units": 1, "model": model}
    return Event(id=str(identifier), source="test", type=kind, subject="acme", time=NOON, data=data)


def spoilt(event: Prepared, **columns: str) -> Prepared:
    """Return the event with other text in some columns of its row, as the door would refuse it."""
    row: Any = tuple({**dict(zip(COLUMNS, event.row, strict=True)), **columns}.values())
    return Prepared(row, event.kind, event.series, event.unread)


def state(world: World) -> dict[str, list[tuple[Any, ...]]]:
    with transaction(world.pool, world.organization_id) as connection:
        return {
            table: connection.execute(f"select t::text from {table} t order by 1").fetchall()
            for table in TABLES
        }


@pytest.fixture
def filled(world: World) -> World:
    """Return a world with two events, one of them of a type that no meter reads."""
    world.publish(*METERS)
    events, revision = world.prepare(call("known"), call("other", kind="unread"))
    world.ingest(events, revision)
    return world


@pytest.fixture
def single(runtime_url: str) -> Iterator[Pool]:
    """Return a pool of one connection: whatever was left in it meets the next call."""
    pool = open_pool(runtime_url, size=1)
    yield pool
    pool.close()


def series_beyond_its_column(events: list[Prepared]) -> list[Prepared]:
    """Let the last event belong to a series of a version that no column holds."""
    last = events[-1]
    series = [msgspec.structs.replace(one, meter_version=2**31) for one in last.series]
    return [*events[:-1], Prepared(last.row, last.kind, series, last.unread)]


def with_spoilt(**columns: str) -> Callable[[list[Prepared]], list[Prepared]]:
    return lambda events: [*events[:-1], spoilt(events[-1], **columns)]


def same_key_twice(events: list[Prepared]) -> list[Prepared]:
    """Send a key in two spellings, so that it is one only to the database."""
    first, last = events[1], events[-1]
    return [*events[:-1], spoilt(last, key=first.key.upper(), digest=last.digest)]


# In the order in which the function comes to what is wrong.
BROKEN: list[tuple[Callable[[list[Prepared]], list[Prepared]], type[psycopg.Error]]] = [
    (with_spoilt(key="nobody"), errors.InvalidTextRepresentation),
    (with_spoilt(digest="nothing"), errors.InvalidTextRepresentation),
    (same_key_twice, errors.UniqueViolation),
    (with_spoilt(time="never"), errors.InvalidDatetimeFormat),
    (with_spoilt(series="{"), errors.InvalidTextRepresentation),
    (with_spoilt(quantities="{many}"), errors.InvalidTextRepresentation),
    (with_spoilt(value_series="{x}"), errors.InvalidTextRepresentation),
    (with_spoilt(value_texts="["), errors.InvalidTextRepresentation),
    (with_spoilt(value_texts="{}"), errors.InvalidParameterValue),
    (with_spoilt(point_series="{x}"), errors.InvalidTextRepresentation),
    (with_spoilt(point_quantities="{"), errors.InvalidTextRepresentation),
    (with_spoilt(payload="{"), errors.InvalidTextRepresentation),
    (with_spoilt(id=f"a{SEPARATOR}b"), errors.NotNullViolation),
    (series_beyond_its_column, errors.NumericValueOutOfRange),
]


@pytest.mark.parametrize("part_of_a_transaction", [True, False])
@pytest.mark.parametrize("may_know", [True, False])
@pytest.mark.parametrize(("spoil", "error"), BROKEN)
def test_an_error_anywhere_in_the_call_leaves_nothing_behind(
    filled: World,
    single: Pool,
    spoil: Callable[[list[Prepared]], list[Prepared]],
    error: type[psycopg.Error],
    may_know: bool,
    part_of_a_transaction: bool,
) -> None:
    events, revision = filled.prepare(
        call("known"), call(1, model="new"), call("more", kind="unread"), call(2, model="newer")
    )
    before, organization_id = state(filled), filled.organization_id

    def ingest(connection: psycopg.Connection, batch: list[Prepared]) -> Ingested:
        around = bound(connection, organization_id) if part_of_a_transaction else nullcontext()
        with around:
            return ingest_in(
                connection, organization_id, batch, revision, NOON, set(), may_know=may_know
            )

    with single.connection() as connection:
        with pytest.raises(error):
            ingest(connection, spoil(events))
        assert TransactionStatus.IDLE == connection.info.transaction_status
        assert before == state(filled)
        found = ingest(connection, events)
    assert [DUPLICATE, ACCEPTED, ACCEPTED, ACCEPTED] == found.outcomes
    assert (3, 3) == (found.first_sequence, found.appended)


@pytest.mark.parametrize("may_know", [True, False])
def test_the_last_statement_undoes_all_before_it(
    filled: World, single: Pool, may_know: bool
) -> None:
    """The count of an unread type cannot grow; by then everything else is written."""
    with transaction(filled.pool, filled.organization_id) as connection:
        connection.execute("update unread_type set events = %s", (2**63 - 1,))
    before = state(filled)
    events, revision = filled.prepare(call(1, model="new"), call(2, kind="unread"))
    for _ in range(2):
        with pytest.raises(errors.NumericValueOutOfRange):
            filled.ingest(events, revision, may_know=may_know, pool=single)
        assert before == state(filled)
    assert [ACCEPTED] == filled.ingest(events[:1], revision, pool=single).outcomes


@pytest.mark.parametrize("may_know", [True, False])
def test_a_key_of_another_organization_cannot_be_taken(
    filled: World, new_world: Callable[[], World], may_know: bool
) -> None:
    """Keys tell organizations apart; were there a second one of the same digest, it is refused."""
    other = new_world()
    other.publish(*METERS)
    taken, _ = filled.prepare(call("known"))
    events, revision = other.prepare(call(1), call("known"))
    stolen = [events[0], spoilt(events[1], key=taken[0].key)]
    before = state(other)
    with pytest.raises(errors.UniqueViolation):
        other.ingest(stolen, revision, may_know=may_know)
    assert before == state(other)


EVIL = [SEPARATOR, f"a{SEPARATOR}", f"{SEPARATOR}a", f"a{SEPARATOR}b{SEPARATOR}c"]


@pytest.mark.parametrize("may_know", [True, False])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("name", ["source", "id", "type", "subject"])
def test_a_name_with_the_separator_refuses_the_whole_call(
    filled: World, name: str, text: str, place: int, may_know: bool
) -> None:
    """The door lets no such name in; if it did, no event may take another one's place."""
    before = state(filled)
    fresh = [call(1), call("known"), call(2, kind="unread")]
    fresh[place] = msgspec.structs.replace(call("evil"), **{name: text})
    events, revision = filled.prepare(*fresh)
    for batch in (events, events[place : place + 1]):
        with pytest.raises(errors.NotNullViolation):
            filled.ingest(batch, revision, may_know=may_know)
        assert before == state(filled)


def test_data_may_hold_the_separator(filled: World) -> None:
    """In data it is escaped, so it comes back from every column that it goes through."""
    events, revision = filled.prepare(call(1, model=f"a{SEPARATOR}b"), call(2, model=SEPARATOR))
    assert [ACCEPTED, ACCEPTED] == filled.ingest(events, revision).outcomes
    with transaction(filled.pool, filled.organization_id) as connection:
        found = connection.execute(
            "select value_texts[1], payload->'data'->>'model' from event"
            " where id in ('1', '2') order by sequence"
        ).fetchall()
        dimensions = connection.execute(
            "select dimensions[1] from series where meter_key = 'calls' order by 1"
        ).fetchall()
    assert [(f"a{SEPARATOR}b",) * 2, (SEPARATOR,) * 2] == found
    assert [(SEPARATOR,), (f"a{SEPARATOR}b",), ("m",)] == dimensions


def test_an_organization_without_a_stream_is_refused(filled: World) -> None:
    events, revision = filled.prepare(call(1))
    with filled.pool.connection() as connection, pytest.raises(errors.NoDataFound):
        ingest_in(connection, UUID(int=7), events, revision, NOON, set())


def test_series_are_known_when_they_are_committed_and_not_before(world: World) -> None:
    world.publish(*METERS[:1])
    batch, revision = world.prepare(call(1, model="a"), call(2, model="b"), call(3, model="a"))
    ids = sorted({one.series[0].series_id for one in batch})
    known: set[str] = set()
    with pytest.raises(errors.InvalidTextRepresentation):
        world.ingest([*batch[:2], spoilt(batch[2], payload="{")], revision, known=known)
    assert set() == known
    assert [] == state(world)["series"]
    ingested = world.ingest(batch, revision, known=known)
    assert (ids, set(ids)) == (ingested.series, known)
    again, revision = world.prepare(call(1, model="c"), call(4, model="b"), call(5, model="d"))
    ingested = world.ingest(again, revision, known=known)
    assert [again[2].series[0].series_id] == ingested.series
    assert 3 == len(state(world)["series"])


def test_a_connection_lost_before_the_commit_stores_nothing(
    filled: World, superuser_url: str
) -> None:
    batch, revision = filled.prepare(call(1))
    before, organization_id = state(filled), filled.organization_id

    def ingest_and_die() -> None:
        with transaction(filled.pool, organization_id) as connection:
            ingested = ingest_in(connection, organization_id, batch, revision, NOON, set())
            assert [ACCEPTED] == ingested.outcomes
            with psycopg.connect(superuser_url, autocommit=True) as killer:
                killer.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))

    with pytest.raises(psycopg.OperationalError):
        ingest_and_die()
    assert before == state(filled)
    assert [ACCEPTED] == filled.ingest(batch, revision).outcomes
