"""Usage: what customers used of a meter between two instants, current to the last event.

Three parts make an answer: rollups of the whole quarters of an hour inside the range, the raw
events of its two edges, and the events after the watermark, which no rollup holds yet. Readings
of a backfill lie beside the events, so the edges look there too; a void is never after the
watermark, so the tail does not look for any.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.metering.fold import Point, Totals
from farebox.metering.quantity import Place, PointRow, Target, TotalsRow, ValueRow
from farebox.period.instant import BEGINNING

_FEW_SERIES = 100
"""Up to so many, looking for them in an event's arrays is cheaper than taking those apart."""
_ORIGIN = "timestamptz '2000-01-01 00:00:00+00'"

# Which series each target takes, and when: a subject counts for a customer while it is mapped, a
# meter version until a backfill of a newer one has read the same events. The two small lookups are
# subqueries, so that no join order depends on them.
# raw: read everything from events, for windows shorter than a bucket.
# A range that ends after the last folded event has no edge there: its last bucket is taken whole.
_MEMBER = f"""
with target as (
  select (n - 1)::int as n, customer_key, meter_key, start_at, end_at
  from unnest(%(customers)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
              %(ends)s::timestamptz[])
    with ordinality as t(customer_key, meter_key, start_at, end_at, n)
),
mapped as (
  select t.n, s.series_id, s.subject, s.customer_key, s.meter_key, s.meter_version, s.dimensions,
         greatest(t.start_at, m.valid_from) as start_at, least(t.end_at, m.valid_to) as end_at
  from target t
  join subject m on not %(users)s and m.organization_id = %(org)s
    and m.customer_key = t.customer_key and m.valid_from < t.end_at and m.valid_to > t.start_at
  join series s on s.organization_id = %(org)s and s.meter_key = t.meter_key
    and s.subject = m.subject and s.customer_key = ''
  union all
  select t.n, s.series_id, s.subject, s.customer_key, s.meter_key, s.meter_version, s.dimensions,
         t.start_at, t.end_at
  from target t
  join series s on s.organization_id = %(org)s and s.meter_key = t.meter_key
    and s.customer_key = t.customer_key and s.customer_key <> '' and not %(users)s
  union all
  select t.n, s.series_id, s.subject, s.customer_key, s.meter_key, s.meter_version, s.dimensions,
         t.start_at, t.end_at
  from target t
  join series s on s.organization_id = %(org)s and s.meter_key = t.meter_key
    and s.subject = t.customer_key and s.customer_key = '' and %(users)s
),
version as materialized (
  select m.meter_key, m.meter_version,
         (select u.counted_until from superseded u where u.organization_id = %(org)s
            and u.meter_key = m.meter_key and u.meter_version = m.meter_version) as counted_until,
         (select b.status = 'switched' from backfill b where b.organization_id = %(org)s
            and b.meter_key = m.meter_key and b.meter_version = m.meter_version) as backfilled
  from (select distinct meter_key, meter_version from mapped) m
),
folded as materialized (
  select sequence, last_time from watermark where organization_id = %(org)s
),
series_of as (
  select m.n, m.series_id, m.subject, m.customer_key, m.meter_version, m.dimensions, m.start_at,
         m.end_at, least(m.end_at, v.counted_until) as counted_to, v.backfilled
  from mapped m join version v using (meter_key, meter_version)
),
member as (
  select n, series_id, case when %(by_subject)s then subject else '' end as subject,
         subject as user_subject, customer_key as user_customer, meter_version, dimensions,
         backfilled, start_at, end_at, counted_to,
         case when %(raw)s or counted_to <= start_at then greatest(start_at, counted_to) else
           least(counted_to, date_bin('15 minutes', start_at + interval '14:59.999999', {_ORIGIN}))
         end as first_bucket,
         case when %(raw)s or counted_to <= start_at then least(start_at, counted_to)
           when counted_to > last_time then
             date_bin('15 minutes', counted_to + interval '14:59.999999', {_ORIGIN})
           else greatest(start_at, date_bin('15 minutes', counted_to, {_ORIGIN}))
         end as last_bucket
  from series_of cross join folded
  where %(subjects)s::text[] is null or subject = any(%(subjects)s::text[])
),
member_edge as (
  select n, series_id, subject, meter_version, dimensions, backfilled,
         start_at as lo, first_bucket as hi
  from member where start_at < first_bucket
  union
  select n, series_id, subject, meter_version, dimensions, backfilled, last_bucket, counted_to
  from member where last_bucket < counted_to
),
edge as materialized (
  select lo, hi, series_ids, cardinality(series_ids) > {_FEW_SERIES} as many
  from (select lo, hi, array_agg(distinct series_id) as series_ids from member_edge group by lo, hi)
    as edges
),
mark as materialized (
  select f.sequence, exists (select from void where organization_id = %(org)s) as voided,
         s.series_ids, cardinality(s.series_ids) > {_FEW_SERIES} as many
  from folded f cross join (select array_agg(distinct series_id) as series_ids from member) s
)"""


