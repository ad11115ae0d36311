"""Usage that burns pools: which pools, which events, up to which one, and what has no rate."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.events.admit import FUTURE_MAX


class BurningPool(Struct, frozen=True):
    """A pool that usage of its customer burns, by a rate card, for events of this span of time."""

    pool_id: UUID
    key: str
    customer: str
    rate_card: str
    since: datetime
    until: datetime | None
    serves_children: bool


class Use(Struct, frozen=True):
    """What events of one series came to in one step, between two changes of rate cards.

    first_time, last_time, first_sequence, last_sequence: of the events that are counted.
    quantity, events: below zero for what burned and counts no more.
    below_zero: whether these events themselves report less than nothing.
    """

    customer: str
    subject: str
    meter: str
    meter_version: int
    dimensions: list[str | None]
    stretch: int
    pool_id: UUID
    quantity: Decimal
    events: int
    first_time: datetime
    last_time: datetime
    first_sequence: int
    last_sequence: int
    below_zero: bool


class Unburned(Struct, frozen=True):
    """Usage of a pool's customer that burned nothing, and why; dimensions as JSON text."""

    use: Use
    dimensions: str
    reason: str


def boundary(
    connection: Connection, organization_id: UUID, customer: str | None, now: datetime
) -> datetime:
    """Return from when on usage may burn in another way: after all that the steps have passed.

    Usually that is now, but events may be dated ahead of it, up to FUTURE_MAX. customer: whose
    events those are; none: of anybody. No step goes on until the transaction ends, so this goes
    before the lock of any pool.
    """
    connection.execute(
        "insert into burn_watermark select organization_id, last_sequence from stream_head"
        " where organization_id = %s and shard = 0 on conflict do nothing",
        (organization_id,),
    )
    passed = wait_for_watermark(connection, organization_id)
    latest = connection.execute(
        _LATEST,
        {
            "org": organization_id,
            "customer": customer,
            "now": now,
            "ahead": FUTURE_MAX,
            "passed": passed,
        },
    ).fetchone()
    if latest is None or latest[0] is None:
        return now
    ahead: datetime = latest[0]
    return ahead + timedelta(microseconds=1)


# The last reading that is dated ahead: of an event that the steps have passed, or of a backfill,
# which has burned by itself. A backfill of long ago read nothing that is still ahead.
_LATEST = """
select max(r.time) from (
  select e.time, u.series_id from event e
  left join lateral unnest(e.series) u(series_id) on true
  where e.organization_id = %(org)s and e.time >= %(now)s and e.time <= %(now)s + %(ahead)s
    and e.sequence <= %(passed)s
  union all
  select b.time, b.series_id from backfill f
  join backfill_reading b on b.organization_id = %(org)s and b.meter_key = f.meter_key
    and b.meter_version = f.meter_version and b.kind = 'totals'
  where f.organization_id = %(org)s and f.status = 'switched'
    and f.started_at >= %(now)s - %(ahead)s
    and b.time >= %(now)s and b.time <= %(now)s + %(ahead)s) r
where %(customer)s::text is null or exists (
  select from series s
  left join subject m on s.customer_key = '' and m.organization_id = %(org)s
    and m.subject = s.subject and m.valid_from <= r.time and r.time < m.valid_to
  where s.organization_id = %(org)s and s.series_id = r.series_id
    and coalesce(nullif(s.customer_key, ''), m.customer_key) = %(customer)s)"""


def begin(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    rate_card: str,
    now: datetime,
    *,
    serves_children: bool,
) -> None:
    """Let events of a time from `now` on, which is a `boundary`, burn a pool so."""
    end(connection, organization_id, pool_id, now)
    connection.execute(
        "insert into pool_burn values (%s, %s, %s, null, %s, %s)"
        # Changed again at the same instant: nothing has burned as it was.
        " on conflict (pool_id, since) do update set until = null,"
        " rate_card_key = excluded.rate_card_key, serves_children = excluded.serves_children",
        (organization_id, pool_id, now, rate_card, serves_children),
    )


def end(connection: Connection, organization_id: UUID, pool_id: UUID, now: datetime) -> None:
    """Let events of a time from `now` on, which is a `boundary`, burn a pool no more."""
    connection.execute(
        "update pool_burn set until = %s"
        " where organization_id = %s and pool_id = %s and until is null",
        (now, organization_id, pool_id),
    )


