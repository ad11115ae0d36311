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
#
# `span`: entries of the period that are charged to the subscription, as `pool_charge` says it; a
# period lies within its dates. What a hold had set aside before has its price from `priced_at`.
_TARGET = """
with paid as materialized (
  select n - 1 as n, t.subscription_key, t.start_at, t.end_at, r.pool_id, r.first_sequence,
         r.next_sequence, r.priced_from
  from unnest(%(subscriptions)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    with ordinality t(subscription_key, start_at, end_at, n)
  cross join lateral (
    select * from pool_payer
    where organization_id = %(org)s and subscription_key = t.subscription_key offset 0) r
),
target as materialized (
  select g.*, p.key, p.unit, p.sequence as upto, p.definition ->> 'name' as name,
         s.first, s.next
  from (select distinct n, subscription_key, start_at, end_at, pool_id from paid) g
  cross join lateral (select * from pool where pool_id = g.pool_id offset 0) p
  cross join lateral (
    select sequence_at(g.pool_id, g.start_at) as first, sequence_at(g.pool_id, g.end_at) as next
    offset 0) s
),
span as materialized (
  select g.*, r.priced_from, greatest(g.first, r.first_sequence) as used_first,
         least(g.next, r.next_sequence) as used_next
  from target g join paid r on r.n = g.n and r.pool_id = g.pool_id
)"""
# What was taken counts, what of it was taken back counts against it: in the period in which that
# moved, but where the usage was voided, in that of the use; there is no final invoice of it then.
# The predicates of the partial indexes are repeated for them to be used.
#
# An episode ends where an operation took from grants alone; between neighbours there is none. What
# was taken back stands at the place of its use, with its episode; use that is on another invoice,
# of an earlier period or of another subscription, is -1.
_BEYOND = f"""{_TARGET},
entry as (
  select g.n, g.pool_id, x.*
  from span g
  cross join lateral (
    select coalesce(t.origin, t.source) as account, t.price, t.time, t.sequence, t.operation,
           t.amount, t.operation as place, true as taken, false as earlier
    from transfer t
    where t.pool_id = g.pool_id and t.sequence >= g.used_first and t.sequence < g.used_next
      and (t.source in ('overage', 'burst') or t.origin in ('overage', 'burst'))
      and t.target = 'used'
      and case when coalesce(t.undoes, t.sequence) >= g.priced_from then true
          else priced_at(t.pool_id, t.sequence) >= g.priced_from end
    union all
    select t.origin, t.price, t.time, t.sequence, t.operation, -t.amount, t.undoes, false, false
    from transfer t
    where t.pool_id = g.pool_id and t.undoes >= g.used_first and t.undoes < g.used_next
      and t.source = 'used' and t.reason = 'voided' and t.origin in ('overage', 'burst')
      and case when g.priced_from <= (
            select coalesce(u.undoes, u.sequence) from transfer u
            where u.pool_id = t.pool_id and u.sequence = t.undoes) then true
          else priced_at(t.pool_id, t.sequence) >= g.priced_from end
    offset 0) x
  union all
  select g.n, g.pool_id, t.account, t.price, t.time, t.sequence, t.operation, t.amount, t.undoes,
         false, t.undoes < g.first or c.charged <> g.subscription_key
  from target g
  cross join lateral (
    select t.origin as account, t.price, t.time, t.sequence, t.operation, -t.amount as amount,
           t.undoes
    from transfer t
    where t.pool_id = g.pool_id and t.sequence >= g.first and t.sequence < g.next
      and t.source = 'used' and t.reason <> 'voided' and t.origin in ('overage', 'burst')
    offset 0) t
  cross join lateral pool_charge(g.pool_id, t.undoes, t.sequence) c
  where c.credited = g.subscription_key
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
join target g
  on g.n = o.n and g.pool_id = o.pool_id
group by g.n, g.key, g.name, g.unit, g.upto, o.account, o.price, least(o.row, %(most)s),
         o.episode < 0
order by g.n, g.key, o.account, o.price, min(o.row)"""
# The index by time is the one to use: most grants cost nothing on an invoice, so `+ 0`.
_PURCHASES = f"""{_TARGET}
select g.n, g.key, g.name, g.unit, p.amount, p.cost, coalesce(p.key, p.number::text), p.issued_at
from span g
cross join lateral (
  select * from pool_grant p
  where p.pool_id = g.pool_id and p.on_invoice and p.cost is not null
    and p.issued_at >= g.start_at and p.issued_at < g.end_at
    and p.number + 0 >= g.used_first and p.number + 0 < g.used_next
  offset 0) p
order by 1, 2, p.number"""
# What is taken back of a purchase, or was never paid, is not charged; what was used of it stays so.
# What comes back once it was voided is taken back then: the last column is what came back before.
# The predicate of the partial index is repeated for it to be used.
_REFUNDS = f"""{_TARGET},
returned as (
  select g.n, g.pool_id, g.subscription_key, g.key, g.name, g.unit, t.grant_number, t.sequence,
         t.time, t.amount,
         sum(t.amount) over of_grant - t.amount as before,
         min(t.sequence) over (partition by g.n, g.pool_id, t.grant_number) as first
  from target g
  cross join lateral (
    select * from transfer t
    where t.pool_id = g.pool_id and t.reason in ('grant_voided', 'grant_unpaid')
      and t.sequence >= g.first and t.sequence < g.next
    offset 0) t
  window of_grant as (partition by g.n, g.pool_id, t.grant_number order by t.sequence)
),
earlier as materialized (
  select g.n, g.pool_id, g.grant_number, (
    select coalesce(sum(t.amount), 0) from transfer t where t.pool_id = g.pool_id
      and t.reason in ('grant_voided', 'grant_unpaid') and t.grant_number = g.grant_number
      and t.sequence >= g.grant_number and t.sequence < g.first) as amount
  from (select distinct n, pool_id, grant_number, first from returned) g
)
select r.n, r.key, r.name, r.unit, p.amount, p.cost, coalesce(p.key, p.number::text), p.number,
       r.time, r.amount, e.amount + r.before
from returned r
join earlier e on e.n = r.n and e.pool_id = r.pool_id and e.grant_number = r.grant_number
cross join lateral (
  select * from pool_grant p where p.pool_id = r.pool_id and p.number = r.grant_number
    and p.on_invoice and p.cost is not null
  offset 0) p
cross join lateral pool_charge(r.pool_id, p.number, r.sequence) c
where c.credited = r.subscription_key
order by 1, 2, r.first, p.number, r.sequence"""


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
    """Yield what came back of purchases: of each once, in however many parts that was."""
    rows = connection.execute(_REFUNDS, parameters).fetchall()
    for (n, key, name, unit, bought, cost, grant, _), of_grant in groupby(
        rows, itemgetter(slice(8))
    ):
        parts = [row[8:] for row in of_grant]
        refunds = [
            refund_of(cost, bought, earlier, amount, targets[n].currency)
            for _, amount, earlier in parts
        ]
        yield (
            n,
            PoolUse(
                pool=key,
                name=name,
                unit=unit,
                kind=PoolUseKind.REFUND,
                quantity=EXACT.minus(exact_sum([amount for _, amount, _ in parts])),
                cost=EXACT.minus(exact_sum(refunds)),
                grant=grant,
                first_at=parts[0][0],
                last_at=parts[-1][0],
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
