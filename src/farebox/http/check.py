"""A dry run of one event: who would read and pay it, at what price, on which line, or why not."""

from datetime import datetime

from litestar import Router, post
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.events.answer import Outcome
from farebox.flows.check_event import EventCheck, check_event
from farebox.flows.place_reading import Fate
from farebox.http.authenticate import Principal, requires
from farebox.http.explain import ReadingPlaceView, reading_view
from farebox.http.operation import Example, describe
from farebox.http.problem import FieldError
from farebox.http.state import State


class MeterCheckView(Struct, frozen=True, kw_only=True):
    """What a meter of the event's type would read; `refusal` where it cannot read the event."""

    meter: str
    version: int
    fate: Fate | None
    refusal: FieldError | None
    readings: list[ReadingPlaceView]


class EventCheckView(Struct, frozen=True, kw_only=True):
    """The answer the event would get, and the way it would take; nothing was stored."""

    outcome: Outcome
    rejection: FieldError | None
    time: datetime | None
    fate: Fate | None
    meters: list[MeterCheckView]


_EVENT = {
    "specversion": "1.0",
    "id": "check-1",
    "source": "gateway-1",
    "type": "unknown.type",
    "subject": "acme-prod",
    "data": {"tokens": 12},
}


@post(
    "/v1/events/check",
    guards=[requires(Scope.READ)],
    status_code=200,
    sync_to_thread=True,
    operation_id="check_event",
    opt=describe(
        "Try an event without storing it",
        request=dict,
        answer=EventCheckView,
        examples=[
            Example(
                path="/v1/events/check",
                body=_EVENT,
                answer={
                    "outcome": "accepted",
                    "rejection": None,
                    "time": "2026-10-01T00:00:00Z",
                    "fate": "no_meter",
                    "meters": [],
                },
            ),
            Example(
                path="/v1/events/check",
                body={"specversion": "1.0", "id": "", "source": "gateway-1"},
                answer={
                    "outcome": "rejected",
                    "rejection": {
                        "code": "id_invalid",
                        "pointer": "/id",
                        "message": "must be text of 1 to 256 characters, no control characters",
                    },
                    "time": None,
                    "fate": None,
                    "meters": [],
                },
            ),
        ],
        request_types=["application/json", "application/cloudevents+json"],
        description=(
            "One structured CloudEvent. Whatever is wrong with it stands in the answer, which is"
            " 200 all the same."
        ),
    ),
    tags=["Events"],
)
def check(farebox: State, principal: Principal, body: RawBody) -> EventCheckView:
    """Check an event."""
    found = check_event(
        farebox.pool,
        principal.organization_id,
        body,
        farebox.clock(),
        farebox.settings.time_policy,
    )
    return _view(found)


def _view(found: EventCheck) -> EventCheckView:
    rejection = found.rejection
    return EventCheckView(
        outcome=found.outcome,
        rejection=None
        if rejection is None
        else FieldError(rejection.code.value, rejection.pointer, rejection.message),
        time=found.time,
        fate=found.fate,
        meters=[
            MeterCheckView(
                meter=one.meter,
                version=one.version,
                fate=one.fate,
                refusal=None
                if one.refusal is None
                else FieldError(one.refusal.code.value, one.refusal.field, one.refusal.path),
                readings=[reading_view(place) for place in one.readings],
            )
            for one in found.meters
        ],
    )


routes = Router("/", route_handlers=[check])
