"""Entitlements apart from plans: overrides, access that was bought, and the pools of features."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.entitled import Override
from farebox.postgres.customer import SubscriptionRow


class AccessRow(Struct, frozen=True):
    """A feature, or a license, for a term, bought with units of a pool."""

    access_id: UUID
    customer_key: str
    subject: str | None
    feature_key: str | None
    pool_id: UUID
    operation: int
    starts_at: datetime
    ends_at: datetime
    revoked_at: datetime | None = None
    license_key: str | None = None


_ACCESS = ", ".join(AccessRow.__struct_fields__)


def overrides(
    connection: Connection, organization_id: UUID, customer_key: str, now: datetime
) -> dict[str, Override]:
    """Return the overrides of a customer that are in force, by feature."""
    rows = connection.execute(
        "select feature_key, definition::text from entitlement_override"
        " where organization_id = %s and customer_key = %s and (ends_at is null or ends_at > %s)",
        (organization_id, customer_key, now),
    ).fetchall()
    return {key: msgspec.json.decode(text, type=Override) for key, text in rows}


def put_override(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    feature_key: str,
    override: Override,
    now: datetime,
) -> None:
    connection.execute(
        "insert into entitlement_override values (%s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, customer_key, feature_key) do update set"
        " definition = excluded.definition, ends_at = excluded.ends_at",
        (
            organization_id,
            customer_key,
            feature_key,
            msgspec.json.encode(override).decode(),
            override.ends_at,
            now,
        ),
    )


def drop_override(
    connection: Connection, organization_id: UUID, customer_key: str, feature_key: str
) -> bool:
    """Remove an override and return whether there was one."""
    cursor = connection.execute(
        "delete from entitlement_override"
        " where organization_id = %s and customer_key = %s and feature_key = %s",
        (organization_id, customer_key, feature_key),
    )
    return cursor.rowcount > 0


def active_subscriptions(
    connection: Connection, organization_id: UUID, customer_key: str, now: datetime
) -> list[SubscriptionRow]:
    """Return the subscriptions of a customer that run at `now`, by key."""
    rows = connection.execute(
        "select key, subscription_id, customer_key, plan_key, plan_version, starts_at, ends_at,"
        " timezone, anchor_day, definition::text from subscription"
        " where organization_id = %s and customer_key = %s and starts_at <= %s"
        " and (ends_at is null or ends_at > %s) order by key",
        (organization_id, customer_key, now, now),
    ).fetchall()
    return [SubscriptionRow(*row) for row in rows]


def next_turn(
    connection: Connection, organization_id: UUID, customer_key: str, now: datetime
) -> datetime | None:
    """Return when a subscription of the customer begins or ends next."""
    row = connection.execute(
        "select min(t.at) from subscription s, unnest(array[s.starts_at, s.ends_at]) t(at)"
        " where s.organization_id = %s and s.customer_key = %s and t.at > %s",
        (organization_id, customer_key, now),
    ).fetchone()
    return None if row is None else row[0]


def next_change(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    license: str | None,
    now: datetime,
) -> datetime | None:
    """Return when something begins or ends next by which the customer is entitled.

    license: one of the customer's, under which it asks.
    """
    row = connection.execute(
        "select min(e.at) from ("
        " select unnest(array[starts_at, ends_at]) as at from subscription"
        "  where organization_id = %(org)s and customer_key = %(customer)s"
        " union all select ends_at from entitlement_override"
        "  where organization_id = %(org)s and customer_key = %(customer)s"
        " union all select unnest(array[starts_at, ends_at]) from access"
        "  where organization_id = %(org)s and customer_key = %(customer)s and ends_at > %(now)s"
        " union all select unnest(array[starts_at, ends_at]) from license"
        "  where organization_id = %(org)s and key = %(license)s) e where e.at > %(now)s",
        {"org": organization_id, "customer": customer_key, "license": license, "now": now},
    ).fetchone()
    return None if row is None else row[0]


def pools_of_features(
    connection: Connection, organization_id: UUID, customer_key: str
) -> dict[str, tuple[UUID, str]]:
    """Return the pools of a customer's metered features: id and key, by feature."""
    rows = connection.execute(
        "select feature_key, pool_id, key from pool"
        " where organization_id = %s and customer_key = %s and feature_key is not null",
        (organization_id, customer_key),
    ).fetchall()
    return {feature: (pool_id, key) for feature, pool_id, key in rows}


