"""Which events a meter takes: a CEL expression, and a memory of what it answered before."""

import re
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any

import cel

from farebox.catalog.path import MISSING, Data, Fault

TEXT_LENGTH_MAX = 1000
MEMORY_SIZE_MAX = 4096
MEMORY_TEXT_LENGTH_MAX = 256

_VARIABLES = frozenset({"data", "type", "source", "subject"})
_TYPE_NAMES = frozenset(
    {"int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type"}
)
_FUNCTIONS = frozenset(
    {"size", "int", "uint", "double", "string", "bytes", "dyn", "type", "duration", "timestamp"}
)
_METHODS = frozenset({"startsWith", "endsWith", "contains", "matches", "size"})
_TIME_METHODS = frozenset(
    {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
_BOUND_NAME = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)")
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\")"
    r"|(?P<number>\d[\w.]*)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>&&|\|\||[=!<>]=|/(?!/)|[-+*%!<>?:,.()\[\]]))",  # not //: a comment
    re.ASCII,
)


class FilterCode(StrEnum):
    """Why a filter gave neither yes nor no, in order of precedence."""

    FILTER_FAILED = "filter_failed"
    FILTER_NOT_BOOLEAN = "filter_not_boolean"


Verdict = bool | FilterCode

Filter = Callable[[Data, str, str, str], Verdict]
"""From an event's data, type, source and subject ("" when absent) to a verdict."""


def compile_filter(text: str) -> Filter | Fault:
    """Compile a CEL expression over `data`, `type`, `source` and `subject`.

    The library computes in binary floating point, which is fine to tell events apart; a
    quantity never passes through it. A field that is absent makes the filter false (unless
    `||` or `has` decides without it); an operation that its types do not allow is
    FILTER_FAILED. Answers are remembered where only known fields are read, because one
    evaluation costs 8 to 12 microseconds.
    """
    program = compile_program(text)
    if isinstance(program, Fault):
        return program
    reads = fields_read(text)
    return _plain(program) if reads is None else _remembered(program, reads)


def compile_program(text: str) -> cel.Program | Fault:
    """Compile without memory: the meaning that `compile_filter` must keep."""
    if len(text) > TEXT_LENGTH_MAX:
        return Fault(TEXT_LENGTH_MAX, f"a filter has at most {TEXT_LENGTH_MAX} characters")
    try:
        program = cel.compile(text)
    except ValueError as error:
        position = re.search(r"<input>:\d+:(\d+)", str(error))
        return Fault(int(position[1]) - 1 if position else 0, f"not a CEL expression: {error}")
    bound = set(_BOUND_NAME.findall(text))
    for name in program.variables():
        if name not in _VARIABLES | _TYPE_NAMES | bound:
            return Fault(max(text.find(name), 0), f"unknown name {name}; fields are data.{name}")
    for name in program.functions():
        if name.isidentifier() and name not in _FUNCTIONS | _METHODS | _TIME_METHODS:
            return Fault(max(text.find(name), 0), f"unknown function {name}")
    # Without any field only a constant gives an answer, and a constant shows its type.
    if evaluate(program, {}, "", "", "") is FilterCode.FILTER_NOT_BOOLEAN:
        return Fault(0, "a filter is true or false")
    return program


def evaluate(
    program: cel.Program, data: Data, event_type: str, source: str, subject: str
) -> Verdict:
    """Evaluate a program on one event, without memory."""
    context = {"data": data, "type": event_type, "source": source, "subject": subject}
    try:
        answer = program.execute(context)
    except LookupError:  # an absent key, an index past the end
        return False
    except Exception:  # the library names every other failure as it likes
        return FilterCode.FILTER_FAILED
    return answer if isinstance(answer, bool) else FilterCode.FILTER_NOT_BOOLEAN


def _plain(program: cel.Program) -> Filter:
    def accepts(data: Data, event_type: str, source: str, subject: str) -> Verdict:
        return evaluate(program, data, event_type, source, subject)

    return accepts


