"""Readings of a backfill on their way to burn, and those in whose place they count."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from farebox.postgres import burn
from farebox.postgres.backfill import BackfillRow

_MAPPED = """
left join subject m on s.customer_key = '' and m.organization_id = %(org)s
  and m.subject = s.subject and m.valid_from <= {0}.time and {0}.time < m.valid_to"""
_WHOSE = "coalesce(nullif(s.customer_key, ''), m.customer_key)"
_UNTIL = """
left join superseded u on u.organization_id = %(org)s and u.meter_key = s.meter_key
  and u.meter_version = s.meter_version"""
_COUNTS = "(u.counted_until is null or {}.time < u.counted_until)"

# Before the switch: the series of the backfill are still apart, and what older versions read still
# counts.
_NEW = f"""
insert into burn_reading
select b.sequence, b.time, b.quantity, s.subject, s.meter_key, s.meter_version, s.dimensions,
       {_WHOSE}
from backfill_reading b
join backfill_series s on s.organization_id = %(org)s and s.series_id = b.series_id {_UNTIL}
{_MAPPED.format("b")}
where b.organization_id = %(org)s and b.meter_key = %(meter)s and b.meter_version = %(version)s
  and b.kind = 'totals' and {_COUNTS.format("b")}
  and draw_pays(%(org)s, case when b.drawn then draw_named(%(org)s, b.sequence) end, b.sequence,
                {_WHOSE}, s.subject, b.time) is not true"""

# What older versions read of the times from the new one's start on: of events that the steps have
# passed, and in backfills of their own. Sequences of old events are read through by time.
_OLD = f"""
insert into burn_reading
select r.sequence, r.time, r.quantity, s.subject, s.meter_key, s.meter_version, s.dimensions,
       {_WHOSE}, -1
from (
  select e.sequence, e.time, n.series_id, n.quantity, e.draw
  from (
    select sequence, time, series, quantities, payload ->> 'fareboxdraw' as draw from event
    where organization_id = %(org)s and time >= %(start)s and sequence + 0 <= %(burned)s
    offset 0) e
  cross join lateral unnest(e.series, e.quantities) n(series_id, quantity)
  where not exists (select from void v
                    where v.organization_id = %(org)s and v.sequence = e.sequence)
  union all
  select b.sequence, b.time, b.series_id, b.quantity,
         case when b.drawn then draw_named(%(org)s, b.sequence) end
  from backfill f join backfill_reading b on b.organization_id = %(org)s
    and b.meter_key = f.meter_key and b.meter_version = f.meter_version
  where f.organization_id = %(org)s and f.meter_key = %(meter)s and f.meter_version < %(version)s
    and f.status = 'switched' and b.kind = 'totals' and b.time >= %(start)s) r
join series s on s.organization_id = %(org)s and s.series_id = r.series_id
  and s.meter_key = %(meter)s and s.meter_version < %(version)s {_UNTIL}
{_MAPPED.format("r")}
where {_COUNTS.format("r")}
  and draw_pays(%(org)s, r.draw, r.sequence, {_WHOSE}, s.subject, r.time) is not true"""

# What a draw covered of which all was taken back has not burned, unless another covers it too.
_TAKEN_BACK = """
with target as (
  select * from unnest(%(customers)s::text[], %(meters)s::text[], %(pools)s::uuid[],
                       %(since)s::timestamptz[], %(until)s::timestamptz[])
    t(customer_key, meter_key, pool_id, since, until)
),
undone as materialized (
  select d.pool_id, coalesce(d.subject, '') as subject, d.operation,
         (d.note ->> 'first_sequence')::bigint as first_sequence,
         (d.note ->> 'last_sequence')::bigint as last_sequence
  from (
    select t.pool_id, t.undoes, sum(t.amount) filter (where t.source = 'used') as amount
    from transfer t
    where t.pool_id in (select pool_id from target) and t.undoes is not null
      and t.source = 'used'
    group by 1, 2) b
  join transfer d on d.pool_id = b.pool_id and d.sequence = b.undoes
    and d.reason = 'metered' and d.note is not null
  where b.amount >= (select sum(o.amount) from transfer o
                     where o.pool_id = d.pool_id and o.sequence >= d.sequence
                       and o.operation = d.operation and o.target = 'used'
                       and o.reason = 'metered')
)
delete from burn_reading p using target t, undone n
where p.sign < 0 and t.customer_key = p.customer_key and t.meter_key = p.meter_key
  and t.since <= p.time and p.time < t.until
  and n.pool_id = t.pool_id and n.subject = p.subject
  and p.sequence between n.first_sequence and n.last_sequence
  and not exists (
    select from transfer d where d.pool_id = t.pool_id and d.reason = 'metered'
      and d.note is not null and coalesce(d.subject, '') = p.subject
      and (d.note ->> 'first_sequence')::bigint <= p.sequence
      and (d.note ->> 'last_sequence')::bigint >= p.sequence
      and not exists (select from undone u
                      where u.pool_id = d.pool_id and u.operation = d.operation))"""


def set_aside(
    connection: Connection, organization_id: UUID, row: BackfillRow, burned: int
) -> list[str]:
    """As `burn.read_step`: set what a backfill reads aside, before it is switched.

    With it, as counting no more, what older versions read in its place of events up to `burned`.
    """
    burn.open_readings(connection)
    connection.execute("delete from burn_reading")
    parameters = {
        "org": organization_id,
        "meter": row.meter_key,
        "version": row.meter_version,
        "start": row.effective_from,
        "burned": burned,
    }
    connection.execute(_NEW, parameters)
    if row.meter_version > 1:
        connection.execute(_OLD, parameters)
    return burn.customers_aside(connection)


def keep_burned(
    connection: Connection, targets: Sequence[tuple[str, str, UUID, datetime, datetime]]
) -> None:
    """Leave out of what counts no more that which has not burned, for its draw was taken back.

    targets: as for `burn.uses`.
    """
    parameters: dict[str, Any] = {
        "customers": [one[0] for one in targets],
        "meters": [one[1] for one in targets],
        "pools": [one[2] for one in targets],
        "since": [one[3] for one in targets],
        "until": [one[4] for one in targets],
    }
    connection.execute(_TAKEN_BACK, parameters)
