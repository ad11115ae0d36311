"""POST /v1/events, the hot path: a body in, one durable answer an event out.

It stands before the framework's router, so that an event pays for what it needs and no more.
Nothing is stored of a request that was cut short, and nothing is acknowledged that is not stored.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from farebox.access.key import Scope as KeyScope
from farebox.catalog.path import simple_keys
from farebox.events.admit import Admitted, admit
from farebox.events.answer import Answer, Outcome, answer_event, answer_rejection
from farebox.events.decode import BATCH, LENIENT, NDJSON, STRUCTURED, decode
from farebox.events.media_type import parse_media_type
from farebox.events.refusal import Malformed, Rejection, RequestCode, pointer_to
from farebox.flows.refuse_draw import POINTER, DrawRefusal
from farebox.http.authenticate import KeyMemory, Principal
from farebox.http.code import HttpCode
from farebox.http.operation import Example, Operation
from farebox.http.problem import (
    MEDIA_TYPE,
    FieldError,
    ProblemDetails,
    problem_details,
    refused,
)
from farebox.http.receive import JSON, principal_of, receive_body, send_content
from farebox.http.state import State
from farebox.metering.reading import ReadingRefusal

PATH = "/v1/events"


class BatchAnswer(Struct, frozen=True):
    """How many events of a request became what, and the answer to each, in its order."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    events: list[Answer]


_ENCODER = msgspec.json.Encoder()
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_BINARY_MODE = frozenset({b"ce-specversion", b"ce-id", b"ce-source", b"ce-type"})


