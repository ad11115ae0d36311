"""Units that pools gave beyond their grants and that reach nobody's invoice.

Of what was taken it is what nobody is charged for, less what of that came back since.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered, encode_numbered

# The predicate of the partial index `transfer_beyond`, as it stands there.
_IS_BEYOND = "(t.source in ('overage', 'burst') or t.origin in ('overage', 'burst'))"


def pools_costing(
    connection: Connection, organization_id: UUID, *, after: str, limit: int
) -> list[str]:
    """Return the keys of pools that ever gave units beyond their grants, or sold some on invoice.

    What was borrowed (overdraft) is not beyond.
    """
    rows = connection.execute(
        "select p.key from pool p cross join lateral ("
        f"  (select from transfer t where t.pool_id = p.pool_id and {_IS_BEYOND} limit 1)"
        "  union all"
        "  (select from pool_grant g where g.pool_id = p.pool_id and g.on_invoice limit 1)"
        "  limit 1) x"
        " where p.organization_id = %s and p.key > %s order by p.key limit %s",
        (organization_id, after, limit),
    ).fetchall()
    return [row[0] for row in rows]


class UnpaidBeyond(Struct, frozen=True):
    """Units that a pool gave beyond its grants, without a price or without a subscription.

    cost, currency: of those that have a price. operations: how many draws and settled holds took
    some.
    """

    pool: str
    customer: str | None
    priced: bool
    currency: str | None
    units: Decimal
    cost: Decimal | None
    operations: int
    first_time: datetime
    last_time: datetime


_MOVED = "between sequence_at(p.pool_id, %(start)s) and sequence_at(p.pool_id, %(end)s) - 1"
# A plan charges usage that such a draw counts (`catalog.feature_card`).
_CHARGED = """exists (
      select from pool_burn b
      where b.pool_id = d.pool_id and b.rate_card_key like 'charged/%%'
        and b.since <= coalesce(d.used_at, d.time)
        and (b.until is null or coalesce(d.used_at, d.time) < b.until))"""
# Draws that were asked for, of a pool that only counts what a plan charges.
_ASKED = f"""
select d.pool_id, d.sequence, d.time
from pool p
cross join lateral (
  select distinct case t.target when 'used' then t.operation else t.undoes end as draw
  from transfer t
  where t.pool_id = p.pool_id and t.sequence {_MOVED} and {_IS_BEYOND} and t.price is null
    and (t.target = 'used' or t.source = 'used')) t
join transfer d on d.pool_id = p.pool_id and d.sequence = t.draw and d.reason <> 'metered'
where p.organization_id = %(org)s and p.key = any(%(pools)s) and {_CHARGED}"""
# No event that names a draw came before it, but for clocks that differ.
_NAMED = """
select distinct n.draw
from event e cross join lateral (select e.payload ->> 'fareboxdraw' as draw offset 0) n
where e.organization_id = %(org)s and e.received_at >= %(since)s - interval '1 hour'
  and n.draw = any(%(draws)s)
  and not exists (select from void v
                  where v.organization_id = %(org)s and v.sequence = e.sequence)"""

# What was taken in the span and is charged to nobody, as `pool_charge` says it of one operation,
# less what came back of it, whenever. A draw of usage that a plan charges is paid for: it was made
# for events, or events name it. The predicates of the partial indexes are repeated for them to be
# used.
_UNPAID = f"""
select p.key, p.customer_key, x.priced, x.currency, x.units, x.cost, x.operations, x.first_time,
       x.last_time
from pool p
cross join lateral (
  select sequence_at(p.pool_id, %(start)s) as first, sequence_at(p.pool_id, %(end)s) as next
  offset 0) m
cross join lateral (
  select t.price is not null as priced,
         case when t.price is not null then t.currency end as currency,
         sum(t.amount) as units, sum(t.amount * t.price) as cost,
         count(distinct t.draw) filter (where t.taken) as operations,
         min(t.time) filter (where t.taken) as first_time,
         max(t.time) filter (where t.taken) as last_time
  from (
    select t.price, t.amount, t.time, t.operation as draw, true as taken,
           case when r.priced then r.currency else c.currency end as currency
    from transfer t
    cross join lateral (
      select r.currency,
             case when coalesce(t.undoes, t.sequence) >= r.priced_from then true
                  else priced_at(t.pool_id, t.sequence) >= r.priced_from end as priced,
             s.starts_at <= t.time and (t.time < s.ends_at) is not false as runs
      from pool_subscription r
      left join subscription s
        on s.organization_id = r.organization_id and s.key = r.subscription_key
      where r.pool_id = t.pool_id and r.first_sequence <= t.sequence
      order by r.first_sequence desc limit 1) r
    left join lateral pool_charge(t.pool_id, t.operation, t.sequence) c
      on not r.priced
    where t.pool_id = p.pool_id and t.sequence >= m.first and t.sequence < m.next
      and {_IS_BEYOND} and t.target = 'used'
      and (t.price is null or (r.priced and r.runs) is not true)
    union all
    select t.price, -t.amount, t.time, t.undoes, false, c.currency
    from transfer t
    cross join lateral pool_charge(t.pool_id, t.undoes, t.sequence) c
    where t.pool_id = p.pool_id and t.source = 'used' and t.sequence > m.first
      and t.undoes >= m.first and t.undoes < m.next and t.origin in ('overage', 'burst')
      and (t.price is null or c.charged is null)) t
  where not (t.price is null and exists (
      select from transfer d
      where d.pool_id = p.pool_id and d.sequence = t.draw and {_CHARGED}
        and (d.reason = 'metered' or (d.pool_id, d.sequence) in (
          select * from unnest(%(named_pools)s::uuid[], %(named_draws)s::bigint[])))))
  group by 1, 2) x
where p.organization_id = %(org)s and p.key = any(%(pools)s) and x.units > 0
order by p.key, x.priced, x.currency"""


def unpaid_beyond(
    connection: Connection,
    organization_id: UUID,
    pools: Sequence[str],
    start: datetime,
    end: datetime,
) -> list[UnpaidBeyond]:
    """Return what was taken in [start, end), by pool and then what has no price first."""
    parameters = {"org": organization_id, "pools": list(pools), "start": start, "end": end}
    named = _named(connection, parameters)
    parameters["named_pools"] = [pool_id for pool_id, _ in named]
    parameters["named_draws"] = [number for _, number in named]
    return [UnpaidBeyond(*row) for row in connection.execute(_UNPAID, parameters).fetchall()]


def _named(connection: Connection, parameters: Mapping[str, object]) -> list[tuple[UUID, int]]:
    """Return those of the draws that were asked for which events of the stream name."""
    asked = connection.execute(_ASKED, parameters).fetchall()
    if not asked:
        return []
    draws = [encode_numbered(Prefix.DRAW, pool_id, number) for pool_id, number, _ in asked]
    since = min(time for _, _, time in asked)
    rows = connection.execute(
        _NAMED, {"org": parameters["org"], "draws": draws, "since": since}
    ).fetchall()
    found = (decode_numbered(Prefix.DRAW, draw) for (draw,) in rows)
    return [one for one in found if one is not None]
