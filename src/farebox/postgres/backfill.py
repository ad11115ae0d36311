"""Backfills: what a meter reads from events that came before it, built aside and then switched."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.metering.series import Series


class BackfillStatus(StrEnum):
    """Where a backfill stands; its readings count from `switched` on."""

    BUILDING = "building"
    BUILT = "built"
    SWITCHED = "switched"


class BackfillRow(Struct, frozen=True, kw_only=True):
    """One backfill: of which events, and up to which sequence they were read."""

    meter_key: str
    meter_version: int
    status: str
    event_type: str
    effective_from: datetime
    effective_to: datetime
    from_sequence: int
    done_sequence: int
    events: int
    started_at: datetime
    updated_at: datetime


class EarlierEvent(Struct, frozen=True):
    """An event that came before the meter; `payload` is its JSON text as it was stored."""

    sequence: int
    time: datetime
    source: str
    subject: str | None
    payload: str


class ReadingRow(Struct, frozen=True):
    """One reading as it is kept aside; `text_value` of distinct values, else `quantity`.

    drawn: whether its event names a draw.
    """

    series_id: str
    time: datetime
    sequence: int
    kind: str
    quantity: Decimal | None
    text_value: str | None
    drawn: bool


class RefusalRow(Struct, frozen=True):
    """An event that the meter matches and cannot read."""

    sequence: int
    code: str
    field: str
    path: str


class CustomerReadings(Struct, frozen=True):
    """What a backfill would add to a customer; "" for subjects that belong to none.

    total: the sum of the readings; None where they are texts.
    """

    customer_key: str
    readings: int
    total: Decimal | None


class Summary(Struct, frozen=True):
    """What was built: how many readings, of which times."""

    readings: int
    first_time: datetime | None
    last_time: datetime | None


SEQUENCES_A_STEP = 50_000
_ROW = ", ".join(BackfillRow.__struct_fields__)
_BUCKET = "date_bin('15 minutes', b.time, timestamptz '2000-01-01 00:00:00+00')"
_OF = "b.organization_id = %(org)s and b.meter_key = %(meter)s and b.meter_version = %(version)s"

_EVENTS = """
select sequence, time, source, subject, payload::text as payload from event
where organization_id = %(org)s and sequence > %(after)s and sequence <= %(to)s
  and type = %(type)s and time >= %(start)s and time < %(end)s
  and (select v.sequence from void v
         where v.organization_id = %(org)s and v.sequence = event.sequence) is null
order by sequence limit %(limit)s"""

_CUSTOMERS = f"""
select coalesce(nullif(s.customer_key, ''), m.customer_key, '') as customer_key,
       count(*) as readings, sum(b.quantity) as total
from backfill_reading b
join backfill_series s on s.organization_id = %(org)s and s.series_id = b.series_id
left join subject m on m.organization_id = %(org)s and s.customer_key = ''
  and m.subject = s.subject and m.valid_from <= b.time and b.time < m.valid_to
where {_OF} and b.kind = %(kind)s
group by 1 order by 2 desc, 1 limit %(limit)s"""

_SWITCH = (
    """
insert into series
select organization_id, series_id, meter_key, meter_version, subject, customer_key, dimensions
from backfill_series b where b.organization_id = %(org)s and b.meter_key = %(meter)s
  and b.meter_version = %(version)s
order by series_id on conflict do nothing""",
    f"""
insert into rollup as r (organization_id, series_id, bucket, count, total, minimum, maximum)
select %(org)s, b.series_id, {_BUCKET}, count(*), sum(b.quantity), min(b.quantity),
       max(b.quantity)
from backfill_reading b where {_OF} and b.kind = 'totals'
group by 2, 3 order by 2, 3
on conflict (organization_id, series_id, bucket) do update set
  count = r.count + excluded.count, total = r.total + excluded.total,
  minimum = least(r.minimum, excluded.minimum), maximum = greatest(r.maximum, excluded.maximum)""",
    f"""
insert into value_count as v (organization_id, series_id, bucket, value, count)
select %(org)s, b.series_id, {_BUCKET}, b.text_value, count(*)
from backfill_reading b where {_OF} and b.kind = 'values'
group by 2, 3, 4 order by 2, 3, 4
on conflict (organization_id, series_id, bucket, value) do update set
  count = v.count + excluded.count""",
    f"""
