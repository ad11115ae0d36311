"""Identifiers: UUIDs that sort by time, and how they look on the wire.

On the wire an id is a prefix that names its kind and the UUID in 26 characters of Crockford's
base 32, as TypeID 0.3 has it: `cus_01jbsqz4e2e0rv8h9yj0fn5c7k`. The text sorts as the UUID does.
"""

from enum import StrEnum
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_LENGTH = 26
_DIGITS_MAX = 18
RANDOM_BYTES = 10


class Prefix(StrEnum):
    """The kinds of objects that have an id of their own."""

    ORGANIZATION = "org"
    API_KEY = "key"
    METER = "met"
    FEATURE = "fea"
    PLAN = "pln"
    RATE_CARD = "rat"
    PARTNER = "par"
    CUSTOMER = "cus"
    SUBSCRIPTION = "sub"
    INVOICE = "inv"
    LINE = "lin"
    BILLING_RUN = "run"
    IMPORT = "imp"
    BACKFILL = "bkf"
    POOL = "pol"
    GRANT = "grt"
    DRAW = "drw"
    HOLD = "hld"
    NOTICE = "ntc"
    DELIVERY = "dlv"
    ALERT = "alt"
    REQUEST = "req"


def uuidv7(milliseconds: int, random: bytes) -> UUID:
    """Return a version 7 UUID (RFC 9562, section 5.7) of Unix `milliseconds` and 10 random bytes.

    Six of the 80 random bits give way to version and variant.
    """
    assert 0 <= milliseconds < 1 << 48, milliseconds
    assert len(random) == RANDOM_BYTES, len(random)
    value = (milliseconds << 80) | int.from_bytes(random)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=value)


def encode_id(prefix: Prefix, value: UUID) -> str:
    """Return the id as it goes over the wire."""
    number = value.int
    letters = [_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(letters)}"


def decode_id(prefix: Prefix, text: str) -> UUID | None:
    """Return the UUID of a wire id of this kind; none for any other text.

    Strict, so that an id has one spelling: lower case, no look-alikes, nothing above 2^128.
    """
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != _LENGTH or not set(tail) <= _VALUES.keys():
        return None
    number = 0
    for letter in tail:
        number = number << 5 | _VALUES[letter]
    return UUID(int=number) if number < 1 << 128 else None


def encode_numbered(prefix: Prefix, value: UUID, number: int) -> str:
    """Return the id of the `number`-th thing of what `value` identifies (`drw_..._17`)."""
    return f"{encode_id(prefix, value)}_{number}"


def decode_numbered(prefix: Prefix, text: str) -> tuple[UUID, int] | None:
    """Return what `encode_numbered` was given; none for any other text."""
    head, _, tail = text.rpartition("_")
    value = decode_id(prefix, head)
    if value is None or not tail.isascii() or not tail.isdigit() or len(tail) > _DIGITS_MAX:
        return None
    number = int(tail)
    return (value, number) if number and str(number) == tail else None
