"""Uses: may I, asked by what is used; the pool's rate card says how many units that costs."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from litestar import Response, Router, post
from litestar.params import RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered
from farebox.access.key import Scope
from farebox.catalog.cover import Cover
from farebox.events.event import Json
from farebox.events.refusal import EventCode
from farebox.flows.answer_once import Reply
from farebox.flows.use_priced import (
    PricedUse,
    UseCode,
    UsePart,
    UseRefusal,
    Wanted,
    try_use,
    use_priced,
)
from farebox.http.authenticate import Principal, requires, scope_refused
from farebox.http.body import read_as, read_json
from farebox.http.code import HttpCode
from farebox.http.cover_memory import Use
from farebox.http.decision import (
    Granted,
    HoldAsked,
    digest_of,
    granted,
    key_of,
    refused_by,
    seconds_of,
    text_of,
)
from farebox.http.helped_change import covers_now
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with
from farebox.http.operation import Example, describe
from farebox.http.pools import visible_pool
from farebox.http.problem import Refused, refused
from farebox.http.state import State
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.book import find_holds
from farebox.postgres.pool import PoolKey, find_pool
from farebox.postgres.session import transaction


class UseRequest(Struct, frozen=True, kw_only=True):
    """May `subject` do this, from this pool? `type` and `data` are those of the usage event.

    customer: who uses it; one that the pool serves, and whose the subject is where it is anybody's.
    hold: `{"seconds": 120}` sets the units of an estimate aside; settle it with what was used.
    dry_run: answer as without it, and take nothing.
    """

    pool: str
    type: str
    data: dict[str, Any]
    customer: str | None = None
    subject: str | None = None
    allotment: str | None = None
    hold: dict[str, int] | None = None
    key: str | None = None
    dry_run: bool = False


class SettleUseRequest(Struct, frozen=True, kw_only=True):
    """What was really used, as the usage event says it."""

    type: str
    data: dict[str, Any]


class UseView(Struct, frozen=True, kw_only=True):
    """What the use costs in the pool's unit, and the decision; that of a dry run has no ids."""

    units: Decimal
    parts: tuple[UsePart, ...]
    decision: Granted


_MEMBERS = frozenset(UseRequest.__struct_fields__)
_EVENT = {"type": "llm.request", "data": {"model": "gpt-4o", "input_tokens": 100}}


def _object(value: Json, pointer: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        detail = "this is an object"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer=pointer)
    return value


def _text(members: dict[str, Json], name: str, *, required: bool = False) -> str | None:
    value = members.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value:
        raise refused(HttpCode.PARAMETER_INVALID, f"{name} is a text", pointer=f"/{name}")
    return text_of(value, name)


def _read(body: bytes, known: frozenset[str]) -> dict[str, Json]:
    members = read_json(body)
    unknown = sorted(members.keys() - known)
    if unknown:
        detail = f"there is no member {unknown[0][:100]!r} here"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer=f"/{unknown[0][:100]}")
    return members


def _seconds(members: dict[str, Json]) -> int | None:
    hold = members.get("hold")
    if hold is None:
        return None
    return seconds_of(read_as(_object(hold, "/hold"), HoldAsked, at="/hold").seconds)


def _view(
    pool: PoolKey, done: PricedUse | UseRefusal, covers: Sequence[Cover] = ()
) -> UseView | Refused:
    if isinstance(done, UseRefusal):
        return refused(done.code, done.detail)
    if isinstance(done.answer, Refusal):
        return refused_by(pool.key, done.answer, covers)
    decision = granted(pool.key, pool.pool_id, done.answer)
    return UseView(units=done.units, parts=done.parts, decision=decision)


