"""Deliveries: notices on their way to endpoints, and every attempt that was made."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.notices.delivery import Outcome, Verdict


class NewDelivery(Struct, frozen=True, kw_only=True):
    """A notice that an endpoint is to get."""

    delivery_id: UUID
    endpoint_key: str
    notice_id: UUID


class DeliveryRow(Struct, frozen=True, kw_only=True):
    """A delivery with what it tells. While leased_until lies ahead it is being sent."""

    delivery_id: UUID
    endpoint_key: str
    notice_id: UUID
    type: str
    time: datetime
    customer_key: str | None
    status: str
    attempts: int
    next_attempt_at: datetime | None
    leased_until: datetime | None
    last_status: int | None
    last_failure: str | None
    created_at: datetime
    delivered_at: datetime | None


class AttemptRow(Struct, frozen=True, kw_only=True):
    """One try; without a duration it is under way, or its worker was killed."""

    delivery_id: UUID
    number: int
    started_at: datetime
    duration_ms: int | None
    status: int | None
    failure: str | None
    excerpt: str | None


class Claim(Struct, frozen=True, kw_only=True):
    """A delivery to send now, with its notice; `number` is that of the attempt.

    tries: attempts since it was made or replayed, this one included.
    """

    delivery_id: UUID
    number: int
    tries: int
    notice_id: UUID
    type: str
    time: datetime
    data: str


_DELIVERY = (
    "d.delivery_id, d.endpoint_key, d.notice_id, n.type, n.time, n.customer_key, d.status,"
    " d.attempts, d.next_attempt_at, d.leased_until, d.last_status, d.last_failure, d.created_at,"
    " d.delivered_at"
)
_FROM = "webhook_delivery d join notice n using (organization_id, notice_id)"
_ATTEMPT = "delivery_id, number, started_at, duration_ms, status, failure, excerpt"


def add_deliveries(
    connection: Connection, organization_id: UUID, rows: Sequence[NewDelivery], now: datetime
) -> int:
    """Add deliveries, to be sent at once; return how many were not there yet."""
    cursor = connection.execute(
        "insert into webhook_delivery (organization_id, delivery_id, endpoint_key, notice_id,"
        "  status, next_attempt_at, created_at)"
        " select %(org)s, r.delivery, r.endpoint, r.notice, 'waiting', %(now)s, %(now)s"
        " from unnest(%(deliveries)s::uuid[], %(endpoints)s::text[], %(notices)s::uuid[])"
        "  as r(delivery, endpoint, notice)"
        " on conflict (organization_id, notice_id, endpoint_key) do nothing",
        {
            "org": organization_id,
            "now": now,
            "deliveries": [row.delivery_id for row in rows],
            "endpoints": [row.endpoint_key for row in rows],
            "notices": [row.notice_id for row in rows],
        },
    )
    return cursor.rowcount


def claim_delivery(
    connection: Connection,
    organization_id: UUID,
    endpoint_key: str,
    now: datetime,
    leased_until: datetime,
) -> Claim | None:
    """Lease the delivery that has been due longest and begin its next attempt in the log.

    The caller holds the endpoint. None where nothing is due, or one is being sent already.
    """
    cursor = connection.cursor(row_factory=class_row(Claim))
    return cursor.execute(
        "with claimed as ("
        "  update webhook_delivery set attempts = attempts + 1, leased_until = %(until)s"
        "  where organization_id = %(org)s and delivery_id = ("
        "   select delivery_id from webhook_delivery"
        "   where organization_id = %(org)s and endpoint_key = %(endpoint)s"
        "   and next_attempt_at <= %(now)s"
        "   order by next_attempt_at, notice_id limit 1)"
        "  and not exists (select from webhook_delivery"
        "   where organization_id = %(org)s and endpoint_key = %(endpoint)s"
        "   and leased_until is not null and leased_until > %(now)s)"
        "  returning delivery_id, attempts, forgiven, notice_id),"
        " begun as ("
        "  insert into webhook_attempt (organization_id, delivery_id, number, started_at)"
        "  select %(org)s, delivery_id, attempts, %(now)s from claimed)"
        " select c.delivery_id, c.attempts as number, c.attempts - c.forgiven as tries,"
        "  c.notice_id, n.type, n.time, n.data::text"
        " from claimed c join notice n on n.organization_id = %(org)s"
        "  and n.notice_id = c.notice_id",
        {
            "org": organization_id,
            "endpoint": endpoint_key,
            "now": now,
            "until": leased_until,
        },
    ).fetchone()


def finish_attempt(
    connection: Connection,
    organization_id: UUID,
    delivery_id: UUID,
    number: int,
    outcome: Outcome,
    verdict: Verdict,
    now: datetime,
) -> None:
    """Write how an attempt ended, and what follows for the delivery.

    Where another worker has begun a later attempt since, this one lost its lease: it is in the log,
    and the delivery follows the later one.
    """
    values = {
        "org": organization_id,
        "delivery": delivery_id,
        "number": number,
        "duration": outcome.duration_ms,
        "answered": outcome.status,
        "failure": outcome.failure,
        "excerpt": outcome.excerpt,
        "status": verdict.status,
        "next": verdict.next_attempt_at,
        "now": now,
        "done": outcome.succeeded,
    }
    connection.execute(
        "update webhook_attempt set duration_ms = %(duration)s, status = %(answered)s,"
        "  failure = %(failure)s, excerpt = %(excerpt)s"
        " where organization_id = %(org)s and delivery_id = %(delivery)s and number = %(number)s",
        values,
    )
    connection.execute(
        "update webhook_delivery set status = %(status)s, next_attempt_at = %(next)s,"
        "  leased_until = null, last_status = %(answered)s, last_failure = %(failure)s,"
        "  delivered_at = case when %(done)s then %(now)s else delivered_at end"
        " where organization_id = %(org)s and delivery_id = %(delivery)s"
        " and attempts = %(number)s and leased_until is not null",
        values,
    )


def lock_delivery(
    connection: Connection, organization_id: UUID, delivery_id: UUID
) -> DeliveryRow | None:
    """Return a delivery and hold it."""
    connection.execute(
        "select from webhook_delivery where organization_id = %s and delivery_id = %s for update",
        (organization_id, delivery_id),
    )
    return find_delivery(connection, organization_id, delivery_id)


def send_again(
    connection: Connection,
    organization_id: UUID,
    endpoint_key: str,
    notice_ids: Sequence[UUID],
    now: datetime,
) -> int:
    """Let deliveries be sent anew, each with a whole schedule before it; return how many.

    One that is being sent at this moment goes on as it is.
    """
    cursor = connection.execute(
        "update webhook_delivery set status = 'waiting', next_attempt_at = %(now)s,"
        "  forgiven = attempts, leased_until = null"
        " where organization_id = %(org)s and notice_id = any(%(notices)s)"
        " and endpoint_key = %(endpoint)s"
        " and (leased_until is null or leased_until <= %(now)s)",
        {
            "org": organization_id,
            "endpoint": endpoint_key,
            "notices": list(notice_ids),
            "now": now,
        },
    )
    return cursor.rowcount


def find_delivery(
    connection: Connection, organization_id: UUID, delivery_id: UUID
) -> DeliveryRow | None:
    cursor = connection.cursor(row_factory=class_row(DeliveryRow))
    return cursor.execute(
        f"select {_DELIVERY} from {_FROM} where organization_id = %s and d.delivery_id = %s",
        (organization_id, delivery_id),
    ).fetchone()


def deliveries(
    connection: Connection,
    organization_id: UUID,
    *,
    endpoint_key: str | None = None,
    status: str | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> Sequence[DeliveryRow]:
    """Return deliveries, the newest first, a page at a time."""
    wanted = [
        condition
        for condition, given in (
            ("d.endpoint_key = %(endpoint)s", endpoint_key),
            ("d.status = %(status)s", status),
            ("d.delivery_id < %(after)s", after),
        )
        if given is not None
    ]
    cursor = connection.cursor(row_factory=class_row(DeliveryRow))
    return cursor.execute(
        f"select {_DELIVERY} from {_FROM} where"
        f" {' and '.join(['organization_id = %(org)s', *wanted])}"
        " order by d.delivery_id desc limit %(limit)s",
        {
            "org": organization_id,
            "endpoint": endpoint_key,
            "status": status,
            "after": after,
            "limit": limit,
        },
    ).fetchall()


def attempts_of(
    connection: Connection, organization_id: UUID, delivery_ids: Sequence[UUID]
) -> Sequence[AttemptRow]:
    """Return the attempts of these deliveries, the first ones first."""
    cursor = connection.cursor(row_factory=class_row(AttemptRow))
    return cursor.execute(
        f"select {_ATTEMPT} from webhook_attempt"
        " where organization_id = %s and delivery_id = any(%s) order by delivery_id, number",
        (organization_id, list(delivery_ids)),
    ).fetchall()


def count_outstanding(
    connection: Connection, organization_id: UUID, endpoint_key: str, at_most: int
) -> int:
    """Return how many deliveries of an endpoint are yet to be made, counted up to a limit."""
    row = connection.execute(
        "select count(*) from (select from webhook_delivery where organization_id = %s"
        "  and endpoint_key = %s and next_attempt_at is not null limit %s) w",
        (organization_id, endpoint_key, at_most),
    ).fetchone()
    assert row is not None
    return int(row[0])


def drop_attempts(connection: Connection, before: datetime) -> int:
    """Drop attempts begun before an instant, of every organization; return how many."""
    row = connection.execute("select drop_webhook_attempts(%s)", (before,)).fetchone()
    assert row is not None
    return int(row[0])
