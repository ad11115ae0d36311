"""Answers as JSON in which every number is a plain text: "700", never "700.000" or "7E+2".

A balance is exact whatever its digits look like: what a rate card made of an event has 18 decimals,
what a client asked for may have come as 1E+3. So the digits are made plain where they leave, not in
each route.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from operator import is_
from typing import Any

import msgspec
from msgspec import Struct

from farebox.catalog.number import plain_text

_ENCODER = msgspec.json.Encoder()
_DIGITS_MAX = 64
_ZEROS = re.compile(rb'\.\d*0"')
_EXPONENT = re.compile(rb'\dE[+-]?\d+"')


def encode(value: object) -> bytes:
    """Return a value as JSON; texts stay as they are, whatever they look like."""
    content = _ENCODER.encode(value)
    return _ENCODER.encode(plain(value)) if is_suspect(content) else content


def is_suspect(content: bytes) -> bool:
    """Tell whether JSON has a number that is not plain, or a text that only looks like one.

    Every decision passes here: it costs half a microsecond.
    """
    return _ZEROS.search(content) is not None or (
        b"E" in content and _EXPONENT.search(content) is not None
    )


def plain(value: Any) -> Any:
    """Return the value with the text of each number in it that would not be written plainly."""
    if isinstance(value, Decimal):
        return _text(value)
    if isinstance(value, Struct):
        changed = {}
        for name in value.__struct_fields__:
            before = getattr(value, name)
            after = plain(before)
            if after is not before:
                changed[name] = after
        return msgspec.structs.replace(value, **changed) if changed else value
    # What is plain already stays the same object: a default that is left out must stay one.
    if isinstance(value, Mapping):
        members = {key: plain(one) for key, one in value.items()}
        return value if all(members[key] is one for key, one in value.items()) else members
    if isinstance(value, list | tuple):
        items = [plain(one) for one in value]
        return value if all(map(is_, items, value)) else items
    return value


def _text(value: Decimal) -> Decimal | str:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or not -_DIGITS_MAX <= exponent <= _DIGITS_MAX:
        return value  # not a number that can be kept; as plain text it may be a million digits
    text = plain_text(value)
    return value if text == str(value) else text
