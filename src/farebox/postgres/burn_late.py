"""Usage that the steps of burning have passed by, and that becomes a customer's afterwards."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.postgres import burn


class Mapped(Struct, frozen=True):
    """In [start, end) a subject's usage becomes a customer's; `former`: whose it was, if anybody's.

    customer: "" where it becomes nobody's.
    named: it is the usage that named the customer, whoever the subject was.
    """

    subject: str
    customer: str
    start: datetime
    end: datetime
    former: str | None = None
    named: bool = False


class SubjectTarget(Struct, frozen=True):
    """What a subject uses of a meter in [start, end) burns this pool."""

    subject: str
    meter: str
    pool_id: UUID
    start: datetime
    end: datetime


class Burned(Struct, frozen=True):
    """Usage of a subject that has burned a pool, or that a draw from it paid for.

    last_time: of its last event.
    """

    subject: str
    pool: str
    last_time: datetime


# Rollups say in which quarters of an hour there is something to read; after the last event that
# they hold, the stream is read. `+ 0` keeps the planner from the index on sequence. Readings of a
# backfill lie beside the events; they burned with its switch, wherever the steps were.
_READINGS = """
insert into burn_reading (sequence, time, quantity, subject, meter_key, meter_version, dimensions,
  customer_key, paid_by)
with mapped as materialized (
  select * from unnest(%(subjects)s::text[], %(customers)s::text[], %(formers)s::text[],
                       %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(named)s::boolean[])
    t(subject, customer_key, former, start_at, end_at, named)
),
owned as materialized (
  select s.*, m.customer_key as taker, m.former, m.start_at, m.end_at
  from mapped m join series s on not m.named and s.organization_id = %(org)s
    and s.subject = m.subject and s.customer_key = ''
  union all
  select s.*, m.customer_key, m.former, m.start_at, m.end_at
  from mapped m join series s on m.named and s.organization_id = %(org)s
    and s.customer_key = m.customer_key and s.customer_key <> ''
),
member as materialized (
  select o.series_id, o.subject, o.meter_key, o.meter_version, o.dimensions, o.taker, o.former,
         o.start_at, least(o.end_at, u.counted_until) as end_at
  from owned o left join superseded u on u.organization_id = %(org)s
    and u.meter_key = o.meter_key and u.meter_version = o.meter_version
),
folded as materialized (
  select coalesce(max(sequence), 0) as sequence from watermark where organization_id = %(org)s
),
place as materialized (
  select distinct r.bucket from member m join rollup r on r.organization_id = %(org)s
    and r.series_id = m.series_id
    and r.bucket > m.start_at - interval '15 minutes' and r.bucket < m.end_at
),
found as (
  select e.* from folded f cross join place p cross join lateral (
    select sequence, time, series, quantities, payload from event
    where organization_id = %(org)s and time >= p.bucket
      and time < p.bucket + interval '15 minutes'
      and sequence + 0 <= least(f.sequence, %(burned)s)
    offset 0) e
  union all
  select e.* from folded f cross join lateral (
    select sequence, time, series, quantities, payload from event
    where organization_id = %(org)s and sequence > f.sequence and sequence <= %(burned)s
    offset 0) e
),
reading as (
  select e.sequence, e.time, r.quantity, m.subject, m.meter_key, m.meter_version, m.dimensions,
         m.taker, m.former, d.draw
  from found e cross join lateral (select e.payload ->> 'fareboxdraw' as draw offset 0) d
  cross join lateral unnest(e.series, e.quantities) r(series_id, quantity)
  join member m on m.series_id = r.series_id and m.start_at <= e.time and e.time < m.end_at
  where not exists (select from void v
                    where v.organization_id = %(org)s and v.sequence = e.sequence)
  union all
  select b.sequence, b.time, b.quantity, m.subject, m.meter_key, m.meter_version, m.dimensions,
         m.taker, m.former, case when b.drawn then draw_named(%(org)s, b.sequence) end
  from member m join backfill f on f.organization_id = %(org)s and f.meter_key = m.meter_key
    and f.meter_version = m.meter_version and f.status = 'switched'
  cross join lateral (
    select sequence, time, quantity, drawn from backfill_reading where organization_id = %(org)s
      and series_id = m.series_id and kind = 'totals' and time >= m.start_at and time < m.end_at
    offset 0) b
)
select sequence, time, quantity, subject, meter_key, meter_version, dimensions,
       case when draw_pays(%(org)s, draw, sequence, coalesce(nullif(taker, ''), former), subject,
                           time) is not true then taker end,
       case when former is not null and draw_pays(%(org)s, draw, sequence, former, subject, time)
                 and (taker = '' or not draw_pays(%(org)s, draw, sequence, taker, subject, time))
                 and draw_left(%(org)s, draw) > 0
            then draw_pool(draw) end
