"""Sources of events: what was seen of each, what it said it sent, and how long it may be silent."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

GAPS_LISTED = 100
_ENCODER = msgspec.json.Encoder(order="deterministic")


class SourceRow(Struct, frozen=True, kw_only=True):
    """What was seen of a source; no times where nothing was, and only its silence is limited.

    numbered: how many events carried a `sequence`. gaps: the first missing numbers, each from and
    to (both included); missing: how many numbers are missing in all.
    """

    source: str
    events: int
    numbered: int
    missing: int
    gaps: tuple[tuple[int, int], ...]
    first_time: datetime | None
    last_time: datetime | None
    last_received_at: datetime | None
    silence_seconds: int | None


class ControlRow(Struct, frozen=True, kw_only=True):
    """What a source says it sent in [start, end): events, and totals by meter."""

    source: str
    start: datetime
    end: datetime
    events: int
    totals: Mapping[str, Decimal]
    declared_at: datetime


# Most payloads carry no number: to look for its name in the text costs less than to parse it.
_TALLY = """
insert into source_seen as s
select %(org)s, source, count(*), count(number),
       coalesce(range_agg(int8range(number, number, '[]')) filter (where number is not null), '{}'),
       min(time), max(time), max(received_at)
from (
  select source, time, received_at,
         case when position('"sequence"' in payload::text) > 0
                and payload ->> 'sequence' ~ '^[0-9]{1,18}$'
              then (payload ->> 'sequence')::bigint end as number
  from event
  where organization_id = %(org)s and sequence > %(after)s and sequence <= %(to)s
  offset 0
) e
group by source order by source
on conflict (organization_id, source) do update set
  events = s.events + excluded.events, numbered = s.numbered + excluded.numbered,
  seen = s.seen + excluded.seen, first_time = least(s.first_time, excluded.first_time),
  last_time = greatest(s.last_time, excluded.last_time),
  last_received_at = greatest(s.last_received_at, excluded.last_received_at)"""


def lock_tally(connection: Connection, organization_id: UUID) -> int | None:
    """Return up to which sequence sources were tallied, and hold it; None while another does."""
    connection.execute(
        "insert into source_watermark values (%s, 0) on conflict do nothing", (organization_id,)
    )
    row = connection.execute(
        "select sequence from source_watermark where organization_id = %s for update skip locked",
        (organization_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def read_tally(connection: Connection, organization_id: UUID) -> int:
    row = connection.execute(
        "select sequence from source_watermark where organization_id = %s", (organization_id,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def tally(connection: Connection, organization_id: UUID, after: int, to: int) -> None:
    """Add the events after one sequence, up to another, to what was seen of their sources."""
    connection.execute(_TALLY, {"org": organization_id, "after": after, "to": to})
    connection.execute(
        "update source_watermark set sequence = %s where organization_id = %s",
        (to, organization_id),
    )


_SOURCES = """
select source, coalesce(s.events, 0), coalesce(s.numbered, 0), s.first_time, s.last_time,
       s.last_received_at, l.silence_seconds,
       (select coalesce(sum(upper(g) - lower(g)), 0)::bigint
        from unnest(int8multirange(range_merge(s.seen)) - s.seen) g),
       array(select array[lower(g), upper(g) - 1]
             from unnest(int8multirange(range_merge(s.seen)) - s.seen) g
             order by lower(g) limit %(gaps)s)
