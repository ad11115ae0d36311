"""Events, found again: those behind a line, the one with a name, those of a stretch of time.

Nothing here goes through the whole stream. Rollups say in which quarters of an hour a series was
read; only those are looked up, by the block ranges of the time index. `+ 0` keeps the planner from
the index on sequence, which would lead through everything.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.metering.window import BUCKET, bucket_of
from farebox.period.instant import BEGINNING, END

Order = Literal["asc", "desc"]

SERIES_AT_ONCE = 1_000

_ORIGIN = "timestamptz '2000-01-01 00:00:00+00'"
_BUCKET = f"date_bin('15 minutes', {{}}, {_ORIGIN})"


class Member(Struct, frozen=True):
    """A series that counts for a customer from `start` to `end`.

    dimensions: in the order of `meter_dimensions` of that meter version.
    """

    series_id: UUID
    meter_key: str
    meter_version: int
    subject: str
    dimensions: tuple[str, ...]
    start: datetime
    end: datetime


class RawReading(Struct, frozen=True):
    """What a series gained by an event; a number as text, or the text that was read."""

    series_id: UUID
    value: str


class EventRow(Struct, frozen=True, kw_only=True):
    """One event of the stream; `payload` is JSON text."""

    sequence: int
    received_at: datetime
    time: datetime
    source: str
    id: str
    type: str
    subject: str | None
    payload: str
    voided: bool
    readings: tuple[RawReading, ...]


class Place(Struct, frozen=True):
    """Where a page begins: beyond this event, in the order of (time, sequence)."""

    time: datetime
    sequence: int


_MEMBERS = """
select * from (
  select s.series_id, s.meter_key, s.meter_version, s.subject, s.dimensions,
         greatest(s.starts, %(start)s) as starts,
         least(s.ends, %(end)s, (select u.counted_until from superseded u
           where u.organization_id = %(org)s and u.meter_key = s.meter_key
             and u.meter_version = s.meter_version)) as ends
  from (
    select s.*, m.valid_from as starts, m.valid_to as ends
    from subject m
    join series s on s.organization_id = %(org)s and s.subject = m.subject and s.customer_key = ''
    where m.organization_id = %(org)s and m.customer_key = %(customer)s
      and m.valid_from < %(end)s and m.valid_to > %(start)s
    union all
    select s.*, %(start)s, %(end)s from series s
    where s.organization_id = %(org)s and s.customer_key = %(customer)s
  ) s
  where %(meter)s::text is null or s.meter_key = %(meter)s
) member
where starts < ends"""


def members(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    meter_key: str | None,
    start: datetime,
    end: datetime,
) -> list[Member]:
    """Return the series that count for a customer in [start, end), of one meter or of all."""
    rows = connection.execute(
        _MEMBERS,
        {
            "org": organization_id,
            "customer": customer_key,
            "meter": meter_key,
            "start": start,
            "end": end,
        },
    ).fetchall()
    return [Member(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6]) for row in rows]


def _point_buckets(order: Order) -> str:
    """Step from one bucket with points to the next by the index, however many lie in each."""
    at, beyond = _BUCKET.format("time"), "time >= s.bucket + interval '15 minutes' and time < m.hi"
    if order == "desc":
        beyond = "time < s.bucket and time >= m.lo"
    of_series = "select {} from point where organization_id = %(org)s and series_id = m.series_id"
    return f"""
    select bucket from (
      with recursive step(bucket, n) as (
        ({of_series.format(f"{at}, 1")} and time >= m.lo and time < m.hi
         order by time {order} limit 1)
        union all
        select ({of_series.format(at)} and {beyond} order by time {order} limit 1), n + 1
        from step s where bucket is not null and n < %(limit)s
      )
      select bucket from step where bucket is not null) point"""


def _buckets(order: Order) -> str:
    kept = " union all ".join(
        f"""
    select * from (select bucket from {table} where organization_id = %(org)s
      and series_id = m.series_id and bucket >= m.lo and bucket < m.hi
      order by bucket {order} limit %(limit)s) {table}"""
        for table in ("rollup", "value_count")
    )
    return f"""