def lock_pools_of_features(
    connection: Connection, organization_id: UUID, customer_keys: Sequence[str]
) -> None:
    """Lock the pools of these customers' features, in the order in which all pools are locked."""
    connection.execute(
        "select from pool where organization_id = %s and customer_key = any(%s)"
        " and feature_key is not null order by pool_id for update",
        (organization_id, list(customer_keys)),
    )


def set_feature(
    connection: Connection, organization_id: UUID, pool_id: UUID, feature_key: str
) -> None:
    """Let a pool be that of a feature of its customer."""
    connection.execute(
        "update pool set feature_key = %s where organization_id = %s and pool_id = %s",
        (feature_key, organization_id, pool_id),
    )


def find_feature(connection: Connection, organization_id: UUID, pool_id: UUID) -> str | None:
    """Return the feature that a pool is of, none for most."""
    row = connection.execute(
        "select feature_key from pool where organization_id = %s and pool_id = %s",
        (organization_id, pool_id),
    ).fetchone()
    return None if row is None else row[0]


def used_of(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    recurrences: Sequence[int],
    since: datetime,
) -> Decimal:
    """Return what was used or is held of the grants that came of recurrences since an instant."""
    row = connection.execute(
        "with g as (select number, amount - available as gone from pool_grant"
        "  where organization_id = %(org)s and pool_id = %(pool)s"
        "   and recurrence = any(%(recurrences)s) and issued_at >= %(since)s)"
        " select coalesce((select sum(gone) from g), 0) - coalesce((select sum(t.amount)"
        "  from transfer t where t.pool_id = %(pool)s and t.sequence > (select min(number) from g)"
        "   and t.reason in ('grant_voided', 'grant_expired')"
        "   and t.grant_number in (select number from g)), 0)",
        {
            "org": organization_id,
            "pool": pool_id,
            "recurrences": list(recurrences),
            "since": since,
        },
    ).fetchone()
    assert row is not None
    return Decimal(row[0])


def add_access(connection: Connection, organization_id: UUID, row: AccessRow) -> None:
    connection.execute(
        f"insert into access (organization_id, {_ACCESS})"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (organization_id, *msgspec.structs.astuple(row)),
    )


def revoke_access(
    connection: Connection, organization_id: UUID, pool_id: UUID, operation: int, now: datetime
) -> AccessRow | None:
    """Take back the access that an operation bought, if it bought any that is not over."""
    row = connection.execute(
        "update access set revoked_at = %s where organization_id = %s and pool_id = %s"
        " and operation = %s and revoked_at is null and ends_at > %s"
        f" returning {_ACCESS}",
        (now, organization_id, pool_id, operation, now),
    ).fetchone()
    return None if row is None else AccessRow(*row)


def find_license_bought(
    connection: Connection, organization_id: UUID, pool_id: UUID, operation: int
) -> str | None:
    """Return the license of which an operation bought a term, none where it did not."""
    row = connection.execute(
        "select license_key from access"
        " where organization_id = %s and pool_id = %s and operation = %s",
        (organization_id, pool_id, operation),
    ).fetchone()
    return None if row is None else row[0]


def access_of(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    now: datetime,
    features: Sequence[str] | None = None,
) -> list[AccessRow]:
    """Return the access of a customer to features that is in force at `now`."""
    rows = connection.execute(
        f"select {_ACCESS} from access where organization_id = %(org)s"
        " and customer_key = %(customer)s and starts_at <= %(now)s and ends_at > %(now)s"
        " and revoked_at is null and feature_key is not null"
        " and (%(features)s::text[] is null or feature_key = any(%(features)s))"
        " order by feature_key, ends_at",
        {
            "org": organization_id,
            "customer": customer_key,
            "now": now,
            "features": None if features is None else list(features),
        },
    ).fetchall()
    return [AccessRow(*row) for row in rows]


def customers_to_sync(
    connection: Connection, since: datetime, until: datetime
) -> list[tuple[UUID, str]]:
    """Return the customers for whom something began or ended then; needs no organization."""
    return connection.execute(
        "select organization_id, customer_key from customers_to_sync(%s, %s)", (since, until)
    ).fetchall()
