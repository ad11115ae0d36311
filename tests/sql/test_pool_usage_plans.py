"""Usage, live balances and the list of pools cost as much however long a pool has been used."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from farebox_ledgers import START, Ask, cost, fill_ledgers
from farebox_pools import Pools

from farebox.postgres import pool_balance, pool_due, pool_list, pool_usage
from farebox.postgres.pool_usage import Teller
from farebox.postgres.session import Pool

OLD, NEW = 200, 20_000
TAIL = 50
"""How many draws are not in the sums yet."""
ROWS_MORE = 80

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


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a pool that was used for hours and one that was for weeks."""
    organization_id = UUID("01a1fde5-0000-7000-8000-000000000007")
    counts = {"short": OLD, "long": NEW}
    return fill_ledgers(pool, owner_url, organization_id, counts, FILL, TABLES, tail=TAIL)


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
    "the latest changes of a balance": lambda c, org, one: pool_list.balance_changes(
        c, org, one, UNTIL, 40
    ),
    "whether something is due": lambda c, org, one: pool_due.lock_due(c, org, one, START),
    "the outbox": lambda c, org, _: pool_due.lock_touched(c, org, 10),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_long_ledger_costs_no_more_than_a_short_one(ledgers: Pools, question: str) -> None:
    short, long = (cost(ledgers, key, QUESTIONS[question]) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
