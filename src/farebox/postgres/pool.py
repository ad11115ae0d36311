"""Pools: opened once, found by their keys, listed."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.ledger.account import Account
from farebox.ledger.pool import Pool, PoolDefinition, PoolStatus, Terms
from farebox.period.instant import BEGINNING
from farebox.postgres.pool_subscription import put_subscription
from farebox.postgres.posting import COLUMN_OF

_BALANCES = ", ".join(COLUMN_OF[account] for account in Account)


def add_pool(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    pool: Pool,
    definition: PoolDefinition,
) -> None:
    """Open a pool in which nothing has moved yet."""
    assert not any(pool.balances.values())
    connection.execute(
        "insert into pool (organization_id, pool_id, key, customer_key, subscription_key, subject,"
        " license_key, unit, status,"
        f" definition, opened_at, timezone, version, sequence, as_of, counters, {_BALANCES})"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, 0, %s, %s,"
        f" {', '.join('0' for _ in Account)})",
        (
            organization_id,
            pool_id,
            pool.key,
            pool.customer,
            definition.subscription,
            pool.subject,
            definition.license,
            pool.unit,
            pool.status,
            msgspec.json.encode(definition).decode(),
            pool.opened_at,
            pool.timezone,
            pool.as_of,
            msgspec.json.encode(pool.counters).decode(),
        ),
    )
    currency = definition.policy.currency
    put_subscription(connection, organization_id, pool_id, definition.subscription, currency)
    if definition.serves_children:
        serve_children(connection, organization_id, pool_id, BEGINNING, serves=True)


def serve_children(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    since: datetime,
    *,
    serves: bool,
) -> None:
    """Let draws of a pool pay for those below its customer from `since` on, a `burn.boundary`."""
    connection.execute(
        "insert into pool_children values (%s, %s, %s, %s)"
        # Changed again at the same instant: nothing was decided by it yet.
        " on conflict (pool_id, since) do update set serves = excluded.serves",
        (organization_id, pool_id, since, serves),
    )


def put_definition(
    connection: Connection, organization_id: UUID, pool_id: UUID, definition: PoolDefinition
) -> bool:
    """Store what a pool is; who does so holds its lock, and has written a version of its books.

    Returns whether another subscription, or none, now pays for what moved before.
    """
    status = PoolStatus.CLOSED if definition.closed else PoolStatus.OPEN
    scope = organization_id, pool_id
    connection.execute(
        "update pool set definition = %s, status = %s, subscription_key = %s"
        " where organization_id = %s and pool_id = %s",
        (
            msgspec.json.encode(definition).decode(),
            status,
            definition.subscription,
            *scope,
        ),
    )
    # The level down to which nothing is told of it was that of the definition before.
    connection.execute(
        "update pool_watch set calm_above = null where organization_id = %s and pool_id = %s",
        scope,
    )
    return put_subscription(connection, *scope, definition.subscription, definition.policy.currency)


def put_terms(
    connection: Connection, organization_id: UUID, pool_id: UUID, terms: Terms | None
) -> None:
    """Store which terms come next; who does so holds its lock, and has written its books."""
    connection.execute(
        "update pool set terms = %s where organization_id = %s and pool_id = %s",
        (None if terms is None else msgspec.json.encode(terms).decode(), organization_id, pool_id),
    )


def timezone_of(connection: Connection, organization_id: UUID, pool_id: UUID) -> str:
    """Return the zone of a pool's periods, which it has for good."""
    row = connection.execute(
        "select timezone from pool where organization_id = %s and pool_id = %s",
        (organization_id, pool_id),
    ).fetchone()
    assert row is not None, "a pool stays"
    return str(row[0])


def find_definition(
    connection: Connection, organization_id: UUID, key: str
) -> tuple[UUID, PoolDefinition] | None:
    """Return a pool's id and what it is, by its key."""
    row = connection.execute(
        "select pool_id, definition::text from pool where organization_id = %s and key = %s",
        (organization_id, key),
    ).fetchone()
    return None if row is None else (row[0], msgspec.json.decode(row[1], type=PoolDefinition))


class PoolKey(Struct, frozen=True):
    """A pool, by id and key, and who it belongs to."""

    pool_id: UUID
    key: str
    customer: str | None
    feature: str | None = None
    license: str | None = None


