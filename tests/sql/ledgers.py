"""A short ledger beside a long one, and how many rows a question reads of each.

What a statement reads is counted, not guessed from its plan: it may be inside a function, and it is
run often enough on one connection that PostgreSQL no longer plans it anew.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from farebox_pools import HARD, Pools

from farebox.postgres.session import Pool, bound

START = datetime(2026, 10, 2, tzinfo=UTC)
RUNS = 12

Ask = Callable[[psycopg.Connection, UUID, UUID], object]
"""Asks of an organization and a pool; what is none is no answer."""


def fill_ledgers(
    pool: Pool,
    owner_url: str,
    organization_id: UUID,
    counts: Mapping[str, int],
    fill: str,
    tables: str,
    **values: object,
) -> Pools:
    """Return an organization with a pool for each key, each filled by the statements of `fill`.

    They name `org`, `pool`, `start`, `count` and what else is given; `tables` are analyzed then.
    """
    found = Pools(pool, organization_id, START)
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "select create_organization(%s, %s, '', now())", (organization_id, str(organization_id))
        )
    for key, count in counts.items():
        found.put(key, HARD)
        found.grant(key, 1_000_000)
        named = {
            "org": organization_id,
            "pool": found.ids[key],
            "start": START,
            "count": count,
            **values,
        }
        with psycopg.connect(owner_url) as connection:
            cursor = psycopg.ClientCursor(connection)
            for statement in fill.split(";\n"):
                cursor.execute(statement.encode(), named)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"vacuum analyze {tables}".encode())
    return found


def cost(ledgers: Pools, key: str, ask: Ask) -> int:
    """Return the most rows that one of many runs reads; nothing of them is kept."""
    with ledgers.pool.connection() as connection:
        return max(_cost_once(ledgers, connection, key, ask) for _ in range(RUNS))


def _cost_once(ledgers: Pools, connection: psycopg.Connection, key: str, ask: Ask) -> int:
    with bound(connection, ledgers.organization_id):
        before = _rows_read(connection)
        answer = ask(connection, ledgers.organization_id, ledgers.ids[key])
        assert answer is not None, "there is an answer"
        after = _rows_read(connection)
        connection.execute("rollback; begin")
    return after - before


def _rows_read(connection: psycopg.Connection) -> int:
    """Return how many rows were read, by index or without, from some earlier time on."""
    row = connection.execute(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint"
        " from pg_stat_xact_user_tables"
    ).fetchone()
    assert row is not None
    return int(row[0])
