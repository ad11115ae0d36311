"""What the API's description says of a route, written beside it, with examples that are tests."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

OPERATION = "operation"
"""The name under which a route handler's `opt` holds its description."""


class Example(Struct, frozen=True, kw_only=True):
    """One request and its answer, both real: the tests send it and compare.

    path: with the query, as sent. body: JSON, or text for another `content_type`. answer: JSON;
    ids, times, digests and keys in it stand for any other.
    """

    path: str
    body: Any = None
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"
    status: int = 200
    answer: Any = None


class Operation(Struct, frozen=True, kw_only=True):
    """A route as the description shows it.

    summary: a sentence without its full stop. request, answer: the types of the bodies.
    answer_type: the media type of the answer. codes: the refusals that are its own, besides those
    any route may give.
    """

    summary: str
    request: Any = None
    answer: Any = None
    answer_type: str = "application/json"
    status: int = 200
    request_types: Sequence[str] = ("application/json",)
    codes: Sequence[str] = ()
    examples: Sequence[Example] = ()
    description: str = ""


def describe(
    summary: str,
    *,
    request: Any = None,
    answer: Any = None,
    answer_type: str = "application/json",
    status: int = 200,
    codes: Sequence[str] = (),
    examples: Sequence[Example] = (),
    description: str = "",
    request_types: Sequence[str] = ("application/json",),
) -> dict[str, Any]:
    """Return the `opt` of a route handler."""
    operation = Operation(
        summary=summary,
        request=request,
        answer=answer,
        answer_type=answer_type,
        status=status,
        codes=codes,
        examples=examples,
        description=description,
        request_types=request_types,
    )
    return {OPERATION: operation}
