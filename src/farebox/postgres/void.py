"""Voids: events that no longer count, and the rollups without them.

Counts and sums are exact, so what a voided event added is subtracted, and so are the counts of
single values. A minimum or maximum that went with it is read anew from the events that remain.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

_BUCKET = "date_bin('15 minutes', time, timestamptz '2000-01-01 00:00:00+00')"
_IMPORTED = "g.organization_id = %(org)s and g.import_id = %(import)s"


def _gone(series: str, readings: str, kind: str, backfilled: str) -> str:
    """Readings of the import's events: those taken at admission, and those of a backfill since.

    `offset 0` here and below: the ranges come first, then an index look-up for each.
    """
    return f"""
    select e.time, e.sequence, u.series_id, u.value
    from import_range g cross join lateral (
      select * from event where organization_id = %(org)s
        and sequence >= g.first_sequence and sequence <= g.last_sequence
      offset 0) e
    cross join lateral unnest(e.{series}, e.{readings}) as u(series_id, value)
    where {_IMPORTED}
    union all
    select b.time, b.sequence, b.series_id, b.{backfilled}
    from import_range g cross join lateral (
      select * from backfill_reading where organization_id = %(org)s
        and sequence >= g.first_sequence and sequence <= g.last_sequence and kind = '{kind}'
      offset 0) b
    join backfill f on f.organization_id = %(org)s and f.meter_key = b.meter_key
      and f.meter_version = b.meter_version and f.status = 'switched'
    where {_IMPORTED}"""


_VOID = f"""
insert into void (organization_id, sequence, voided_at, reason)
select %(org)s, sequence, %(now)s, %(reason)s
from import_range g cross join lateral
  generate_series(g.first_sequence, g.last_sequence) as sequence
where {_IMPORTED}"""

_REMAINS = "(select v.sequence from void v where v.organization_id = %(org)s and v.sequence = {}) "

_TOTALS = f"""
with gone as materialized (
  select series_id, {_BUCKET} as bucket, count(*) as count, sum(value) as total,
         min(value) as minimum, max(value) as maximum
  from ({_gone("series", "quantities", "totals", "quantity")}) reading group by 1, 2
),
touched as materialized (
  select g.*, r.count > g.count as stays,
         r.count > g.count and r.minimum < r.maximum
           and (g.minimum = r.minimum or g.maximum = r.maximum) as lost_extreme
  from gone g join rollup r on r.organization_id = %(org)s and r.series_id = g.series_id
    and r.bucket = g.bucket
),
span as materialized (
  select min(bucket) as lo, max(bucket) + interval '15 minutes' as hi
  from touched where lost_extreme
),
remaining as (
  select u.series_id, e.time, u.value
  from span cross join lateral (
    select * from event where organization_id = %(org)s and time >= span.lo and time < span.hi
      and sequence + 0 <= %(watermark)s and {_REMAINS.format("event.sequence")} is null
    offset 0) e
  cross join lateral unnest(e.series, e.quantities) as u(series_id, value)
  union all
  select t.series_id, b.time, b.quantity
  from touched t cross join lateral (
    select * from backfill_reading where organization_id = %(org)s and series_id = t.series_id
      and kind = 'totals' and time >= t.bucket and time < t.bucket + interval '15 minutes'
      and {_REMAINS.format("backfill_reading.sequence")} is null
    offset 0) b
  join backfill f on f.organization_id = %(org)s and f.meter_key = b.meter_key
    and f.meter_version = b.meter_version and f.status = 'switched'
  where t.lost_extreme
),
extreme as materialized (
  select t.series_id, t.bucket, min(r.value) as minimum, max(r.value) as maximum
  from (select series_id, {_BUCKET} as bucket, value from remaining) r
  join touched t on t.series_id = r.series_id and t.bucket = r.bucket and t.lost_extreme
  group by 1, 2
),
emptied as (
  delete from rollup r using touched t
  where r.organization_id = %(org)s and r.series_id = t.series_id and r.bucket = t.bucket
    and not t.stays
)
update rollup r set count = r.count - t.count, total = r.total - t.total,
  minimum = coalesce(x.minimum, r.minimum), maximum = coalesce(x.maximum, r.maximum)
