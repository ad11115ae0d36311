"""Which subscription pays for which entries of a pool: each entry counts for one at most."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

# A subscription pays for nothing after its end, also where the pool named it for longer.
_END = """
update pool_subscription r set used_until = greatest(r.first_sequence, (
    select case when s.ends_at <= p.as_of then sequence_at(p.pool_id, s.ends_at)
           else p.sequence + 1 end
    from pool p left join subscription s
      on s.organization_id = r.organization_id and s.key = r.subscription_key
    where p.pool_id = r.pool_id))
where r.organization_id = %(org)s and r.pool_id = %(pool)s and r.used_until is null"""
# What nobody paid for since the one before is taken over, where its price is in the same currency;
# what a final invoice states, or would have to state, stays as it is.
_FIRST = """
with before as (
  select subscription_key, used_until from pool_subscription
  where organization_id = %(org)s and pool_id = %(pool)s and returned_until is null
)
select greatest(case when %(converts)s then sequence + 1
                else coalesce((select used_until from before), 1) end, (
  select sequence_at(%(pool)s, i.invoiced) from (
    select max(period_end) as invoiced from invoice
    where organization_id = %(org)s and status = 'final' and kind = 'period'
      and subscription_key in (
        select %(subscription)s union all select subscription_key from before)) i
  where i.invoiced is not null)), sequence
from pool where organization_id = %(org)s and pool_id = %(pool)s"""
_RETURNED = """
update pool_subscription set returned_until = %(first)s
where organization_id = %(org)s and pool_id = %(pool)s and returned_until is null
  and first_sequence < %(first)s"""
# One that paid for nothing gives its place to the next.
_BEGIN = """
insert into pool_subscription (organization_id, pool_id, first_sequence, subscription_key)
values (%(org)s, %(pool)s, %(first)s, %(subscription)s)
on conflict (pool_id, first_sequence) do update
set subscription_key = excluded.subscription_key, used_until = null"""


def put_subscription(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    subscription: str | None,
    *,
    converts: bool = False,
) -> bool:
    """Let a subscription, or none, pay for what moves in a pool from now on.

    Who does so holds the pool's lock and has written what moved until now. A subscription also
    takes over what no other paid for, as far as no final invoice is of that time; returns whether
    there is any. converts: what moved until now was priced in another currency.
    """
    values: dict[str, object] = {
        "org": organization_id,
        "pool": pool_id,
        "subscription": subscription,
        "converts": converts,
    }
    row = connection.execute(
        "select subscription_key from pool_subscription"
        " where organization_id = %(org)s and pool_id = %(pool)s and used_until is null",
        values,
    ).fetchone()
    before = None if row is None else row[0]
    if before == subscription:
        return False
    if before is not None:
        connection.execute(_END, values)
    if subscription is None:
        return False
    found = connection.execute(_FIRST, values).fetchone()
    assert found is not None
    values["first"], moved = found
    connection.execute(_RETURNED, values)
    connection.execute(_BEGIN, values)
    return bool(values["first"] <= moved)


def pools_of_subscriptions(
    connection: Connection, organization_id: UUID, subscription_keys: Sequence[str]
) -> list[tuple[str, UUID, datetime]]:
    """Return (subscription, pool, time of its last decision), in the order of pool ids.

    They are the pools in which something may still move for the subscription.
    """
    return connection.execute(
        "select r.subscription_key, p.pool_id, p.as_of"
        " from pool_subscription r join pool p on p.pool_id = r.pool_id"
        " where r.organization_id = %s and r.subscription_key = any(%s)"
        " and r.returned_until is null order by p.pool_id",
        (organization_id, list(subscription_keys)),
    ).fetchall()


# What `farebox verify` asks of pools: each entry counts for one subscription at most, and those to
# come for the one that the pool names.
WRONG = """
select p.key, 'subscription ' || coalesce(r.subscription_key, p.subscription_key),
       coalesce('from ' || r.before, 'of the pool: ' || coalesce(p.subscription_key, 'none')),
       coalesce('from ' || r.first_sequence || coalesce(' to ' || r.returned_until, ''), 'none')
from pool p left join (
  select s.*, lag(s.returned_until) over follows as before,
         row_number() over follows as number, lead(s.first_sequence) over follows as after
  from pool_subscription s
  where s.organization_id = %(org)s and s.pool_id = any(%(pools)s)
  window follows as (partition by s.pool_id order by s.first_sequence)) r
  on r.pool_id = p.pool_id
where p.organization_id = %(org)s and p.pool_id = any(%(pools)s)
  and (r.after is distinct from r.returned_until
       or r.number > 1 and r.before is distinct from r.first_sequence
       or r.after is null and p.subscription_key is distinct from
         case when r.used_until is null then r.subscription_key end
       or r.used_until > p.sequence + 1 or r.first_sequence > p.sequence + 1)"""