from (select * from source_seen where organization_id = %(org)s) s
full join (select * from source_limit where organization_id = %(org)s) l using (source)
where source > %(after)s
order by 1 limit %(limit)s"""


def sources(
    connection: Connection, organization_id: UUID, *, after: str = "", limit: int = 1000
) -> list[SourceRow]:
    """Return sources by name, a page at a time."""
    rows = connection.execute(
        _SOURCES, {"org": organization_id, "after": after, "limit": limit, "gaps": GAPS_LISTED}
    ).fetchall()
    return [
        SourceRow(
            source=row[0],
            events=row[1],
            numbered=row[2],
            first_time=row[3],
            last_time=row[4],
            last_received_at=row[5],
            silence_seconds=row[6],
            missing=row[7],
            gaps=tuple((first, last) for first, last in row[8]),
        )
        for row in rows
    ]


def put_limit(
    connection: Connection, organization_id: UUID, source: str, silence_seconds: int | None
) -> None:
    """Set how long a source may be silent; None: for ever."""
    if silence_seconds is None:
        connection.execute(
            "delete from source_limit where organization_id = %s and source = %s",
            (organization_id, source),
        )
        return
    connection.execute(
        "insert into source_limit values (%s, %s, %s)"
        " on conflict (organization_id, source) do update set"
        " silence_seconds = excluded.silence_seconds",
        (organization_id, source, silence_seconds),
    )


def put_control(connection: Connection, organization_id: UUID, control: ControlRow) -> None:
    """Keep what a source says it sent; said again for the same span, the later word counts."""
    connection.execute(
        "insert into source_control values (%s, %s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, source, start_at, end_at) do update set"
        " events = excluded.events, totals = excluded.totals, declared_at = excluded.declared_at",
        (
            organization_id,
            control.source,
            control.start,
            control.end,
            control.events,
            _ENCODER.encode(control.totals).decode(),
            control.declared_at,
        ),
    )


def controls(
    connection: Connection,
    organization_id: UUID,
    start: datetime,
    end: datetime,
    source: str | None = None,
    limit: int = 1000,
) -> list[ControlRow]:
    """Return the controls that lie in [start, end), oldest first."""
    rows = connection.execute(
        "select source, start_at, end_at, events, totals::text, declared_at from source_control"
        " where organization_id = %s and start_at >= %s and end_at <= %s"
        " and (%s::text is null or source = %s) order by end_at, source limit %s",
        (organization_id, start, end, source, source, limit),
    ).fetchall()
    return [
        ControlRow(
            source=row[0],
            start=row[1],
            end=row[2],
            events=row[3],
            totals=msgspec.json.decode(row[4], type=dict[str, Decimal]),
            declared_at=row[5],
        )
        for row in rows
    ]


_RECEIVED = """
with e as materialized (
  select sequence, time, series, quantities from event
  where organization_id = %(org)s and time >= %(start)s and time < %(end)s and source = %(source)s
    and not exists (select from void v
                    where v.organization_id = %(org)s and v.sequence = event.sequence)
),
reading as (
  select e.time, u.series_id, u.value
  from e cross join lateral unnest(e.series, e.quantities) as u(series_id, value)
  union all
  select b.time, b.series_id, b.quantity
  from e join backfill_reading b on b.organization_id = %(org)s and b.sequence = e.sequence
  join backfill f on f.organization_id = %(org)s and f.meter_key = b.meter_key
    and f.meter_version = b.meter_version and f.status = 'switched'
  where b.kind = 'totals'
)
select null, (select count(*) from e)::numeric
union all
select s.meter_key, sum(r.value)
from reading r
join series s on s.organization_id = %(org)s and s.series_id = r.series_id
  and s.meter_key = any(%(meters)s)
left join superseded u on u.organization_id = %(org)s and u.meter_key = s.meter_key
  and u.meter_version = s.meter_version
where u.counted_until is null or r.time < u.counted_until
group by 1"""


def received(
    connection: Connection, organization_id: UUID, control: ControlRow
) -> tuple[int, dict[str, Decimal]]:
    """Return how many events of the control's span were received, and their totals by meter."""
    rows: Sequence[tuple[str | None, Decimal]] = connection.execute(
        _RECEIVED,
        {
            "org": organization_id,
            "start": control.start,
            "end": control.end,
            "source": control.source,
            "meters": list(control.totals),
        },
    ).fetchall()
    totals = {meter: value for meter, value in rows if meter is not None}
    (events,) = [int(value) for meter, value in rows if meter is None]
    return events, totals