def wait_for_watermark(connection: Connection, organization_id: UUID) -> int | None:
    """Return up to which event usage has burned pools, and let no step go on; none: no pool may."""
    row = connection.execute(
        "select sequence from burn_watermark where organization_id = %s for update",
        (organization_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def read_watermark(connection: Connection, organization_id: UUID) -> int | None:
    """Return up to which event usage has burned pools; none: no pool may."""
    row = connection.execute(
        "select sequence from burn_watermark where organization_id = %s", (organization_id,)
    ).fetchone()
    return None if row is None else int(row[0])


def lock_watermark(connection: Connection, organization_id: UUID) -> int | None:
    """Return up to which event usage has burned pools; none where another process is at it."""
    row = connection.execute(
        "select sequence from burn_watermark where organization_id = %s for update skip locked",
        (organization_id,),
    ).fetchone()
    return None if row is None else int(row[0])


def set_watermark(connection: Connection, organization_id: UUID, sequence: int) -> None:
    connection.execute(
        "update burn_watermark set sequence = %s where organization_id = %s",
        (sequence, organization_id),
    )


def organizations_to_burn(connection: Connection) -> list[UUID]:
    """Return the organizations with events that may burn a pool; needs no organization."""
    return [
        row[0] for row in connection.execute("select organization_id from organizations_to_burn()")
    ]


def cards_of_pools(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]
) -> dict[UUID, str]:
    """Return by which rate card usage burns each of these pools from now on, if it does."""
    rows = connection.execute(
        "select pool_id, rate_card_key from pool_burn"
        " where organization_id = %s and pool_id = any(%s) and until is null",
        (organization_id, list(pool_ids)),
    ).fetchall()
    return dict(rows)


def closed_pools(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]
) -> set[UUID]:
    """Return which of these pools are closed."""
    rows = connection.execute(
        "select pool_id from pool"
        " where organization_id = %s and pool_id = any(%s) and status = 'closed'",
        (organization_id, list(pool_ids)),
    ).fetchall()
    return {row[0] for row in rows}


def burning_pools(
    connection: Connection, organization_id: UUID, customers: Sequence[str]
) -> list[BurningPool]:
    """Return the pools of these customers that usage burns, or did, by key and span of time."""
    rows = connection.execute(
        "select p.pool_id, p.key, p.customer_key, b.rate_card_key, b.since, b.until,"
        " b.serves_children from pool p join pool_burn b on b.pool_id = p.pool_id"
        " where p.organization_id = %s and p.customer_key = any(%s)"
        " order by p.key, b.since",
        (organization_id, list(customers)),
    ).fetchall()
    return [BurningPool(*row) for row in rows]


# The readings of a step, each with its customer. What the draw that the event names has paid for
# does not burn; an event that was taken out of the stream does not count, nor does what an older
# version of a meter read after a backfill of a newer one has read the same. `offset 0`: the draw of
# an event is looked for once.
_READINGS = """
insert into burn_reading
select r.sequence, r.time, r.quantity, s.subject, s.meter_key, s.meter_version, s.dimensions,
       coalesce(nullif(s.customer_key, ''), m.customer_key)
from (
  select e.sequence, e.time, r.series_id, r.quantity, d.draw
  from event e cross join lateral (select e.payload ->> 'fareboxdraw' as draw offset 0) d
  cross join lateral unnest(e.series, e.quantities) r(series_id, quantity)
  where e.organization_id = %(org)s and e.sequence > %(after)s and e.sequence <= %(to)s
    and not exists (select from void v
                    where v.organization_id = %(org)s and v.sequence = e.sequence)) r
join series s on s.organization_id = %(org)s and s.series_id = r.series_id
left join subject m on s.customer_key = '' and m.organization_id = %(org)s
  and m.subject = s.subject and m.valid_from <= r.time and r.time < m.valid_to
where not exists (select from superseded o
                  where o.organization_id = %(org)s and o.meter_key = s.meter_key
                    and o.meter_version = s.meter_version and o.counted_until <= r.time)
  and draw_pays(%(org)s, r.draw, r.sequence, coalesce(nullif(s.customer_key, ''), m.customer_key),
                s.subject, r.time) is not true"""
