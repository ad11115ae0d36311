"""The event: one thing that was used, by whom and when, with what it carried."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias

from msgspec import Struct

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | Decimal | bool | None"
"""A JSON value: whole numbers as int, every other number as the Decimal that was written."""

Extension: TypeAlias = str | int | bool
NO_EXTENSIONS: Final[Mapping[str, Extension]] = MappingProxyType({})


class Event(Struct, frozen=True, gc=False):
    """A CloudEvent 1.0, its attributes checked.

    `time` is in UTC to the microsecond: finer digits are cut, and a time sent without an offset
    was taken as UTC. None where the sender gave no time. `data_base64` holds, as base64 text,
    data that is neither JSON nor text; then `data` is None.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    data: Json = None
    extensions: Mapping[str, Extension] = NO_EXTENSIONS
    datacontenttype: str | None = None
    dataschema: str | None = None
    data_base64: str | None = None
    specversion: str = "1.0"
