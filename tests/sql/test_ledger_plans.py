"""What is asked of a pool all the time costs as much however long the pool has been used.

What a statement reads is counted, not guessed from its plan: it may be inside a function, and it is
run often enough on one connection that PostgreSQL no longer plans it anew.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from farebox_pools import HARD, Pools

from farebox.flows.decide_pools import Asked, decide_locked
from farebox.ledger.command import Draw
from farebox.postgres import book, pool, transfer
from farebox.postgres.session import Pool, bound

START = datetime(2026, 10, 2, tzinfo=UTC)
OLD, NEW = 200, 20_000
"""How many operations of two transfers the short and the long ledger have."""
ROWS_MORE = 60
"""So many rows more may be read of the long ledger: a page's edge, a halving by time."""
RUNS = 12

# Holds that were settled, one a minute, each of its own grant; one refusal each that was resolved.
FILL = """
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
  source_after, target_after, available_after, time, grant_number, origin, subject, key, undoes)
select %(org)s, %(pool)s, 2 * n + x.place, 2 * n + x.place, x.reason, x.source, x.target, 1, 0, 0,
  0, %(start)s + n * interval '1 minute', 1, x.origin, 's' || n %% 10, n || '/' || x.place, x.undoes
from generate_series(1, %(count)s) n cross join lateral (values
  (0, 'held', 'grant', 'held', null, null), (1, 'settled', 'held', 'used', 'grant', 2 * n))
  x(place, reason, source, target, origin, undoes);
insert into hold (organization_id, pool_id, number, status, amount, slices, held_at, expires_at)
select %(org)s, %(pool)s, 2 * n, 'settled', 0, '[]', %(start)s, %(start)s
from generate_series(1, %(count)s) n;
insert into pool_grant (organization_id, pool_id, number, key, status, amount, available, held,
  basis, priority, issued_at, effective_at, on_invoice, metadata)
select %(org)s, %(pool)s, 2 * n, 'g' || n, 'closed', 1, 0, 0, 'promotional', 0, %(start)s,
  %(start)s, false, '{}'
from generate_series(1, %(count)s) n;
insert into refusal (organization_id, pool_id, subject, code, minute, count, first_at, last_at,
  asked, resolved_at)
select %(org)s, %(pool)s, 's' || n %% 10, 'insufficient_balance',
  %(start)s + n * interval '1 minute', 1, %(start)s, %(start)s, 1, %(start)s
from generate_series(1, %(count)s) n;
update pool set sequence = 2 * %(count)s + 1 where pool_id = %(pool)s
"""
TABLES = "transfer, hold, pool_grant, refusal, pool, allotment, pool_recurrence"

Ask = Callable[[psycopg.Connection, UUID, UUID], object]


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a pool that was used for hours and one that was for weeks."""
    found = Pools(pool, UUID("01a1fde5-0000-7000-8000-000000000002"), START)
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "select create_organization(%s, 'ledgers', '', now())", (found.organization_id,)
        )
    for key, count in (("short", OLD), ("long", NEW)):
        found.put(key, HARD)
        found.grant(key, 1_000_000)
        values = {
            "org": found.organization_id,
            "pool": found.ids[key],
            "start": START,
            "count": count,
        }
        with psycopg.connect(owner_url) as connection:
            cursor = psycopg.ClientCursor(connection)
            for statement in FILL.split(";\n"):
                cursor.execute(statement.encode(), values)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(f"vacuum analyze {TABLES}".encode())
    return found


def rows_read(connection: psycopg.Connection) -> int:
    """Return how many rows were read, by index or without, from some earlier time on."""
    row = connection.execute(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint"
        " from pg_stat_xact_user_tables"
    ).fetchone()
    assert row is not None
    return int(row[0])


def cost(ledgers: Pools, key: str, ask: Ask) -> int:
    """Return the most rows that one of many runs reads; nothing of them is kept."""
    with ledgers.pool.connection() as connection:
        return max(cost_once(ledgers, connection, key, ask) for _ in range(RUNS))


def cost_once(ledgers: Pools, connection: psycopg.Connection, key: str, ask: Ask) -> int:
    with bound(connection, ledgers.organization_id):
        before = rows_read(connection)
        assert ask(connection, ledgers.organization_id, ledgers.ids[key]), "there is an answer"
        after = rows_read(connection)
        connection.execute("rollback; begin")
    return after - before


SINCE, UNTIL = START + timedelta(minutes=20), START + timedelta(minutes=40)

QUESTIONS: dict[str, Ask] = {
    "a book": lambda c, org, one: book.read_books(c, org, [one]),
    "a book to decide on": lambda c, org, one: book.read_books(c, org, [one], lock=True),
    "a hold that ended": lambda c, org, one: book.find_holds(c, org, [(one, 20)]),
    "a grant that closed": lambda c, org, one: book.find_grants(c, org, one, [20]),
    "a grant by its key": lambda c, org, one: book.grant_by_key(c, org, one, "g10"),
    "an old operation by its key": lambda c, org, one: transfer.operations_by_key(
        c, org, [(one, "10/0"), (one, "11/1")]
    ),
    "an old operation": lambda c, org, one: transfer.operation(c, org, one, 20),
    "what undoes an old operation": lambda c, org, one: transfer.undoing(c, org, one, 20),
    "the newest page of a statement": lambda c, org, one: transfer.statement(c, org, one, limit=20),
    "an old page of a statement": lambda c, org, one: transfer.statement(
        c, org, one, before=50, limit=20
    ),
    "a page of an old time": lambda c, org, one: transfer.statement(
        c, org, one, since=SINCE, until=UNTIL, limit=10
    ),
    "a page of an old time to its end": lambda c, org, one: transfer.statement(
        c, org, one, since=SINCE, until=UNTIL
    ),
    "refusals of an old time": lambda c, org, one: pool.refusals(
        c, org, pool_id=one, since=SINCE, until=UNTIL
    ),
    "a draw": lambda c, org, one: decide_locked(
        c, org, [Asked(one, Draw(amount=Decimal(1), key="fresh"))], START + timedelta(days=60)
    ),
    "a refusal": lambda c, org, one: decide_locked(
        c, org, [Asked(one, Draw(amount=Decimal(10**9), subject="s1"))], START + timedelta(days=60)
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_long_ledger_costs_no_more_than_a_short_one(ledgers: Pools, question: str) -> None:
    short, long = (cost(ledgers, key, QUESTIONS[question]) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
