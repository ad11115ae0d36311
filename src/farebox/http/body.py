"""Bodies into values: exact numbers, every fault named by code and pointer, nothing guessed."""

from typing import Protocol, TypeVar, cast

from msgspec import Struct

from farebox.catalog.document import read_object, value_problems
from farebox.catalog.problem import Problem
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
    """Return the JSON object that a body holds; raises Refused."""
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
    return value


def read_as(members: dict[str, Json], kind: type[Value], at: str = "") -> Value:
    """Return the members of a JSON object as a value of this type; raises Refused.

    Numbers are kept digit by digit; those and times that Farebox cannot keep are refused. at: where
    in its body the object stands, as a JSON pointer.
    """
    value = read_object(members, kind, at)
    if isinstance(value, Problem):
        raise refused_for([value])
    problems = list(value_problems(value, at))
    if problems:
        raise refused_for(problems)
    return value


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
