"""The catalog as one YAML or JSON file: what is sold and to whom, to be read and applied."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct

from farebox.catalog.code import CatalogCode
from farebox.catalog.customer import Customer, Partner, Subscription
from farebox.catalog.meter import Alias, Meter
from farebox.catalog.number import NumberCode, within_limits
from farebox.catalog.plan import Feature, Plan, RateCard
from farebox.catalog.problem import Problem
from farebox.catalog.yaml_text import TextFault, escape_pointer, read_yaml

TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MAX = datetime(2200, 1, 1, tzinfo=UTC)


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole catalog or any part of it; what it does not mention stays as it is stored."""

    meters: tuple[Meter, ...] = ()
    features: tuple[Feature, ...] = ()
    aliases: tuple[Alias, ...] = ()
    rate_cards: tuple[RateCard, ...] = ()
    plans: tuple[Plan, ...] = ()
    partners: tuple[Partner, ...] = ()
    customers: tuple[Customer, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()


Object = TypeVar("Object", bound=Struct)

SECTIONS: Mapping[str, type[Struct]] = {
    field.name: get_args(field.type)[0] for field in msgspec.structs.fields(Document)
}
_LOCATION = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`")
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.([^.\[]+)")


def read_document(text: bytes) -> Document | list[Problem]:
    """Return the document, or the first fault of every object, its line in the message.

    Shape, types and the limits of numbers and times are checked here; what the objects say about
    each other is for `check_document`. A section with nothing in it is empty.
    """
    tree = read_yaml(text)
    if isinstance(tree, TextFault):
        place = f"line {tree.line}, column {tree.column}"
        return [Problem(CatalogCode.MALFORMED, tree.pointer, f"{tree.message} ({place})")]
    document, problems = _document_of(tree.value)
    return [_with_line(problem, tree.lines) for problem in problems] or document


def value_problems(value: object, pointer: str) -> Iterator[Problem]:
    """Yield every number and time inside `value` that Farebox cannot keep.

    Numbers: finite, below 10^20, at most 18 decimals. Times: with an offset, 1970 to 2199.
    """
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from value_problems(getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from value_problems(item, f"{pointer}/{index}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from value_problems(item, f"{pointer}/{escape_pointer(key)}")
    elif isinstance(value, Decimal):
        if isinstance(within_limits(value), NumberCode):
            message = "numbers are below 10^20 and have at most 18 decimals"
            yield Problem(CatalogCode.NUMBER_OUT_OF_RANGE, pointer, message)
    elif isinstance(value, datetime):
        yield from _time_problems(value, pointer)


def _time_problems(value: datetime, pointer: str) -> Iterator[Problem]:
    if value.tzinfo is None:
        message = f"{value.isoformat()} has no offset; write {value.isoformat()}Z for UTC"
        yield Problem(CatalogCode.OFFSET_MISSING, pointer, message)
    elif not TIME_MIN <= value < TIME_MAX:
        message = f"{value.isoformat()} is not between {TIME_MIN.year} and {TIME_MAX.year - 1}"
        yield Problem(CatalogCode.TIME_OUT_OF_RANGE, pointer, message)


def _document_of(tree: Any) -> tuple[Document, list[Problem]]:
    if not isinstance(tree, dict):
        message = f"a catalog is a mapping of {', '.join(SECTIONS)}"
        return Document(), [Problem(CatalogCode.MALFORMED, "", message)]
    problems: list[Problem] = []
    sections: dict[str, tuple[Struct, ...]] = {}
    for name, items in tree.items():
        pointer = f"/{escape_pointer(name)}"
        if name not in SECTIONS:
            message = f"there is no section {name!r}; there are {', '.join(SECTIONS)}"
            problems.append(Problem(CatalogCode.UNKNOWN_FIELD, pointer, message))
        elif not isinstance(items, list | None):
            problems.append(Problem(CatalogCode.WRONG_TYPE, pointer, "a section is a list"))
        else:
            objects = []
            for index, item in enumerate(items or ()):
                value = read_object(item, SECTIONS[name], f"{pointer}/{index}")
                if isinstance(value, Problem):
                    problems.append(value)
                else:
                    objects.append(value)
                    problems.extend(value_problems(value, f"{pointer}/{index}"))
            sections[name] = tuple(objects)
    return Document(**sections), problems  # type: ignore[arg-type]


def read_object(value: Any, kind: type[Object], pointer: str) -> Object | Problem:
    """Return decoded YAML or JSON as one object of the catalog, or what is wrong with it."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        return _problem_of(str(error), pointer)


def _problem_of(text: str, pointer: str) -> Problem:
    """Turn msgspec's sentence and path into a code and a JSON pointer."""
    location = _LOCATION.fullmatch(text)
    assert location is not None, text
    what = location["what"]
    for index, name in _STEP.findall(location["path"] or ""):
        if index == "...":
            break
        pointer += f"/{index or escape_pointer(name)}"
    fault = _FIELD.match(what)
    if fault is not None:
        known = fault["fault"] == "contains unknown"
        code = CatalogCode.UNKNOWN_FIELD if known else CatalogCode.MISSING_FIELD
        return Problem(code, f"{pointer}/{escape_pointer(fault['name'])}", what)
    return Problem(CatalogCode.WRONG_TYPE, pointer, what)


def _with_line(problem: Problem, lines: Mapping[str, int]) -> Problem:
    pointer = problem.pointer
    while pointer not in lines:
        pointer = pointer.rpartition("/")[0]
    return msgspec.structs.replace(problem, message=f"{problem.message} (line {lines[pointer]})")