from reading"""


def read_late(
    connection: Connection, organization_id: UUID, mapped: Sequence[Mapped], burned: int
) -> list[str]:
    """As `burn.read_step`: set readings up to the watermark aside, as what they become.

    What the draw that an event names has paid for is set aside as nobody's, where the pool of the
    draw serves whose it becomes; where it served whose it was alone, `paid_before` tells.
    """
    burn.open_readings(connection)
    # What an earlier change in this transaction set aside has burned.
    connection.execute("delete from burn_reading")
    connection.execute(
        _READINGS,
        {
            "org": organization_id,
            "burned": burned,
            "subjects": [one.subject for one in mapped],
            "customers": [one.customer for one in mapped],
            "formers": [one.former for one in mapped],
            "starts": [one.start for one in mapped],
            "ends": [one.end for one in mapped],
            "named": [one.named for one in mapped],
        },
    )
    return burn.customers_aside(connection)


_PAID = """
with target as materialized (
  select * from unnest(%(subjects)s::text[], %(meters)s::text[], %(starts)s::timestamptz[],
                       %(ends)s::timestamptz[])
    t(subject, meter_key, start_at, end_at)
)
select p.subject, o.key, max(p.time) from burn_reading p join pool o on o.pool_id = p.paid_by
where exists (select from target t where t.subject = p.subject and t.meter_key = p.meter_key
                and t.start_at <= p.time and p.time < t.end_at)
group by 1, 2 order by 1, 2"""


def paid_before(connection: Connection, targets: Sequence[SubjectTarget]) -> list[Burned]:
    """Return which readings set aside a draw has paid for, from a pool that serves them no more.

    Of those that burn a pool, as what they were or as what they become; no plan charges them.
    """
    rows = connection.execute(
        _PAID,
        {
            "subjects": [one.subject for one in targets],
            "meters": [one.meter for one in targets],
            "starts": [one.start for one in targets],
            "ends": [one.end for one in targets],
        },
    ).fetchall()
    return [Burned(*row) for row in rows]


# What has burned is what a draw of the pool by this subject covers, unless all of the draw was
# taken back. No draw is older than its events are here, but for clocks that differ. Sums, for what
# was taken back "exists" might be looked for in all ledgers at once.
_BURNED = """
with former as materialized (
  select * from unnest(%(subjects)s::text[], %(meters)s::text[], %(pools)s::uuid[],
                       %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    t(subject, meter_key, pool_id, start_at, end_at)
),
later as materialized (
  select * from unnest(%(later_subjects)s::text[], %(later_meters)s::text[],
                       %(later_pools)s::uuid[], %(later_starts)s::timestamptz[],
                       %(later_ends)s::timestamptz[])
    t(subject, meter_key, pool_id, start_at, end_at)
),
received as materialized (
  select received_at - interval '1 hour' as since from event
  where organization_id = %(org)s and sequence = (select min(sequence) from burn_reading)
),
draw as materialized (
  select t.pool_id, t.subject, (t.note ->> 'first_sequence')::bigint as first_sequence,
         (t.note ->> 'last_sequence')::bigint as last_sequence
  from (select distinct f.pool_id, r.since from former f cross join received r) f
  join transfer t on t.pool_id = f.pool_id and t.sequence >= sequence_at(f.pool_id, f.since)
  where t.reason = 'metered' and t.subject = any(%(subjects)s) and t.note is not null
    and coalesce(
      (select sum(u.amount) from transfer u
       where u.pool_id = t.pool_id and u.undoes = t.operation and u.source = 'used')
      < (select sum(o.amount) from transfer o
         where o.pool_id = t.pool_id and o.sequence >= t.sequence
           and o.operation = t.operation and o.target = 'used' and o.reason = 'metered'), true)
),
gone as (
  delete from burn_reading p using former f
  where f.subject = p.subject and f.meter_key = p.meter_key
    and f.start_at <= p.time and p.time < f.end_at
    and exists (select from draw d where d.pool_id = f.pool_id and d.subject = p.subject
                  and p.sequence between d.first_sequence and d.last_sequence)
  returning p.subject, p.meter_key, p.time, f.pool_id
)
select g.subject, o.key, max(g.time) from gone g join pool o on o.pool_id = g.pool_id
where not exists (select from later l
                  where l.subject = g.subject and l.meter_key = g.meter_key
                    and l.start_at <= g.time and g.time < l.end_at and l.pool_id = g.pool_id)
group by 1, 2 order by 1, 2"""


def leave_burned(
    connection: Connection,
    organization_id: UUID,
    former: Sequence[SubjectTarget],
    later: Sequence[SubjectTarget],
) -> list[Burned]:
    """Leave out of the readings set aside what has burned its former pool.

    Returns what of it is not to burn that same pool as what it becomes.
    """
    rows = connection.execute(
        _BURNED,
        {
            "org": organization_id,
            "subjects": [one.subject for one in former],
            "meters": [one.meter for one in former],
            "pools": [one.pool_id for one in former],
            "starts": [one.start for one in former],
            "ends": [one.end for one in former],
            "later_subjects": [one.subject for one in later],
            "later_meters": [one.meter for one in later],
            "later_pools": [one.pool_id for one in later],
            "later_starts": [one.start for one in later],
            "later_ends": [one.end for one in later],
        },
    ).fetchall()
    return [Burned(*row) for row in rows]
