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


class _Undone(Exception):
    """Ends the transaction of a refusal, so that it writes nothing whatever `act` began."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


Act = Callable[[Connection], Reply]
_REFUSAL = 400


def answer_once(
    pool: Pool,
    organization_id: UUID,
    idempotency_key: str | None,
    digest: bytes,
    now: datetime,
    act: Act,
) -> Reply | IdempotencyCode:
    """Run `act` and remember its reply under the key, in one transaction with its effect.

    digest: of the request; the same key with another one is refused. A reply of 400 or more is a
    refusal: it writes nothing, binds no key and is decided anew when the request is repeated.
    """
    try:
        with transaction(pool, organization_id) as connection:
            return _answer(connection, organization_id, idempotency_key, digest, now, act)
    except _Undone as refusal:
        return refusal.reply


def _answer(
    connection: Connection,
    organization_id: UUID,
    idempotency_key: str | None,
    digest: bytes,
    now: datetime,
    act: Act,
) -> Reply | IdempotencyCode:
    if idempotency_key is not None:
        response.lock_idempotency_key(connection, organization_id, idempotency_key)
        found = response.find_response(connection, organization_id, idempotency_key)
        if found is not None:
            if found.digest != digest:
                return IdempotencyCode.IDEMPOTENCY_KEY_REUSED
            return Reply(found.status, found.body)
    reply = act(connection)
    if reply.status >= _REFUSAL:
        raise _Undone(reply)
    if idempotency_key is not None:
        body = reply.body if reply.remembered is None else reply.remembered
        stored = StoredResponse(digest, reply.status, body)
        response.add_response(connection, organization_id, idempotency_key, stored, now)
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