def _remembered(program: cel.Program, reads: tuple[tuple[str, ...], ...]) -> Filter:
    chains = tuple(keys[1:] for keys in reads if keys[0] == "data")
    names = tuple(keys[0] for keys in chains if len(keys) == 1)
    nested = tuple(keys for keys in chains if len(keys) > 1)
    reads_type, reads_source, reads_subject = (
        (name,) in reads for name in ("type", "source", "subject")
    )
    memory: dict[tuple[Any, ...], Verdict] = {}

    def accepts(data: Data, event_type: str, source: str, subject: str) -> Verdict:
        key: list[Any] = []
        for name in names:
            value = data.get(name, MISSING)
            kind = type(value)
            if kind in _UNKEYED or (kind is str and len(value) > MEMORY_TEXT_LENGTH_MAX):
                return evaluate(program, data, event_type, source, subject)
            # The type tells 1 from true; the digits tell 0 from minus 0.
            key += (kind, str(value) if kind is Decimal else value)
        for chain in nested:
            kind, value = _key_part(data, chain)
            if kind in _UNKEYED:
                return evaluate(program, data, event_type, source, subject)
            key += (kind, value)
        if reads_type:
            key.append(event_type)
        if reads_source:
            key.append(source)
        if reads_subject:
            key.append(subject)
        found = tuple(key)
        verdict = memory.get(found)
        if verdict is None:
            if len(memory) >= MEMORY_SIZE_MAX:
                memory.clear()
            verdict = memory[found] = evaluate(program, data, event_type, source, subject)
        return verdict

    return accepts


_UNKEYED = frozenset({dict, list})


def _key_part(data: Any, chain: tuple[str, ...]) -> tuple[type, Any]:
    """Return type and value at the chain; `dict` as type where the memory cannot be used."""
    for name in chain:
        if type(data) is not dict:
            # Reading a member of a scalar fails in ways of its own.
            return dict, None
        data = data.get(name, MISSING)
        if data is MISSING:
            return type(MISSING), MISSING
    kind = type(data)
    if kind is str and len(data) > MEMORY_TEXT_LENGTH_MAX:
        return dict, None
    return kind, str(data) if kind is Decimal else data


def fields_read(text: str) -> tuple[tuple[str, ...], ...] | None:
    """Return all that a CEL text reads, as ("data", "a", "b") or ("type",), if that is certain.

    None for anything beyond member chains, the attributes, plain operators, list literals and
    the functions of scalars: indexing, macros, comments and raw or triple-quoted texts.
    """
    tokens = _tokens(text)
    if tokens is None:
        return None
    reads: set[tuple[str, ...]] = set()
    index = 0
    while index < len(tokens):
        kind, token = tokens[index]
        before = tokens[index - 1] if index else ("sign", "(")
        if kind == "name":
            after = _read_name(tokens, index, before[1], reads)
            if after is None:
                return None
            index = after
            continue
        if not _is_plain(kind, token, before):
            return None
        index += 1
    return tuple(sorted(reads))


def _is_plain(kind: str, token: str, before: tuple[str, str]) -> bool:
    """Whether a token that is no name means what it seems to, after the token `before`."""
    follows_value = before[1] in {")", "]"} or (before[0] != "sign" and before[1] != "in")
    match kind, token:
        case "text", _:  # after a value it is raw (r"") or triple-quoted
            return not follows_value
        case "sign", "[":  # after a value it is an index
            return not follows_value
        case "sign", ".":  # before any value it is a rooted name
            return follows_value
        case _:
            return True


def _tokens(text: str) -> list[tuple[str, str]] | None:
    tokens = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            return None
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


def _read_name(
    tokens: list[tuple[str, str]], index: int, before: str, reads: set[tuple[str, ...]]
) -> int | None:
    """Take the name at `index` and what belongs to it; return the next index, None if unsure."""
    name = tokens[index][1]
    called = _sign_at(tokens, index + 1) == "("
    if before == ".":
        return index + 1 if called and name in _METHODS else None
    if called and name in _FUNCTIONS:
        return index + 1
    if name in {"true", "false", "null", "in"}:
        return index + 1
    if name not in _VARIABLES or called:
        return None
    keys = [name]
    index += 1
    while name == "data" and _sign_at(tokens, index) == "." and _is_member(tokens, index + 1):
        keys.append(tokens[index + 1][1])
        index += 2
    if keys == ["data"]:
        return None
    reads.add(tuple(keys))
    return index


def _is_member(tokens: list[tuple[str, str]], index: int) -> bool:
    named = index < len(tokens) and tokens[index][0] == "name"
    return named and _sign_at(tokens, index + 1) != "("


def _sign_at(tokens: list[tuple[str, str]], index: int) -> str:
    return tokens[index][1] if index < len(tokens) and tokens[index][0] == "sign" else ""