with member as materialized (
  select * from unnest(%(series)s::uuid[], %(los)s::timestamptz[], %(his)s::timestamptz[])
    as m(series_id, lo, hi)
),
kept as (
  select m.series_id, b.bucket from member m cross join lateral ({kept}
    union all {_point_buckets(order)}) b
),
tail as (
  select u.series_id, {_BUCKET.format("e.time")} as bucket
  from watermark w cross join lateral (
    select * from event where organization_id = %(org)s and sequence > w.sequence offset 0) e
  cross join lateral unnest(e.series || e.value_series || e.point_series) as u(series_id)
  join member m on m.series_id = u.series_id and e.time >= m.lo and e.time < m.hi
  where w.organization_id = %(org)s
)
select distinct bucket, series_id
from (select * from kept union all select * from tail) found
order by bucket {order} limit %(rows)s"""


_BUCKETS: Mapping[Order, str] = {"asc": _buckets("asc"), "desc": _buckets("desc")}

_EVENT = """
  e.sequence, e.received_at, e.time, e.source, e.id, e.type, e.subject, e.payload::text,
  exists (select from void v where v.organization_id = %(org)s and v.sequence = e.sequence),
  e.series || e.value_series || e.point_series,
  e.quantities::text[] || e.value_texts || e.point_quantities::text[],
  (select array_agg(b.series_id order by b.series_id) from backfill_reading b
   join backfill f on f.organization_id = %(org)s and f.meter_key = b.meter_key
     and f.meter_version = b.meter_version and f.status = 'switched'
   where b.organization_id = %(org)s and b.sequence = e.sequence),
  (select array_agg(coalesce(b.text_value, b.quantity::text) order by b.series_id)
   from backfill_reading b
   join backfill f on f.organization_id = %(org)s and f.meter_key = b.meter_key
     and f.meter_version = b.meter_version and f.status = 'switched'
   where b.organization_id = %(org)s and b.sequence = e.sequence)"""

_AFTER: Mapping[Order, str] = {"asc": ">", "desc": "<"}


def _stretches(order: Order) -> str:
    """Look through several stretches of time in one statement: one plan, one round trip."""
    return f"""
select {_EVENT}
from (
  select e.*
  from unnest(%(los)s::timestamptz[], %(his)s::timestamptz[]) as b(lo, hi) cross join lateral (
    select * from event
    where organization_id = %(org)s and time >= b.lo and time < b.hi
      and sequence + 0 <= %(cutoff)s and (time, sequence) {_AFTER[order]} (%(time)s, %(after)s)
      and (%(type)s::text is null or type = %(type)s)
      and (%(series)s::uuid[] is null or series && %(series)s or value_series && %(series)s
           or point_series && %(series)s
           or sequence in (select sequence from backfill_reading
             where organization_id = %(org)s and series_id = any(%(series)s)
               and time >= b.lo and time < b.hi))
    order by time {order}, sequence {order} limit %(limit)s) e
  order by e.time {order}, e.sequence {order} limit %(limit)s) e
order by e.time {order}, e.sequence {order}"""


_STRETCHES: Mapping[Order, str] = {"asc": _stretches("asc"), "desc": _stretches("desc")}


class Window(Struct, frozen=True, kw_only=True):
    """Which events: their time in [start, end), their sequence up to `cutoff`, beyond `after`."""

    start: datetime
    end: datetime
    cutoff: int = 2**62
    type: str | None = None
    after: Place | None = None
    order: Order = "asc"


def events_in(
    connection: Connection,
    organization_id: UUID,
    window: Window,
    limit: int,
    *,
    buckets: Sequence[datetime] | None = None,
    series: Sequence[UUID] | None = None,
) -> list[EventRow]:
    """Return the first events of a window, of all series or of some.

    buckets: the quarters of an hour to look through; without them the window is a short one.
    """
    spans = [(window.start, window.end)]
    if buckets is not None:
        spans = [(max(window.start, at), min(window.end, at + BUCKET)) for at in buckets]
    first = Place(BEGINNING, 0) if window.order == "asc" else Place(END, 2**62)
    after = window.after or first
    rows = connection.execute(
        _STRETCHES[window.order],
        {
            "org": organization_id,
            "los": [lo for lo, _ in spans],
            "his": [hi for _, hi in spans],
            "cutoff": window.cutoff,
            "type": window.type,
            "time": after.time,
            "after": after.sequence,
            "series": None if series is None else list(series),
            "limit": limit,
        },
    ).fetchall()
    return [_event(row) for row in rows]


def buckets_of(
    connection: Connection,
    organization_id: UUID,
    found: Sequence[Member],
    window: Window,
    limit: int,
) -> tuple[list[tuple[datetime, list[UUID]]], datetime | None]:
    """Return the next quarters of an hour in which these series were read, with those series.

    The second is the one that follows, None where there is none.
    """
    spans = [_span(member, window) for member in found]
    rows_max = (limit + 1) * min(len(found), SERIES_AT_ONCE) + 1
    rows = connection.execute(
        _BUCKETS[window.order],
        {
            "org": organization_id,
            "series": [member.series_id for member in found],
            "los": [lo for lo, _ in spans],
            "his": [hi for _, hi in spans],
            "limit": limit + 1,
            "rows": rows_max,
        },
    ).fetchall()
    buckets: dict[datetime, list[UUID]] = defaultdict(list)
    for bucket, series_id in rows:
        buckets[bucket].append(series_id)
    whole = list(buckets.items())
    if len(rows) == rows_max and len(whole) == 1:
        # More series than were asked for in one bucket: it is looked through for all of them.
        step = BUCKET if window.order == "asc" else -BUCKET
        return [(whole[0][0], [member.series_id for member in found])], whole[0][0] + step
    last = min(limit, len(whole) - 1) if len(rows) == rows_max else limit
    return whole[:last], whole[last][0] if len(whole) > last else None


def _span(member: Member, window: Window) -> tuple[datetime, datetime]:
    lo, hi = bucket_of(max(member.start, window.start)), min(member.end, window.end)
    if window.after is not None:
        at = bucket_of(window.after.time)
        if window.order == "asc":
            lo = max(lo, at)
        else:
            hi = min(hi, at + BUCKET)
    return lo, hi


_BY_KEY = f"""
select {_EVENT}
from event_key k cross join lateral (
  select * from event where organization_id = %(org)s and sequence = k.sequence offset 0) e
