"""What pools cost between two instants: entries beyond grants, purchases and their refunds."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.invoicing.pool_use import Episode, PoolUse, PoolUseKind, refund_of
from farebox.money.rounding import EXACT, exact_sum


class PoolTarget(Struct, frozen=True):
    """A subscription and the half-open span in which its pools' units moved; how it is billed."""

    subscription_key: str
    start: datetime
    end: datetime
    currency: str


EPISODES_MAX = 500
"""Of a line's episodes so many are kept; the last one stands for all that followed."""

# `offset 0`: the subscriptions come first, then a look by key for each, whatever the planner thinks
# of organizations that are larger or smaller than most.
_TARGET = """
with target as materialized (
  select n - 1 as n, t.start_at, t.end_at, p.pool_id, p.key, p.unit, p.sequence as upto,
         p.definition ->> 'name' as name, r.first_sequence, r.used_until, r.returned_until
  from unnest(%(subscriptions)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    with ordinality t(subscription_key, start_at, end_at, n)
  cross join lateral (
    select * from pool_subscription
    where organization_id = %(org)s and subscription_key = t.subscription_key offset 0) r
  cross join lateral (select * from pool where pool_id = r.pool_id offset 0) p
)"""
# What was taken counts, what of it was taken back counts against it: in the period in which that
# moved, but where the usage was voided, in that of the use; there is no final invoice of it then.
# The predicate of the partial index is repeated for it to be used.
#
# An episode ends where an operation took from grants alone; between neighbours there is none. What
# was taken back stands at the place of its use, with its episode; use that is on another invoice,
# of an earlier period or of the subscription that paid before, is -1.
_BEYOND = f"""{_TARGET},
span as materialized (
  select g.n, g.pool_id, greatest(s.first, g.first_sequence) as first,
         least(s.next, g.used_until) as used, least(s.next, g.returned_until) as returned
  from target g
  cross join lateral (
    select sequence_at(g.pool_id, g.start_at) as first, sequence_at(g.pool_id, g.end_at) as next
    offset 0) s
),
entry as (
  select g.n, g.pool_id, x.*, not x.taken and not exists (
           select from span s where s.n = g.n and s.pool_id = g.pool_id
             and x.place >= s.first and x.place < s.used) as earlier
  from span g
  cross join lateral (
    select coalesce(t.origin, t.source) as account, t.price, t.time, t.sequence, t.operation,
           case when t.target = 'used' then t.amount else -t.amount end as amount,
           case when t.target = 'used' then t.operation else t.undoes end as place,
           t.target = 'used' as taken
    from transfer t
    where t.pool_id = g.pool_id and t.sequence >= g.first and t.sequence < g.returned
      and (t.source in ('overage', 'burst') or t.origin in ('overage', 'burst'))
      and (t.target = 'used' and t.sequence < g.used or t.source = 'used')
      and t.reason <> 'voided'
    union all
    select t.origin, t.price, t.time, t.sequence, t.operation, -t.amount, t.undoes, false
    from transfer t
    where t.pool_id = g.pool_id and t.undoes >= g.first and t.undoes < g.used
      and t.reason = 'voided' and t.origin in ('overage', 'burst')
    offset 0) x
),
followed as (
  select e.*, case when e.taken then lag(e.sequence) over
           (partition by e.n, e.pool_id, e.account, e.taken order by e.sequence) end as before
  from entry e
),
marked as (
  select f.*, f.before + 1 < f.operation and exists (
      select from transfer t
      where t.pool_id = f.pool_id and t.sequence > f.before and t.sequence < f.operation
        and t.source = 'grant' and t.target in ('used', 'held')
        and t.operation is distinct from (
          select b.operation from transfer b
          where b.pool_id = t.pool_id and b.sequence >= t.operation
            and (b.source in ('overage', 'burst') or b.origin in ('overage', 'burst'))
          order by b.sequence limit 1)
    ) as begins
  from followed f
),
numbered as (
  select m.*, case when m.earlier then -1 else count(*) filter (where m.begins) over
      (partition by m.n, m.pool_id, m.account order by m.place, not m.taken, m.sequence)
    end as episode
  from marked m
),
told as (
  select n, pool_id, account, price, episode,
         coalesce(min(time) filter (where taken), min(time)) as start_at,
         coalesce(max(time) filter (where taken), max(time)) as end_at,
         sum(amount) as units, min(place) as first, max(place) as last, count(*) as entries,
         row_number() over (partition by n, pool_id, account, price order by episode) as row
  from numbered group by 1, 2, 3, 4, 5
)
select g.n, g.key, g.name, g.unit, g.upto, o.account, o.price, min(o.start_at), max(o.end_at),
       sum(o.units), min(o.first), max(o.last), sum(o.entries)::bigint, count(*), o.episode < 0
from told o
join (select distinct n, pool_id, key, name, unit, upto from target) g
  on g.n = o.n and g.pool_id = o.pool_id
group by g.n, g.key, g.name, g.unit, g.upto, o.account, o.price, least(o.row, %(most)s),
         o.episode < 0
order by g.n, g.key, o.account, o.price, min(o.row)"""
# The index by time is the one to use: most grants cost nothing on an invoice, so `+ 0`.
_PURCHASES = f"""{_TARGET}
select g.n, g.key, g.name, g.unit, p.amount, p.cost, coalesce(p.key, p.number::text), p.issued_at
from target g
cross join lateral (
  select * from pool_grant p
  where p.pool_id = g.pool_id and p.on_invoice and p.cost is not null
    and p.issued_at >= g.start_at and p.issued_at < g.end_at
    and p.number + 0 >= g.first_sequence and (g.used_until is null or p.number + 0 < g.used_until)
  offset 0) p
order by 1, 2, p.number"""
# What is taken back of a purchase, or was never paid, is not charged; what was used of it stays so.
# What comes back once it was voided is taken back then: the last column is what came back before.
# The predicate of the partial index is repeated for it to be used.
_REFUNDS = f"""{_TARGET},
returned as (
  select g.n, g.pool_id, g.key, g.name, g.unit, g.first_sequence, t.grant_number,
         min(t.sequence) as first, min(t.time) as first_at, max(t.time) as last_at,
         sum(t.amount) as amount
  from target g
  cross join lateral (
    select greatest(sequence_at(g.pool_id, g.start_at), g.first_sequence) as first,
           least(sequence_at(g.pool_id, g.end_at), g.returned_until) as next
    offset 0) s
  cross join lateral (
    select * from transfer t
    where t.pool_id = g.pool_id and t.reason in ('grant_voided', 'grant_unpaid')
      and t.sequence >= s.first and t.sequence < s.next
    offset 0) t
  group by 1, 2, 3, 4, 5, 6, 7
)
select r.n, r.key, r.name, r.unit, p.amount, p.cost, coalesce(p.key, p.number::text), p.number,
       r.first_at, r.last_at, r.amount,
       coalesce((select sum(t.amount) from transfer t where t.pool_id = r.pool_id
         and t.reason in ('grant_voided', 'grant_unpaid') and t.grant_number = r.grant_number
         and t.sequence >= r.grant_number and t.sequence < r.first), 0)
from returned r
cross join lateral (
  select * from pool_grant p where p.pool_id = r.pool_id and p.number = r.grant_number
    and p.on_invoice and p.cost is not null
  offset 0) p
order by 1, 2, min(r.first) over (partition by r.n, r.pool_id, p.number), p.number, r.first"""


