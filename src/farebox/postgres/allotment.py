"""The shares of a pool, as they were last put."""

from collections.abc import Sequence
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
    """Store these shares as the pool's; others are removed. The caller holds the pool's lock."""
    keys = [one.key for one in allotments]
    connection.execute(
        "update allotment set removed = true"
        " where organization_id = %s and pool_id = %s and not (key = any(%s)) and not removed",
        (organization_id, pool_id, keys),
    )
    connection.cursor().executemany(
        "insert into allotment (organization_id, pool_id, key, definition, used, beyond, lent,"
        " used_at, idle_since) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (pool_id, key) do update set definition = excluded.definition,"
        " used = excluded.used, beyond = excluded.beyond, lent = excluded.lent,"
        " used_at = excluded.used_at, idle_since = excluded.idle_since, removed = false",
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
            )
            for one in allotments
        ],
    )