insert into point (organization_id, series_id, time, sequence, value)
select %(org)s, b.series_id, b.time, b.sequence, b.quantity
from backfill_reading b where {_OF} and b.kind = 'points'""",
    """
insert into superseded as s (organization_id, meter_key, meter_version, counted_until)
select c.organization_id, c.key, c.version, %(start)s from catalog_version c
where c.organization_id = %(org)s and c.kind = 'meter' and c.key = %(meter)s
  and c.version < %(version)s
on conflict (organization_id, meter_key, meter_version) do update set
  counted_until = least(s.counted_until, excluded.counted_until)""",
    """
delete from unread_type where organization_id = %(org)s and type = %(type)s
  and last_sequence <= %(from_sequence)s""",
    """
delete from backfill_series b where b.organization_id = %(org)s and b.meter_key = %(meter)s
  and b.meter_version = %(version)s""",
    f"update backfill b set status = 'switched', updated_at = %(now)s where {_OF}",
)


def add_backfill(connection: Connection, organization_id: UUID, row: BackfillRow) -> None:
    """Record that a backfill begins, unless it has begun."""
    connection.execute(
        f"insert into backfill (organization_id, {_ROW})"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
        (organization_id, *(getattr(row, field) for field in BackfillRow.__struct_fields__)),
    )


def lock_backfill(
    connection: Connection, organization_id: UUID, meter_key: str, meter_version: int
) -> BackfillRow | None:
    """Return the backfill as it is, and keep it so until the transaction ends."""
    cursor = connection.cursor(row_factory=class_row(BackfillRow))
    return cursor.execute(
        f"select {_ROW} from backfill where organization_id = %s and meter_key = %s"
        " and meter_version = %s for update",
        (organization_id, meter_key, meter_version),
    ).fetchone()


def save_progress(connection: Connection, organization_id: UUID, row: BackfillRow) -> None:
    connection.execute(
        "update backfill set status = %s, done_sequence = %s, events = %s, updated_at = %s"
        " where organization_id = %s and meter_key = %s and meter_version = %s",
        (
            row.status,
            row.done_sequence,
            row.events,
            row.updated_at,
            organization_id,
            row.meter_key,
            row.meter_version,
        ),
    )


def earlier_events(
    connection: Connection, organization_id: UUID, row: BackfillRow, limit: int
) -> tuple[list[EarlierEvent], int]:
    """Return the next events to read, at most `limit`, and the sequence up to which they go."""
    to = min(row.from_sequence, row.done_sequence + SEQUENCES_A_STEP)
    cursor = connection.cursor(row_factory=class_row(EarlierEvent))
    events = cursor.execute(
        _EVENTS,
        {
            "org": organization_id,
            "after": row.done_sequence,
            "to": to,
            "type": row.event_type,
            "start": row.effective_from,
            "end": row.effective_to,
            "limit": limit,
        },
    ).fetchall()
    return events, events[-1].sequence if len(events) == limit else to


def add_readings(
    connection: Connection,
    organization_id: UUID,
    row: BackfillRow,
    readings: Sequence[ReadingRow],
    refusals: Sequence[RefusalRow],
    series: Sequence[Series],
) -> None:
    """Put aside what was read; the caller has locked the backfill."""
    key = (organization_id, row.meter_key, row.meter_version)
    connection.execute(
        "insert into backfill_reading (organization_id, meter_key, meter_version,"
        "  series_id, time, sequence, kind, quantity, text_value, drawn)"
        " select %s, %s, %s, * from unnest(%s::uuid[], %s::timestamptz[], %s::bigint[],"
        "  %s::text[], %s::numeric[], %s::text[], %s::boolean[])",
        (*key, *_columns(readings, ReadingRow)),
    )
    connection.execute(
        "insert into backfill_refusal (organization_id, meter_key, meter_version,"
        "  sequence, code, field, path)"
        " select %s, %s, %s, * from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[])",
        (*key, *_columns(refusals, RefusalRow)),
    )
    connection.cursor().executemany(
        "insert into backfill_series values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
        [(*key, one.series_id, one.subject, one.customer, list(one.dimensions)) for one in series],
    )


def _columns(rows: Sequence[Struct], kind: type[Struct]) -> list[list[object]]:
    return [[getattr(row, field) for row in rows] for field in kind.__struct_fields__]


def drop_voided(connection: Connection, organization_id: UUID, row: BackfillRow) -> None:
    """Forget readings of events that were voided after they were read aside."""
    connection.execute(
        f"delete from backfill_reading b using void v where {_OF}"
        " and v.organization_id = %(org)s and v.sequence = b.sequence",
        _names(organization_id, row),
    )


def summarize(
    connection: Connection, organization_id: UUID, row: BackfillRow, kind: str
) -> Summary:
    """Return what was built so far; `kind` is how the meter keeps its readings."""
    found = connection.execute(
        f"select count(*), min(b.time), max(b.time) from backfill_reading b"
        f" where {_OF} and b.kind = %(kind)s",
        {**_names(organization_id, row), "kind": kind},
    ).fetchone()
    assert found is not None
    return Summary(*found)


def readings_by_customer(
    connection: Connection, organization_id: UUID, row: BackfillRow, kind: str, limit: int
) -> list[CustomerReadings]:
    """Return who would get how much, those with most readings first."""
    rows = connection.execute(
        _CUSTOMERS, {**_names(organization_id, row), "kind": kind, "limit": limit}
    ).fetchall()
    return [CustomerReadings(*found) for found in rows]


def refused_by_code(
    connection: Connection, organization_id: UUID, row: BackfillRow
) -> dict[str, int]:
    rows = connection.execute(
        f"select code, count(*) from backfill_refusal b where {_OF} group by 1 order by 1",
        _names(organization_id, row),
    ).fetchall()
    return dict(rows)


def read_refusals(
    connection: Connection,
    organization_id: UUID,
    meter_key: str,
    meter_version: int,
    *,
    after: int = 0,
    limit: int = 1000,
) -> list[RefusalRow]:
    """Return events that a backfill could not read, by sequence, a page at a time."""
    rows = connection.execute(
        "select sequence, code, field, path from backfill_refusal where organization_id = %s"
        " and meter_key = %s and meter_version = %s and sequence > %s order by sequence limit %s",
        (organization_id, meter_key, meter_version, after, limit),
    ).fetchall()
    return [RefusalRow(*row) for row in rows]


def switch(connection: Connection, organization_id: UUID, row: BackfillRow, now: datetime) -> None:
    """Let what was built count. The caller holds the backfill and the watermark."""
    parameters = {
        **_names(organization_id, row),
        "type": row.event_type,
        "start": row.effective_from,
        "from_sequence": row.from_sequence,
        "now": now,
    }
    for statement in _SWITCH:
        connection.execute(statement, parameters)


def drop(connection: Connection, organization_id: UUID, row: BackfillRow) -> None:
    """Forget what was built aside; the caller has locked the backfill, which is not switched."""
    for table in ("backfill_reading", "backfill_refusal", "backfill_series", "backfill"):
        connection.execute(f"delete from {table} b where {_OF}", _names(organization_id, row))


def unread_events(connection: Connection, organization_id: UUID, event_type: str) -> int | None:
    """Return how many events of the type no meter read; None where none is noted."""
    row = connection.execute(
        "select events from unread_type where organization_id = %s and type = %s",
        (organization_id, event_type),
    ).fetchone()
    return None if row is None else int(row[0])


def count_events(connection: Connection, organization_id: UUID, row: BackfillRow) -> int:
    """Count the events that a backfill would look at, one by one."""
    found = connection.execute(
        "select count(*) from event where organization_id = %s and sequence <= %s"
        " and type = %s and time >= %s and time < %s",
        (
            organization_id,
            row.from_sequence,
            row.event_type,
            row.effective_from,
            row.effective_to,
        ),
    ).fetchone()
    assert found is not None
    return int(found[0])


def _names(organization_id: UUID, row: BackfillRow) -> dict[str, object]:
    return {"org": organization_id, "meter": row.meter_key, "version": row.meter_version}
