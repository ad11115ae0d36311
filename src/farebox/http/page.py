"""Lists in pages: an opaque cursor says where the next page begins; there are no totals."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from litestar.params import QueryParameter
from msgspec import Struct

from farebox.http.code import HttpCode
from farebox.http.problem import refused

PAGE_MAX = 1000
PAGE_USUAL = 100
_NUMBER = re.compile("[0-9]{1,18}")

Limit = Annotated[
    int, QueryParameter(ge=1, le=PAGE_MAX, description=f"how many to return, 1 to {PAGE_MAX}")
]
Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")]

Item = TypeVar("Item")


class Page(Struct, Generic[Item], frozen=True):
    """A page of a list; `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None


def page_of(items: Sequence[Item], limit: int, last: Callable[[Item], Sequence[str]]) -> Page[Item]:
    """Return a page of what was read with `limit + 1`; `last` gives the sort values of an item."""
    if len(items) <= limit:
        return Page(list(items), None)
    return Page(list(items[:limit]), encode_cursor(*last(items[limit - 1])))


def encode_cursor(*values: str) -> str:
    """Return a cursor that holds these sort values, the id last."""
    return urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def decode_cursor(cursor: str | None, count: int) -> tuple[str, ...] | None:
    """Return the sort values of a cursor; None without one. Raises Refused (`cursor_invalid`)."""
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        values = msgspec.json.decode(text, type=tuple[str, ...])
    except (Error, ValueError, msgspec.MsgspecError):
        values = ()
    if len(values) != count or any("\0" in value for value in values):
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return values


def before_number(cursor: str | None) -> int | None:
    """Return the number before which a page ends, for lists with the latest first."""
    values = decode_cursor(cursor, 1)
    if values is None:
        return None
    if _NUMBER.fullmatch(values[0]) is None:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return int(values[0])


def after_key(cursor: str | None) -> str:
    """Return the key after which a page begins, for lists sorted by key."""
    values = decode_cursor(cursor, 1)
    return "" if values is None else values[0]
