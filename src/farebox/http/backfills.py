"""Backfills: let a meter read the events that came before it was published."""

from datetime import datetime
from decimal import Decimal

from litestar import Response, Router, post
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.flows.backfill_meter import (
    BackfillCode,
    BackfillRefusal,
    Preview,
    backfill_meter,
    preview_backfill,
)
from farebox.flows.read_usage import read_meters
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, earlier_answer, keep_answer, reply_with
from farebox.http.operation import Example, describe
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.postgres.session import transaction


class BackfillRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version (null: the newest), and whether only to show what it would come to."""

    version: int | None = None
    preview: bool = False


class CustomerPart(Struct, frozen=True):
    """What a backfill adds to a customer; null: subjects that belong to none."""

    customer: str | None
    readings: int
    total: Decimal | None


class PoolPart(Struct, frozen=True):
    """Units of a pool that a backfill burns."""

    pool: str
    units: Decimal


class BackfillView(Struct, frozen=True, kw_only=True):
    """What was looked at, read and refused; `customers` are those with most readings."""

    meter: str
    version: int
    preview: bool
    events: int
    readings: int
    refused: dict[str, int]
    first_time: datetime | None
    last_time: datetime | None
    customers: list[CustomerPart]
    pools: list[PoolPart]


_NOTHING = {
    "meter": "llm_calls",
    "version": 1,
    "preview": True,
    "events": 0,
    "readings": 0,
    "refused": {},
    "first_time": None,
    "last_time": None,
    "customers": [],
    "pools": [],
}


@post(
    "/{key:str}/backfill",
    guards=[requires(Scope.MANAGE)],
    status_code=200,
    sync_to_thread=True,
    operation_id="backfill_meter",
    opt=describe(
        "Let a meter read the events that came before it",
        request=BackfillRequest,
        answer=BackfillView,
        codes=[
            HttpCode.NOT_FOUND,
            BackfillCode.METER_VERSION_UNKNOWN,
            BackfillCode.METER_VERSION_REPLACED,
            BackfillCode.ALREADY_BACKFILLED,
        ],
        examples=[
            Example(path="/v1/meters/llm_calls/backfill", body={"preview": True}, answer=_NOTHING)
        ],
        description=(
            "What it reads counts all at once, at the end, and burns pools (`pools`) then. It may"
            " take minutes for millions of events; interrupted, the same request goes on where it"
            " was."
        ),
    ),
)
def backfill(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Backfill a meter, or show what that comes to."""
    place = f"POST /v1/meters/{key}/backfill"
    earlier = earlier_answer(farebox, principal, idempotency_key, place, body)
    if earlier is not None:
        return earlier
    wanted = read_body(body, BackfillRequest)
    with transaction(farebox.pool, principal.organization_id) as connection:
        history = read_meters(connection, principal.organization_id).get(key)
    if history is None:
        raise refused(HttpCode.NOT_FOUND, f"no meter {key!r} was published")
    version = wanted.version or max(history.versions)
    run = preview_backfill if wanted.preview else backfill_meter
    found = run(farebox.pool, principal.organization_id, key, version, farebox.clock())
    if isinstance(found, BackfillRefusal):
        raise refused(found.code, found.message)
    reply = reply_with(_view(key, version, wanted.preview, found))
    return keep_answer(farebox, principal, idempotency_key, place, body, reply)


def _view(key: str, version: int, preview: bool, found: Preview) -> BackfillView:
    return BackfillView(
        meter=key,
        version=version,
        preview=preview,
        events=found.events,
        readings=found.readings,
        refused=found.refused,
        first_time=found.first_time,
        last_time=found.last_time,
        customers=[
            CustomerPart(one.customer_key or None, one.readings, one.total)
            for one in found.customers
        ],
        pools=[PoolPart(one.pool, one.units) for one in found.pools],
    )


routes = Router("/v1/meters", route_handlers=[backfill], tags=["Meters"])