class EventsEndpoint:
    """Takes events in; one for each process."""

    def __init__(self, farebox: State, key_memory: KeyMemory) -> None:
        self._farebox = farebox
        self._limits = farebox.settings.limits
        self._key_memory = key_memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises Refused, Overloaded and psycopg.Error."""
        headers = dict(scope["headers"])
        principal = await self._principal(headers)
        failures_only = _failures_only(scope["query_string"])
        body = await receive_body(headers, receive, self._limits.body_bytes_max)
        if body is None:
            return  # the client is gone; what it had sent of its body stores nothing
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        decoded = decode(content_type, _text(scope["headers"]), body, self._limits)
        if isinstance(decoded, Malformed):
            raise refused(decoded.code, decoded.message)
        answers = await self._take(principal.organization_id, decoded)
        if _is_single(content_type, headers, body):
            status, content_header, content = _single(answers[0])
        else:
            status, content_header, content = 200, JSON, _batch(answers, failures_only)
        await send_content(send, status, content_header, content)

    async def _principal(self, headers: dict[bytes, bytes]) -> Principal:
        principal = await principal_of(self._key_memory, headers, KeyScope.INGEST)
        if principal.customer_key is not None:
            detail = "this API key belongs to one customer and sends no events"
            raise refused(HttpCode.CUSTOMER_KEY_REFUSED, detail)
        return principal

    async def _take(self, organization_id: UUID, decoded: list[Any]) -> list[Answer]:
        """Admit and append; the answers come in the order of the request."""
        farebox = self._farebox
        now, policy = farebox.clock(), farebox.settings.time_policy
        organization = organization_id.bytes
        admitted: list[Admitted] = []
        places: list[int] = []
        answers: list[Any] = [None] * len(decoded)
        for index, event in enumerate(decoded):
            one = (
                event
                if isinstance(event, Rejection)
                else admit(index, event, organization, now, policy, self._limits)
            )
            if isinstance(one, Rejection):
                answers[index] = answer_rejection(one)
            else:
                admitted.append(one)
                places.append(index)
        if admitted:
            taken = await farebox.intake.committer(organization_id).append(admitted)
            for index, stored, outcome in zip(places, admitted, taken, strict=True):
                if isinstance(outcome, Outcome):
                    answers[index] = answer_event(index, stored.event, outcome)  # type: ignore[arg-type]
                elif isinstance(outcome, ReadingRefusal):
                    answers[index] = _answer_reading(index, stored, outcome)
                else:
                    answers[index] = _answer_draw(index, stored, outcome)
        return answers


def _text(headers: Any) -> Iterator[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _failures_only(query: bytes) -> bool:
    if not query:
        return False
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name != "answers" or value not in ("all", "failures"):
            detail = "the only parameter is `answers`, `all` or `failures`"
            raise refused(HttpCode.PARAMETER_INVALID, detail)
        return value == "failures"
    return False


def _is_single(content_type: str, headers: dict[bytes, bytes], body: bytes) -> bool:
    """Whether the request is one event: structured, binary, or a JSON object."""
    name = parse_media_type(content_type).name
    if name in (STRUCTURED, BATCH):
        return name == STRUCTURED
    if not name.startswith("application/cloudevents") and not _BINARY_MODE.isdisjoint(headers):
        return True
    return name not in NDJSON and name == LENIENT and _OBJECT.match(body) is not None


def _batch(answers: list[Answer], failures_only: bool) -> bytes:
    counts = dict.fromkeys(Outcome, 0)
    for answer in answers:
        counts[answer.outcome] += 1
    if failures_only:
        answers = [answer for answer in answers if answer.outcome is not Outcome.ACCEPTED]
    return _ENCODER.encode(
        BatchAnswer(
            accepted=counts[Outcome.ACCEPTED],
            duplicates=counts[Outcome.DUPLICATE],
            conflicts=counts[Outcome.CONFLICT],
            rejected=counts[Outcome.REJECTED],
            events=answers,
        )
    )


def _single(answer: Answer) -> tuple[int, tuple[bytes, bytes], bytes]:
    if answer.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE):
        return 200, JSON, _ENCODER.encode(answer)
    problem = _problem(answer)
    return problem.status, (b"content-type", MEDIA_TYPE.encode()), _ENCODER.encode(problem)


def _problem(answer: Answer) -> ProblemDetails:
    message = answer.message or ""
    if answer.outcome is Outcome.CONFLICT:
        return problem_details(HttpCode.EVENT_CONFLICT, message)
    code = answer.code or ""
    error = FieldError(code, answer.pointer or "", message)
    return problem_details(code, message, [error], status=422)


def _answer_reading(index: int, admitted: Admitted, refusal: ReadingRefusal) -> Answer:
    event = admitted.event
    keys = simple_keys(refusal.path)
    pointer = "/data" + pointer_to(keys or ())
    if refusal.field == "subject" and not refusal.path.startswith("$"):
        pointer = "/subject"
    message = (
        f"meter {refusal.meter} cannot read its {refusal.field} by {refusal.path!r}: "
        f"{refusal.code.value.replace('_', ' ')}"
    )
    return Answer(
        index, event.id, event.source, Outcome.REJECTED, refusal.code.value, pointer, message
    )


def _answer_draw(index: int, admitted: Admitted, refusal: DrawRefusal) -> Answer:
    event, code = admitted.event, refusal.code.value
    return Answer(index, event.id, event.source, Outcome.REJECTED, code, POINTER, refusal.message)


_EVENT = {
    "specversion": "1.0",
    "id": "req-1",
    "source": "gateway",
    "type": "llm.request",
    "subject": "acme-prod",
    "data": {"model": "gpt-4o", "input_tokens": 1154, "output_tokens": 220},
}

operation = Operation(
    summary="Send events: each counts once, and gets its own answer",
    answer=BatchAnswer,
    request_types=(
        BATCH,
        STRUCTURED,
        LENIENT,
        "application/x-ndjson",
    ),
    codes=[*RequestCode, HttpCode.BODY_CUT_SHORT, HttpCode.EVENT_CONFLICT, HttpCode.OVERLOADED],
    description=(
        "A batch (JSON array, NDJSON) is answered with 200 and one answer an event. One event "
        "(structured, binary) is answered with 200, 409 (conflict) or 422 (rejected). "
        "`?answers=failures` leaves out the accepted ones. `Content-Encoding: gzip` is read."
    ),
    examples=[
        Example(
            path="/v1/events",
            body=[_EVENT, {**_EVENT, "id": "req-2", "time": "yesterday"}],
            content_type=BATCH,
            answer={
                "accepted": 1,
                "duplicates": 0,
                "conflicts": 0,
                "rejected": 1,
                "events": [
                    {"index": 0, "id": "req-1", "source": "gateway", "outcome": "accepted"},
                    {
                        "index": 1,
                        "id": "req-2",
                        "source": "gateway",
                        "outcome": "rejected",
                        "code": "time_invalid",
                        "pointer": "/time",
                        "message": "must be a time by RFC 3339, like 2026-10-17T08:14:22.5Z",
                    },
                ],
            },
        ),
        Example(
            path="/v1/events",
            body=_EVENT,
            content_type=STRUCTURED,
            answer={"index": 0, "id": "req-1", "source": "gateway", "outcome": "duplicate"},
        ),
    ],
)
