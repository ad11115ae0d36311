"""One event out of the members of a JSON object: every attribute checked, in a stated order.

All of it runs once for every event that is sent, so it is written to be cheap for one that is
well made: what is rare (extensions, data in base64, a refusal) has functions of its own.
"""

import re
from collections.abc import Mapping
from typing import cast

from farebox.events.content import content_fault
from farebox.events.data import read_body, read_data_base64
from farebox.events.event import NO_EXTENSIONS, Event, Extension, Json
from farebox.events.limits import (
    EXTENSION_NAME_LENGTH_MAX,
    ID_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
    SUBJECT_LENGTH_MAX,
    TYPE_LENGTH_MAX,
)
from farebox.events.refusal import EventCode, Fault, Rejection, pointer_to
from farebox.events.time import parse_time

SPECVERSION = "1.0"
ATTRIBUTES = frozenset(
    {
        *("specversion", "id", "source", "type", "subject", "time"),
        *("data", "data_base64", "datacontenttype", "dataschema"),
    }
)
"""The names that CloudEvents defines itself; every other member is an extension."""

_USUAL = frozenset({"specversion", "id", "source", "type", "subject", "time", "data"})
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f]")  # the null character has a code of its own
_EXTENSION_NAME = re.compile(f"[a-z0-9]{{1,{EXTENSION_NAME_LENGTH_MAX}}}", re.ASCII)


def read_event(index: int, value: Json, body: bytes | None = None) -> Event | Rejection:
    """Read an event from a JSON value, and its data from `body` where that came beside it.

    Numbers in `value` are int or Decimal. Never raises on what was sent: the first fault by the
    order of EventCode is the answer.
    """
    if not isinstance(value, dict):
        message = "an event is a JSON object"
        return Rejection(index, EventCode.NOT_AN_OBJECT, "", message)
    event = _read(value, body)
    if isinstance(event, Event):
        return event
    id_, source = _echo(value, "id", ID_LENGTH_MAX), _echo(value, "source", SOURCE_LENGTH_MAX)
    return Rejection(index, event.code, event.pointer, event.message, id_, source)


def _read(members: dict[str, Json], body: bytes | None) -> Event | Fault:
    get = members.get
    if get("specversion") != SPECVERSION:
        return Fault(EventCode.SPECVERSION_UNSUPPORTED, "/specversion", 'must be "1.0"')
    id_, source, type_, subject = get("id"), get("source"), get("type"), get("subject")
    usual = _are_usual_names(id_, source, type_, subject)
    if not usual and (fault := _name_fault(members)) is not None:
        return fault
    sent_time, time = get("time"), None
    if sent_time is not None:
        time = parse_time(sent_time) if isinstance(sent_time, str) else None
        if time is None:
            message = "must be a time by RFC 3339, like 2026-10-17T08:14:22.5Z"
            return Fault(EventCode.TIME_INVALID, "/time", message)
    data, data_base64 = get("data"), get("data_base64")
    if data_base64 is not None or body is not None:
        beside = read_data_base64(members) if body is None else read_body(members, body)
        if isinstance(beside, Fault):
            return beside
        data, data_base64 = beside
        members = {**members, "data": data, "data_base64": data_base64}
    extensions, content_type, schema = NO_EXTENSIONS, None, None
    if not _USUAL.issuperset(members):
        usual = False
        if (fault := _attribute_fault(members)) is not None:
            return fault
        content_type, schema = get("datacontenttype"), get("dataschema")
        extensions = _extensions(members)
    # Usual names were seen to be printable, so that only data is left to look through.
    if usual and isinstance(data, dict):
        fault = content_fault(data, ("data",))
    else:
        fault = content_fault(members)
    if fault is not None:
        return fault
    event = (id_, source, type_, subject, time, data, extensions, content_type, schema, data_base64)
    return Event(*event)  # type: ignore[arg-type]  # checked one by one above


def _are_usual_names(id_: Json, source: Json, type_: Json, subject: Json) -> bool:
    """Whether the names need no closer look: text of a usual length that can be printed."""
    return (
        isinstance(id_, str)
        and isinstance(source, str)
        and isinstance(type_, str)
        and 0 < len(id_) <= ID_LENGTH_MAX
        and 0 < len(source) <= SOURCE_LENGTH_MAX
        and 0 < len(type_) <= TYPE_LENGTH_MAX
        and isinstance(subject, str)
        and 0 < len(subject) <= SUBJECT_LENGTH_MAX
        and f"{id_}{source}{type_}{subject}".isprintable()
    )


def _extensions(members: dict[str, Json]) -> Mapping[str, Extension]:
    return {
        name: cast("Extension", value)
        for name, value in members.items()
        if name not in ATTRIBUTES and value is not None
    }


def _is_name(value: Json, length_max: int) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= length_max
        and (value.isprintable() or _CONTROL.search(value) is None)
    )


def _name_fault(members: dict[str, Json]) -> Fault | None:
    for name, missing, invalid, length_max in (
        ("id", EventCode.ID_MISSING, EventCode.ID_INVALID, ID_LENGTH_MAX),
        ("source", EventCode.SOURCE_MISSING, EventCode.SOURCE_INVALID, SOURCE_LENGTH_MAX),
        ("type", EventCode.TYPE_MISSING, EventCode.TYPE_INVALID, TYPE_LENGTH_MAX),
        ("subject", None, EventCode.SUBJECT_INVALID, SUBJECT_LENGTH_MAX),
    ):
        value = members.get(name)
        if value is None and missing is not None:
            return Fault(missing, f"/{name}", "is required")
        if value is not None and not _is_name(value, length_max):
            message = f"must be text of 1 to {length_max} characters, no control characters"
            return Fault(invalid, f"/{name}", message)
    return None


def _attribute_fault(members: dict[str, Json]) -> Fault | None:
    for name in ("datacontenttype", "dataschema"):
        value = members.get(name)
        if value is not None and not (isinstance(value, str) and value):
            return Fault(EventCode.ATTRIBUTE_INVALID, f"/{name}", "must be text, not empty")
    for name, value in members.items():
        if name in ATTRIBUTES:
            continue
        if _EXTENSION_NAME.fullmatch(name) is None:
            message = (
                "the name of an extension is 1 to "
                f"{EXTENSION_NAME_LENGTH_MAX} lower-case letters and digits"
            )
            return Fault(EventCode.ATTRIBUTE_INVALID, pointer_to((name,)), message)
        if not (value is None or isinstance(value, (str, int))):
            message = "the value of an extension is text, a whole number or a boolean"
            return Fault(EventCode.ATTRIBUTE_INVALID, pointer_to((name,)), message)
    return None


def _echo(members: dict[str, Json], name: str, length_max: int) -> str | None:
    value = members.get(name)
    shown = isinstance(value, str) and len(value) <= length_max and value.isprintable()
    return cast("str", value) if shown else None
