"""Sources of events: what was seen of each, gaps and silence, and what they say they sent."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from litestar import Router, get, put
from litestar.params import QueryParameter, RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.events.limits import SOURCE_LENGTH_MAX
from farebox.flows.watch_sources import (
    ControlCode,
    ControlRefusal,
    ControlResult,
    SourceState,
    compare_controls,
    declare_control,
    list_sources,
)
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, after_key, encode_cursor
from farebox.http.problem import refused
from farebox.http.span import MaybeFrom, MaybeTo, in_order, maybe_instant, number
from farebox.http.state import State
from farebox.period.instant import BEGINNING, END
from farebox.postgres.session import transaction
from farebox.postgres.source import ControlRow, put_limit


class Gap(Struct, frozen=True):
    """Numbers that have not arrived, both ends included."""

    first: int
    last: int


class SourceView(Struct, frozen=True, kw_only=True):
    """What was seen of a source.

    numbered: how many of its events carried a `sequence` (the CloudEvents extension). missing: how
    many numbers between its lowest and highest have not arrived; `gaps` are the first hundred.
    """

    source: str
    events: int
    numbered: int
    missing: int
    gaps: list[Gap]
    first_time: datetime | None
    last_time: datetime | None
    last_received_at: datetime | None
    silence_seconds_max: int | None
    silent: bool


class SourcePage(Struct, frozen=True):
    """Sources as events up to `sequence` show them; behind `last_sequence`, ask again."""

    items: list[SourceView]
    sequence: int
    last_sequence: int
    next_cursor: str | None


class LimitRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the source may be silent before that is a warning; null: for ever."""

    silence_seconds_max: int | None


class ControlRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source sent with a time in [from, to): events, and totals by meter."""

    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    events: int
    totals: Mapping[str, Decimal] = {}


class ControlView(Struct, frozen=True, kw_only=True):
    """What was said to be sent, beside what was received by now."""

    source: str
    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    agrees: bool
    events: int
    events_received: int
    totals: Mapping[str, Decimal]
    totals_received: Mapping[str, Decimal]
    declared_at: datetime


class ControlList(Struct, frozen=True):
    """Controls, the oldest span first."""

    items: list[ControlView]


_SourceName = Annotated[str, QueryParameter(description="the `source` of its events")]
_AnySource = Annotated[str | None, QueryParameter(description="only of this source")]
_CONTROL = {
    "source": "gateway-1",
    "from": "2026-10-01T00:00:00Z",
    "to": "2026-10-02T00:00:00Z",
    "agrees": False,
    "events": 1200,
    "events_received": 0,
    "totals": {},
    "totals_received": {},
    "declared_at": "2026-10-02T00:00:00Z",
}


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_sources",
    opt=describe(
        "List sources by name",
        answer=SourcePage,
        examples=[
            Example(
                path="/v1/sources?limit=1",
                answer={
                    "items": [
                        {
                            "source": "gateway-1",
                            "events": 0,
                            "numbered": 0,
                            "missing": 0,
                            "gaps": [],
                            "first_time": None,
                            "last_time": None,
                            "last_received_at": None,
                            "silence_seconds_max": 3600,
                            "silent": True,
                        }
                    ],
                    "sequence": 0,
                    "last_sequence": 0,
                    "next_cursor": None,
                },
            )
        ],
    ),
)
def list_all(
    farebox: State, principal: Principal, cursor: Cursor = None, limit: Limit = PAGE_USUAL
) -> SourcePage:
    """List sources."""
    found = list_sources(
        farebox.pool,
        principal.organization_id,
        farebox.clock(),
        after=after_key(cursor),
        limit=limit + 1,
    )
    page = found.items[:limit]
    following = encode_cursor(page[-1].row.source) if len(found.items) > limit else None
    return SourcePage([_source(one) for one in page], found.sequence, found.head, following)


@put(
    "/limit",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_source_limit",
    opt=describe(
        "Limit how long a source may be silent",
        request=LimitRequest,
        answer=LimitRequest,
        codes=[HttpCode.PARAMETER_INVALID],
        examples=[
            Example(
                path="/v1/sources/limit?source=gateway-1",
                body={"silence_seconds_max": 3600},
                answer={"silence_seconds_max": 3600},
            )
        ],
        description="A source is a URI and may hold slashes, so that it stands in the query.",
    ),
)
def limit_silence(
    farebox: State, principal: Principal, source: _SourceName, body: RawBody
) -> LimitRequest:
    """Set or lift the limit."""
    wanted = read_body(body, LimitRequest)
    seconds = wanted.silence_seconds_max
    if seconds is not None and not 0 < seconds <= _SECONDS_MAX:
        detail = f"between 1 and {_SECONDS_MAX} seconds, or null"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/silence_seconds_max")
    with transaction(farebox.pool, principal.organization_id) as connection:
        put_limit(connection, principal.organization_id, _checked(source), seconds)
    return wanted


_SECONDS_MAX = 10 * 366 * 86_400


@put(
    "/controls",
    guards=[requires(Scope.INGEST)],
    sync_to_thread=True,
    operation_id="put_source_control",
    opt=describe(
        "Say what a source sent, and compare it with what was received",
        request=ControlRequest,
        answer=ControlView,
        codes=list(ControlCode),
        examples=[
            Example(
                path="/v1/sources/controls?source=gateway-1",
                body={
                    "from": "2026-10-01T00:00:00Z",
                    "to": "2026-10-02T00:00:00Z",
                    "events": 1200,
                },
                answer=_CONTROL,
            )
        ],
        description=(
            "Of meters that count or sum. Said again for the same span, the later word counts."
            " A billing run warns of controls that do not agree."
        ),
    ),
)
def put_control(
    farebox: State, principal: Principal, source: _SourceName, body: RawBody
) -> ControlView:
    """Declare a control."""
    wanted = read_body(body, ControlRequest)
    if wanted.events < 0:
        raise refused(HttpCode.PARAMETER_INVALID, "at least 0", pointer="/events")
    result = declare_control(
        farebox.pool,
        principal.organization_id,
        ControlRow(
            source=_checked(source),
            start=wanted.starts,
            end=wanted.ends,
            events=wanted.events,
            totals=wanted.totals,
            declared_at=farebox.clock(),
        ),
    )
    if isinstance(result, ControlRefusal):
        raise refused(result.code, result.message, pointer=result.pointer)
    return _control(result)


@get(
    "/controls",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_source_controls",
    opt=describe(
        "Compare what sources say they sent with what was received",
        answer=ControlList,
        codes=[ControlCode.RANGE_EMPTY],
        examples=[
            Example(path="/v1/sources/controls?source=gateway-1", answer={"items": [_CONTROL]})
        ],
    ),
)
def list_controls(
    farebox: State,
    principal: Principal,
    source: _AnySource = None,
    starts: MaybeFrom = None,
    ends: MaybeTo = None,
) -> ControlList:
    """List controls."""
    begins, stops = maybe_instant(starts, "from"), maybe_instant(ends, "to")
    in_order(begins, stops, "to")
    found = compare_controls(
        farebox.pool,
        principal.organization_id,
        begins or BEGINNING,
        stops or END,
        source,
    )
    return ControlList([_control(one) for one in found])


def _checked(source: str) -> str:
    if not 0 < len(source) <= SOURCE_LENGTH_MAX:
        detail = f"a source has 1 to {SOURCE_LENGTH_MAX} characters"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/source")
    return source


def _source(state: SourceState) -> SourceView:
    row = state.row
    return SourceView(
        source=row.source,
        events=row.events,
        numbered=row.numbered,
        missing=row.missing,
        gaps=[Gap(first, last) for first, last in row.gaps],
        first_time=row.first_time,
        last_time=row.last_time,
        last_received_at=row.last_received_at,
        silence_seconds_max=row.silence_seconds,
        silent=state.silent,
    )


def _control(result: ControlResult) -> ControlView:
    control = result.control
    received = {meter: number(value) or Decimal(0) for meter, value in result.totals.items()}
    return ControlView(
        source=control.source,
        starts=control.start,
        ends=control.end,
        agrees=result.agrees,
        events=control.events,
        events_received=result.events,
        totals=control.totals,
        totals_received=received,
        declared_at=control.declared_at,
    )


routes = Router(
    "/v1/sources",
    route_handlers=[list_all, limit_silence, put_control, list_controls],
    tags=["Sources"],
)