def _raw(series: str, readings: str, kind: str, backfilled: str) -> str:
    """Readings of the edges (folded, but outside a whole bucket) and of the tail (not folded yet).

    `offset 0` and `materialized` hold the order of the joins, here and below: an organization that
    is new has no statistics yet, and a plan made without them is a hundred times slower. `+ 0`
    keeps the planner from reading the whole index on sequence for an edge.
    """
    return f"""
  with edge_reading as materialized (
    select edge.lo, edge.hi, e.time, u.series_id, u.value
    from mark cross join edge cross join lateral (
      select * from event where organization_id = %(org)s
        and time >= edge.lo and time < edge.hi and sequence + 0 <= mark.sequence
        and (edge.many or {series} && edge.series_ids)
        and (not mark.voided or (select v.sequence from void v
               where v.organization_id = %(org)s and v.sequence = event.sequence) is null)
      offset 0) e
    cross join lateral unnest(e.{series}, e.{readings}) as u(series_id, value)
  ),
  tail_reading as materialized (
    select e.time, u.series_id, u.value
    from mark cross join lateral (
      select * from event where organization_id = %(org)s and sequence > mark.sequence
        and (mark.many or {series} && mark.series_ids)
      offset 0) e
    cross join lateral unnest(e.{series}, e.{readings}) as u(series_id, value)
  )
  select m.n, m.subject, m.meter_version, m.dimensions, e.time, e.value
  from edge_reading e
  join member_edge m on m.series_id = e.series_id and m.lo = e.lo and m.hi = e.hi
  union all
  select m.n, m.subject, m.meter_version, m.dimensions, b.time, b.value
  from member_edge m cross join lateral (
    select time, {backfilled} as value from backfill_reading where organization_id = %(org)s
      and series_id = m.series_id and kind = '{kind}' and time >= m.lo and time < m.hi
    offset 0) b
  where m.backfilled
  union all
  select m.n, m.subject, m.meter_version, m.dimensions, e.time, e.value
  from tail_reading e
  join member m on m.series_id = e.series_id and e.time >= m.start_at and e.time < m.counted_to"""


_WINDOW = "width_bucket(time, %(windows)s::timestamptz[]) - 1"

_TOTALS = f"""{_MEMBER}
select n, {_WINDOW}, subject, meter_version, dimensions,
       sum(count)::bigint, sum(total), min(minimum), max(maximum)
from (
  select m.n, m.subject, m.meter_version, m.dimensions, r.bucket as time,
         r.count, r.total, r.minimum, r.maximum
  from member m cross join lateral (
    select * from rollup where organization_id = %(org)s and series_id = m.series_id
      and bucket >= m.first_bucket and bucket < m.last_bucket
    offset 0) r
  union all
  select n, subject, meter_version, dimensions, time, 1, value, value, value
  from ({_raw("series", "quantities", "totals", "quantity")}) raw
) reading
group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5"""

_VALUES = f"""{_MEMBER}
select n, {_WINDOW}, subject, meter_version, dimensions, value, sum(count)::bigint
from (
  select m.n, m.subject, m.meter_version, m.dimensions, v.bucket as time, v.value, v.count
  from member m cross join lateral (
    select * from value_count where organization_id = %(org)s and series_id = m.series_id
      and bucket >= m.first_bucket and bucket < m.last_bucket
    offset 0) v
  union all
  select n, subject, meter_version, dimensions, time, value, 1
  from ({_raw("value_series", "value_texts", "values", "text_value")}) raw
) reading
group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6"""