where k.organization_id = %(org)s and k.key = %(key)s"""


def find_event(connection: Connection, organization_id: UUID, key: bytes) -> EventRow | None:
    """Return the event with the key that `events.admit.event_key` makes of source and id."""
    row = connection.execute(_BY_KEY, {"org": organization_id, "key": UUID(bytes=key)}).fetchone()
    return None if row is None else _event(row)


def digest_of(connection: Connection, organization_id: UUID, key: bytes) -> bytes | None:
    """Return the digest of the payload that is stored under an event's key."""
    row = connection.execute(
        "select digest from event_key where organization_id = %s and key = %s",
        (organization_id, UUID(bytes=key)),
    ).fetchone()
    return None if row is None else row[0].bytes


class SeriesRow(Struct, frozen=True):
    """What the readings of a series have in common.

    counted_until: from then on a newer version of the meter, backfilled, counts in its place.
    """

    series_id: UUID
    meter_key: str
    meter_version: int
    subject: str
    customer_key: str
    dimensions: tuple[str, ...]
    counted_until: datetime | None


def series_rows(
    connection: Connection, organization_id: UUID, series: Sequence[UUID]
) -> dict[UUID, SeriesRow]:
    rows = connection.execute(
        "select s.series_id, s.meter_key, s.meter_version, s.subject, s.customer_key,"
        "  s.dimensions, u.counted_until from series s"
        " left join superseded u on u.organization_id = %(org)s and u.meter_key = s.meter_key"
        "  and u.meter_version = s.meter_version"
        " where s.organization_id = %(org)s and s.series_id = any(%(series)s)",
        {"org": organization_id, "series": list(series)},
    ).fetchall()
    return {
        row[0]: SeriesRow(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6])
        for row in rows
    }


def backfilled_versions(connection: Connection, organization_id: UUID) -> set[tuple[str, int]]:
    """Return the meter versions that have read the events that came before them."""
    rows = connection.execute(
        "select meter_key, meter_version from backfill"
        " where organization_id = %s and status = 'switched'",
        (organization_id,),
    ).fetchall()
    return {(row[0], row[1]) for row in rows}


def customer_at(
    connection: Connection, organization_id: UUID, subject: str, time: datetime
) -> str | None:
    """Return for whom a subject used at an instant."""
    row = connection.execute(
        "select customer_key from subject where organization_id = %s and subject = %s"
        " and valid_from <= %s and valid_to > %s",
        (organization_id, subject, time, time),
    ).fetchone()
    return None if row is None else str(row[0])


def _event(row: Sequence[Any]) -> EventRow:
    # A reading kept both for its sum and for itself stands in two arrays; it is one reading.
    taken = dict(zip(row[9] or (), row[10] or (), strict=True))
    taken.update(zip(row[11] or (), row[12] or (), strict=True))
    return EventRow(
        sequence=row[0],
        received_at=row[1],
        time=row[2],
        source=row[3],
        id=row[4],
        type=row[5],
        subject=row[6],
        payload=row[7],
        voided=row[8],
        readings=tuple(RawReading(series_id, value) for series_id, value in taken.items()),
    )
