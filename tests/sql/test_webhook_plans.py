"""Deliveries are found by an index, however many are done and however many wait for the dead."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.session import Pool, transaction
from farebox.postgres.webhook_endpoint import Wanted

NOW = datetime(2026, 10, 2, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


class Undone(Exception):
    """Takes a transaction back."""


def add_endpoint(connection: psycopg.Connection, organization_id: UUID, key: str) -> None:
    wanted = Wanted(
        key=key,
        url="https://hooks.example.com/",
        types=[],
        customer_key=None,
        description="",
        metadata={},
        enabled=True,
    )
    webhook_endpoint.add_endpoint(connection, organization_id, wanted, f"whsec_{key}", NOW)


FILL = """
insert into notice select %(org)s, md5(n::text)::uuid, 'alert.fired', %(now)s + n * interval '1 s',
  'c' || n %% 50, '{}', %(now)s from generate_series(1, 20000) n;
insert into notice select %(org)s, md5('new' || n)::uuid, 'alert.fired', %(now)s, null, '{}', null
from generate_series(1, 5) n;
insert into webhook_delivery select organization_id, md5(e || notice_id::text)::uuid, e, notice_id,
  case when e = 'dead' then 'failed' else 'delivered' end, 1, 0,
  case when e = 'dead' then %(now)s end, null, 500, null, %(now)s, null
from notice cross join unnest(array['dead', 'alive']) e
where organization_id = %(org)s and dispatched_at is not null
"""


@pytest.fixture(scope="module")
def crowded(pool: Pool, owner_url: str) -> UUID:
    """Return an organization with twenty thousand deliveries done and as many waiting."""
    organization_id = UUID("01a1fde5-0000-7000-8000-0000000000ab")
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "select create_organization(%s, 'crowded', 'Crowded', now())", (organization_id,)
        )
        for key in ("dead", "alive"):
            add_endpoint(connection, organization_id, key)
        connection.execute("update webhook_endpoint set enabled = false where key = 'dead'")
        cursor = psycopg.ClientCursor(connection)
        for statement in FILL.split(";\n"):
            cursor.execute(statement.encode(), {"org": organization_id, "now": NOW})
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("vacuum analyze notice, webhook_delivery, webhook_endpoint")
    return organization_id


class Measured:
    """Stands for a connection: explains each statement as it runs, under the same policies."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.rows_read = 0
        self.read_through: set[str] = set()

    def cursor(self, **options: Any) -> Any:
        measured, inner = self, self._connection.cursor(**options)

        class Cursor:
            def execute(self, statement: str, parameters: Any = None) -> Any:
                measured.explain(statement, parameters)
                return inner.execute(statement.encode(), parameters)

        return Cursor()

    def execute(self, statement: str, parameters: Any = None) -> Any:
        self.explain(statement, parameters)
        return self._connection.execute(statement.encode(), parameters)

    def explain(self, statement: str, parameters: Any) -> None:
        # What it changes is taken back, so that it can run once more.
        self._connection.execute("savepoint explained")
        row = self._connection.execute(
            f"explain (analyze, format json) {statement}".encode(), parameters
        ).fetchone()
        self._connection.execute("rollback to savepoint explained")
        assert row is not None
        self._walk(row[0][0]["Plan"])

    def _walk(self, node: dict[str, Any]) -> None:
        if "Relation Name" in node and "Scan" in node["Node Type"]:
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            self.rows_read += rows * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan":
                self.read_through.add(node["Relation Name"])
        for child in node.get("Plans", ()):
            self._walk(child)


READS: dict[str, Callable[[Any, UUID], Any]] = {
    "a page of notices": lambda c, o: notice.notices(c, o, limit=10),
    "a later page": lambda c, o: notice.notices(c, o, after=(NOW, UUID(int=1 << 127)), limit=10),
    "notices of a customer": lambda c, o: notice.notices(c, o, customer_key="c7", limit=10),
    "what is not handed on": lambda c, o: notice.lock_undispatched(c, o, 10),
    "handing it on": lambda c, o: notice.set_dispatched(c, o, [UUID(int=1)], NOW),
    "a page of deliveries": lambda c, o: webhook_delivery.deliveries(c, o, limit=10),
    "those of an endpoint": lambda c, o: webhook_delivery.deliveries(
        c, o, endpoint_key="alive", limit=10
    ),
    "one of them": lambda c, o: webhook_delivery.find_delivery(c, o, UUID(int=1)),
    "a claim where much waits": lambda c, o: webhook_delivery.claim_delivery(
        c, o, "dead", NOW, LATER
    ),
    "a claim where nothing does": lambda c, o: webhook_delivery.claim_delivery(
        c, o, "alive", NOW, LATER
    ),
    "a replay": lambda c, o: webhook_delivery.send_again(c, o, "alive", [UUID(int=1)], NOW),
}


@pytest.mark.parametrize("name", READS)
def test_nothing_reads_more_than_it_needs(pool: Pool, crowded: UUID, name: str) -> None:
    """However many deliveries are done or wait for a dead receiver."""
    with suppress(Undone), transaction(pool, crowded) as connection:
        measured = Measured(connection)
        READS[name](measured, crowded)
        assert set() == measured.read_through - {"webhook_endpoint"}
        assert measured.rows_read < 100
        raise Undone


def test_what_is_due_is_found_without_reading_what_waits(
    pool: Pool, owner_url: str, crowded: UUID
) -> None:
    """A statement inside a function cannot be explained; the rows it reads are counted."""
    with psycopg.connect(owner_url) as connection:
        before = read(connection)
        connection.execute("select * from organizations_to_dispatch()").fetchall()
        connection.execute("select * from webhook_endpoints_due(%s, 16, 128)", (LATER,)).fetchall()
        assert read(connection) - before < 200


def read(connection: psycopg.Connection) -> int:
    """Return how many rows of the big tables this transaction has read so far."""
    row = connection.execute(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int from pg_stat_xact_user_tables"
        " where relname in ('webhook_delivery', 'notice')"
    ).fetchone()
    assert row is not None
    return int(row[0])
