"""Organizations and their API keys."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class ApiKeyRow(Struct, frozen=True, kw_only=True):
    """An API key, without its secret: of that only a hash is stored."""

    api_key_id: UUID
    name: str
    scopes: list[str]
    customer_key: str | None
    created_at: datetime
    revoked_at: datetime | None


class FoundKey(Struct, frozen=True, kw_only=True):
    """Whose a presented key is, and what it may do."""

    organization_id: UUID
    api_key_id: UUID
    scopes: list[str]
    customer_key: str | None
    revoked_at: datetime | None


def find_api_key(connection: Connection, secret_hash: bytes) -> FoundKey | None:
    """Look a key up by the hash of its secret; needs no organization, it tells which."""
    cursor = connection.cursor(row_factory=class_row(FoundKey))
    return cursor.execute("select * from find_api_key(%s)", (secret_hash,)).fetchone()


def count_organizations(connection: Connection) -> int:
    """Return how many organizations there are; needs no organization."""
    row = connection.execute("select count_organizations()").fetchone()
    assert row is not None
    return int(row[0])


def find_organization(connection: Connection, key: str) -> UUID | None:
    """Return the organization with this key; needs no organization."""
    row = connection.execute("select find_organization(%s)", (key,)).fetchone()
    return None if row is None else row[0]


def create_organization(
    connection: Connection, organization_id: UUID, key: str, name: str, now: datetime
) -> None:
    """Add an organization with an empty stream; needs no organization."""
    connection.execute(
        "select create_organization(%s, %s, %s, %s)", (organization_id, key, name, now)
    )


def add_api_key(
    connection: Connection,
    organization_id: UUID,
    key: ApiKeyRow,
    secret_hash: bytes,
) -> None:
    connection.execute(
        "insert into api_key (organization_id, api_key_id, name, secret_hash, scopes,"
        " customer_key, created_at) values (%s, %s, %s, %s, %s, %s, %s)",
        (
            organization_id,
            key.api_key_id,
            key.name,
            secret_hash,
            list(key.scopes),
            key.customer_key,
            key.created_at,
        ),
    )


def api_keys(connection: Connection, organization_id: UUID) -> Sequence[ApiKeyRow]:
    cursor = connection.cursor(row_factory=class_row(ApiKeyRow))
    return cursor.execute(
        "select api_key_id, name, scopes, customer_key, created_at, revoked_at from api_key"
        " where organization_id = %s order by created_at, api_key_id",
        (organization_id,),
    ).fetchall()


def revoke_api_key(
    connection: Connection, organization_id: UUID, api_key_id: UUID, now: datetime
) -> bool:
    """Revoke a key for good; False where there is none that still works."""
    cursor = connection.execute(
        "update api_key set revoked_at = %s"
        " where organization_id = %s and api_key_id = %s and revoked_at is null",
        (now, organization_id, api_key_id),
    )
    return cursor.rowcount == 1
