"""Hot queries find what they need by an index, however much the stream holds."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any
from uuid import UUID

import psycopg
import pytest

from farebox.metering.quantity import Target
from farebox.postgres import (
    burn,
    burn_late,
    customer,
    invoice,
    rollup,
    stream,
    unbilled,
    usage,
)
from farebox.postgres.burn_late import Mapped, SubjectTarget
from farebox.postgres.session import Pool, bound, transaction
from farebox.postgres.stream import Row
from farebox.postgres.usage import Range

EVENTS, SUBJECTS, UNFOLDED = 60_000, 200, 500
MONTH = datetime(2031, 9, 1, tzinfo=UTC)
BIG = 1000
"""A table with fewer rows may be read through; that is what the planner should do with it."""

# Half a minute between events; a subject's come in turn. The same readings as rollups and points.
FILL = """
insert into event select %(org)s, n, %(month)s + n * interval '30 seconds',
  %(month)s + n * interval '30 seconds', 'bench', n::text, 'call', 's' || n %% %(subjects)s,
  array[md5(%(org)s::text || n %% %(subjects)s)::uuid], array[1::numeric], null, null,
  array[md5(%(org)s::text || n %% %(subjects)s)::uuid], array[1::numeric], '{}'
from generate_series(1, %(events)s) n;
insert into event_key select %(org)s, md5(%(org)s::text || 'key' || n)::uuid, md5('')::uuid, n
from generate_series(1, %(events)s) n;
insert into series select %(org)s, md5(%(org)s::text || n)::uuid, 'calls', 1, 's' || n, '', '{}'
from generate_series(0, %(subjects)s - 1) n;
insert into customer select %(org)s, 'c' || n, gen_random_uuid(), '', 'UTC', '{}', now(), now()
from generate_series(0, %(subjects)s - 1) n;
insert into subject select %(org)s, 's' || n, 'c' || n, '0001-01-02 00:00+00', '9999-12-30 00:00+00'
from generate_series(0, %(subjects)s - 1) n;
insert into subscription select %(org)s, 'c' || n % 200 || '/' || n, gen_random_uuid(),
  'c' || n % 200, 'p', 1, %(month)s, null, 'UTC', null, '{}', now()
from generate_series(1, 5000) n;
insert into invoice select %(org)s, md5('i' || n)::uuid, n::text, 'period', 'final',
  'c' || n % 200, 'c' || n % 200 || '/' || n, 'p', 1, %(month)s, %(month)s + interval '30 days',
  'EUR', 1, 1, null, now(), now(), '[]'
from generate_series(1, 5000) n;
insert into rollup select organization_id, series[1],
  date_bin('15 minutes', time, timestamptz '2000-01-01 00:00:00+00'), count(*), count(*), 1, 1
from event where organization_id = %(org)s and sequence <= %(folded)s group by 1, 2, 3;
insert into point select organization_id, point_series[1], time, sequence, 1
from event where organization_id = %(org)s and sequence <= %(folded)s;
update watermark set sequence = %(folded)s where organization_id = %(org)s;
update stream_head set last_sequence = %(events)s where organization_id = %(org)s
"""
EMPTY = md5(b"").hexdigest()
TABLES = "event, event_key, series, subject, subscription, invoice, rollup, point, customer"


@pytest.fixture(scope="module")
def filled(pool: Pool, owner_url: str) -> UUID:
    """Return an organization with a month of events."""
    organization_id = UUID("01a1fde5-0000-7000-8000-000000000001")
    values = {
        "org": organization_id,
        "month": MONTH,
        "subjects": SUBJECTS,
        "events": EVENTS,
        "folded": EVENTS - UNFOLDED,
    }
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "select create_organization(%s, 'plans', 'Plans', now())", (organization_id,)
        )
        stream.ensure_partitions(connection, [MONTH.date()])
        cursor = psycopg.ClientCursor(connection)
        for statement in FILL.replace(" % ", " %% ").split(";\n"):
            cursor.execute(statement.encode(), values)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"vacuum analyze {TABLES}".encode())
    return organization_id


class Explained:
    """Stands for a connection: explains each statement, under the same policies, and runs it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.nodes: list[dict[str, Any]] = []

    def execute(self, statement: str, parameters: Any = None) -> Any:
        explained = self._connection.execute(
            f"explain (format json) {statement}".encode(), parameters
        ).fetchone()
        assert explained is not None
        self._walk(explained[0][0]["Plan"])
        return self._connection.execute(statement.encode(), parameters)

    def _walk(self, node: dict[str, Any]) -> None:
        self.nodes.append(node)
        for child in node.get("Plans", ()):
            self._walk(child)

    def read_through(self) -> set[str]:
        """Return the tables that a statement reads from one end to the other."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}


@pytest.fixture
def explained(pool: Pool, filled: UUID) -> Iterator[Any]:
    with transaction(pool, filled) as connection:
        yield Explained(connection)


@pytest.fixture(scope="module")
def big(filled: UUID, owner_url: str) -> set[str]:
    """Return the tables that hold so much that nobody may read them through."""
    with psycopg.connect(owner_url) as connection:
        rows = connection.execute(
            "select relname::text from pg_class where relkind = 'r' and reltuples >= %s", (BIG,)
        ).fetchall()
    found = {row[0] for row in rows}
    assert {"event_203109", "event_key", "rollup", "point", "invoice", "subscription"} <= found
    return found


def targets(count: int, start: datetime, end: datetime) -> list[Target]:
    return [Target(f"c{number}", "calls", start, end) for number in range(count)]


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("edge", [timedelta(0), timedelta(minutes=7)])
@pytest.mark.parametrize("read", [usage.totals, usage.points])
def test_usage_reads_no_table_through(
    explained: Any,
    filled: UUID,
    big: set[str],
    read: Callable[..., list[Any]],
    edge: timedelta,
    count: int,
) -> None:
    start = MONTH + timedelta(days=3) + edge
    rows = read(explained, filled, targets(count, start, start + timedelta(days=10)), Range())
    assert rows
    assert set() == explained.read_through() & big


def test_usage_is_the_same_whichever_part_it_comes_from(explained: Any, filled: UUID) -> None:
    """A customer has an event each 100 minutes; the last ones are not folded yet."""
    everything = targets(1, MONTH, MONTH + timedelta(days=365))
    (whole,) = usage.totals(explained, filled, everything, Range())
    (raw,) = usage.totals(explained, filled, everything, Range(raw=True))
    assert whole == raw
    assert EVENTS // SUBJECTS == whole.totals.count


def test_what_waits_to_burn_is_read_from_the_end_of_the_stream(
    pool: Pool, explained: Any, filled: UUID, big: set[str]
) -> None:
    with transaction(pool, filled) as connection:
        connection.execute(
            "insert into burn_watermark values (%s, %s)", (filled, EVENTS - UNFOLDED)
        )
    year = targets(SUBJECTS, MONTH, MONTH + timedelta(days=365))
    rows = unbilled.waiting_totals(explained, filled, "calls", year)
    assert UNFOLDED == sum(row.totals.count for row in rows)
    assert set() == explained.read_through() & big


def test_what_burns_late_is_looked_up_where_its_subject_used(
    explained: Any, filled: UUID, big: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it used while nobody had it, and what of it burned the pool of whom it was."""
    with_pool = SubjectTarget("s7", "calls", filled, MONTH, MONTH + timedelta(days=365))
    burn.open_readings(explained._connection)
    monkeypatch.setattr(burn, "open_readings", lambda connection: None)
    year = Mapped("s7", "c7", MONTH, MONTH + timedelta(days=365))
    burned = EVENTS - UNFOLDED // 2
    assert ["c7"] == burn_late.read_late(explained, filled, [year], burned)
    assert [] == burn_late.leave_burned(explained, filled, [with_pool], [])
    (count,) = explained._connection.execute("select count(*) from burn_reading").fetchone()
    assert len(range(7, burned + 1, SUBJECTS)) == count
    assert set() == explained.read_through() & big


