"""What the console's pages ask across nouns: activity by day, what is unmatched, events by page."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class SessionKey(Struct, frozen=True, kw_only=True):
    """The API key behind a console session, as it stands now."""

    name: str
    organization: str
    secret_hash: bytes
    scopes: list[str]
    customer_key: str | None
    revoked_at: datetime | None


class Activity(Struct, frozen=True, kw_only=True):
    """How far the stream is, how far it is folded, and how many customers there are."""

    last_sequence: int
    folded_sequence: int
    folded_at: datetime
    customers: int


class MeterDay(Struct, frozen=True, kw_only=True):
    """One meter's readings of one day in UTC; `total` is None where only their count is kept."""

    meter_key: str
    day: date
    readings: int
    total: Decimal | None


class CustomerDay(Struct, frozen=True, kw_only=True):
    customer_key: str
    day: date
    readings: int


class InvoiceSum(Struct, frozen=True, kw_only=True):
    """Invoices of one month of period end, by currency and status."""

    month: date
    currency: str
    status: str
    invoices: int
    total: Decimal


class UnreadType(Struct, frozen=True, kw_only=True):
    """An event type that no meter read."""

    type: str
    events: int
    first_time: datetime
    last_time: datetime


class Orphan(Struct, frozen=True, kw_only=True):
    """A subject that belongs to no customer, and the readings it has."""

    subject: str
    readings: int
    first_bucket: datetime
    last_bucket: datetime


class CustomerItem(Struct, frozen=True, kw_only=True):
    """A customer as a list shows it."""

    key: str
    name: str
    timezone: str
    plans: list[str]
    invoices: int
    currency: str | None
    last_total: Decimal | None


class CustomerName(Struct, frozen=True):
    """A customer as another page names it."""

    key: str
    name: str


class EventItem(Struct, frozen=True, kw_only=True):
    """An event as a list shows it."""

    sequence: int
    time: datetime
    received_at: datetime
    source: str
    id: str
    type: str
    subject: str | None
    readings: int


_SESSION_KEY = """
select k.name, o.name as organization, k.secret_hash, k.scopes, k.customer_key, k.revoked_at
from api_key k join organization o using (organization_id)
where k.organization_id = %s and k.api_key_id = %s"""

_ACTIVITY = """
select h.last_sequence, w.sequence as folded_sequence, w.folded_at,
       (select count(*) from customer where organization_id = %(org)s) as customers
from stream_head h join watermark w using (organization_id)
where h.organization_id = %(org)s and h.shard = 0"""

_RECEIVED = """
select received_at from event where organization_id = %s and sequence >= %s
order by sequence limit 1"""

# Series by series, so that each reads its own stretch of the primary key and nothing else.
_METER_DAYS = """
select s.meter_key, (r.bucket at time zone 'UTC')::date as day,
       sum(r.count)::bigint as readings, sum(r.total) as total
from series s cross join lateral (
  select bucket, count, total from rollup where organization_id = %(org)s
    and series_id = s.series_id and bucket >= %(start)s and bucket < %(end)s
  union all
  select bucket, count, null from value_count where organization_id = %(org)s
    and series_id = s.series_id and bucket >= %(start)s and bucket < %(end)s
    and s.meter_key = any(%(value_meters)s)
  union all
  select time, 1, null from point where organization_id = %(org)s
    and series_id = s.series_id and time >= %(start)s and time < %(end)s
    and s.meter_key = any(%(point_meters)s)
  offset 0) r
where s.organization_id = %(org)s
group by 1, 2 order by 1, 2"""

_CUSTOMER_DAYS = """
select m.customer_key, (r.bucket at time zone 'UTC')::date as day,
       sum(r.count)::bigint as readings
from subject m
join series s on s.organization_id = %(org)s and s.subject = m.subject
  and s.meter_key = any(%(meters)s) and s.customer_key = ''
cross join lateral (
  select bucket, count from rollup where organization_id = %(org)s
    and series_id = s.series_id and bucket >= greatest(%(start)s, m.valid_from)
    and bucket < least(%(end)s, m.valid_to)
  offset 0) r
where m.organization_id = %(org)s and m.customer_key = any(%(keys)s)
group by 1, 2 order by 1, 2"""

_INVOICE_SUMS = """
select date_trunc('month', period_end at time zone 'UTC' - interval '1 microsecond')::date as month,
       currency, status, count(*) as invoices, sum(total) as total
from invoice where organization_id = %s and period_end >= %s
group by 1, 2, 3 order by 1, 2, 3"""

_ORPHANS = """
select s.subject, sum(r.count)::bigint as readings, min(r.bucket) as first_bucket,
       max(r.bucket) as last_bucket
from series s cross join lateral (
  select bucket, count from rollup where organization_id = %(org)s and series_id = s.series_id
    and bucket >= %(start)s
  offset 0) r
where s.organization_id = %(org)s and s.customer_key = ''
  and not exists (select from subject m where m.organization_id = %(org)s
                  and m.subject = s.subject)
group by 1 order by 2 desc limit %(limit)s"""

_CUSTOMERS = """
select c.key, c.name, c.timezone,
  array(select distinct plan_key from subscription s where s.organization_id = %(org)s
        and s.customer_key = c.key and (s.ends_at is null or s.ends_at > %(now)s)
        order by 1) as plans,
  (select count(*) from invoice i where i.organization_id = %(org)s
   and i.customer_key = c.key) as invoices,
  last.currency, last.total as last_total
from customer c left join lateral (
  select currency, total from invoice i where i.organization_id = %(org)s
    and i.customer_key = c.key and i.status = 'final'
  order by period_start desc, kind limit 1) last on true
where c.organization_id = %(org)s and c.key > %(after)s
  and (%(search)s = '' or c.key ilike %(pattern)s or c.name ilike %(pattern)s)
order by c.key limit %(limit)s"""

