"""JSON text to exact values: fast for what is sent every day, unhurt by what is hostile.

msgspec reads what it can. It gives up on three kinds of valid JSON (an integer of thousands of
digits, half of a surrogate pair, nesting as deep as the stack), and there the standard library
reads the text again, so that only the event that holds such a thing is refused.
"""

import json
import re
from decimal import Decimal
from typing import Final, NoReturn, cast

import msgspec

from farebox.events.event import Json
from farebox.events.limits import DEPTH_MAX, EXPONENT_MAX, NUMBER_LENGTH_MAX

OUT_OF_RANGE: Final = Decimal("NaN")
"""Stands, by identity, where a number was written that no quantity can be; never in an Event."""

# Deeper than any event may lie in a batch, so that what is left is still seen to be too deep.
_DEPTH_KEPT = DEPTH_MAX + 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Possessive, and content with a string that never ends: each character is looked at once.
_STRING_OR_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]++|[\]}]++', re.DOTALL)


class NotJson(ValueError):
    """The text is not JSON; the message says where."""


class NotUtf8(NotJson):
    """The bytes are not UTF-8."""


def decode_json(body: bytes) -> Json:
    """Read one JSON value; raises NotJson or NotUtf8.

    Of a key given twice in one object the last one counts. Depth is not judged here: below
    `DEPTH_MAX` and a margin, arrays and objects may be cut off and read as null.
    """
    if body.startswith(_BYTE_ORDER_MARK):
        body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        return cast("Json", _DECODER.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_with_patience(body)


def _decode_with_patience(body: bytes) -> Json:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotUtf8(f"byte {error.start} is not UTF-8") from None
    try:
        return _standard_decode(text)
    except RecursionError:
        return _decode_deep(text)
    except ValueError as error:
        raise NotJson(str(error)) from None


def _decode_deep(text: str) -> Json:
    try:
        return _standard_decode(_cut_deep_parts(text))
    except ValueError:  # its place in the cut text would mislead
        raise NotJson("is nested very deeply, and does not close what it opens") from None


def _standard_decode(text: str) -> Json:
    value = json.loads(text, parse_int=_integer, parse_float=_decimal, parse_constant=_refuse)
    return cast("Json", value)


def _cut_deep_parts(text: str) -> str:
    """Write null for every array and object that lies too deep, in one pass over the text."""
    kept: list[str] = []
    depth = resume = 0
    for token in _STRING_OR_BRACKETS.finditer(text):
        first, length = text[token.start()], token.end() - token.start()
        if first in "[{":
            if depth <= _DEPTH_KEPT < depth + length:
                kept.append(text[resume : token.start() + _DEPTH_KEPT - depth])
                resume = len(text)
            depth += length
        elif first in "]}":
            if depth - length <= _DEPTH_KEPT < depth:
                kept.append("null")
                resume = token.start() + depth - _DEPTH_KEPT
            depth -= length
    kept.append(text[resume:])
    return "".join(kept)


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_LENGTH_MAX:
        return OUT_OF_RANGE
    _, _, exponent = text.replace("E", "e").partition("e")
    if exponent and abs(int(exponent)) > EXPONENT_MAX:
        return OUT_OF_RANGE
    return Decimal(text)


def _integer(text: str) -> int | Decimal:
    return OUT_OF_RANGE if len(text) > NUMBER_LENGTH_MAX else int(text)


def _refuse(constant: str) -> NoReturn:
    raise NotJson(f"{constant} is not JSON")


_DECODER = msgspec.json.Decoder(float_hook=_decimal)
