"""Create an organization with the key that owns it."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import psycopg

from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope, digest_of, make_key
from farebox.postgres import access
from farebox.postgres.access import ApiKeyRow
from farebox.postgres.session import Pool, transaction


class OrganizationExists(Exception):
    """Another organization of this installation has the key already."""


def create_organization(
    pool: Pool,
    key: str,
    name: str,
    now: datetime,
    new_id: Callable[[], UUID],
    random_bytes: Callable[[int], bytes],
) -> tuple[UUID, str]:
    """Return the new organization's id and its owner key, which is shown this once.

    Raises OrganizationExists.
    """
    organization_id = new_id()
    text, presented = make_key(random_bytes(ID_BYTES + SECRET_BYTES))
    owner = ApiKeyRow(
        api_key_id=new_id(),
        name="owner",
        scopes=[Scope.MANAGE.value],
        customer_key=None,
        created_at=now,
        revoked_at=None,
    )
    try:
        with transaction(pool, organization_id) as connection:
            access.create_organization(connection, organization_id, key, name, now)
            access.add_api_key(connection, organization_id, owner, digest_of(presented))
    except psycopg.errors.UniqueViolation:
        raise OrganizationExists(key) from None
    return organization_id, text
