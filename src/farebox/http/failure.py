"""Whatever ends a request early, as a problem: refusals, the framework's own, and our bugs."""

import re
from collections.abc import Mapping
from uuid import UUID

import psycopg
import structlog
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import ClientException

from farebox.access.id import Prefix, encode_id
from farebox.events.refusal import RequestCode, pointer_to
from farebox.http.code import HttpCode
from farebox.http.problem import FieldError, ProblemDetails, Refused, problem_details
from farebox.intake.overload import Overloaded
from farebox.period.clock import BELIEVED_AFTER, ClockJumped

_RETRY = {"Retry-After": "1"}
_LATER = {"Retry-After": str(int(BELIEVED_AFTER.total_seconds()))}
_MISSING = re.compile(r"Missing required \w+ parameter '([^']+)'")
_log = structlog.get_logger("farebox.http")

Failure = tuple[ProblemDetails, Mapping[str, str]]


def describe_failure(error: Exception, request_id: UUID) -> Failure:
    """Return the problem and headers for what was raised; a bug is logged under `request_id`."""
    match error:
        case Refused():
            return error.problem, error.headers
        case Overloaded():
            detail = "more events wait than are let in; send again in a moment"
            return problem_details(HttpCode.OVERLOADED, detail), _RETRY
        case psycopg.OperationalError():
            _log.warning("database_unavailable", error=str(error))
            detail = "the database does not answer; nothing is known to be stored, send again"
            return problem_details(HttpCode.DATABASE_UNAVAILABLE, detail), _RETRY
        case ClockJumped():
            _log.error("clock_jumped", ahead=str(error.ahead))
            detail = f"{error}; nothing is decided or dated until that is believed"
            return problem_details(HttpCode.CLOCK_JUMPED, detail), _LATER
        case HTTPException():
            return _framework(error)
        case _:
            shown = encode_id(Prefix.REQUEST, request_id)
            _log.error("internal", request=shown, exc_info=error)
            detail = f"a fault of Farebox, logged as {shown}; what was asked may be repeated"
            return problem_details(HttpCode.INTERNAL, detail), {}


def _framework(error: HTTPException) -> Failure:
    headers = dict(error.headers or {})
    match error:
        case NotFoundException():
            return problem_details(HttpCode.NOT_FOUND, "there is nothing at this path"), headers
        case MethodNotAllowedException():
            detail = "this path has other methods, see Allow"
            return problem_details(HttpCode.METHOD_NOT_ALLOWED, detail), headers
        case ValidationException():
            errors = _parameter_errors(error)
            detail = errors[0].message if errors else "a parameter is not what it should be"
            return problem_details(HttpCode.PARAMETER_INVALID, detail, errors), headers
        case HTTPException(status_code=413):
            return problem_details(RequestCode.BODY_TOO_LARGE, error.detail), headers
        case ClientException():
            return problem_details(HttpCode.PARAMETER_INVALID, error.detail), headers
        case _:
            problem = problem_details(HttpCode.INTERNAL, error.detail, status=error.status_code)
            return problem, headers


def _parameter_errors(error: ValidationException) -> list[FieldError]:
    missing = _MISSING.match(error.detail)
    if missing is not None:
        message = f"the parameter `{missing[1]}` is required"
        return [FieldError(HttpCode.PARAMETER_INVALID, pointer_to([missing[1]]), message)]
    return [
        FieldError(HttpCode.PARAMETER_INVALID, pointer_to([one["key"]]), one["message"])
        for one in (error.extra if isinstance(error.extra, list) else ())
        if isinstance(one, dict) and "key" in one and "message" in one
    ]
