"""What a pool costs in a period, and a page of what is behind a line of it, is found by indexes.

A page costs as much however much was used in the period, the period however old the pool is.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from farebox_ledgers import START, Ask, cost, fill_ledgers
from farebox_pools import HARD, Pools

from farebox.invoicing.pool_use import PoolUse, PoolUseKind
from farebox.postgres import pool_line, pool_use
from farebox.postgres.pool_line import LinePeriod
from farebox.postgres.pool_use import PoolTarget
from farebox.postgres.session import Pool, transaction

OLD, NEW, MANY = 200, 20_000, 5_000
"""How many holds of overage were settled in the short and the long ledger."""
ROWS_MORE = 100

# A hold of overage a minute that is settled, and grants that were bought.
FILL = """
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
  source_after, target_after, available_after, time, origin, subject, price, undoes)
select %(org)s, %(pool)s, 2 * n + x.place, 2 * n + x.place, x.reason, x.source, x.target, 1, 0, 0,
  0, %(start)s + n * interval '1 minute', x.origin, 's' || n %% 10, 0.05, x.undoes
from generate_series(1, %(count)s) n cross join lateral (values
  (0, 'held', 'overage', 'held', null, null),
  (1, 'settled', 'held', 'used', 'overage', 2 * n))
  x(place, reason, source, target, origin, undoes);
insert into pool_grant (organization_id, pool_id, number, key, status, amount, available, held,
  basis, priority, issued_at, effective_at, on_invoice, cost, metadata)
select %(org)s, %(pool)s, 2 * n, 'g' || n, 'closed', 1, 0, 0, 'purchased', 0, %(start)s,
  %(start)s, true, 1, '{}'
from generate_series(1, %(count)s) n;
delete from pool_subscription where pool_id = %(pool)s;
insert into pool_subscription (organization_id, pool_id, first_sequence, priced_from,
  subscription_key)
values (%(org)s, %(pool)s, 1, 1, %(pool)s::text), (%(org)s, %(pool)s, 161, 1, null),
  (%(org)s, %(pool)s, 181, 1, 'other'), (%(org)s, %(pool)s, 201, 1, %(pool)s::text);
update pool set sequence = 2 * %(count)s + 1 where pool_id = %(pool)s
"""
# A pool with which many subscriptions paid in turn.
FILL_MANY = """
insert into pool_subscription (organization_id, pool_id, first_sequence, priced_from,
  subscription_key)
select %(org)s, %(pool)s, n, n, 's' || n from generate_series(2, %(count)s) n
"""
TABLES = "transfer, pool_grant, pool, pool_subscription"
END = START + timedelta(days=30)


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a pool that was used for hours and one that was for weeks."""
    organization_id = UUID("01a1fde5-0000-7000-8000-00000000000b")
    counts = {"short": OLD, "long": NEW}
    filled = fill_ledgers(pool, owner_url, organization_id, counts, FILL, TABLES)
    filled.put("many", HARD)
    values = {"org": organization_id, "pool": filled.ids["many"], "count": MANY}
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(FILL_MANY, values)
        connection.execute("vacuum analyze pool, pool_subscription")
    return filled


def used(**fields: Any) -> PoolUse:
    told: dict[str, Any] = {"pool": "", "name": "", "unit": "token", "quantity": Decimal(1)}
    told |= {"first_at": START, "last_at": END}
    return PoolUse(**told, **fields)


OVERAGE = used(kind=PoolUseKind.OVERAGE, price=Decimal("0.05"), upto=2 * NEW + 1)
BOUGHT = used(kind=PoolUseKind.PURCHASE, grant="g10")


def period(pool_id: UUID) -> LinePeriod:
    return LinePeriod(UUID(int=0), str(pool_id), START, END)


def hours(*subscriptions: str) -> list[PoolTarget]:
    """Return the second and the third hour."""
    start, end = START + timedelta(hours=1), START + timedelta(hours=3)
    return [PoolTarget(key, start, end, "EUR") for key in subscriptions]


QUESTIONS: dict[str, Ask] = {
    "the first entries of a line": lambda c, org, one: pool_line.line_entries(
        c, org, one, OVERAGE, period(one), limit=21
    ),
    "a page further on": lambda c, org, one: pool_line.line_entries(
        c, org, one, OVERAGE, period(one), after=100, limit=21
    ),
    "what an old period cost": lambda c, org, one: pool_use.pool_uses(c, org, hours(str(one))),
    "a grant by its key": lambda c, org, one: pool_line.line_grant(c, org, one, BOUGHT),
    "the entry of a purchase": lambda c, org, one: pool_line.grant_entries(
        c, org, one, BOUGHT, pool_line.line_grant(c, org, one, BOUGHT), period(one)
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_long_period_costs_no_more_than_a_short_one(ledgers: Pools, question: str) -> None:
    short, long = (cost(ledgers, key, QUESTIONS[question]) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"


def test_subscriptions_without_a_pool_cost_no_more_than_a_look_at_an_index(ledgers: Pools) -> None:
    """However many subscriptions have one."""

    def ask(connection: psycopg.Connection, organization_id: UUID, _: UUID) -> object:
        targets = hours(*(f"without-{number}" for number in range(20)))
        return pool_use.pool_uses(connection, organization_id, targets)

    assert cost(ledgers, "many", ask) <= ROWS_MORE


def test_a_period_in_which_another_subscription_paid_meanwhile_has_its_own_entries(
    ledgers: Pools,
) -> None:
    """Two hours with a hold each minute, less ten minutes of nobody and ten of another."""
    with transaction(ledgers.pool, ledgers.organization_id) as connection:
        scope = connection, ledgers.organization_id
        (uses,) = pool_use.pool_uses(*scope, hours(str(ledgers.ids["long"])))
    beyond = [one.quantity for one in uses if one.kind is PoolUseKind.OVERAGE]
    assert [Decimal(120 - 20)] == beyond
