"""Pools that need a look without being asked: something fell due, or their ledgers grew."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection


class Touched(Struct, frozen=True):
    """Rows of the outbox, and the pools that they name."""

    rows: Sequence[int]
    pool_ids: Sequence[UUID]


def due_pools(connection: Connection, now: datetime, most: int) -> list[tuple[UUID, UUID]]:
    """Return organization and id of pools on which something fell due by `now`, longest first.

    Over all organizations: the connection is of none.
    """
    return connection.execute("select * from due_pools(%s, %s)", (now, most)).fetchall()


def lock_due(connection: Connection, organization_id: UUID, pool_id: UUID, now: datetime) -> bool:
    """Whether something is due in the pool and nobody else has it; then it is locked."""
    row = connection.execute(
        "select from pool where organization_id = %s and pool_id = %s and next_due <= %s"
        " for update skip locked",
        (organization_id, pool_id, now),
    ).fetchone()
    return row is not None


def lock_behind(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime
) -> list[UUID]:
    """Lock those of the pools on which something fell due by `now`; return them in their order.

    Among them is a rate limit that nobody looked at yet: it is full from the first look on. Whoever
    has one is waited for; where they posted what was due, it is not among them any more.
    """
    rows = connection.execute(
        "select pool_id from pool where organization_id = %s and pool_id = any(%s)"
        " and (next_due <= %s or (definition -> 'policy' ->> 'refill' is not null"
        "  and counters ->> 'refill_grant' is null and status = 'open'))"
        " order by pool_id for update",
        (organization_id, list(pool_ids), now),
    ).fetchall()
    return [row[0] for row in rows]


def touched_organizations(connection: Connection) -> list[UUID]:
    """Return the organizations whose outbox has rows; the connection is of none."""
    return [row[0] for row in connection.execute("select * from touched_organizations()")]


def lock_touched(connection: Connection, organization_id: UUID, most: int) -> Touched:
    """Take up to `most` rows of the outbox, the oldest first, which others then pass over."""
    rows = connection.execute(
        "select touched_id, pool_ids from pool_touched where organization_id = %s"
        " order by touched_id limit %s for update skip locked",
        (organization_id, most),
    ).fetchall()
    pool_ids = {pool_id for _, named in rows for pool_id in named}
    return Touched([row[0] for row in rows], sorted(pool_ids))


def drop_touched(connection: Connection, organization_id: UUID, touched: Touched) -> None:
    """Forget rows that were followed."""
    connection.execute(
        "delete from pool_touched where organization_id = %s and touched_id = any(%s)",
        (organization_id, list(touched.rows)),
    )
