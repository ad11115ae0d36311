"""Which subscription pays for which entries of a pool, and in which currency they cost something.

Who is charged and who is credited is said once, by the function `pool_charge` of the database.
"""

import sys
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class _Row(Struct, frozen=True):
    """A subscription, or none, that a pool names from an entry on; when it begins and ends."""

    first: int
    subscription: str | None
    currency: str | None
    priced_from: int
    starts_at: datetime | None = None
    ends_at: datetime | None = None


_ROWS = """
select r.first_sequence as first, r.subscription_key as subscription, r.currency, r.priced_from,
       s.starts_at, s.ends_at
from pool_subscription r
left join subscription s on s.organization_id = r.organization_id and s.key = r.subscription_key
where r.organization_id = %s and r.pool_id = %s order by r.first_sequence"""
_NAMED = """
select v.definition ->> 'currency', s.starts_at
from subscription s
join catalog_version v on v.organization_id = s.organization_id and v.kind = 'plan'
  and v.key = s.plan_key and v.version = s.plan_version
where s.organization_id = %s and s.key = %s"""
# Terms that came into force by themselves may have changed the currency before the pool was put.
_POOL = """
select sequence, case when (terms ->> 'at')::timestamptz <= as_of then (terms ->> 'at')::timestamptz
       end, terms ->> 'currency'
from pool where organization_id = %s and pool_id = %s"""
_PUT = """
insert into pool_subscription
  (organization_id, pool_id, first_sequence, subscription_key, currency, priced_from)
values (%s, %s, %s, %s, %s, %s)"""


def put_subscription(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    subscription: str | None,
    currency: str | None,
) -> bool:
    """Let a subscription, or none, pay for what moves in a pool from now on.

    currency: of the pool's prices, none where it names none. Who does so holds the pool's lock and
    has written what moved until now. A subscription also takes over what nobody paid for right
    before, as far as it is in its currency and no final invoice is of that time. Returns whether
    another pays, or nobody, for anything that moved before. Terms that came into force since the
    pool was put are those that it stores still.
    """
    scope = organization_id, pool_id
    history = _History(connection, organization_id, pool_id)
    pool = connection.execute(_POOL, scope).fetchone()
    assert pool is not None, "a pool stays"
    sequence, turned_at, turned_to = pool
    changed, starts_at = False, None
    if subscription is not None:
        named = connection.execute(_NAMED, (organization_id, subscription)).fetchone()
        plan_currency, starts_at = named or (None, None)
        currency = currency or plan_currency
    if turned_at is not None:
        changed = history.turn(turned_at, turned_to, subscription, starts_at) <= sequence
    last = history.rows[-1] if history.rows else None
    first = sequence + 1
    if last is not None:
        currency = currency or last.currency
        if (last.subscription, last.currency) == (subscription, currency):
            return changed
        if subscription not in (None, last.subscription):
            first = history.unpaid_since(first, subscription, currency, starts_at)
    history.put(first, subscription, currency)
    return changed or bool(first <= sequence)


