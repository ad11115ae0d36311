"""Compressed bodies, inflated up to a limit: a small request cannot become a large one."""

import zlib

from farebox.events.refusal import RequestCode
from farebox.http.code import HttpCode
from farebox.http.problem import Refused, refused

_GZIP_ONLY = zlib.MAX_WBITS | 16


def inflate(encoding: str, body: bytes, limit: int) -> bytes:
    """Return what was compressed (`gzip`), at most `limit` bytes of it; raises Refused."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip"):
        detail = f"Content-Encoding {encoding[:50]!r} is not read; send gzip, or none"
        raise refused(HttpCode.UNSUPPORTED_ENCODING, detail, headers={"Accept-Encoding": "gzip"})
    parts: list[bytes] = []
    size = 0
    while body:
        inflater = zlib.decompressobj(_GZIP_ONLY)
        try:
            part = inflater.decompress(body, limit - size + 1)
        except zlib.error as error:
            raise _invalid(str(error)) from None
        size += len(part)
        if size > limit:
            detail = f"a request may have at most {limit} bytes, inflated; send several"
            raise refused(RequestCode.BODY_TOO_LARGE, detail)
        if not inflater.eof:
            raise _invalid("it ends too early")
        parts.append(part)
        body = inflater.unused_data  # gzip allows several members, one behind the other
    return b"".join(parts)


def _invalid(reason: str) -> Refused:
    return refused(HttpCode.ENCODING_INVALID, f"the body is not gzip: {reason}")