def scans(connection: psycopg.Connection) -> Counter[str]:
    """Return how many rows were read by going through a table, and how often a key was searched.

    Both count from some earlier time on.
    """
    rows = connection.execute(
        "select relname::text, seq_tup_read from pg_stat_xact_user_tables"
        " union all select 'searches', pg_stat_get_xact_numscans('event_key_pkey'::regclass)"
    ).fetchall()
    return Counter(dict(rows))


@pytest.mark.parametrize("known", [0, 1, 1000, 2000])
@pytest.mark.parametrize("may_know", [True, False])
def test_events_are_looked_up_by_their_key_and_only_if_need_be(
    pool: Pool, filled: UUID, big: set[str], may_know: bool, known: int
) -> None:
    """A statement inside a function cannot be explained; what it reads is counted.

    Again and again on one connection, because PostgreSQL plans anew for the first five only.
    """
    fresh = 2000 - known
    keys = [key(filled, number) for number in [*range(1, known + 1), *range(-fresh, 0)]]
    rows: list[Row] = [(MONTH, one, EMPTY, "s", one, "t", "", *[""] * 6, "{}") for one in keys]
    call, parameters = stream.append_call(
        filled, rows, 0, MONTH, may_know=may_know, series=(), unread_types=["t"]
    )

    def append(connection: psycopg.Connection) -> None:
        with bound(connection, filled):
            before = scans(connection)
            answer = stream.appended(connection.execute(call, parameters).fetchone())
            found = scans(connection) - before
            assert answer is not None
            assert ({*range(known)}, fresh) == (answer.known.keys(), answer.count)
            assert set() == found.keys() & big
            assert found["searches"] == (2000 if may_know or known else 0)
            raise Undone

    with pool.connection() as connection:
        for _ in range(8):
            with pytest.raises(Undone):
                append(connection)


class Undone(Exception):
    """Takes a transaction back."""


def key(organization_id: UUID, number: int) -> str:
    """Return the key of an event as `FILL` makes it; those below 1 are in no stream."""
    return md5(f"{organization_id}key{number}".encode()).hexdigest()


def test_folding_reads_the_new_events_by_their_sequence(
    explained: Any, filled: UUID, big: set[str]
) -> None:
    rollup.fold(explained, filled, EVENTS - UNFOLDED, EVENTS, MONTH)
    assert set() == explained.read_through() & big
    assert any("organization_id_sequence" in name for name in explained.indexes())
    explained._connection.execute("rollback; begin")


def test_a_page_of_subscriptions_and_their_invoices_is_looked_up(
    explained: Any, filled: UUID, big: set[str]
) -> None:
    page = customer.subscriptions(explained, filled, after="c1", limit=100)
    keys = [row.key for row in page]
    found = invoice.last_final_periods(explained, filled, keys)
    assert {(key, "period") for key in keys} == set(found)
    wanted = [(key, MONTH, "period") for key in keys]
    assert set(wanted) == invoice.final_among(explained, filled, wanted)
    assert set() == explained.read_through() & big