class _History:
    """The rows of a pool, the oldest first; whoever has it holds the pool's lock."""

    def __init__(self, connection: Connection, organization_id: UUID, pool_id: UUID) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._pool_id = pool_id
        cursor = connection.cursor(row_factory=class_row(_Row))
        self.rows = cursor.execute(_ROWS, (organization_id, pool_id)).fetchall()

    def put(self, first: int, subscription: str | None, currency: str | None) -> None:
        """Let a subscription, or none, stand from an entry on, in place of what stood there."""
        self.rows = [row for row in self.rows if row.first < first]
        before = self.rows[-1] if self.rows else None
        scope = self._organization_id, self._pool_id
        self._connection.execute(
            "delete from pool_subscription"
            " where organization_id = %s and pool_id = %s and first_sequence >= %s",
            (*scope, first),
        )
        priced_from = first
        if before is not None:
            if (before.subscription, before.currency) == (subscription, currency):
                return
            if before.currency in (None, currency):
                priced_from = before.priced_from
        self._connection.execute(_PUT, (*scope, first, subscription, currency, priced_from))
        self.rows.append(_Row(first, subscription, currency, priced_from))

    def turn(
        self,
        time: datetime,
        currency: str | None,
        subscription: str | None,
        starts_at: datetime | None,
    ) -> int:
        """Let what another subscription, or another currency, begins with begin at an instant.

        Returns since which entry whom the pool names pays no more, one that has not come where
        there is no change. Nor is there where whom it names runs on, and the other, which ran
        already, was put afterwards.
        """
        last = self.rows[-1]
        currency = currency or last.currency
        runs_on = last.starts_at is not None and last.starts_at <= time
        runs_on = runs_on and (last.ends_at is None or time < last.ends_at)
        if runs_on and currency == last.currency and starts_at not in (None, time):
            return sys.maxsize
        named = () if last.subscription is None else (last.subscription,)
        first = max(self._at(time), self._invoiced(named))
        if (last.subscription, last.currency) == (subscription, currency) or first < last.first:
            return sys.maxsize
        self.put(first, None, currency)
        return first

    def unpaid_since(
        self, end: int, subscription: str, currency: str | None, starts_at: datetime | None
    ) -> int:
        """Return the first of the entries right before `end` that a subscription takes over."""
        first, named = end, {subscription}
        for row in reversed([row for row in self.rows if row.first < end]):
            if row.subscription is not None:
                named.add(row.subscription)
            is_own = row.currency in (None, currency)
            paid_until = self._paid_until(row, first)
            if is_own and paid_until is None:
                first = row.first
                continue
            if is_own and paid_until is not None:
                first = paid_until
            # What came back since may have been credited to the one that was named before.
            named |= self._named_before(row.first)
            break
        if starts_at is not None:
            first = max(first, self._at(starts_at))
        return min(max(first, self._invoiced(named)), end)

    def _paid_until(self, row: _Row, end: int) -> int | None:
        """Return before which entry the subscription of a row ceased to pay; none: it never did."""
        if row.subscription is None or row.starts_at is None:
            return None
        until = end if row.ends_at is None else min(end, self._at(row.ends_at))
        return until if max(row.first, self._at(row.starts_at)) < until else None

    def _named_before(self, first: int) -> set[str]:
        named = [row.subscription for row in self.rows if row.first <= first and row.subscription]
        return set(named[-1:])

    def _at(self, time: datetime) -> int:
        row = self._connection.execute(
            "select sequence_at(%s, %s)", (self._pool_id, time)
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _invoiced(self, subscriptions: Collection[str]) -> int:
        """Return the first entry after all periods of these that are final, 0 where none is."""
        row = self._connection.execute(
            "select max(period_end) from invoice where organization_id = %s"
            " and status = 'final' and kind = 'period' and subscription_key = any(%s)",
            (self._organization_id, list(subscriptions)),
        ).fetchone()
        assert row is not None
        return 0 if row[0] is None else self._at(row[0])


def pools_of_subscriptions(
    connection: Connection, organization_id: UUID, subscription_keys: Sequence[str]
) -> list[tuple[str, UUID, datetime]]:
    """Return (subscription, pool, time of its last decision), in the order of pool ids.

    They are the pools that ever named it: what was paid for may come back for as long as it runs.
    """
    return connection.execute(
        "select distinct r.subscription_key, p.pool_id, p.as_of"
        " from pool_subscription r join pool p on p.pool_id = r.pool_id"
        " where r.organization_id = %s and r.subscription_key = any(%s)"
        " order by p.pool_id, r.subscription_key",
        (organization_id, list(subscription_keys)),
    ).fetchall()


# What `farebox verify` asks of pools: each entry has its row, those to come that of the one that
# the pool names, and a row knows since when its currency is the same.
WRONG = """
select p.key, 'subscription ' || coalesce(r.subscription_key, p.subscription_key, 'none'),
       case when r.after is null and r.subscription_key is distinct from p.subscription_key
            then 'of the pool: ' || coalesce(p.subscription_key, 'none')
            else 'from ' || coalesce(r.should_begin, 1) || ', priced from '
                 || coalesce(r.should_price, 1) end,
       coalesce('from ' || r.first_sequence || ', priced from ' || r.priced_from, 'none')
from pool p left join (
  select s.*, lead(s.first_sequence) over follows as after,
         case when lag(s.pool_id) over follows is null then 1 else s.first_sequence end
           as should_begin,
         case when lag(s.pool_id) over follows is null then 1
              when coalesce(lag(s.currency) over follows, s.currency) is distinct from s.currency
                then s.first_sequence
              else lag(s.priced_from) over follows end as should_price
  from pool_subscription s
  where s.organization_id = %(org)s and s.pool_id = any(%(pools)s)
  window follows as (partition by s.pool_id order by s.first_sequence)) r
  on r.pool_id = p.pool_id
where p.organization_id = %(org)s and p.pool_id = any(%(pools)s)
  and (r.pool_id is null or r.first_sequence <> r.should_begin
       or r.priced_from <> r.should_price or r.first_sequence > p.sequence + 1
       or r.after is null and r.subscription_key is distinct from p.subscription_key)"""
