"""A request of the hot paths, which stand before the router: who asks, the body, the answer."""

from typing import Any

from litestar.types import Receive, Send

from farebox.access.key import KeyRefusal
from farebox.access.key import Scope as KeyScope
from farebox.events.refusal import RequestCode
from farebox.http.authenticate import (
    KeyMemory,
    Principal,
    authenticate,
    key_refused,
    presented_key,
    scope_refused,
)
from farebox.http.code import HttpCode
from farebox.http.inflate import inflate
from farebox.http.problem import Refused, refused
from farebox.http.security import SECURITY_HEADERS

Headers = dict[bytes, bytes]
JSON = (b"content-type", b"application/json")


async def principal_of(memory: KeyMemory, headers: Headers, scope: KeyScope) -> Principal:
    """Return who asks; raises Refused where the key does not open this door."""
    authorization, x_api_key = headers.get(b"authorization"), headers.get(b"x-api-key")
    principal = await authenticate(
        memory,
        presented_key(
            None if authorization is None else authorization.decode("latin-1"),
            None if x_api_key is None else x_api_key.decode("latin-1"),
        ),
    )
    if isinstance(principal, KeyRefusal):
        raise key_refused(principal)
    if not principal.allows(scope):
        raise scope_refused(scope)
    return principal


async def receive_body(headers: Headers, receive: Receive, limit: int) -> bytes | None:
    """Return the whole body, inflated where it was compressed; None: the client is gone."""
    announced = headers.get(b"content-length")
    if announced is not None and (not announced.isdigit() or int(announced[:19]) > limit):
        raise _too_large(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        more = message.get("more_body", False)
    if announced is not None and int(announced) != size:
        detail = f"the body has {size} bytes, announced were {int(announced)}"
        raise refused(HttpCode.BODY_CUT_SHORT, detail)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else inflate(encoding.decode("latin-1"), body, limit)


def _too_large(limit: int) -> Refused:
    detail = f"a request may have at most {limit} bytes; send several"
    return refused(RequestCode.BODY_TOO_LARGE, detail)


async def send_content(
    send: Send, status: int, content_type: tuple[bytes, bytes], body: bytes
) -> None:
    length = (b"content-length", str(len(body)).encode())
    start: Any = {
        "type": "http.response.start",
        "status": status,
        "headers": [content_type, length, *SECURITY_HEADERS],
    }
    await send(start)
    end: Any = {"type": "http.response.body", "body": body, "more_body": False}
    await send(end)
