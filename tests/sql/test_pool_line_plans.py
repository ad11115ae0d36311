"""A page of what is behind a line of a pool costs as much however much was used in its period."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from farebox_ledgers import START, Ask, cost, fill_ledgers
from farebox_pools import Pools

from farebox.invoicing.pool_use import PoolUse, PoolUseKind
from farebox.postgres import pool_line
from farebox.postgres.session import Pool

OLD, NEW = 200, 20_000
"""How many holds of overage were settled in the short and the long ledger."""
ROWS_MORE = 60

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
update pool set sequence = 2 * %(count)s + 1 where pool_id = %(pool)s
"""
TABLES = "transfer, pool_grant, pool"
SPAN = START, START + timedelta(days=30)


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a pool that was used for hours and one that was for weeks."""
    organization_id = UUID("01a1fde5-0000-7000-8000-00000000000b")
    counts = {"short": OLD, "long": NEW}
    return fill_ledgers(pool, owner_url, organization_id, counts, FILL, TABLES)


def used(**fields: Any) -> PoolUse:
    told: dict[str, Any] = {"pool": "", "name": "", "unit": "token", "quantity": Decimal(1)}
    told |= {"first_at": SPAN[0], "last_at": SPAN[1]}
    return PoolUse(**told, **fields)


OVERAGE = used(kind=PoolUseKind.OVERAGE, price=Decimal("0.05"), upto=2 * NEW + 1)
BOUGHT = used(kind=PoolUseKind.PURCHASE, grant="g10")

QUESTIONS: dict[str, Ask] = {
    "the first entries of a line": lambda c, org, one: pool_line.line_entries(
        c, org, one, OVERAGE, SPAN, limit=21
    ),
    "a page further on": lambda c, org, one: pool_line.line_entries(
        c, org, one, OVERAGE, SPAN, after=100, limit=21
    ),
    "a grant by its key": lambda c, org, one: pool_line.line_grant(c, org, one, BOUGHT),
    "the entry of a purchase": lambda c, org, one: pool_line.grant_entries(
        c, org, one, BOUGHT, pool_line.line_grant(c, org, one, BOUGHT)
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_long_period_costs_no_more_than_a_short_one(ledgers: Pools, question: str) -> None:
    short, long = (cost(ledgers, key, QUESTIONS[question]) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
