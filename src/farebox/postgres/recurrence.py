"""What was asked of recurring grants, by which a repetition is told from another request."""

from uuid import UUID

from psycopg import Connection


def put_digest(
    connection: Connection, organization_id: UUID, pool_id: UUID, number: int, digest: str
) -> None:
    """Keep what a recurring grant was asked as. The caller holds the pool's lock."""
    connection.execute(
        "update pool_recurrence set digest = %s"
        " where organization_id = %s and pool_id = %s and number = %s",
        (UUID(digest), organization_id, pool_id, number),
    )


def find_digest(
    connection: Connection, organization_id: UUID, pool_id: UUID, number: int
) -> str | None:
    """Return what a recurring grant was asked as; none of entitlements and of versions before."""
    row = connection.execute(
        "select digest from pool_recurrence"
        " where organization_id = %s and pool_id = %s and number = %s",
        (organization_id, pool_id, number),
    ).fetchone()
    return None if row is None or row[0] is None else str(row[0].hex)