@post(
    "/",
    guards=[requires(Scope.DRAW, Scope.READ)],
    sync_to_thread=True,
    status_code=200,
    operation_id="use",
    opt=describe(
        "May I, asked by what is used: the rate card says what it costs",
        request=UseRequest,
        answer=UseView,
        codes=[
            RefusalCode.POOL_UNKNOWN,
            *UseCode,
            RefusalCode.SUBJECT_NOT_SERVED,
            EventCode.EVENT_TOO_LARGE,
            RefusalCode.AMOUNT_INVALID,
            RefusalCode.INSUFFICIENT_BALANCE,
            RefusalCode.IDEMPOTENCY_KEY_REUSED,
        ],
        examples=[Example(path="/v1/uses", body={"pool": "acme-tokens", **_EVENT}, status=422)],
        description=(
            "Units and usage event are one commit: the event is metered like any other, carries the"
            " id of its draw as `fareboxdraw`, and burns nothing again. A hold writes no event;"
            " settling it does. What costs nothing is granted and written, and is no draw. With"
            " `dry_run` the answer is the same, nothing moves and nothing is stored; a key that may"
            " read may ask so, too."
        ),
    ),
)
def use_one(
    farebox: State,
    principal: Principal,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> UseView:
    """Ask for a use."""
    members = _read(body, _MEMBERS)
    dry_run = members.get("dry_run", False)
    if not isinstance(dry_run, bool):
        detail = "dry_run is true or false"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/dry_run")
    if not dry_run and not principal.allows(Scope.DRAW):
        raise scope_refused(Scope.DRAW)
    pool = visible_pool(farebox, principal, _text(members, "pool", required=True) or "")
    kind = _text(members, "type", required=True) or ""
    data = _object(members.get("data"), "/data")
    key = key_of(_text(members, "key"), idempotency_key)
    wanted = Wanted(
        type=kind,
        data=data,
        customer=_text(members, "customer"),
        subject=_text(members, "subject"),
        allotment=_text(members, "allotment"),
        key=key,
        digest=None if key is None else digest_of((kind, body.decode("utf-8", "replace"))),
        hold="hold" in members and members["hold"] is not None,
        seconds=_seconds(members),
    )
    ask = try_use if dry_run else use_priced
    with transaction(farebox.pool, principal.organization_id) as connection:
        done = ask(connection, principal.organization_id, pool.pool_id, wanted, farebox.clock())
    # A refusal is stored by now; raised in the transaction it would have taken that back.
    view = _view(pool, done, _covers(farebox, principal, pool, wanted, done))
    if isinstance(view, Refused):
        raise view
    return view


def _covers(
    farebox: State,
    principal: Principal,
    pool: PoolKey,
    wanted: Wanted,
    done: PricedUse | UseRefusal,
) -> Sequence[Cover]:
    """Return what would cover a use, where it was refused."""
    if not isinstance(done, PricedUse) or not isinstance(done.answer, Refusal):
        return ()
    use = Use(
        feature=pool.feature,
        customer=pool.customer,
        subject=wanted.subject,
        allotment=wanted.allotment,
        amount=done.units,
    )
    return covers_now(farebox, principal, pool, done.answer, use)


@post(
    "/{hold:str}/settle",
    guards=[requires(Scope.DRAW)],
    sync_to_thread=True,
    status_code=200,
    operation_id="settle_use",
    opt=describe(
        "Settle a held use for what was really used",
        request=SettleUseRequest,
        answer=UseView,
        codes=[
            RefusalCode.HOLD_UNKNOWN,
            RefusalCode.HOLD_SETTLED,
            *UseCode,
            RefusalCode.SUBJECT_NOT_SERVED,
            EventCode.EVENT_TOO_LARGE,
            RefusalCode.AMOUNT_INVALID,
        ],
        examples=[
            Example(
                path="/v1/uses/hld_01jbsqz4e2e0rv8h9yj0fn5c7k_9/settle", body=_EVENT, status=404
            )
        ],
        description="The usage event is written in the same commit.",
    ),
)
def settle_one(
    farebox: State,
    principal: Principal,
    hold: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Settle a use."""
    members = _read(body, frozenset(SettleUseRequest.__struct_fields__))
    kind = _text(members, "type", required=True) or ""
    data = _object(members.get("data"), "/data")
    unknown = refused(RefusalCode.HOLD_UNKNOWN, "there is no hold of this id")
    named = decode_numbered(Prefix.HOLD, hold)
    if named is None:
        raise unknown
    with transaction(farebox.pool, principal.organization_id) as connection:
        pool = find_pool(connection, principal.organization_id, pool_id=named[0])
        held = find_holds(connection, principal.organization_id, [named]).get(named)
    if pool is None:
        raise unknown
    wanted = Wanted(
        type=kind,
        data=data,
        subject=None if held is None else held.subject,
        allotment=None if held is None else held.allotment,
        key=idempotency_key,
        digest=None if idempotency_key is None else digest_of((hold, body.decode("utf-8"))),
        settle=named[1],
    )

    def act(connection: Connection) -> Reply | Refused:
        now = farebox.clock()
        done = use_priced(connection, principal.organization_id, pool.pool_id, wanted, now)
        view = _view(pool, done)
        # A refusal is stored; raised here it would take that back.
        return view if isinstance(view, Refused) else reply_with(view)

    path = f"POST /v1/uses/{hold}/settle"
    return change_once(farebox, principal, idempotency_key, path, body, act)


routes = Router("/v1/uses", route_handlers=[use_one, settle_one], tags=["Decisions"])
