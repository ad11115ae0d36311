"""Give an organization another API key."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope, digest_of, make_key
from farebox.postgres import access
from farebox.postgres.access import ApiKeyRow
from farebox.postgres.session import Pool, transaction


def create_api_key(
    pool: Pool,
    organization_id: UUID,
    name: str,
    scopes: Sequence[Scope],
    now: datetime,
    new_id: Callable[[], UUID],
    random_bytes: Callable[[int], bytes],
    customer_key: str | None = None,
) -> tuple[ApiKeyRow, str]:
    """Return the key's record and its text, which is shown this once and stored only as a hash."""
    text, presented = make_key(random_bytes(ID_BYTES + SECRET_BYTES))
    row = ApiKeyRow(
        api_key_id=new_id(),
        name=name,
        scopes=[scope.value for scope in scopes],
        customer_key=customer_key,
        created_at=now,
        revoked_at=None,
    )
    with transaction(pool, organization_id) as connection:
        access.add_api_key(connection, organization_id, row, digest_of(presented))
    return row, text
