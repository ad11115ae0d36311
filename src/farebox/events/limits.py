"""How much one request and one event may carry."""

from msgspec import Struct


class Limits(Struct, frozen=True):
    """`event_bytes_max` counts the event in its canonical form, so that spaces are free."""

    body_bytes_max: int = 8 * 1024 * 1024
    events_max: int = 10_000
    event_bytes_max: int = 64 * 1024


DEFAULT_LIMITS = Limits()

ID_LENGTH_MAX = 256
SOURCE_LENGTH_MAX = 512
TYPE_LENGTH_MAX = 256
SUBJECT_LENGTH_MAX = 256
EXTENSION_NAME_LENGTH_MAX = 64
DEPTH_MAX = 64
"""Levels of arrays and objects in `data`."""
NUMBER_LENGTH_MAX = 100
"""Characters in which a number may be written."""
EXPONENT_MAX = 100
"""Absolute value of a written exponent."""
