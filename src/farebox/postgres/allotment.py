"""The shares of a pool, as they were last put."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.ledger.allotment import Allotment


def put_allotments(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    allotments: Sequence[Allotment],
) -> None:
    """Store the shares of a pool, those that are removed too. The caller holds the pool's lock."""
    connection.cursor().executemany(
        "insert into allotment (organization_id, pool_id, key, definition, used, beyond, lent,"
        " used_at, idle_since, removed) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (pool_id, key) do update set definition = excluded.definition,"
        " used = excluded.used, beyond = excluded.beyond, lent = excluded.lent,"
        " used_at = excluded.used_at, idle_since = excluded.idle_since, removed = excluded.removed",
        [
            (
                organization_id,
                pool_id,
                one.key,
                msgspec.json.encode(one).decode(),
                one.used,
                one.beyond,
                one.lent,
                one.used_at,
                one.idle_since,
                one.removed,
            )
            for one in allotments
        ],
    )


def uses_since(
    connection: Connection, organization_id: UUID, pool_id: UUID, start: datetime
) -> dict[str, tuple[Decimal, Decimal]]:
    """Return by share the units used since `start` or held, and those of them beyond the grants.

    What counts is the share that an operation was made for, not those around it.
    """
    rows = connection.execute(
        "with since as (select sequence_at(%(pool)s, %(start)s) as first),"
        " use as ("
        "  select h.allotment, s.value->>0 as account, (s.value->>1)::numeric as amount"
        "  from hold h, json_array_elements(h.slices) s"
        "  where h.organization_id = %(org)s and h.pool_id = %(pool)s and h.status = 'open'"
        "  union all"
        "  select t.allotment, coalesce(t.origin, t.source), t.amount"
        "  from since, transfer t where t.organization_id = %(org)s and t.pool_id = %(pool)s"
        "  and t.sequence >= since.first and t.target = 'used'"
        "  union all"
        "  select t.allotment, t.origin, -t.amount"
        "  from since, transfer t where t.organization_id = %(org)s and t.pool_id = %(pool)s"
        "  and t.sequence >= since.first and t.source = 'used' and t.undoes >= since.first)"
        " select allotment, sum(amount),"
        "  coalesce(sum(amount) filter (where account not in ('grant', 'source')), 0)"
        " from use where allotment is not null group by 1",
        {"org": organization_id, "pool": pool_id, "start": start},
    ).fetchall()
    return {key: (used, beyond) for key, used, beyond in rows}
