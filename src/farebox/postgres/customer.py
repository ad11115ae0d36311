"""Customers, the subjects that use on their behalf, and their subscriptions."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.customer import Customer, Subscription
from farebox.period.instant import BEGINNING, END
from farebox.postgres import burn

_ENCODER = msgspec.json.Encoder(order="deterministic")


class SubjectRow(Struct, frozen=True):
    """For whom a subject used in [valid_from, valid_to)."""

    subject: str
    customer_key: str
    valid_from: datetime
    valid_to: datetime


class SubscriptionRow(Struct, frozen=True):
    """A subscription with its plan version pinned and its time zone settled."""

    key: str
    subscription_id: UUID
    customer_key: str
    plan_key: str
    plan_version: int
    starts_at: datetime
    ends_at: datetime | None
    timezone: str
    anchor_day: int | None
    definition: str


_SUBSCRIPTION = (
    "key, subscription_id, customer_key, plan_key, plan_version, starts_at, ends_at, timezone,"
    " anchor_day, definition::text"
)


def find_customer(connection: Connection, organization_id: UUID, key: str) -> Customer | None:
    row = connection.execute(
        "select definition::text from customer where organization_id = %s and key = %s",
        (organization_id, key),
    ).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=Customer)


def customers(
    connection: Connection, organization_id: UUID, *, after: str = "", limit: int = 1000
) -> list[Customer]:
    """Return customers by key, a page at a time."""
    rows = connection.execute(
        "select definition::text from customer where organization_id = %s and key > %s"
        " order by key limit %s",
        (organization_id, after, limit),
    ).fetchall()
    return [msgspec.json.decode(row[0], type=Customer) for row in rows]


def customers_by_key(
    connection: Connection, organization_id: UUID, keys: Sequence[str]
) -> dict[str, Customer]:
    rows = connection.execute(
        "select definition::text from customer where organization_id = %s and key = any(%s)",
        (organization_id, list(keys)),
    ).fetchall()
    found = [msgspec.json.decode(row[0], type=Customer) for row in rows]
    return {customer.key: customer for customer in found}


def put_customer(
    connection: Connection,
    organization_id: UUID,
    customer: Customer,
    customer_id: UUID,
    now: datetime,
) -> None:
    former = connection.execute(
        "select parent_key from customer where organization_id = %s and key = %s for update",
        (organization_id, customer.key),
    ).fetchone()
    connection.execute(
        "insert into customer as c (organization_id, key, customer_id, name, timezone, parent_key,"
        "  definition, created_at, updated_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, key) do update set name = excluded.name,"
        "  timezone = excluded.timezone, parent_key = excluded.parent_key,"
        "  definition = excluded.definition, updated_at = excluded.updated_at",
        (
            organization_id,
            customer.key,
            customer_id,
            customer.name,
            customer.timezone,
            customer.parent,
            _ENCODER.encode(customer).decode(),
            now,
            now,
        ),
    )
    if former is None or former[0] != customer.parent:
        since = (
            BEGINNING if former is None else _boundary(connection, organization_id, customer, now)
        )
        _part_of(connection, organization_id, customer, since)


def _boundary(
    connection: Connection, organization_id: UUID, customer: Customer, now: datetime
) -> datetime:
    """Return from when on usage of a customer, and of those below it, may burn in another way."""
    if burn.wait_for_watermark(connection, organization_id) is None:
        return now
    below = connection.execute(
        "select 1 from customer_parent where organization_id = %s and parent_key = %s limit 1",
        (organization_id, customer.key),
    ).fetchone()
    whose = customer.key if below is None else None
    return burn.boundary(connection, organization_id, whose, now)


def _part_of(
    connection: Connection, organization_id: UUID, customer: Customer, since: datetime
) -> None:
    """Let a customer be part of its parent, and no more of another, from then on."""
    connection.execute(
        "update customer_parent set until = %s"
        " where organization_id = %s and customer_key = %s and until is null",
        (since, organization_id, customer.key),
    )
    if customer.parent is not None:
        connection.execute(
            "insert into customer_parent values (%s, %s, %s, %s, null)"
            " on conflict (organization_id, customer_key, since) do update set"
            " parent_key = excluded.parent_key, until = null",
            (organization_id, customer.key, customer.parent, since),
        )


class Above(Struct, frozen=True):
    """A customer that another is part of, itself or through others, in a span of time."""

    key: str
    since: datetime
    until: datetime


def ancestors(
    connection: Connection, organization_id: UUID, keys: Sequence[str]
) -> dict[str, list[Above]]:
    """Return by customer those that it is or was part of, the nearest first; none for most."""
    rows = connection.execute(
        "with recursive above (key, parent_key, since, until, depth) as ("
        "  select customer_key, parent_key, since, coalesce(until, %(end)s), 1 from customer_parent"
        "  where organization_id = %(org)s and customer_key = any(%(keys)s)"
        "  union select a.key, c.parent_key, greatest(a.since, c.since),"
        "    least(a.until, c.until), a.depth + 1"
        "  from above a join customer_parent c on c.organization_id = %(org)s"
        "   and c.customer_key = a.parent_key"
        "   and c.since < a.until and a.since < coalesce(c.until, %(end)s))"
        " select key, parent_key, since, until from above where since < until"
        " order by key, depth, since",
        {"org": organization_id, "keys": list(keys), "end": END},
    ).fetchall()
    found: dict[str, list[Above]] = {}
    for key, *above in rows:
        found.setdefault(key, []).append(Above(*above))
    return found


def subject_rows(
    connection: Connection, organization_id: UUID, subjects: Sequence[str]
) -> list[SubjectRow]:
    """Return every mapping of these subjects, oldest first, and hold them."""
    rows = connection.execute(
        "select subject, customer_key, valid_from, valid_to from subject"
        " where organization_id = %s and subject = any(%s) order by subject, valid_from for update",
        (organization_id, list(subjects)),
    ).fetchall()
    return [SubjectRow(*row) for row in rows]


def current_subjects(connection: Connection, organization_id: UUID, customer_key: str) -> list[str]:
    rows = connection.execute(
        "select subject from subject where organization_id = %s and customer_key = %s"
        " and valid_to = %s order by subject",
        (organization_id, customer_key, END),
    ).fetchall()
    return [row[0] for row in rows]


def add_subject(connection: Connection, organization_id: UUID, row: SubjectRow) -> None:
    connection.execute(
        "insert into subject values (%s, %s, %s, %s, %s)",
        (organization_id, row.subject, row.customer_key, row.valid_from, row.valid_to),
    )


def extend_subject(connection: Connection, organization_id: UUID, row: SubjectRow) -> bool:
    """Let the mapping that ends where `row` starts go on as `row`; False where there is none."""
    cursor = connection.execute(
        "update subject set valid_to = %s where organization_id = %s and subject = %s"
        " and customer_key = %s and valid_to = %s",
        (row.valid_to, organization_id, row.subject, row.customer_key, row.valid_from),
    )
    return cursor.rowcount == 1


def end_subject(connection: Connection, organization_id: UUID, subject: str, at: datetime) -> None:
    """End the open mapping of a subject; one that began at or after `at` is taken back whole."""
    connection.execute(
        "delete from subject where organization_id = %s and subject = %s and valid_to = %s"
        " and valid_from >= %s",
        (organization_id, subject, END, at),
    )
    connection.execute(
        "update subject set valid_to = %s where organization_id = %s and subject = %s"
        " and valid_to = %s",
        (at, organization_id, subject, END),
    )


def find_subscription(
    connection: Connection, organization_id: UUID, key: str
) -> SubscriptionRow | None:
    row = connection.execute(
        f"select {_SUBSCRIPTION} from subscription where organization_id = %s and key = %s",
        (organization_id, key),
    ).fetchone()
    return None if row is None else SubscriptionRow(*row)


def subscriptions(
    connection: Connection,
    organization_id: UUID,
    *,
    after: str = "",
    limit: int = 1000,
    customer_key: str | None = None,
) -> list[SubscriptionRow]:
    """Return subscriptions by key, a page at a time."""
    rows = connection.execute(
        f"select {_SUBSCRIPTION} from subscription where organization_id = %s and key > %s"
        " and (%s::text is null or customer_key = %s) order by key limit %s",
        (organization_id, after, customer_key, customer_key, limit),
    ).fetchall()
    return [SubscriptionRow(*row) for row in rows]


def put_subscription(
    connection: Connection,
    organization_id: UUID,
    subscription: Subscription,
    row: SubscriptionRow,
    now: datetime,
) -> None:
    """Add a subscription, or set the end and metadata of one that is there."""
    connection.execute(
        "insert into subscription (organization_id, key, subscription_id, customer_key, plan_key,"
        "  plan_version, starts_at, ends_at, timezone, anchor_day, definition, created_at)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, key) do update set ends_at = excluded.ends_at,"
        "  definition = excluded.definition",
        (
            organization_id,
            row.key,
            row.subscription_id,
            row.customer_key,
            row.plan_key,
            row.plan_version,
            row.starts_at,
            row.ends_at,
            row.timezone,
            row.anchor_day,
            _ENCODER.encode(subscription).decode(),
            now,
        ),
    )