_EVENTS = """
select sequence, time, received_at, source, id, type, subject,
       coalesce(cardinality(series), 0) + coalesce(cardinality(value_series), 0)
         + coalesce(cardinality(point_series), 0) as readings
from event where organization_id = %s and sequence < %s order by sequence desc limit %s"""


def find_session_key(
    connection: Connection, organization_id: UUID, api_key_id: UUID
) -> SessionKey | None:
    cursor = connection.cursor(row_factory=class_row(SessionKey))
    return cursor.execute(_SESSION_KEY, (organization_id, api_key_id)).fetchone()


def read_activity(connection: Connection, organization_id: UUID) -> Activity:
    cursor = connection.cursor(row_factory=class_row(Activity))
    row = cursor.execute(_ACTIVITY, {"org": organization_id}).fetchone()
    assert row is not None, "an organization is created with its stream head"
    return row


def events_since(
    connection: Connection, organization_id: UUID, instant: datetime, last_sequence: int
) -> int:
    """Return how many events were received since `instant`.

    Receipt follows the sequence, so halving finds the first of them in some twenty look-ups,
    however many events there are.
    """
    low, high = 1, last_sequence + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_RECEIVED, (organization_id, middle)).fetchone()
        if row is not None and row[0] < instant:
            low = middle + 1
        else:
            high = middle
    return last_sequence + 1 - low


def meter_days(
    connection: Connection,
    organization_id: UUID,
    start: datetime,
    end: datetime,
    *,
    value_meters: Sequence[str],
    point_meters: Sequence[str],
) -> list[MeterDay]:
    """Return what is folded of every meter, by day; events after the watermark are not in it."""
    cursor = connection.cursor(row_factory=class_row(MeterDay))
    return cursor.execute(
        _METER_DAYS,
        {
            "org": organization_id,
            "start": start,
            "end": end,
            "value_meters": list(value_meters),
            "point_meters": list(point_meters),
        },
    ).fetchall()


def children(
    connection: Connection, organization_id: UUID, parent_key: str, *, limit: int
) -> list[CustomerName]:
    """Return the customers that are part of another one themselves, by key."""
    rows = connection.execute(
        "select key, name from customer where organization_id = %s and parent_key = %s"
        " order by key limit %s",
        (organization_id, parent_key, limit),
    ).fetchall()
    return [CustomerName(*row) for row in rows]


def customer_days(
    connection: Connection,
    organization_id: UUID,
    keys: Sequence[str],
    meters: Sequence[str],
    start: datetime,
    end: datetime,
) -> list[CustomerDay]:
    """Return the folded readings of some customers by day, whoever of their subjects used."""
    cursor = connection.cursor(row_factory=class_row(CustomerDay))
    return cursor.execute(
        _CUSTOMER_DAYS,
        {
            "org": organization_id,
            "keys": list(keys),
            "meters": list(meters),
            "start": start,
            "end": end,
        },
    ).fetchall()


def invoice_sums(
    connection: Connection, organization_id: UUID, since: datetime
) -> list[InvoiceSum]:
    cursor = connection.cursor(row_factory=class_row(InvoiceSum))
    return cursor.execute(_INVOICE_SUMS, (organization_id, since)).fetchall()


def unread_types(connection: Connection, organization_id: UUID, limit: int) -> list[UnreadType]:
    """Return the event types that no meter reads, the most frequent first."""
    cursor = connection.cursor(row_factory=class_row(UnreadType))
    return cursor.execute(
        "select type, events, first_time, last_time from unread_type where organization_id = %s"
        " order by events desc, type limit %s",
        (organization_id, limit),
    ).fetchall()


def orphans(
    connection: Connection, organization_id: UUID, since: datetime, limit: int
) -> list[Orphan]:
    """Return subjects with readings since then that never belonged to a customer."""
    cursor = connection.cursor(row_factory=class_row(Orphan))
    parameters = {"org": organization_id, "start": since, "limit": limit}
    return cursor.execute(_ORPHANS, parameters).fetchall()


def unpriced_invoices(
    connection: Connection, organization_id: UUID, since: datetime, limit: int
) -> list[tuple[UUID, str | None, str, str]]:
    """Return id, number, customer and the JSON text of what the latest invoices left unpriced."""
    return connection.execute(
        "select invoice_id, number, customer_key, unpriced::text from invoice"
        " where organization_id = %s and period_end >= %s and unpriced::text <> '[]'"
        " order by period_end desc, invoice_id desc limit %s",
        (organization_id, since, limit),
    ).fetchall()


def customer_items(
    connection: Connection,
    organization_id: UUID,
    now: datetime,
    *,
    search: str = "",
    after: str = "",
    limit: int = 50,
) -> list[CustomerItem]:
    """Return customers by key; `search` is a part of a key or a name, in any case."""
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    cursor = connection.cursor(row_factory=class_row(CustomerItem))
    return cursor.execute(
        _CUSTOMERS,
        {
            "org": organization_id,
            "now": now,
            "after": after,
            "search": search,
            "pattern": f"%{escaped}%",
            "limit": limit,
        },
    ).fetchall()


def latest_events(
    connection: Connection, organization_id: UUID, before_sequence: int, limit: int
) -> list[EventItem]:
    """Return events in the order they came in, the last first."""
    cursor = connection.cursor(row_factory=class_row(EventItem))
    return cursor.execute(_EVENTS, (organization_id, before_sequence, limit)).fetchall()
