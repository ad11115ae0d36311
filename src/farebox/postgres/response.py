"""Answers that were given under an idempotency key, to be given again."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection


class StoredResponse(Struct, frozen=True):
    """`digest` is that of the request which was answered with `status` and `body`."""

    digest: bytes
    status: int
    body: bytes


def lock_idempotency_key(connection: Connection, organization_id: UUID, key: str) -> None:
    """Let one request at a time act under this key, until the transaction ends."""
    connection.execute(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{organization_id}/{key}",)
    )


def find_response(connection: Connection, organization_id: UUID, key: str) -> StoredResponse | None:
    row = connection.execute(
        "select digest, status, body from response"
        " where organization_id = %s and idempotency_key = %s",
        (organization_id, key),
    ).fetchone()
    return None if row is None else StoredResponse(*row)


def add_response(
    connection: Connection,
    organization_id: UUID,
    key: str,
    response: StoredResponse,
    now: datetime,
) -> None:
    connection.execute(
        "insert into response values (%s, %s, %s, %s, %s, %s)",
        (organization_id, key, response.digest, response.status, response.body, now),
    )


def drop_responses(connection: Connection, before: datetime) -> int:
    """Drop what was answered before an instant, of every organization; return how many."""
    row = connection.execute("select drop_responses(%s)", (before,)).fetchone()
    assert row is not None
    return int(row[0])
