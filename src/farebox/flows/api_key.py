"""Make and revoke API keys."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.access.key import Scope, digest_of, make_key
from farebox.catalog.code import CatalogCode
from farebox.catalog.problem import Problem
from farebox.postgres import access, customer
from farebox.postgres.access import ApiKeyRow
from farebox.postgres.session import Pool, transaction


class NewApiKey(Struct, frozen=True):
    """A key as it is stored, and its text, which is nowhere else."""

    row: ApiKeyRow
    text: str


def create_api_key_in(
    connection: Connection,
    organization_id: UUID,
    api_key_id: UUID,
    name: str,
    scopes: frozenset[Scope],
    customer_key: str | None,
    now: datetime,
    random: bytes,
) -> NewApiKey | list[Problem]:
    """Add a key in the caller's transaction; `random` is 42 bytes, as for `make_key`."""
    if customer_key is not None and not customer.customers_by_key(
        connection, organization_id, [customer_key]
    ):
        message = f"there is no customer {customer_key!r}"
        return [Problem(CatalogCode.UNKNOWN_CUSTOMER, "/customer", message)]
    text, presented = make_key(random)
    row = ApiKeyRow(
        api_key_id=api_key_id,
        name=name,
        scopes=sorted(scopes),
        customer_key=customer_key,
        created_at=now,
        revoked_at=None,
    )
    access.add_api_key(connection, organization_id, row, digest_of(presented))
    return NewApiKey(row, text)


def revoke_api_key(pool: Pool, organization_id: UUID, api_key_id: UUID, now: datetime) -> bool:
    """Revoke a key for good, or leave it revoked; False where there is none."""
    with transaction(pool, organization_id) as connection:
        if access.revoke_api_key(connection, organization_id, api_key_id, now):
            return True
        keys = access.api_keys(connection, organization_id)
        return any(key.api_key_id == api_key_id for key in keys)
