"""One row of a file into an event: values converted exactly, the first fault named."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import UNSET, Struct

from farebox.catalog.path import MISSING
from farebox.cli.reading.mapping import (
    CLOUDEVENTS,
    FileMapping,
    Member,
    Time,
    ValueType,
    members_of,
    time_of,
)
from farebox.events.event import Event
from farebox.events.json_text import NotJson, decode_json
from farebox.events.limits import EXPONENT_MAX, NUMBER_LENGTH_MAX
from farebox.events.read import read_event
from farebox.events.refusal import Rejection

_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([-+]?[0-9]{1,4}))?", re.ASCII)
_SECONDS = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "n", "f", "0"), False),
}


class RowCode(StrEnum):
    """Why a row is no event, in order of precedence; then come the codes of events."""

    ROW_TOO_LARGE = "row_too_large"
    ROW_MALFORMED = "row_malformed"
    NOT_TEXT = "not_text"
    NOT_AN_INTEGER = "not_an_integer"
    NOT_A_NUMBER = "not_a_number"
    NOT_A_BOOLEAN = "not_a_boolean"
    NOT_JSON = "not_json"
    TIME_UNREADABLE = "time_unreadable"


class RowFault(Struct, frozen=True):
    """What is wrong with a row, and where in the event it would be."""

    code: RowCode
    message: str
    pointer: str = ""


_WRONG = {
    ValueType.TEXT: RowCode.NOT_TEXT,
    ValueType.INTEGER: RowCode.NOT_AN_INTEGER,
    ValueType.NUMBER: RowCode.NOT_A_NUMBER,
    ValueType.BOOLEAN: RowCode.NOT_A_BOOLEAN,
    ValueType.JSON: RowCode.NOT_JSON,
}


class RowReader:
    """Makes the events of one import."""

    def __init__(self, mapping: FileMapping, name: str) -> None:
        self._name = name
        self._whole = mapping.events == CLOUDEVENTS
        self._members = members_of(mapping)
        self._time = time_of(mapping)
        self._zone = None if self._time is None else ZoneInfo(self._time.timezone)

    def read(self, row: int, values: Mapping[str, Any]) -> Event | Rejection:
        """Return the event of a row, or why it is none; an empty cell is left out."""
        if self._whole:
            return read_event(row, dict(values))
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"{self._name}:{row}",
            "source": f"import/{self._name}",
        }
        data: dict[str, Any] = {}
        for member in self._members:
            found = _value(member, values)
            if isinstance(found, RowFault):
                return Rejection(row, found.code, found.pointer, found.message)
            attribute = not member.pointer.startswith("/data/")
            if found is not None:
                (event if attribute else data)[member.name] = found
            elif attribute:
                # An id that is missing must be told, not replaced by another one.
                event.pop(member.name, None)
        if self._time is not None and self._zone is not None:
            when = _time(self._time, self._zone, values.get(self._time.column))
            if isinstance(when, RowFault):
                return Rejection(row, when.code, when.pointer, when.message)
            event["time"] = when
        event["data"] = data
        return read_event(row, event)


def _value(member: Member, values: Mapping[str, Any]) -> Any:
    value = member.value
    if value.constant is not UNSET:
        return value.constant
    assert value.column is not None, "read_mapping requires a column or a constant"
    found = values.get(value.column) if member.read is None else member.read(values)
    if found is None or found is MISSING or found == "":
        return None
    if not member.pointer.startswith("/data/"):
        converted = _text(found)
        kind = ValueType.TEXT
    elif value.type is None:
        return found
    else:
        kind = value.type
        converted = _CONVERT[kind](found)
    if converted is None:
        message = f"column {value.column!r} holds no {kind}"
        return RowFault(_WRONG[kind], message, member.pointer)
    return converted


def _text(value: Any) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case _:
            return None


def _integer(value: Any) -> int | None:
    number = _number(value)
    if number is None or isinstance(number, int):
        return number
    # Compared by its digits: 1e100 is whole, and short to write.
    return int(number) if number == number.to_integral_value() else None


def _number(value: Any) -> int | Decimal | None:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or len(value) > NUMBER_LENGTH_MAX:
        return None
    text = value.strip()
    match = _NUMBER.fullmatch(text)
    if match is None or abs(int(match[1] or 0)) > EXPONENT_MAX:
        return None
    return int(text) if _INTEGER.fullmatch(text) else Decimal(text)


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return _BOOLEANS.get(str(value).strip().lower()) if isinstance(value, (str, int)) else None


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return decode_json(value.encode())
    except (NotJson, UnicodeEncodeError):
        return None


_CONVERT = {
    ValueType.TEXT: _text,
    ValueType.INTEGER: _integer,
    ValueType.NUMBER: _number,
    ValueType.BOOLEAN: _boolean,
    ValueType.JSON: _json,
}


def _time(how: Time, zone: ZoneInfo, value: Any) -> str | RowFault | None:
    """Return the time as RFC 3339 text in UTC; None where the cell is empty."""
    if value is None or value == "":
        return None
    try:
        found = _instant(how, value)
        if found is not None:
            aware = found if found.tzinfo else found.replace(tzinfo=zone)
            return aware.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):  # no such day, or outside the calendar
        found = None
    message = f"column {how.column!r} holds no time of the format {how.format!r}"
    return RowFault(RowCode.TIME_UNREADABLE, message, "/time")


def _instant(how: Time, value: Any) -> datetime | None:
    match value, how.format:
        case datetime(), _:
            return value
        case date(), _:
            return datetime.combine(value, time())
        case ((str() | int() | Decimal()), "unix" | "unix_ms"):
            text = str(value).strip()
            if isinstance(value, bool) or _SECONDS.fullmatch(text) is None:
                return None
            scale = 1_000_000 if how.format == "unix" else 1_000
            return _EPOCH + timedelta(microseconds=int(Decimal(text) * scale))
        case str(), "iso":
            return datetime.fromisoformat(value.strip())
        case str(), _:
            return datetime.strptime(value.strip(), how.format)  # noqa: DTZ007 - the zone follows
        case _:
            return None
