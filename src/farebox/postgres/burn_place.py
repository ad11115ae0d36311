"""Where the burn of one event is found again: its draw, or that it burned nothing."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

ENTRIES_SEEN = 10_000
"""So many entries of a pool, from when an event was received on, are looked through."""


class MeteredDraw(Struct, frozen=True):
    """A draw that was made for events; `note` is JSON text (`BurnNote`)."""

    operation: int
    note: str


def burned_up_to(connection: Connection, organization_id: UUID) -> int:
    """Return up to which event usage has burned pools."""
    row = connection.execute(
        "select sequence from burn_watermark where organization_id = %s", (organization_id,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def metered_draws(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    subject: str | None,
    sequence: int,
    since: datetime,
) -> list[MeteredDraw]:
    """Return the draws of a pool, from `since` on, for a subject's events around this sequence."""
    rows = connection.execute(
        "with first as (select sequence_at(%(pool)s, %(since)s) as sequence)"
        " select t.operation, t.note::text from first, transfer t"
        " where t.organization_id = %(org)s and t.pool_id = %(pool)s"
        "  and t.sequence >= first.sequence and t.sequence < first.sequence + %(entries)s"
        "  and t.reason = 'metered' and t.subject is not distinct from %(subject)s"
        "  and (t.note ->> 'first_sequence')::bigint <= %(sequence)s"
        "  and (t.note ->> 'last_sequence')::bigint >= %(sequence)s"
        " order by t.sequence",
        {
            "org": organization_id,
            "pool": pool_id,
            "since": since,
            "entries": ENTRIES_SEEN,
            "subject": subject,
            "sequence": sequence,
        },
    ).fetchall()
    return [MeteredDraw(*row) for row in rows]


def unburned_reason(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    meter: str,
    dimensions: str,
    time: datetime,
) -> str | None:
    """Return why usage of this time burned nothing, if so; `dimensions` is JSON text."""
    row = connection.execute(
        "select reason from unburned where organization_id = %s and pool_id = %s"
        " and meter_key = %s and dimensions = %s and %s between first_time and last_time"
        " and events > 0"
        " order by last_sequence desc limit 1",
        (organization_id, pool_id, meter, dimensions, time),
    ).fetchone()
    return None if row is None else str(row[0])
