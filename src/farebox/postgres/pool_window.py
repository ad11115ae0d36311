"""What pools did within the last minutes, and which of their grants expire soon."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from psycopg import Connection

from farebox.alerts.measure import Expiring
from farebox.postgres.pool_watch import PoolRow

Value = TypeVar("Value")


def burned(
    connection: Connection,
    organization_id: UUID,
    pools: Sequence[PoolRow],
    windows: Sequence[int],
    now: datetime,
) -> Mapping[UUID, Mapping[int, Decimal]]:
    """Return what each pool used for good within the last so many minutes, by window.

    The balance of the used account before the window is in its first entry of the window.
    """
    asked = list(_each(pools, windows))
    rows = connection.execute(
        "select a.pool_id, a.minutes, a.used - before.used"
        " from unnest(%(pools)s::uuid[], %(minutes)s::integer[], %(since)s::timestamptz[],"
        "   %(to)s::bigint[], %(used)s::numeric[]) a(pool_id, minutes, since, upto, used)"
        " cross join lateral (select sequence_at(a.pool_id, a.since) as first offset 0) s"
        " cross join lateral ("
        "  select case when t.target = 'used' then t.target_after - t.amount"
        "    else t.source_after + t.amount end as used"
        "  from transfer t where t.organization_id = %(org)s and t.pool_id = a.pool_id"
        "   and t.sequence >= s.first and t.sequence <= a.upto"
        "   and (t.target = 'used' or t.source = 'used')"
        "  order by t.sequence limit 1) before",
        {
            "org": organization_id,
            "pools": [one.pool_id for one, _ in asked],
            "minutes": [minutes for _, minutes in asked],
            "since": [now - timedelta(minutes=minutes) for _, minutes in asked],
            "to": [one.sequence for one, _ in asked],
            "used": [one.used for one, _ in asked],
        },
    ).fetchall()
    return _by_pool(rows)


def _each(pools: Sequence[PoolRow], windows: Sequence[int]) -> Iterator[tuple[PoolRow, int]]:
    for one in pools:
        for minutes in windows:
            yield one, minutes


def refusal_counts(
    connection: Connection,
    organization_id: UUID,
    pools: Sequence[PoolRow],
    windows: Sequence[int],
    now: datetime,
) -> Mapping[UUID, Mapping[int, int]]:
    """Return how many refusals each pool gave within the last so many minutes, by window.

    They are kept by the minute; those of a minute count while its last one lies in the window.
    """
    asked = list(_each(pools, windows))
    rows = connection.execute(
        "select a.pool_id, a.minutes, r.count"
        " from unnest(%(pools)s::uuid[], %(minutes)s::integer[], %(since)s::timestamptz[])"
        "   a(pool_id, minutes, since)"
        " cross join lateral (select coalesce(sum(f.count), 0)::bigint as count from refusal f"
        "  where f.organization_id = %(org)s and f.pool_id = a.pool_id and f.last_at > a.since"
        # Implied by the above; it is what the key is searched by.
        "   and f.minute > a.since - interval '1 minute') r",
        {
            "org": organization_id,
            "pools": [one.pool_id for one, _ in asked],
            "minutes": [minutes for _, minutes in asked],
            "since": [now - timedelta(minutes=minutes) for _, minutes in asked],
        },
    ).fetchall()
    return _by_pool(rows)


def _by_pool(rows: Sequence[tuple[UUID, int, Value]]) -> Mapping[UUID, Mapping[int, Value]]:
    found: dict[UUID, dict[int, Value]] = {}
    for pool_id, minutes, value in rows:
        found.setdefault(pool_id, {})[minutes] = value
    return found


def expiring(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID], until: datetime
) -> Mapping[UUID, Sequence[Expiring]]:
    """Return the grants in force that expire until an instant and have something left."""
    rows = connection.execute(
        "select pool_id, expires_at, available + held from pool_grant"
        " where organization_id = %s and pool_id = any(%s) and status <> 'closed'"
        "  and status = 'active' and expires_at <= %s",
        (organization_id, list(pool_ids), until),
    ).fetchall()
    found: dict[UUID, list[Expiring]] = {}
    for pool_id, expires_at, units in rows:
        found.setdefault(pool_id, []).append(Expiring(expires_at, units))
    return found
