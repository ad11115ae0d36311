"""YAML 1.2 (so JSON too) as plain values: exact numbers, no surprises, bounded in every way.

PyYAML reads YAML 1.1, where `NO` is false, `1:30` is 90 and `2026-01-01` is a date. Only its
event stream is used here; what a plain scalar means follows the core schema of YAML 1.2
(section 10.3.2), with decimal numbers only: octal, hexadecimal, `.inf` and `.nan` stay text.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import yaml
from msgspec import Struct

SIZE_MAX = 1 << 20
DEPTH_MAX = 64
VALUES_MAX = 200_000
NUMBER_LENGTH_MAX = 100

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?")
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.I)
_TEXT_TAG = "tag:yaml.org,2002:str"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TextFault(Struct, frozen=True):
    """Why the text cannot be read, the JSON pointer of the value, its line and column from 1."""

    message: str
    pointer: str
    line: int
    column: int


class Tree(Struct, frozen=True):
    """What the text says, and the line (from 1) on which each JSON pointer's value begins."""

    value: Any
    lines: Mapping[str, int]


class _Refused(Exception):
    """Ends the reading at `mark`; never leaves this module."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


class _Frame:
    """A mapping or sequence that is still open."""

    def __init__(self, value: dict[str, Any] | list[Any], pointer: str, anchor: str | None) -> None:
        self.value = value
        self.pointer = pointer
        self.anchor = anchor
        self.key: str | None = None
        self.size = 1


def escape_pointer(part: str) -> str:
    """Return `part` as one step of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")


def read_yaml(text: bytes) -> Tree | TextFault:
    """Return the one document in `text`; it must be UTF-8 and at most SIZE_MAX bytes."""
    if len(text) > SIZE_MAX:
        return TextFault(f"the text has more than {SIZE_MAX} bytes", "", 1, 1)
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        return TextFault("the text is not UTF-8", "", line, 1)
    builder = _Builder()
    try:
        # JSON writers escape what lies beyond U+FFFF as a surrogate pair; YAML knows \U only.
        for event in yaml.parse(_SURROGATES.sub(_joined, decoded), Loader=_LOADER):
            builder.take(event)
    except _Refused as refused:
        mark = refused.mark
        return TextFault(refused.message, builder.pointer(), mark.line + 1, mark.column + 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        parts = [part for part in (error.context, error.problem) if part]
        return TextFault(", ".join(parts), builder.pointer(), line, column)
    except yaml.YAMLError as error:
        return TextFault(str(error).splitlines()[0], builder.pointer(), 1, 1)
    if not builder.documents:
        return TextFault("the text is empty", "", 1, 1)
    return Tree(builder.root, builder.lines)


def _joined(match: re.Match[str]) -> str:
    high, low = int(match[2], 16), int(match[3], 16)
    return f"{match[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


class _Builder:
    """Builds the value from events with a stack of its own, so that depth costs no recursion."""

    def __init__(self) -> None:
        self.root: Any = None
        self.documents = 0
        self.lines: dict[str, int] = {}
        self._open: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def pointer(self) -> str:
        """Return where the reading stands."""
        return self._next_pointer() if self._open else ""

    def take(self, event: Any) -> None:
        """Advance by one event; raises _Refused."""
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _Refused("the text holds more than one document", event.start_mark)
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.AliasEvent():
                self._take_alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open_frame(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._open.pop()
                if frame.anchor:
                    self._anchors[frame.anchor] = (frame.value, frame.size)
                if self._open:
                    self._open[-1].size += frame.size

    def _open_frame(self, event: Any) -> None:
        if event.tag is not None:
            raise _Refused(f"the tag {event.tag} is not read", event.start_mark)
        if len(self._open) >= DEPTH_MAX:
            raise _Refused(f"more than {DEPTH_MAX} levels of nesting", event.start_mark)
        value: dict[str, Any] | list[Any]
        value = {} if isinstance(event, yaml.MappingStartEvent) else []
        frame = _Frame(value, self.pointer(), event.anchor)
        self._place(value, 1, event.start_mark)
        self._open.append(frame)

    def _take_scalar(self, event: Any) -> None:
        if event.tag not in (None, _TEXT_TAG):
            raise _Refused(f"the tag {event.tag} is not read", event.start_mark)
        text: str = event.value
        if "\0" in text:
            raise _Refused("a text may not hold the character U+0000", event.start_mark)
        frame = self._open[-1] if self._open else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            if text in frame.value:
                raise _Refused(f"the key {text!r} occurs twice", event.start_mark)
            frame.key = text
            return
        value = _plain(text, event.start_mark) if event.implicit[0] else text
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._place(value, 1, event.start_mark)
        if frame is not None:
            frame.size += 1

    def _take_alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise _Refused(f"*{event.anchor} names nothing that ended before", event.start_mark)
        value, size = self._anchors[event.anchor]
        self._place(value, size, event.start_mark)
        if self._open:
            self._open[-1].size += size

    def _place(self, value: Any, size: int, mark: Any) -> None:
        self._values += size
        if self._values > VALUES_MAX:
            raise _Refused(f"more than {VALUES_MAX} values, aliases counted in full", mark)
        self.lines[self.pointer()] = mark.line + 1
        if not self._open:
            self.root = value
            return
        frame = self._open[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is None:
            raise _Refused("a key must be a text", mark)
        else:
            frame.value[frame.key] = value
            frame.key = None

    def _next_pointer(self) -> str:
        frame = self._open[-1]
        if isinstance(frame.value, list):
            return f"{frame.pointer}/{len(frame.value)}"
        return (
            frame.pointer if frame.key is None else f"{frame.pointer}/{escape_pointer(frame.key)}"
        )


def _plain(text: str, mark: Any) -> str | int | Decimal | bool | None:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _DECIMAL.fullmatch(text) is None:
        return text
    if len(text) > NUMBER_LENGTH_MAX:
        raise _Refused(f"a number has more than {NUMBER_LENGTH_MAX} characters", mark)
    return int(text) if _INTEGER.fullmatch(text) else Decimal(text)
