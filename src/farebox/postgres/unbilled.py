"""Usage that reaches nobody's invoice: who to ask about, and what came too late for one."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.metering.fold import Totals
from farebox.metering.quantity import Place, Target, TotalsRow
from farebox.postgres.customer import SubjectRow


class UnreadType(Struct, frozen=True):
    """An event type that no meter reads."""

    type: str
    events: int
    first_time: datetime
    last_time: datetime


def unread_types(
    connection: Connection, organization_id: UUID, start: datetime, end: datetime
) -> list[UnreadType]:
    """Return the types whose events were seen at some time in [start, end)."""
    rows = connection.execute(
        "select type, events, first_time, last_time from unread_type where organization_id = %s"
        " and last_time >= %s and first_time < %s order by type",
        (organization_id, start, end),
    ).fetchall()
    return [UnreadType(*row) for row in rows]


_USERS = """
select distinct s.subject from series s
where s.organization_id = %(org)s and s.customer_key = '' and s.subject >= %(from)s
  and not exists (select from subject m
                  where m.organization_id = %(org)s and m.subject = s.subject
                    and m.valid_from <= %(start)s and m.valid_to >= %(end)s)
order by s.subject limit %(limit)s"""


def users_uncovered(
    connection: Connection,
    organization_id: UUID,
    start: datetime,
    end: datetime,
    *,
    after: str | None,
    limit: int,
) -> list[str]:
    """Return subjects that no single mapping covers all through [start, end), in order.

    The empty subject, of events that name nobody, is the first; `after` None begins with it.
    """
    rows = connection.execute(
        _USERS,
        {
            "org": organization_id,
            "start": start,
            "end": end,
            # The next text in byte order: U+0000 is in no subject, U+0001 is the least letter.
            "from": "" if after is None else after + "\x01",
            "limit": limit,
        },
    ).fetchall()
    return [row[0] for row in rows]


def subject_spans(
    connection: Connection, organization_id: UUID, subjects: Sequence[str]
) -> list[SubjectRow]:
    """Return every mapping of these subjects, oldest first."""
    rows = connection.execute(
        "select subject, customer_key, valid_from, valid_to from subject"
        " where organization_id = %s and subject = any(%s) order by subject, valid_from",
        (organization_id, list(subjects)),
    ).fetchall()
    return [SubjectRow(*row) for row in rows]


def unknown_customers(
    connection: Connection, organization_id: UUID, *, after: str, limit: int
) -> list[str]:
    """Return customer keys that events named and that no customer has."""
    rows = connection.execute(
        "select distinct s.customer_key from series s where s.organization_id = %(org)s"
        " and s.customer_key <> '' and s.customer_key > %(after)s and not exists ("
        "  select from customer c where c.organization_id = %(org)s and c.key = s.customer_key)"
        " order by 1 limit %(limit)s",
        {"org": organization_id, "after": after, "limit": limit},
    ).fetchall()
    return [row[0] for row in rows]


class SubscribedSpan(Struct, frozen=True):
    """When a customer was subscribed to a plan version."""

    customer_key: str
    plan_key: str
    plan_version: int
    starts_at: datetime
    ends_at: datetime | None


def subscribed_spans(
    connection: Connection, organization_id: UUID, customer_keys: Sequence[str]
) -> list[SubscribedSpan]:
    rows = connection.execute(
        "select customer_key, plan_key, plan_version, starts_at, ends_at from subscription"
        " where organization_id = %s and customer_key = any(%s) order by customer_key, starts_at",
        (organization_id, list(customer_keys)),
    ).fetchall()
    return [SubscribedSpan(*row) for row in rows]


# What the next steps of burning will read, but for what was taken out of the stream since.
_WAITING = """
with target as (
  select (n - 1)::int as n, t.customer_key, t.start_at, t.end_at
  from unnest(%(customers)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    with ordinality as t(customer_key, start_at, end_at, n)
),
reading as materialized (
  select r.time, r.quantity, s.meter_version, s.dimensions,
         coalesce(nullif(s.customer_key, ''), m.customer_key) as customer_key
  from (
    select e.sequence, e.time, r.series_id, r.quantity, d.draw
    from event e cross join lateral (select e.payload ->> 'fareboxdraw' as draw offset 0) d
    cross join lateral unnest(e.series, e.quantities) r(series_id, quantity)
    where e.organization_id = %(org)s and e.sequence > %(burned)s
      and not exists (select from void v
                      where v.organization_id = %(org)s and v.sequence = e.sequence)) r
  join series s on s.organization_id = %(org)s and s.series_id = r.series_id
    and s.meter_key = %(meter)s
  left join subject m on s.customer_key = '' and m.organization_id = %(org)s
    and m.subject = s.subject and m.valid_from <= r.time and r.time < m.valid_to
  where not exists (select from superseded o
                    where o.organization_id = %(org)s and o.meter_key = s.meter_key
                      and o.meter_version = s.meter_version and o.counted_until <= r.time)
    and draw_pays(%(org)s, r.draw, r.sequence,
                  coalesce(nullif(s.customer_key, ''), m.customer_key), s.subject, r.time)
      is not true
)
select t.n, p.meter_version, p.dimensions, count(*), sum(p.quantity), min(p.quantity),
       max(p.quantity)
from target t join reading p
  on p.customer_key = t.customer_key and p.time >= t.start_at and p.time < t.end_at
group by 1, 2, 3 order by 1, 2, 3"""


def waiting_totals(
    connection: Connection, organization_id: UUID, meter_key: str, targets: Sequence[Target]
) -> list[TotalsRow]:
    """Return what each target used after the last event that burned, all of this meter."""
    row = connection.execute(
        "select sequence from burn_watermark where organization_id = %s", (organization_id,)
    ).fetchone()
    if row is None:
        return []
    rows = connection.execute(
        _WAITING,
        {
            "org": organization_id,
            "meter": meter_key,
            "burned": row[0],
            "customers": [target.customer_key for target in targets],
            "starts": [target.start for target in targets],
            "ends": [target.end for target in targets],
        },
    ).fetchall()
    return [
        TotalsRow(Place(row[0], 0, "", row[1], tuple(row[2])), Totals(*row[3:])) for row in rows
    ]


class FinalUnpriced(Struct, frozen=True):
    """A final invoice that lists usage without a price, as JSON text."""

    invoice_id: UUID
    customer_key: str
    subscription_key: str
    unpriced: str


def final_unpriced(
    connection: Connection,
    organization_id: UUID,
    subscription_keys: Sequence[str],
    start: datetime,
    end: datetime,
) -> list[FinalUnpriced]:
    """Return those of final invoices whose period shares an instant with [start, end)."""
    rows = connection.execute(
        "select invoice_id, customer_key, subscription_key, unpriced::text from invoice"
        " where organization_id = %s and subscription_key = any(%s) and status = 'final'"
        " and period_start < %s and period_end > %s and unpriced::text <> '[]'"
        " order by subscription_key, period_start",
        (organization_id, list(subscription_keys), end, start),
    ).fetchall()
    return [FinalUnpriced(*row) for row in rows]


def run_unpriced(connection: Connection, organization_id: UUID, run_id: UUID) -> list[str]:
    """Return the lists of usage without a price of a run's invoices, as JSON texts."""
    rows = connection.execute(
        "select unpriced::text from invoice where organization_id = %s and billing_run_id = %s"
        " and unpriced::text <> '[]'",
        (organization_id, run_id),
    ).fetchall()
    return [row[0] for row in rows]


class LateSpan(Struct, frozen=True):
    """A billed span, and after which event what arrives for it is late.

    since: no event after the cutoff was received before this.
    """

    number: int
    customer_key: str
    meter_keys: tuple[str, ...]
    start: datetime
    end: datetime
    cutoff: int
    since: datetime


class LateRow(Struct, frozen=True):
    """What arrived late for a span, of one meter version and set of dimension values."""

    number: int
    meter_key: str
    meter_version: int
    dimensions: tuple[str, ...]
    events: int
    total: Decimal
    minimum: Decimal
    maximum: Decimal
    first_time: datetime
    last_time: datetime
    last_received_at: datetime


# One pass over the late events of all spans with the same times and cutoff. Those lie together at
# the end of the stream, so the block ranges of the time index pass over all the rest.
_LATE = """
with span as materialized (
  select distinct start_at, end_at, cutoff, since
  from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(cutoffs)s::bigint[],
              %(sinces)s::timestamptz[]) as t(start_at, end_at, cutoff, since)
),
late as materialized (
  select s.start_at, s.end_at, s.cutoff, e.sequence, e.time, e.received_at, u.series_id, u.value
  from span s cross join lateral (
    select * from event where organization_id = %(org)s
      and time >= s.start_at and time < s.end_at and received_at >= s.since
      and sequence + 0 > s.cutoff
      and not exists (select from void v
                      where v.organization_id = %(org)s and v.sequence = event.sequence)
    offset 0) e
  cross join lateral (
    select t.series_id, t.value from unnest(e.series, e.quantities) as t(series_id, value)
    union all
    select t.series_id, null from unnest(e.value_series) as t(series_id)
    union all
    select t.series_id, t.value from unnest(e.point_series, e.point_quantities)
      as t(series_id, value)
    where e.series is null or not t.series_id = any(e.series)
  ) u
),
placed as (
  select l.*, s.meter_key, s.meter_version, s.dimensions,
         case when s.customer_key <> '' then s.customer_key else (
           select m.customer_key from subject m
           where m.organization_id = %(org)s and m.subject = s.subject
             and m.valid_from <= l.time and m.valid_to > l.time) end as customer_key
  from late l join series s on s.organization_id = %(org)s and s.series_id = l.series_id
)
select t.number, p.meter_key, p.meter_version, p.dimensions, count(*),
       coalesce(sum(p.value), 0), coalesce(min(p.value), 0), coalesce(max(p.value), 0),
       min(p.time), max(p.time), max(p.received_at)
from unnest(%(numbers)s::int[], %(customers)s::text[], %(meters)s::text[],
            %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(cutoffs)s::bigint[])
  as t(number, customer_key, meters, start_at, end_at, cutoff)
join placed p on p.customer_key = t.customer_key and p.start_at = t.start_at
  and p.end_at = t.end_at and p.cutoff = t.cutoff
  and p.meter_key = any(string_to_array(t.meters, ' '))
group by 1, 2, 3, 4 order by 1, 2, 3, 4"""


def late_usage(
    connection: Connection, organization_id: UUID, spans: Sequence[LateSpan]
) -> list[LateRow]:
    """Return what arrived after the cutoff of each span, by its number."""
    rows = connection.execute(
        _LATE,
        {
            "org": organization_id,
            "numbers": [span.number for span in spans],
            "customers": [span.customer_key for span in spans],
            "meters": [" ".join(span.meter_keys) for span in spans],
            "starts": [span.start for span in spans],
            "ends": [span.end for span in spans],
            "cutoffs": [span.cutoff for span in spans],
            "sinces": [span.since for span in spans],
        },
    ).fetchall()
    return [LateRow(row[0], row[1], row[2], tuple(row[3]), *row[4:]) for row in rows]
