"""The headers that every answer carries, so that a browser makes the least of it."""

from litestar.types import Message, Scope

_POLICY = b"content-security-policy"
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
)


async def add_security_headers(message: Message, _: Scope) -> None:
    """Add the headers that a route did not set itself: pages have a policy of their own."""
    if message["type"] != "http.response.start":
        return
    headers = list(message.get("headers", ()))
    present = {name.lower() for name, _ in headers}
    headers += [header for header in SECURITY_HEADERS if header[0] not in present]
    message["headers"] = headers
