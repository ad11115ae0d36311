"""The mapping: which column of a file becomes which part of an event."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import UNSET, Struct

from farebox.catalog.path import Fault, PathReader, compile_path
from farebox.catalog.yaml_text import TextFault, escape_pointer, read_yaml

Format = Literal["csv", "jsonl", "parquet"]
CLOUDEVENTS = "cloudevents"


class ValueType(StrEnum):
    """What a column holds; without a type it is taken as it stands (CSV: as text)."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    JSON = "json"


class Value(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a value comes from: a column of the file, or a constant, the same in every row.

    column: a name, or for nested JSON and Parquet a JSONPath (`$.usage.tokens`).
    """

    column: str | None = None
    constant: Any = UNSET
    type: ValueType | None = None


class Time(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When it was used.

    format: `iso` (RFC 3339 or ISO 8601), `unix` (seconds), `unix_ms`, or a strptime pattern
        (`%d.%m.%Y %H:%M:%S`).
    timezone: an IANA name, for times that name no offset; an hour that occurs twice is its first.
    """

    column: str
    format: str = "iso"
    timezone: str = "UTC"


class Csv(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a CSV file is written."""

    delimiter: str = ","
    encoding: str = "utf-8"


class FileMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows become CloudEvents; a bare text in place of a Value is a column.

    events: `cloudevents` where each JSON line is an event already; then nothing else is mapped.
    id: by default `<import name>:<row number>`; source: by default `import/<import name>`.
    """

    format: Format | None = None
    csv: Csv = Csv()
    events: Literal["cloudevents"] | None = None
    type: str | Value | None = None
    id: str | Value | None = None
    source: str | Value | None = None
    subject: str | Value | None = None
    time: str | Time | None = None
    data: Mapping[str, str | Value] = {}


class MappingFault(Struct, frozen=True):
    """What is wrong with a mapping, where (a JSON pointer), and on which line of its text."""

    message: str
    pointer: str
    line: int


class Member(Struct, frozen=True):
    """One part of an event: its JSON pointer there, and where it comes from."""

    pointer: str
    name: str
    value: Value
    read: PathReader | None


def read_mapping(text: bytes) -> FileMapping | MappingFault:
    """Read a mapping from YAML or JSON; the first fault is the answer."""
    tree = read_yaml(text)
    if isinstance(tree, TextFault):
        return MappingFault(tree.message, tree.pointer, tree.line)
    try:
        mapping = msgspec.convert(tree.value, FileMapping)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        pointer = where.rstrip("`").removeprefix("$").replace(".", "/").replace("[...]", "")
        return MappingFault(message, pointer, tree.lines.get(pointer, 1))
    for pointer, message in _faults(mapping):
        return MappingFault(message, pointer, tree.lines.get(pointer, 1))
    return mapping


def _faults(mapping: FileMapping) -> Iterator[tuple[str, str]]:
    if mapping.events == CLOUDEVENTS:
        if mapping.format not in (None, "jsonl"):
            yield "/events", "only JSON lines can hold whole events"
        if any((mapping.type, mapping.id, mapping.source, mapping.time, mapping.data)):
            yield "/events", "whole events need no other mapping"
        return
    if mapping.type is None:
        yield "/type", "is required: the column of the event type, or {constant: ...}"
    for member in members_of(mapping):
        yield from _value_faults(member)
    if isinstance(mapping.time, Time) and not _is_timezone(mapping.time.timezone):
        yield "/time/timezone", f"{mapping.time.timezone!r} is no IANA time zone"
    if len(mapping.csv.delimiter) != 1 or mapping.csv.delimiter in '"\r\n':
        yield "/csv/delimiter", "is one character, not a quote or an end of line"
    try:
        plain = "\n".encode(mapping.csv.encoding) == b"\n"
    except LookupError:
        plain = False
    if not plain:  # lines are told apart before they are decoded
        yield "/csv/encoding", f"{mapping.csv.encoding!r} is no encoding that extends ASCII"


def _value_faults(member: Member) -> Iterator[tuple[str, str]]:
    value = member.value
    if (value.column is None) == (value.constant is UNSET):
        yield member.pointer, "names either a column or a constant"
    elif value.column is not None and value.column.startswith("$."):
        found = compile_path(value.column)
        if isinstance(found, Fault):
            yield member.pointer, f"{value.column!r} is no JSONPath: {found.message}"


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def members_of(mapping: FileMapping) -> list[Member]:
    """Return the parts of an event that are mapped, but its time: attributes, then data."""
    attributes = [
        _member(f"/{name}", name, value)
        for name in ("id", "source", "type", "subject")
        if (value := getattr(mapping, name)) is not None
    ]
    data = [
        _member(f"/data/{escape_pointer(name)}", name, value)
        for name, value in mapping.data.items()
    ]
    return attributes + data


def _member(pointer: str, name: str, value: str | Value) -> Member:
    value = Value(column=value) if isinstance(value, str) else value
    read = compile_path(value.column) if value.column and value.column.startswith("$.") else None
    return Member(pointer, name, value, None if isinstance(read, Fault) else read)


def time_of(mapping: FileMapping) -> Time | None:
    """Return where the time comes from; None where every event is of the time of its receipt."""
    return Time(column=mapping.time) if isinstance(mapping.time, str) else mapping.time


def columns_of(mapping: FileMapping) -> frozenset[str] | None:
    """Return the columns that the mapping reads (of a JSONPath the first step); None: all."""
    if mapping.events == CLOUDEVENTS:
        return None
    named = [one.value.column for one in members_of(mapping) if one.value.column is not None]
    time = time_of(mapping)
    named += [] if time is None else [time.column]
    return frozenset(_first_step(name) for name in named)


def _first_step(column: str) -> str:
    return re.split(r"[.\[]", column[2:], maxsplit=1)[0] if column.startswith("$.") else column
