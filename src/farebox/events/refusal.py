"""Why a request or an event is not taken: stable codes, the field, and what would help."""

import re
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct


class RequestCode(StrEnum):
    """Reasons to refuse a whole request, in order of precedence. Nothing of it is stored."""

    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    BATCH_TOO_LARGE = "batch_too_large"


class EventCode(StrEnum):
    """Reasons to refuse one event, in order of precedence; the others of its batch are taken.

    The first two speak of a line of NDJSON; elsewhere the same fault refuses the request.
    """

    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    SPECVERSION_UNSUPPORTED = "specversion_unsupported"
    ID_MISSING = "id_missing"
    ID_INVALID = "id_invalid"
    SOURCE_MISSING = "source_missing"
    SOURCE_INVALID = "source_invalid"
    TYPE_MISSING = "type_missing"
    TYPE_INVALID = "type_invalid"
    SUBJECT_INVALID = "subject_invalid"
    TIME_INVALID = "time_invalid"
    DATA_NOT_JSON = "data_not_json"
    ATTRIBUTE_INVALID = "attribute_invalid"
    NULL_CHARACTER = "null_character"
    LONE_SURROGATE = "lone_surrogate"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    NESTED_TOO_DEEP = "nested_too_deep"
    EVENT_TOO_LARGE = "event_too_large"
    TIME_TOO_OLD = "time_too_old"
    TIME_IN_FUTURE = "time_in_future"


PRECEDENCE = {code: order for order, code in enumerate(EventCode)}


class Malformed(Struct, frozen=True):
    """A request that cannot be read as events."""

    code: RequestCode
    message: str


class Rejection(Struct, frozen=True):
    """One event that is not taken; `index` counts the events of its request from 0.

    `pointer` is a JSON pointer into the event, "" for the event itself. `id` and `source` are
    what the sender gave, where it gave text of a usable length, so that it finds its event.
    `code` is an EventCode at this door; later doors refuse with codes of their own.
    """

    index: int
    code: StrEnum
    pointer: str
    message: str
    id: str | None = None
    source: str | None = None


class Fault(Struct, frozen=True):
    """What is wrong with an event, before it is known where in its request it stood."""

    code: EventCode
    pointer: str
    message: str


_STEP_LENGTH_MAX = 128
_UNPRINTED = re.compile("[\x00\ud800-\udfff]")


def pointer_to(path: Iterable[str | int]) -> str:
    """Write a JSON pointer (RFC 6901) that can be stored and sent.

    Long names are cut, and a character that no text can keep is written as U+FFFD.
    """
    return "".join("/" + _step(str(step)) for step in path)


def _step(name: str) -> str:
    shown = _UNPRINTED.sub("\ufffd", name[:_STEP_LENGTH_MAX])
    return shown.replace("~", "~0").replace("/", "~1")