_KEY = "pool_id, key, customer_key, feature_key, license_key"


def find_pool(
    connection: Connection,
    organization_id: UUID,
    *,
    key: str | None = None,
    pool_id: UUID | None = None,
) -> PoolKey | None:
    """Return a pool by its key or by its id."""
    column, value = ("key", key) if pool_id is None else ("pool_id", pool_id)
    row = connection.execute(
        f"select {_KEY} from pool where organization_id = %s and {column} = %s",
        (organization_id, value),
    ).fetchone()
    return None if row is None else PoolKey(*row)


def find_pools(
    connection: Connection,
    organization_id: UUID,
    *,
    keys: Sequence[str] = (),
    pool_ids: Sequence[UUID] = (),
) -> list[PoolKey]:
    """Return the pools that have one of these keys or ids."""
    rows = connection.execute(
        f"select {_KEY} from pool where organization_id = %s and key = any(%s)"
        f" union select {_KEY} from pool where organization_id = %s and pool_id = any(%s)",
        (organization_id, list(keys), organization_id, list(pool_ids)),
    ).fetchall()
    return [PoolKey(*row) for row in rows]


def list_pools(
    connection: Connection,
    organization_id: UUID,
    *,
    customer: str | None = None,
    license: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[PoolKey]:
    """Return pools by key, a page at a time."""
    rows = connection.execute(
        f"select {_KEY} from pool where organization_id = %(org)s"
        " and (%(customer)s::text is null or customer_key = %(customer)s)"
        " and (%(license)s::text is null or license_key = %(license)s)"
        " and (%(after)s::text is null or key > %(after)s) order by key limit %(limit)s",
        {
            "org": organization_id,
            "customer": customer,
            "license": license,
            "after": after,
            "limit": limit,
        },
    ).fetchall()
    return [PoolKey(*row) for row in rows]


class RefusalRow(Struct, frozen=True):
    """Refusals of one code to one subject ("" for none) in one minute."""

    pool: str
    subject: str
    code: str
    minute: datetime
    count: int
    first_at: datetime
    last_at: datetime
    asked: Decimal
    available: Decimal | None
    refills_at: datetime | None
    resolved_at: datetime | None


def refusals(
    connection: Connection,
    organization_id: UUID,
    *,
    pool_id: UUID | None = None,
    customer: str | None = None,
    subject: str | None = None,
    since: datetime,
    until: datetime,
    limit: int = 100,
) -> list[RefusalRow]:
    """Return refusals of a time, the latest first; customer: of the pools of this one."""
    rows = connection.execute(
        "select p.key, r.subject, r.code, r.minute, r.count, r.first_at, r.last_at, r.asked,"
        " r.available, r.refills_at, r.resolved_at"
        " from refusal r join pool p on p.pool_id = r.pool_id"
        " where r.organization_id = %(org)s and r.minute >= %(since)s and r.minute < %(until)s"
        " and (%(pool)s::uuid is null or r.pool_id = %(pool)s)"
        " and (%(customer)s::text is null or p.customer_key = %(customer)s)"
        " and (%(subject)s::text is null or r.subject = %(subject)s)"
        " order by r.minute desc, p.key, r.code, r.subject limit %(limit)s",
        {
            "org": organization_id,
            "pool": pool_id,
            "customer": customer,
            "subject": subject,
            "since": since,
            "until": until,
            "limit": limit,
        },
    ).fetchall()
    return [RefusalRow(*row) for row in rows]


def find_rate_card(connection: Connection, organization_id: UUID, pool_id: UUID) -> str | None:
    """Return the key of the rate card that says what uses cost in a pool's unit now.

    Of a closed pool it is the last one: what is held may be settled.
    """
    row = connection.execute(
        "select coalesce(b.rate_card_key, p.definition ->> 'rate_card') from pool p"
        " left join pool_burn b on b.pool_id = p.pool_id"
        " and (b.until is null or p.status = 'closed')"
        " where p.organization_id = %s and p.pool_id = %s"
        " order by b.since desc nulls last limit 1",
        (organization_id, pool_id),
    ).fetchone()
    return None if row is None else row[0]
