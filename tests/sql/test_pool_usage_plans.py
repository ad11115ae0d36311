"""Usage, live balances and the list of pools cost as much however long a pool has been used."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from farebox_pools import HARD, Pools

from farebox.postgres import pool_balance, pool_due, pool_list, pool_usage
from farebox.postgres.pool_usage import Teller
from farebox.postgres.session import Pool, bound

START = datetime(2026, 10, 2, tzinfo=UTC)
OLD, NEW = 200, 20_000
TAIL = 50
"""How many draws are not in the sums yet."""
ROWS_MORE = 80
RUNS = 12

# A draw a minute by ten subjects in turn; all but the last are in sums by the hour.
FILL = """
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
  source_after, target_after, available_after, time, grant_number, subject)
select %(org)s, %(pool)s, 1 + n, 1 + n, 'drawn', 'grant', 'used', 1, 0, 0, 0,
  %(start)s + n * interval '1 minute', 1, 's' || n %% 10
from generate_series(1, %(count)s) n;
insert into pool_usage select %(org)s, pool_id, date_trunc('hour', time, 'UTC'), subject, '',
  count(*), count(*), 0, count(*)
from transfer where pool_id = %(pool)s and sequence > 1 and sequence <= %(count)s - %(tail)s + 1
group by 1, 2, 3, 4;
insert into pool_usage_mark values (%(org)s, %(pool)s, %(count)s - %(tail)s + 1);
delete from pool_touched where organization_id = %(org)s;
update pool set sequence = %(count)s + 1 where pool_id = %(pool)s
"""
TABLES = "transfer, pool_usage, pool_usage_mark, pool_touched, pool"

Ask = Callable[[psycopg.Connection, UUID, UUID], object]


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a pool that was used for hours and one that was for weeks."""
    found = Pools(pool, UUID("01a1fde5-0000-7000-8000-000000000007"), START)
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "select create_organization(%s, 'pool-usage', '', now())", (found.organization_id,)
        )
    for key, count in (("short", OLD), ("long", NEW)):
        found.put(key, HARD)
        found.grant(key, 1_000_000)
        values = {
            "org": found.organization_id,
            "pool": found.ids[key],
            "start": START,
            "count": count,
            "tail": TAIL,
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
        assert ask(connection, ledgers.organization_id, ledgers.ids[key]) is not None
        after = rows_read(connection)
        connection.execute("rollback; begin")
    return after - before


SINCE, UNTIL = START + timedelta(hours=1), START + timedelta(hours=3)
HOURS = [SINCE + timedelta(minutes=15 * at) for at in range(3)]


def fold(connection: psycopg.Connection, organization_id: UUID, pool_id: UUID) -> bool:
    pool_usage.fold_use(connection, organization_id, [pool_id])
    return True


QUESTIONS: dict[str, Ask] = {
    "all use of an old time": lambda c, org, one: pool_usage.total_use(c, org, one, SINCE, UNTIL),
    "use by subject": lambda c, org, one: pool_usage.use_by_name(
        c, org, one, Teller.SUBJECT, SINCE, UNTIL
    ),
    "use of one subject by window": lambda c, org, one: pool_usage.use_by_window(
        c, org, one, HOURS, UNTIL, subject="s1"
    ),
    "a step of the follower": fold,
    "what a pool stands at": pool_balance.find_balance,
    "a look at live balances": lambda c, org, one: pool_balance.moved_balances(
        c, org, [(one, -1)], START
    ),
    "the list of pools": lambda c, org, _: pool_list.pool_items(c, org),
    "how a balance went": lambda c, org, one: pool_list.balance_course(c, org, one, HOURS),
    "whether something is due": lambda c, org, one: pool_due.lock_due(c, org, one, START),
    "the outbox": lambda c, org, _: pool_due.lock_touched(c, org, 10),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_long_ledger_costs_no_more_than_a_short_one(ledgers: Pools, question: str) -> None:
    short, long = (cost(ledgers, key, QUESTIONS[question]) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
