"""Bodies into values: exact numbers, every fault named by code and pointer, nothing guessed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from json import JSONDecoder
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct

from farebox.catalog.code import CatalogCode
from farebox.catalog.document import read_object, value_problems
from farebox.catalog.number import is_numeral
from farebox.catalog.problem import Problem
from farebox.catalog.yaml_text import escape_pointer
from farebox.events.content import content_fault
from farebox.events.event import Json
from farebox.events.json_text import NotJson, NotUtf8, decode_json
from farebox.events.refusal import RequestCode
from farebox.http.code import HttpCode
from farebox.http.problem import refused, refused_for

Value = TypeVar("Value", bound=Struct)


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


def read_json(body: bytes) -> dict[str, Json]:
    """Return the JSON object that a body holds, no member in it given twice; raises Refused."""
    try:
        value = decode_json(body)
    except NotUtf8 as error:
        raise refused(RequestCode.NOT_UTF8, str(error)) from None
    except NotJson as error:
        raise refused(RequestCode.MALFORMED_JSON, str(error)) from None
    if not isinstance(value, dict):
        raise refused(RequestCode.MALFORMED_JSON, "the body is a JSON object")
    fault = content_fault(value)
    if fault is not None:
        raise refused_for([Problem(fault.code, fault.pointer, fault.message)])
    refuse_repeated(body)
    return value


def refuse_repeated(body: bytes) -> None:
    """Raise Refused where an object of a JSON text has a member twice: which one is meant?"""
    _PAIRS.decode(body.decode("utf-8-sig"))


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
    raise refused(RequestCode.MALFORMED_JSON, f"the member {name[:100]!r} is there twice")


# Numbers are passed over as text: how long one may be is not judged here.
_PAIRS = JSONDecoder(object_pairs_hook=_once, parse_float=str, parse_int=str)


def read_as(members: dict[str, Json], kind: type[Value], at: str = "") -> Value:
    """Return the members of a JSON object as a value of this type; raises Refused.

    Numbers are kept digit by digit; those and times that Farebox cannot keep are refused. at: where
    in its body the object stands, as a JSON pointer.
    """
    value = read_object(members, kind, at)
    if isinstance(value, Problem):
        raise refused_for([value])
    problems = [*_numeral_problems(members, value, at), *value_problems(value, at)]
    if problems:
        raise refused_for(problems)
    return value


def _numeral_problems(said: Any, value: object, pointer: str) -> Iterator[Problem]:
    """Yield every text that was taken for a finite number and is not written like one."""
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            if name in said:
                yield from _numeral_problems(said[name], getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, tuple | list):
        for index, (text, item) in enumerate(zip(said, value, strict=True)):
            yield from _numeral_problems(text, item, f"{pointer}/{index}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numeral_problems(said[key], item, f"{pointer}/{escape_pointer(key)}")
    elif isinstance(said, str) and isinstance(value, Decimal) and not is_numeral(said):
        message = 'a number in a text is written as in JSON, as "12.5" is'
        if value.is_finite():  # what is not is out of range
            yield Problem(CatalogCode.WRONG_TYPE, pointer, message)


def read_body(body: bytes, kind: type[Value]) -> Value:
    """Return a body as a value; an empty body is an empty object."""
    return read_as(read_json(body) if body.strip() else {}, kind)


def read_keyed(body: bytes, key: str, kind: type[Value]) -> Value:
    """Return a body as a value with the key of its path, which the body itself may leave out."""
    value = read_as({"key": key, **read_json(body)}, kind)
    said = cast("_Keyed", value).key
    if said != key:
        detail = f"the body says {said!r}, the path says {key!r}"
        raise refused(HttpCode.KEY_MISMATCH, detail, pointer="/key")
    return value
