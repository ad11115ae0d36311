"""Purchases that nobody is charged for, and what came back of pools and is credited to nobody."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.invoicing.pool_use import refund_of
from farebox.money.rounding import EXACT, exact_sum


class UnpaidPurchase(Struct, frozen=True):
    """What a pool bought on invoice, less what came back of it, or what is to be credited for it.

    What is to be credited is below zero. count: how many purchases, or entries that came back.
    """

    pool: str
    customer: str | None
    currency: str
    units: Decimal
    cost: Decimal
    count: int
    first_time: datetime
    last_time: datetime


_POOL = """
from pool p
cross join lateral (
  select sequence_at(p.pool_id, %(start)s) as first, sequence_at(p.pool_id, %(end)s) as next
  offset 0) m"""
_ASKED = "p.organization_id = %(org)s and p.key = any(%(pools)s)"
# The index by time is the one to use: most grants cost nothing on an invoice. The predicates of the
# partial indexes are repeated for them to be used.
_PURCHASES = f"""
select p.key, p.customer_key, c.currency, g.issued_at, g.amount, g.cost,
       coalesce((select sum(t.amount) from transfer t where t.pool_id = g.pool_id
         and t.reason in ('grant_voided', 'grant_unpaid') and t.grant_number = g.number
         and t.sequence > g.number), 0)
from pool p
cross join lateral (
  select * from pool_grant g
  where g.pool_id = p.pool_id and g.on_invoice and g.cost > 0
    and g.issued_at >= %(start)s and g.issued_at < %(end)s
  offset 0) g
cross join lateral pool_charge(g.pool_id, g.number, null) c
where {_ASKED} and c.charged is null
order by p.key, c.currency, g.number"""
# Units beyond the grants, at their price, and those of purchases, with what came back before.
_CREDITS = f"""
select p.key, p.customer_key, c.currency, t.time, t.amount, t.price, null, null, null
{_POOL}
cross join lateral (
  select * from transfer t
  where t.pool_id = p.pool_id and t.sequence >= m.first and t.sequence < m.next
    and t.source = 'used' and t.reason <> 'voided' and t.origin in ('overage', 'burst')
    and t.price > 0
  offset 0) t
cross join lateral pool_charge(t.pool_id, t.undoes, t.sequence) c
where {_ASKED} and c.charged is not null and c.credited is null
union all
select p.key, p.customer_key, c.currency, t.time, t.amount, null, g.amount, g.cost, (
  select coalesce(sum(b.amount), 0) from transfer b where b.pool_id = t.pool_id
    and b.reason in ('grant_voided', 'grant_unpaid') and b.grant_number = g.number
    and b.sequence > g.number and b.sequence < t.sequence)
{_POOL}
cross join lateral (
  select * from transfer t
  where t.pool_id = p.pool_id and t.sequence >= m.first and t.sequence < m.next
    and t.reason in ('grant_voided', 'grant_unpaid')
  offset 0) t
cross join lateral (
  select * from pool_grant g where g.pool_id = t.pool_id and g.number = t.grant_number
    and g.on_invoice and g.cost > 0
  offset 0) g
cross join lateral pool_charge(t.pool_id, g.number, t.sequence) c
where {_ASKED} and c.charged is not null and c.credited is null
order by 1, 3, 4"""


def unpaid_purchases(
    connection: Connection,
    organization_id: UUID,
    pools: Sequence[str],
    start: datetime,
    end: datetime,
) -> list[UnpaidPurchase]:
    """Return what pools bought on invoice in [start, end) and nobody is charged for."""
    rows = connection.execute(_PURCHASES, _asked(organization_id, pools, start, end)).fetchall()
    parts = []
    for pool, customer, currency, time, bought, cost, back in rows:
        units = EXACT.subtract(bought, back)
        left = EXACT.subtract(cost, refund_of(cost, bought, Decimal(0), back, currency))
        if units:
            parts.append((pool, customer, currency, time, units, left))
    return _summed(parts)


def uncredited(
    connection: Connection,
    organization_id: UUID,
    pools: Sequence[str],
    start: datetime,
    end: datetime,
) -> list[UnpaidPurchase]:
    """Return what came back in [start, end) of what was charged, and is credited to nobody."""
    rows = connection.execute(_CREDITS, _asked(organization_id, pools, start, end)).fetchall()
    parts = []
    for pool, customer, currency, time, units, price, bought, cost, before in rows:
        if price is None:
            worth = refund_of(cost, bought, before, units, currency)
        else:
            worth = EXACT.multiply(units, price)
        parts.append((pool, customer, currency, time, EXACT.minus(units), EXACT.minus(worth)))
    return _summed(parts)


def _asked(
    organization_id: UUID, pools: Sequence[str], start: datetime, end: datetime
) -> Mapping[str, object]:
    return {"org": organization_id, "pools": list(pools), "start": start, "end": end}


def _summed(
    parts: Sequence[tuple[str, str | None, str, datetime, Decimal, Decimal]],
) -> list[UnpaidPurchase]:
    """Return the parts, in their order, as one for each pool and currency."""
    found = []
    for (pool, customer, currency), of_pool in groupby(parts, itemgetter(slice(3))):
        times, units, costs = zip(*(part[3:] for part in of_pool), strict=True)
        found.append(
            UnpaidPurchase(
                pool=pool,
                customer=customer,
                currency=currency,
                units=exact_sum(units),
                cost=exact_sum(costs),
                count=len(times),
                first_time=min(times),
                last_time=max(times),
            )
        )
    return found
