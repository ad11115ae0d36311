"""What pools cost between two instants: entries beyond grants, purchases and their refunds."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.invoicing.pool_use import Episode, PoolUse, PoolUseKind
from farebox.ledger.grant import cost_of_part
from farebox.money.rounding import EXACT


class PoolTarget(Struct, frozen=True):
    """A subscription and the half-open span in which its pools' units moved."""

    subscription_key: str
    start: datetime
    end: datetime


_TARGET = """
with target as (
  select n - 1 as n, t.start_at, t.end_at, p.pool_id, p.key, p.unit,
         p.definition ->> 'name' as name
  from unnest(%(subscriptions)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    with ordinality t(subscription_key, start_at, end_at, n)
  join pool p on p.organization_id = %(org)s and p.subscription_key = t.subscription_key
)"""
# What was taken counts, what of it was taken back counts against it: in the period in which that
# moved, but where the usage was voided, in that of the use; there is no final invoice of it then.
# The predicate of the partial index is repeated for it to be used.
_BEYOND = f"""{_TARGET}
select g.n, g.key, g.name, g.unit, x.account, x.price, sum(x.amount), min(x.time), max(x.time)
from target g
cross join lateral (
  select coalesce(t.origin, t.source) as account, t.price, t.time,
         case when t.target = 'used' then t.amount else -t.amount end as amount
  from transfer t
  where t.pool_id = g.pool_id and t.sequence >= sequence_at(g.pool_id, g.start_at)
    and t.sequence < sequence_at(g.pool_id, g.end_at)
    and (t.source in ('overage', 'burst') or t.origin in ('overage', 'burst'))
    and (t.target = 'used' or t.source = 'used') and t.reason <> 'voided'
  union all
  select t.origin, t.price, d.time, -t.amount
  from transfer t join transfer d on d.pool_id = t.pool_id and d.sequence = t.undoes
  where t.pool_id = g.pool_id and t.undoes >= sequence_at(g.pool_id, g.start_at)
    and t.undoes < sequence_at(g.pool_id, g.end_at) and t.reason = 'voided'
    and t.origin in ('overage', 'burst')) x
group by 1, 2, 3, 4, 5, 6
order by 1, 2, 5, 6"""
_PURCHASES = f"""{_TARGET}
select g.n, g.key, g.name, g.unit, p.amount, p.cost, coalesce(p.key, p.number::text), p.issued_at
from target g
join pool_grant p on p.pool_id = g.pool_id and p.on_invoice and p.cost is not null
  and p.issued_at >= g.start_at and p.issued_at < g.end_at
order by 1, 2, p.number"""
# What is taken back of a purchase, or was never paid, is not charged; what was used of it stays so.
# The predicate of the partial index is repeated for it to be used.
_REFUNDS = f"""{_TARGET}
select g.n, g.key, g.name, g.unit, p.amount, p.cost, coalesce(p.key, p.number::text), t.time,
       t.amount
from target g
join transfer t on t.pool_id = g.pool_id and t.reason in ('grant_voided', 'grant_unpaid')
  and t.sequence >= sequence_at(g.pool_id, g.start_at)
  and t.sequence < sequence_at(g.pool_id, g.end_at)
join pool_grant p on p.pool_id = g.pool_id and p.number = t.grant_number
  and p.on_invoice and p.cost is not null
order by 1, 2, t.sequence"""
# An episode ends where an operation drew from grants alone again.
_EPISODES = f"""{_TARGET},
burst as (
  select g.n, g.key, t.pool_id, t.operation, t.sequence, t.time, t.amount, t.price,
         lag(t.sequence) over (partition by g.n, g.pool_id order by t.sequence) as before
  from target g
  join transfer t on t.pool_id = g.pool_id and t.sequence >= sequence_at(g.pool_id, g.start_at)
    and t.sequence < sequence_at(g.pool_id, g.end_at)
    and (t.source in ('overage', 'burst') or t.origin in ('overage', 'burst'))
    and t.source = 'burst'
),
marked as (
  select b.*, exists (
      select from transfer f where f.pool_id = b.pool_id and f.sequence > b.before
        and f.sequence < b.operation and f.source = 'grant' and f.target in ('used', 'held')
    ) as begins
  from burst b
),
numbered as (
  select m.*, count(*) filter (where m.begins)
    over (partition by m.n, m.pool_id order by m.sequence) as episode
  from marked m
)
select n, key, price, episode, min(time), max(time), sum(amount) from numbered
group by 1, 2, 3, 4 order by 1, 2, 3, 4"""


def pool_uses(
    connection: Connection, organization_id: UUID, targets: Sequence[PoolTarget]
) -> list[list[PoolUse]]:
    """Return for each target what its pools cost: purchases, refunds, units beyond the grants."""
    parameters: dict[str, Any] = {
        "org": organization_id,
        "subscriptions": [one.subscription_key for one in targets],
        "starts": [one.start for one in targets],
        "ends": [one.end for one in targets],
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
    for n, key, name, unit, bought, cost, grant, time, amount in connection.execute(
        _REFUNDS, parameters
    ).fetchall():
        found[n].append(
            PoolUse(
                pool=key,
                name=name,
                unit=unit,
                kind=PoolUseKind.REFUND,
                quantity=EXACT.minus(amount),
                cost=EXACT.minus(cost_of_part(cost, bought, amount)),
                grant=grant,
                first_at=time,
                last_at=time,
            )
        )
    beyond = connection.execute(_BEYOND, parameters).fetchall()
    episodes: dict[tuple[Any, ...], list[Episode]] = {}
    if any(row[4] == PoolUseKind.BURST for row in beyond):
        for n, key, price, _, start, end, units in connection.execute(
            _EPISODES, parameters
        ).fetchall():
            episodes.setdefault((n, key, price), []).append(Episode(start, end, units))
    for n, key, name, unit, account, price, amount, first, last in beyond:
        if not amount:
            continue
        kind = PoolUseKind(account)
        burst = episodes.get((n, key, price), []) if kind is PoolUseKind.BURST else []
        found[n].append(
            PoolUse(
                pool=key,
                name=name,
                unit=unit,
                kind=kind,
                quantity=amount,
                price=price,
                first_at=first,
                last_at=last,
                episodes=tuple(burst),
            )
        )
    return found


def pools_of_subscriptions(
    connection: Connection, organization_id: UUID, subscription_keys: Sequence[str]
) -> list[tuple[str, UUID, datetime]]:
    """Return (subscription, pool, time of its last decision), in the order of pool ids."""
    return connection.execute(
        "select subscription_key, pool_id, as_of from pool"
        " where organization_id = %s and subscription_key = any(%s) order by pool_id",
        (organization_id, list(subscription_keys)),
    ).fetchall()