_POINTS = f"""{_MEMBER},
point_of as (
  select m.n, m.series_id, m.subject, m.user_subject, m.user_customer,
         m.meter_version, m.dimensions, p.time, p.sequence, p.value, false as carried,
         m.start_at, m.end_at
  from member m cross join lateral (
    select * from point where organization_id = %(org)s and series_id = m.series_id
      and time >= m.start_at and time < m.counted_to
    offset 0) p
  union all
  select m.n, m.series_id, m.subject, m.user_subject, m.user_customer,
         m.meter_version, m.dimensions, p.time, p.sequence, p.value, true, m.start_at, m.end_at
  from member m cross join lateral (
    select p.time, p.sequence, p.value from point p
    where p.organization_id = %(org)s and p.series_id = m.series_id
      and p.time < least(m.start_at, m.counted_to)
    order by p.time desc, p.sequence desc limit 1) p
),
tail as (
  select m.n, m.series_id, m.subject, m.user_subject, m.user_customer,
         m.meter_version, m.dimensions, e.time, e.sequence, e.value,
         e.time < m.start_at as carried, m.start_at, m.end_at
  from mark cross join lateral (
    select e.time, e.sequence, u.series_id, u.value
    from event e
    cross join lateral unnest(e.point_series, e.point_quantities) as u(series_id, value)
    where e.organization_id = %(org)s and e.sequence > mark.sequence
      and (mark.many or e.point_series && mark.series_ids)
    offset 0) e
  join member m on m.series_id = e.series_id and e.time < m.counted_to
)
select * from point_of union all select * from tail
order by n, dimensions, series_id, time, sequence"""


class Range(Struct, frozen=True, kw_only=True):
    """How to cut the answer: into `windows` (their starts, ascending), by subject, from raw.

    users: targets name subjects instead of customers, to look for usage that is nobody's.
    """

    windows: tuple[datetime, ...] = (BEGINNING,)
    by_subject: bool = False
    subjects: tuple[str, ...] | None = None
    raw: bool = False
    users: bool = False


def totals(
    connection: Connection, organization_id: UUID, targets: Sequence[Target], cut: Range
) -> list[TotalsRow]:
    """Return the additive state of each target's readings, by window and dimension values."""
    rows = connection.execute(_TOTALS, _parameters(organization_id, targets, cut)).fetchall()
    return [TotalsRow(_place(row[:5]), Totals(*row[5:])) for row in rows]


def values(
    connection: Connection, organization_id: UUID, targets: Sequence[Target], cut: Range
) -> list[ValueRow]:
    """Return each distinct value and how often it was read."""
    rows = connection.execute(_VALUES, _parameters(organization_id, targets, cut)).fetchall()
    return [ValueRow(_place(row[:5]), row[5], row[6]) for row in rows]


def points(
    connection: Connection, organization_id: UUID, targets: Sequence[Target], cut: Range
) -> list[PointRow]:
    """Return every reading in the range in order of time, and those that may carry into it.

    A row that is `carried` lies before the range; the last of a series is its carry-in.
    """
    rows = connection.execute(_POINTS, _parameters(organization_id, targets, cut)).fetchall()
    return [
        PointRow(
            Place(row[0], 0, row[2], row[5], tuple(row[6])),
            row[1],
            (row[3], row[4]),
            Point(*row[7:10]),
            *row[10:],
        )
        for row in rows
    ]


def _place(row: Sequence[Any]) -> Place:
    target, window, subject, meter_version, dimensions = row
    return Place(target, window, subject, meter_version, tuple(dimensions))


def _parameters(organization_id: UUID, targets: Sequence[Target], cut: Range) -> dict[str, object]:
    return {
        "org": organization_id,
        "customers": [target.customer_key for target in targets],
        "meters": [target.meter_key for target in targets],
        "starts": [target.start for target in targets],
        "ends": [target.end for target in targets],
        "windows": list(cut.windows),
        "by_subject": cut.by_subject,
        "subjects": None if cut.subjects is None else list(cut.subjects),
        "raw": cut.raw,
        "users": cut.users,
    }
