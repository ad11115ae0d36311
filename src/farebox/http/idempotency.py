"""`Idempotency-Key` on requests that change something: sent again, they get the same answer."""

import re
from hashlib import sha256
from typing import Annotated, Any

from litestar import Response
from litestar.params import HeaderParameter

from farebox.catalog.plain_json import encode
from farebox.flows.answer_once import Act, IdempotencyCode, Reply, answer_once, recall, remember
from farebox.http.authenticate import Principal
from farebox.http.code import HttpCode
from farebox.http.problem import Refused, refused
from farebox.http.state import State

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="sent again under the same key, a request gets the same answer (30 days)",
    ),
]
_FORM = re.compile(r"[\x21-\x7e]{1,255}")


def request_digest(method_and_path: str, body: bytes) -> bytes:
    """Return what tells one request from another under the same key."""
    return sha256(method_and_path.encode() + b"\0" + body).digest()


def change_once(
    farebox: State,
    principal: Principal,
    key: str | None,
    method_and_path: str,
    body: bytes,
    act: Act,
) -> Response[bytes]:
    """Run `act` in one transaction with the answer that is kept under the key; raises Refused."""
    reply = answer_once(
        farebox.pool,
        principal.organization_id,
        checked_key(key),
        request_digest(method_and_path, body),
        farebox.clock(),
        act,
    )
    return _response(reply)


def earlier_answer(
    farebox: State, principal: Principal, key: str | None, method_and_path: str, body: bytes
) -> Response[bytes] | None:
    """Return what was answered under the key, for work too long for one transaction."""
    if checked_key(key) is None:
        return None
    assert key is not None
    digest = request_digest(method_and_path, body)
    reply = recall(farebox.pool, principal.organization_id, key, digest)
    return None if reply is None else _response(reply)


def keep_answer(
    farebox: State,
    principal: Principal,
    key: str | None,
    method_and_path: str,
    body: bytes,
    reply: Reply,
) -> Response[bytes]:
    """Keep the answer to such work under the key, and return it."""
    if key is not None:
        digest = request_digest(method_and_path, body)
        now = farebox.clock()
        remember(farebox.pool, principal.organization_id, key, digest, reply, now)
    return _response(reply)


def reply_with(value: Any, status: int = 200, *, remembered: Any = None) -> Reply:
    """Return a value as an answer; `remembered` is kept in its place where it holds a secret."""
    kept = None if remembered is None else encode(remembered)
    return Reply(status, encode(value), kept)


def checked_key(key: str | None) -> str | None:
    """Return the key if it is one; raises Refused."""
    if key is not None and _FORM.fullmatch(key) is None:
        detail = "an Idempotency-Key has 1 to 255 printable ASCII characters, no spaces"
        raise refused(HttpCode.IDEMPOTENCY_KEY_INVALID, detail)
    return key


def _response(reply: Reply | IdempotencyCode) -> Response[bytes]:
    if isinstance(reply, IdempotencyCode):
        raise _reused(reply)
    return Response(content=reply.body, status_code=reply.status, media_type="application/json")


def _reused(code: IdempotencyCode) -> Refused:
    return refused(code, "this key was used for another request; take a new one")