def pool_uses(
    connection: Connection, organization_id: UUID, targets: Sequence[PoolTarget]
) -> list[list[PoolUse]]:
    """Return for each target what its pools cost: purchases, refunds, units beyond the grants."""
    parameters: dict[str, Any] = {
        "org": organization_id,
        "subscriptions": [one.subscription_key for one in targets],
        "starts": [one.start for one in targets],
        "ends": [one.end for one in targets],
        "most": EPISODES_MAX,
    }
    found: list[list[PoolUse]] = [[] for _ in targets]
    for n, key, name, unit, amount, cost, grant, time in connection.execute(
        _PURCHASES, parameters
    ).fetchall():
        found[n].append(
            PoolUse(
                pool=key,
                name=name,
                unit=unit,
                kind=PoolUseKind.PURCHASE,
                quantity=amount,
                cost=cost,
                grant=grant,
                first_at=time,
                last_at=time,
            )
        )
    for n, use in _refunds(connection, parameters, targets):
        found[n].append(use)
    for n, use in _beyond(connection, parameters):
        found[n].append(use)
    return found


def _refunds(
    connection: Connection, parameters: dict[str, Any], targets: Sequence[PoolTarget]
) -> Iterator[tuple[int, PoolUse]]:
    """Yield what came back of purchases: of each once, however often the pool changed hands."""
    rows = connection.execute(_REFUNDS, parameters).fetchall()
    for (n, key, name, unit, bought, cost, grant, _), of_grant in groupby(
        rows, itemgetter(slice(8))
    ):
        parts = [row[8:] for row in of_grant]
        refunds = [
            refund_of(cost, bought, earlier, amount, targets[n].currency)
            for _, _, amount, earlier in parts
        ]
        yield (
            n,
            PoolUse(
                pool=key,
                name=name,
                unit=unit,
                kind=PoolUseKind.REFUND,
                quantity=EXACT.minus(exact_sum([amount for _, _, amount, _ in parts])),
                cost=EXACT.minus(exact_sum(refunds)),
                grant=grant,
                first_at=parts[0][0],
                last_at=parts[-1][1],
            ),
        )


def _beyond(connection: Connection, parameters: dict[str, Any]) -> Iterator[tuple[int, PoolUse]]:
    """Yield what was taken beyond the grants, by pool, account and price."""
    rows = connection.execute(_BEYOND, parameters).fetchall()
    for (n, key, name, unit, upto, account, price), of_line in groupby(rows, itemgetter(slice(7))):
        episodes = tuple(
            Episode(start, end, units, first, last, entries, count, earlier)
            for start, end, units, first, last, entries, count, earlier in (
                row[7:] for row in of_line
            )
        )
        quantity = exact_sum([one.units for one in episodes])
        if quantity:
            yield (
                n,
                PoolUse(
                    pool=key,
                    name=name,
                    unit=unit,
                    kind=PoolUseKind(account),
                    quantity=quantity,
                    price=price,
                    first_at=min(one.start for one in episodes),
                    last_at=max(one.end for one in episodes),
                    episodes=episodes,
                    upto=upto,
                ),
            )
