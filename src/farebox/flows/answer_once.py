"""Answer a request once: sent again under its idempotency key, it gets the same answer."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.postgres import response
from farebox.postgres.response import StoredResponse
from farebox.postgres.session import Pool, transaction


class IdempotencyCode(StrEnum):
    """Why an idempotency key is not taken."""

    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"


class Reply(Struct, frozen=True):
    """An answer as bytes. `remembered`, if given, is stored in place of `body` (no secrets)."""

    status: int
    body: bytes
    remembered: bytes | None = None


Act = Callable[[Connection], Reply | Exception]


def answer_once(
    pool: Pool,
    organization_id: UUID,
    idempotency_key: str | None,
    digest: bytes,
    now: datetime,
    act: Act,
) -> Reply | IdempotencyCode:
    """Run `act` and remember its reply under the key, in one transaction with its effect.

    digest: of the request; the same key with another one is refused. What `act` raises takes the
    transaction back; what it returns to be raised is raised once the transaction has committed, so
    that a refusal can be stored. Neither binds the key: when repeated, it is decided anew.
    """
    if idempotency_key is None:
        with transaction(pool, organization_id) as connection:
            reply = act(connection)
        return _given(reply)
    with transaction(pool, organization_id) as connection:
        response.lock_idempotency_key(connection, organization_id, idempotency_key)
        found = response.find_response(connection, organization_id, idempotency_key)
        if found is not None:
            if found.digest != digest:
                return IdempotencyCode.IDEMPOTENCY_KEY_REUSED
            return Reply(found.status, found.body)
        reply = act(connection)
        if isinstance(reply, Reply):
            body = reply.body if reply.remembered is None else reply.remembered
            stored = StoredResponse(digest, reply.status, body)
            response.add_response(connection, organization_id, idempotency_key, stored, now)
    return _given(reply)


def _given(reply: Reply | Exception) -> Reply:
    if isinstance(reply, Exception):
        raise reply
    return reply


def recall(
    pool: Pool, organization_id: UUID, idempotency_key: str, digest: bytes
) -> Reply | IdempotencyCode | None:
    """Return what was answered under the key, for work too long for one transaction."""
    with transaction(pool, organization_id) as connection:
        found = response.find_response(connection, organization_id, idempotency_key)
    if found is None:
        return None
    if found.digest != digest:
        return IdempotencyCode.IDEMPOTENCY_KEY_REUSED
    return Reply(found.status, found.body)


def remember(
    pool: Pool,
    organization_id: UUID,
    idempotency_key: str,
    digest: bytes,
    reply: Reply,
    now: datetime,
) -> None:
    """Bind the key to the reply after such work, which must itself be safe to repeat."""
    with transaction(pool, organization_id) as connection:
        response.lock_idempotency_key(connection, organization_id, idempotency_key)
        if response.find_response(connection, organization_id, idempotency_key) is None:
            stored = StoredResponse(digest, reply.status, reply.body)
            response.add_response(connection, organization_id, idempotency_key, stored, now)
