"""JSONPath into event data, compiled once: the common paths are a dictionary look-up."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

TEXT_LENGTH_MAX = 256

Data = Mapping[str, Any]
"""Decoded JSON: text, int, Decimal, bool, None, list and dict; numbers are never float."""

Key = str | int


class Fault(Struct, frozen=True):
    """Why a text is not understood: where in it (from 0), and a sentence that helps."""

    position: int
    message: str


class Missing:
    """The type of MISSING: nothing stands at the path."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

PathReader = Callable[[Data], Any]
"""From event data to what stands at the path, or MISSING."""

_SEGMENT = re.compile(
    r"\.(?P<name>[^\W\d][\w-]*)|\['(?P<single>[^'\\]*)'\]|\[\"(?P<double>[^\"\\]*)\"\]"
    r"|\[(?P<index>-?\d{1,9})\]"
)


def compile_path(text: str) -> PathReader | Fault:
    """Compile a JSONPath (RFC 9535) that starts with `$`.

    Names and indexes (`$.a.b`, `$['a']`, `$.a[0]`) are read directly. Wildcards, slices,
    descendants and filters by equality (`$.items[?(@.kind=='seat')].count`) go through
    jsonpath-ng and give the first match; other operators are refused, because they compute
    in binary floating point or rewrite the data.
    """
    if len(text) > TEXT_LENGTH_MAX:
        return Fault(TEXT_LENGTH_MAX, f"a path has at most {TEXT_LENGTH_MAX} characters")
    if not text.startswith("$"):
        return Fault(0, "a path starts with $, as in $.usage.tokens")
    keys = simple_keys(text)
    return read_keys(keys) if keys else _compile_general(text)


def simple_keys(text: str) -> tuple[Key, ...] | None:
    """Return the names and indexes of a path made of nothing else; None for any other text."""
    keys: list[Key] = []
    position = 1
    while position < len(text):
        segment = _SEGMENT.match(text, position)
        if segment is None:
            return None
        found = segment[segment.lastgroup or 0]
        keys.append(int(found) if segment.lastgroup == "index" else found)
        position = segment.end()
    return tuple(keys)


def read_keys(keys: tuple[Key, ...]) -> PathReader:
    """Return the reader of a fixed chain of names and indexes."""
    match keys:
        case (str(first),):
            return lambda data: data.get(first, MISSING)
        case (str(first), str(second)):
            return _read_two(first, second)
        case _:
            return lambda data: _walk(data, keys)


def _read_two(first: str, second: str) -> PathReader:
    def read(data: Data) -> Any:
        inner = data.get(first)
        return inner.get(second, MISSING) if type(inner) is dict else MISSING

    return read


def _walk(data: Any, keys: tuple[Key, ...]) -> Any:
    for key in keys:
        if type(key) is str:
            if type(data) is not dict or key not in data:
                return MISSING
        elif type(data) is not list or not -len(data) <= key < len(data):  # type: ignore[operator]
            return MISSING
        data = data[key]
    return data


def _compile_general(text: str) -> PathReader | Fault:
    # Imported here: its parser tables cost start-up time that few catalogs need.
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    try:
        path = parse(text)
    except JSONPathError as error:
        return Fault(_position_in(str(error)), f"not a JSONPath: {error}")
    except Exception as error:  # its lexer and filters raise whatever went wrong inside
        return Fault(0, f"not a JSONPath: {error}")
    refused = _refused_node(path)
    if refused is not None:
        return Fault(0, f"{refused} is not supported in a path")

    def read(data: Data) -> Any:
        try:
            found = path.find(data)
        except RecursionError:
            return MISSING
        return found[0].value if found else MISSING

    return read


def _position_in(message: str) -> int:
    column = re.search(r"(?:col |at \d+:)(\d+)", message)
    return int(column[1]) if column else 0


def _refused_node(node: Any) -> str | None:
    """Return the name of the first operator that is not plain selection, if there is one."""
    from jsonpath_ng import jsonpath
    from jsonpath_ng.ext import filter as filters

    match node:
        case jsonpath.Child() | jsonpath.Descendants():
            return _refused_node(node.left) or _refused_node(node.right)
        case filters.And() | filters.Or():
            return next(filter(None, map(_refused_node, node.operands)), None)
        case filters.Filter():
            return next(filter(None, map(_refused_node, node.expressions)), None)
        case filters.Expression():
            # Ordering ignores Decimal in silence, =~ may run for ever, floats are not exact.
            fixed = node.value is None or type(node.value) in (str, int, bool)
            if node.op not in (None, "!", "=", "==", "!=") or not fixed:
                return "a comparison other than equality with a text, an integer or a boolean"
            return _refused_node(node.target)
        case (
            jsonpath.Root() | jsonpath.Fields() | jsonpath.Wildcard()
            | jsonpath.Index() | jsonpath.Slice()
        ):  # fmt: skip
            return None
        case jsonpath.This() if type(node) is jsonpath.This:
            return None
        case _:
            return type(node).__name__.lower()