from touched t left join extreme x on x.series_id = t.series_id and x.bucket = t.bucket
where r.organization_id = %(org)s and r.series_id = t.series_id and r.bucket = t.bucket
  and t.stays"""

_VALUES = f"""
with gone as materialized (
  select series_id, {_BUCKET} as bucket, value, count(*) as count
  from ({_gone("value_series", "value_texts", "values", "text_value")}) reading group by 1, 2, 3
),
emptied as (
  delete from value_count v using gone g
  where v.organization_id = %(org)s and v.series_id = g.series_id and v.bucket = g.bucket
    and v.value = g.value and v.count = g.count
)
update value_count v set count = v.count - g.count from gone g
where v.organization_id = %(org)s and v.series_id = g.series_id and v.bucket = g.bucket
  and v.value = g.value and v.count > g.count"""

_POINTS = f"""
with gone as materialized ({_gone("point_series", "point_quantities", "points", "quantity")})
delete from point p using gone g
where p.organization_id = %(org)s and p.series_id = g.series_id and p.time = g.time
  and p.sequence = g.sequence"""

_BACKFILLED = f"""
delete from backfill_reading b using import_range g
where {_IMPORTED} and b.organization_id = %(org)s
  and b.sequence >= g.first_sequence and b.sequence <= g.last_sequence"""

_UNREAD = f"""
with gone as materialized (
  select e.type, count(*) as events
  from import_range g cross join lateral (
    select type, sequence from event where organization_id = %(org)s
      and sequence >= g.first_sequence and sequence <= g.last_sequence
    offset 0) e
  join unread_type u on u.organization_id = %(org)s and u.type = e.type
    and u.last_sequence >= e.sequence
  where {_IMPORTED} group by 1
),
emptied as (
  delete from unread_type u using gone g
  where u.organization_id = %(org)s and u.type = g.type and u.events <= g.events
)
update unread_type u set events = u.events - g.events from gone g
where u.organization_id = %(org)s and u.type = g.type and u.events > g.events"""

_INVOICED = f"""
with reading as (
  select e.time, e.sequence, u.series_id
  from import_range g cross join lateral (
    select * from event where organization_id = %(org)s
      and sequence >= g.first_sequence and sequence <= g.last_sequence
    offset 0) e
  cross join lateral unnest(e.series || e.value_series || e.point_series) as u(series_id)
  where {_IMPORTED}
  union all
  select b.time, b.sequence, b.series_id
  from import_range g cross join lateral (
    select * from backfill_reading where organization_id = %(org)s
      and sequence >= g.first_sequence and sequence <= g.last_sequence
    offset 0) b
  where {_IMPORTED}
)
select exists (
  select from reading r
  join series s on s.organization_id = %(org)s and s.series_id = r.series_id
  cross join lateral (
    select s.customer_key as key where s.customer_key <> ''
    union all
    select m.customer_key from subject m
    where s.customer_key = '' and m.organization_id = %(org)s and m.subject = s.subject
      and (m.valid_from <= r.time and r.time < m.valid_to or s.meter_key = any(%(carrying)s))
  ) payer
  join invoice i on i.organization_id = %(org)s and i.customer_key = payer.key
    and i.status = 'final' and i.kind = 'period' and i.cutoff_sequence >= r.sequence
    and r.time < i.period_end
    and (r.time >= i.period_start or s.meter_key = any(%(carrying)s))
)"""


def is_invoiced(
    connection: Connection, organization_id: UUID, import_id: UUID, carrying: Sequence[str]
) -> bool:
    """Whether a final invoice may contain an event of the import.

    It may where the event came before the invoice's cutoff, a meter read it for the invoice's
    customer, and its time lies in the period; or before it, for the meters in `carrying`, whose
    readings are carried into later periods. So it never says no where the answer is yes.
    """
    row = connection.execute(
        "select exists (select from invoice i where i.organization_id = %(org)s"
        " and i.status = 'final' and i.kind = 'period' and i.cutoff_sequence >="
        " (select min(first_sequence) from import_range g where " + _IMPORTED + "))",
        {"org": organization_id, "import": import_id},
    ).fetchone()
    if row is None or not row[0]:
        return False
    row = connection.execute(
        _INVOICED, {"org": organization_id, "import": import_id, "carrying": list(carrying)}
    ).fetchone()
    return row is not None and bool(row[0])


def void_import(
    connection: Connection,
    organization_id: UUID,
    import_id: UUID,
    watermark: int,
    reason: str,
    now: datetime,
) -> int:
    """Let the events of an import count no more, and return how many they were.

    The caller holds the watermark, and it is not below any of them.
    """
    parameters = {
        "org": organization_id,
        "import": import_id,
        "watermark": watermark,
        "reason": reason,
        "now": now,
    }
    # Whatever the planner believes of tables that were filled a moment ago, sets are hashed.
    connection.execute("set local enable_nestloop = off")
    voided = connection.execute(_VOID, parameters).rowcount
    for statement in (_TOTALS, _VALUES, _POINTS, _BACKFILLED, _UNREAD):
        connection.execute(statement, parameters)
    connection.execute("set local enable_nestloop to default")
    return voided
