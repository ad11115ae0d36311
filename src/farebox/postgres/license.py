"""Licenses: put, found by their keys, listed, revoked; and the pools of one."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.license import License
from farebox.ledger.license import LicenseTerm
from farebox.postgres.pool import PoolKey


class LicenseRow(Struct, frozen=True):
    """A license as it stands; its start is settled."""

    license: License
    revoked_at: datetime | None

    @property
    def term(self) -> LicenseTerm:
        """What decides whether it is in force."""
        one = self.license
        assert one.starts_at is not None, "the start of a license is settled when it is put"
        return LicenseTerm(one.key, one.starts_at, one.ends_at, self.revoked_at)


def _row(definition: str, revoked_at: datetime | None) -> LicenseRow:
    return LicenseRow(msgspec.json.decode(definition, type=License), revoked_at)


def put_license(
    connection: Connection, organization_id: UUID, license: License, now: datetime
) -> None:
    """Store a license as it is from now on; whose it is stays."""
    connection.execute(
        "insert into license (organization_id, key, customer_key, definition, starts_at, ends_at,"
        " created_at) values (%s, %s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, key) do update set definition = excluded.definition,"
        " starts_at = excluded.starts_at, ends_at = excluded.ends_at",
        (
            organization_id,
            license.key,
            license.customer,
            msgspec.json.encode(license).decode(),
            license.starts_at,
            license.ends_at,
            now,
        ),
    )


def revoke_license(connection: Connection, organization_id: UUID, key: str, now: datetime) -> None:
    """Revoke a license for good, unless it is revoked already."""
    connection.execute(
        "update license set revoked_at = %s"
        " where organization_id = %s and key = %s and revoked_at is null",
        (now, organization_id, key),
    )


def find_license(connection: Connection, organization_id: UUID, key: str) -> LicenseRow | None:
    return find_licenses(connection, organization_id, [key]).get(key)


def find_licenses(
    connection: Connection, organization_id: UUID, keys: Sequence[str]
) -> dict[str, LicenseRow]:
    """Return those of these licenses that there are, by key."""
    rows = connection.execute(
        "select key, definition::text, revoked_at from license"
        " where organization_id = %s and key = any(%s)",
        (organization_id, list(keys)),
    ).fetchall()
    return {key: _row(definition, revoked_at) for key, definition, revoked_at in rows}


def list_licenses(
    connection: Connection,
    organization_id: UUID,
    *,
    customer: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[LicenseRow]:
    """Return licenses by key, a page at a time."""
    rows = connection.execute(
        "select definition::text, revoked_at from license where organization_id = %(org)s"
        " and (%(customer)s::text is null or customer_key = %(customer)s)"
        " and (%(after)s::text is null or key > %(after)s) order by key limit %(limit)s",
        {"org": organization_id, "customer": customer, "after": after, "limit": limit},
    ).fetchall()
    return [_row(*row) for row in rows]


def lock_pools(connection: Connection, organization_id: UUID, key: str, *others: UUID) -> None:
    """Lock the pools of a license, and others, in the order in which all pools are locked."""
    connection.execute(
        "select pool_id from pool where organization_id = %s"
        " and (license_key = %s or pool_id = any(%s)) order by pool_id for update",
        (organization_id, key, list(others)),
    )


def move_pools_on(connection: Connection, organization_id: UUID, key: str) -> None:
    """Let nobody decide any more on the pools of a license as they were; they are locked."""
    connection.execute(
        "update pool set version = version + 1 where organization_id = %s and license_key = %s",
        (organization_id, key),
    )


class LicensePool(Struct, frozen=True):
    """A pool of a license, and what it holds."""

    pool: PoolKey
    unit: str


def pools_of_licenses(
    connection: Connection, organization_id: UUID, keys: Sequence[str]
) -> dict[str, list[LicensePool]]:
    """Return the pools of these licenses, by license and then by key.

    A closed one only where no other of its license holds the same unit.
    """
    rows = connection.execute(
        "select pool_id, key, customer_key, feature_key, license_key, unit from pool p"
        " where organization_id = %s and license_key = any(%s) and (status = 'open' or not exists ("
        "  select from pool o where o.organization_id = p.organization_id"
        "  and o.license_key = p.license_key and o.unit = p.unit and o.status = 'open'))"
        " order by key",
        (organization_id, list(keys)),
    ).fetchall()
    found: dict[str, list[LicensePool]] = {}
    for row in rows:
        found.setdefault(row[4], []).append(LicensePool(PoolKey(*row[:5]), row[5]))
    return found
