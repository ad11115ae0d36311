"""Identifiers: UUIDs that sort by time, and how they look on the wire.

On the wire an id is a prefix that names its kind and the UUID in 26 characters of Crockford's
base 32, as TypeID 0.3 has it: `cus_01jbsqz4e2e0rv8h9yj0fn5c7k`. The text sorts as the UUID does.
"""

from enum import StrEnum
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_LENGTH = 26
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
