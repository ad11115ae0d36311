"""Rollups: what readings of a series come to in each quarter of an hour, up to a watermark."""

from datetime import datetime
from uuid import UUID

from psycopg import Connection

_BUCKET = "date_bin('15 minutes', e.time, timestamptz '2000-01-01 00:00:00+00')"
_STEP = "e.organization_id = %(org)s and e.sequence > %(after)s and e.sequence <= %(to)s"

_FOLD = (
    f"""
insert into rollup as r (organization_id, series_id, bucket, count, total, minimum, maximum)
select %(org)s, u.series_id, {_BUCKET}, count(*), sum(u.value), min(u.value), max(u.value)
from event e cross join lateral unnest(e.series, e.quantities) as u(series_id, value)
where {_STEP} and e.series is not null
group by 2, 3 order by 2, 3
on conflict (organization_id, series_id, bucket) do update set
  count = r.count + excluded.count, total = r.total + excluded.total,
  minimum = least(r.minimum, excluded.minimum), maximum = greatest(r.maximum, excluded.maximum)""",
    f"""
insert into value_count as v (organization_id, series_id, bucket, value, count)
select %(org)s, u.series_id, {_BUCKET}, u.value, count(*)
from event e cross join lateral unnest(e.value_series, e.value_texts) as u(series_id, value)
where {_STEP} and e.value_series is not null
group by 2, 3, 4 order by 2, 3, 4
on conflict (organization_id, series_id, bucket, value) do update set
  count = v.count + excluded.count""",
    f"""
insert into point (organization_id, series_id, time, sequence, value)
select %(org)s, u.series_id, e.time, e.sequence, u.value
from event e cross join lateral unnest(e.point_series, e.point_quantities) as u(series_id, value)
where {_STEP} and e.point_series is not null""",
)


def lock_watermark(connection: Connection, organization_id: UUID) -> int | None:
    """Return the last folded sequence and hold it; None where another process is folding."""
    row = connection.execute(
        "select sequence from watermark where organization_id = %s for update skip locked",
        (organization_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def wait_watermark(connection: Connection, organization_id: UUID) -> None:
    """Return when no other process is folding, and keep it so until the transaction ends."""
    connection.execute(
        "select from watermark where organization_id = %s for share", (organization_id,)
    )


def hold_watermark(connection: Connection, organization_id: UUID) -> int:
    """Wait for who is folding, return the last folded sequence and keep others from folding."""
    row = connection.execute(
        "select sequence from watermark where organization_id = %s for update", (organization_id,)
    ).fetchone()
    assert row is not None, "an organization is created with its watermark"
    return int(row[0])


def note_rewritten(connection: Connection, organization_id: UUID) -> None:
    """Tell whoever read usage before this commit that what lies below the watermark changed."""
    connection.execute(
        "update watermark set rewritten = rewritten + 1 where organization_id = %s",
        (organization_id,),
    )


def read_rewritten(connection: Connection, organization_id: UUID) -> int:
    """Return how often usage below the watermark was changed, by undoing or backfilling."""
    row = connection.execute(
        "select rewritten from watermark where organization_id = %s", (organization_id,)
    ).fetchone()
    assert row is not None, "an organization is created with its watermark"
    return int(row[0])


def read_watermark(connection: Connection, organization_id: UUID) -> int:
    row = connection.execute(
        "select sequence from watermark where organization_id = %s", (organization_id,)
    ).fetchone()
    assert row is not None, "an organization is created with its watermark"
    return int(row[0])


def fold(connection: Connection, organization_id: UUID, after: int, to: int, now: datetime) -> None:
    """Add the readings of the events after one sequence, up to another, and move the watermark."""
    for statement in _FOLD:
        connection.execute(statement, {"org": organization_id, "after": after, "to": to})
    connection.execute(
        "update watermark set sequence = %(to)s, folded_at = %(now)s, last_time = greatest("
        "  last_time, (select max(time) from (select time from event"
        "    where organization_id = %(org)s and sequence > %(after)s and sequence <= %(to)s"
        # Else the newest times of all would be tried, one by one, for a sequence in the range.
        "    offset 0) e))"
        " where organization_id = %(org)s",
        {"org": organization_id, "after": after, "to": to, "now": now},
    )


def organizations_to_fold(connection: Connection) -> list[UUID]:
    """Return the organizations whose rollups are behind; needs no organization."""
    return [
        row[0] for row in connection.execute("select organization_id from organizations_to_fold()")
    ]