# Each goes to the pool that its customer burns for its meter at its time, and lies between two
# changes of rate cards. What is below zero burns nothing, and so counts off nothing either.
_USES = """
with target as (
  select t.customer_key, t.meter_key, t.pool_id, t.since, t.until
  from unnest(%(customers)s::text[], %(meters)s::text[], %(pools)s::uuid[],
              %(since)s::timestamptz[], %(until)s::timestamptz[])
    t(customer_key, meter_key, pool_id, since, until)
)
select p.customer_key, p.subject, p.meter_key, p.meter_version, p.dimensions,
       width_bucket(p.time, %(edges)s::timestamptz[]) as stretch, t.pool_id,
       sum(p.sign * p.quantity), sum(p.sign), min(p.time), max(p.time), min(p.sequence),
       max(p.sequence), p.quantity < 0 as below_zero
from burn_reading p
join target t on t.customer_key = p.customer_key and t.meter_key = p.meter_key
  and t.since <= p.time and p.time < t.until
group by 1, 2, 3, 4, 5, 6, 7, below_zero
order by 7, 2, 3, 4, 5, 6"""


def read_step(connection: Connection, organization_id: UUID, after: int, to: int) -> list[str]:
    """Set the readings of a step aside for `uses`, and return the customers that they are of."""
    open_readings(connection)
    connection.execute(_READINGS, {"org": organization_id, "after": after, "to": to})
    return customers_aside(connection)


def uses(
    connection: Connection,
    targets: Sequence[tuple[str, str, UUID, datetime, datetime]],
    edges: Sequence[datetime],
) -> list[Use]:
    """Return what the readings that were set aside come to for their pools.

    targets: (customer, meter, pool, since, until), at most one for a customer's meter at any time.
    edges: when rate cards change, in order.
    """
    parameters: dict[str, Any] = {
        "customers": [one[0] for one in targets],
        "meters": [one[1] for one in targets],
        "pools": [one[2] for one in targets],
        "since": [one[3] for one in targets],
        "until": [one[4] for one in targets],
        "edges": list(edges),
    }
    return [Use(*row) for row in connection.execute(_USES, parameters).fetchall()]


def add_unburned(connection: Connection, organization_id: UUID, found: Sequence[Unburned]) -> None:
    """Count usage that burned nothing, and no more what of it counts no more."""
    connection.cursor().executemany(
        "insert into unburned as u values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (pool_id, meter_key, dimensions, reason) do update set"
        " events = u.events + excluded.events, quantity = u.quantity + excluded.quantity,"
        " first_time = least(u.first_time, excluded.first_time),"
        " last_time = greatest(u.last_time, excluded.last_time),"
        " last_sequence = excluded.last_sequence",
        [
            (
                organization_id,
                one.use.pool_id,
                one.use.meter,
                one.dimensions,
                one.reason,
                one.use.events,
                one.use.quantity,
                one.use.first_time,
                one.use.last_time,
                one.use.last_sequence,
            )
            for one in found
        ],
    )


class UnburnedRow(Struct, frozen=True):
    """Usage that burned nothing, counted by pool, meter and dimensions (JSON text)."""

    pool: str
    meter: str
    dimensions: str
    reason: str
    events: int
    quantity: Decimal
    first_time: datetime
    last_time: datetime


def unburned(connection: Connection, organization_id: UUID, limit: int = 1000) -> list[UnburnedRow]:
    """Return usage that burned nothing, the latest first."""
    rows = connection.execute(
        "select p.key, u.meter_key, u.dimensions, u.reason, u.events, u.quantity, u.first_time,"
        " u.last_time from unburned u join pool p on p.pool_id = u.pool_id"
        " where u.organization_id = %s and (u.events > 0 or u.quantity > 0)"
        " order by u.last_sequence desc, 1, 2, 3 limit %s",
        (organization_id, limit),
    ).fetchall()
    return [UnburnedRow(*row) for row in rows]


def open_readings(connection: Connection) -> None:
    """Let readings be set aside for `uses` until the transaction ends.

    sign: -1 for what burned and counts no more. paid_by: the pool of the draw that paid for it.
    """
    connection.execute(
        "create temporary table if not exists burn_reading (sequence bigint, time timestamptz,"
        ' quantity numeric, subject text collate "C", meter_key text collate "C",'
        ' meter_version integer, dimensions text[], customer_key text collate "C",'
        " sign integer not null default 1, paid_by uuid)"
        " on commit delete rows"
    )


def customers_aside(connection: Connection) -> list[str]:
    """Return the customers of the readings that were set aside."""
    rows = connection.execute(
        "select distinct customer_key from burn_reading where customer_key is not null order by 1"
    ).fetchall()
    return [row[0] for row in rows]
