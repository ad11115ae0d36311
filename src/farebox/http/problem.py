"""Refusals on the wire: problem details (RFC 9457) with a stable code and the fields at fault."""

from collections.abc import Mapping, Sequence

from litestar import Response
from msgspec import Struct

from farebox.catalog.plain_json import encode
from farebox.catalog.problem import Problem
from farebox.http.code import status_of

MEDIA_TYPE = "application/problem+json"


class FieldError(Struct, frozen=True):
    """One fault: its code, the JSON pointer into what was sent, and a sentence that helps."""

    code: str
    pointer: str
    message: str


class ProblemDetails(Struct, frozen=True):
    """Why a request was refused; `code` is for programs, `detail` and `errors` say what helps."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: Sequence[FieldError] = ()


class Refused(Exception):
    """Ends a request with a problem; raised in routes and guards only, answered in app.py."""

    def __init__(self, problem: ProblemDetails, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.code)
        self.problem = problem
        self.headers = dict(headers or {})


def problem_details(
    code: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    *,
    status: int | None = None,
) -> ProblemDetails:
    """Describe a refusal; the status is that of the code unless given."""
    return ProblemDetails(
        type=f"/docs/problems#{code}",
        title=code.replace("_", " ").capitalize(),
        status=status_of(code) if status is None else status,
        detail=detail,
        code=str(code),
        errors=errors,
    )


def refused(
    code: str,
    detail: str,
    *,
    pointer: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refused:
    """Return the exception to raise; with a pointer the field is named in `errors` too."""
    errors = () if pointer is None else (FieldError(str(code), pointer, detail),)
    return Refused(problem_details(code, detail, errors), headers)


def refused_for(problems: Sequence[Problem]) -> Refused:
    """Return the exception for all that is wrong at once; its own code is that of the first."""
    assert problems
    first = problems[0]
    errors = [FieldError(one.code.value, one.pointer, one.message) for one in problems]
    detail = first.message
    if len(errors) > 1:
        detail += f" (and {len(errors) - 1} more, see errors)"
    return Refused(problem_details(first.code, detail, errors))


def problem_response(
    problem: ProblemDetails, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Return the answer that carries a problem."""
    return Response(
        content=encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=dict(headers or {}),
    )
