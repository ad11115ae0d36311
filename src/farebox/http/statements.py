"""The ledger of a pool: its statement, single draws, what is taken back, what is moved."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from litestar import Response, Router, get, post
from litestar.params import RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered
from farebox.access.key import Scope
from farebox.flows.answer_once import Reply
from farebox.flows.move_units import move_units
from farebox.flows.post_due import post_due
from farebox.flows.query_usage import UsageCode
from farebox.flows.reverse_draw import reverse_draw
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.cover_memory import Use
from farebox.http.decision import Granted, above_zero, granted, note_text, refused_by
from farebox.http.helped_change import take_once
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with, request_digest
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, before_number, page_of
from farebox.http.pool_view import EntryView, entry_view
from farebox.http.pools import visible_pool
from farebox.http.problem import Refused, refused
from farebox.http.span import MaybeSince, MaybeUntil, in_order, maybe_instant
from farebox.http.state import State
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.pool import PoolKey, find_pool
from farebox.postgres.session import transaction
from farebox.postgres.transfer import operation, statement, undoing

_NOT_ENOUGH = {
    "type": "/docs/problems#insufficient_balance",
    "title": "Insufficient balance",
    "status": 402,
    "detail": "5 use asked, 0 available",
    "code": "insufficient_balance",
    "errors": [],
    "pool": "chat:acme",
    "left": "0",
    "refills_at": None,
    "help": [
        {
            "kind": "top_up",
            "key": "chat",
            "name": "1 x 1000 use",
            "price": "8",
            "currency": "USD",
            "units": "1000",
        }
    ],
}


class DrawView(Struct, frozen=True):
    """An operation: its entries, and those of later ones that settle it or take it back."""

    id: str
    pool: str
    entries: Sequence[EntryView]
    later: Sequence[EntryView]


class ReverseRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to take back; none: all that is left of the draw."""

    amount: Decimal | None = None
    metadata: dict[str, str] | None = None


class MoveRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units to move to the pool `to`, which holds the same unit."""

    to: str
    amount: Decimal
    metadata: dict[str, str] | None = None


@get(
    "/{key:str}/statement",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_statement",
    opt=describe(
        "Read the statement of a pool: every unit that moved, the latest first",
        answer=Page[EntryView],
        codes=[RefusalCode.POOL_UNKNOWN, UsageCode.RANGE_EMPTY],
        examples=[Example(path="/v1/pools/acme-tokens/statement?limit=2")],
        description="Each entry has the balances of both its accounts before and after.",
    ),
)
def read_statement(
    farebox: State,
    principal: Principal,
    key: str,
    since: MaybeSince = None,
    until: MaybeUntil = None,
    subject: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[EntryView]:
    """Read a statement."""
    found = visible_pool(farebox, principal, key)
    before = before_number(cursor)
    starts, ends = maybe_instant(since, "since"), maybe_instant(until, "until")
    in_order(starts, ends)
    post_due(farebox.pool, principal.organization_id, [found.pool_id], farebox.clock())
    with transaction(farebox.pool, principal.organization_id) as connection:
        entries = statement(
            connection,
            principal.organization_id,
            found.pool_id,
            before=before,
            since=starts,
            until=ends,
            subject=subject,
            limit=limit + 1,
        )
    return page_of([entry_view(one) for one in entries], limit, lambda one: [str(one.sequence)])


def _draw(farebox: State, principal: Principal, wire: str) -> tuple[PoolKey, int]:
    unknown = refused(RefusalCode.DRAW_UNKNOWN, "there is no draw of this id")
    named = decode_numbered(Prefix.DRAW, wire)
    if named is None:
        raise unknown
    with transaction(farebox.pool, principal.organization_id) as connection:
        pool = find_pool(connection, principal.organization_id, pool_id=named[0])
    if pool is None or principal.customer_key not in (None, pool.customer):
        raise unknown
    return pool, named[1]


@get(
    "/{draw:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_draw",
    opt=describe(
        "Read a draw: its entries, and what settled it or took it back",
        answer=DrawView,
        codes=[RefusalCode.DRAW_UNKNOWN],
        examples=[Example(path="/v1/draws/drw_01jbsqz4e2e0rv8h9yj0fn5c7k_9", status=404)],
    ),
)
def get_one(farebox: State, principal: Principal, draw: str) -> DrawView:
    """Read a draw."""
    pool, number = _draw(farebox, principal, draw)
    organization_id = principal.organization_id
    post_due(farebox.pool, organization_id, [pool.pool_id], farebox.clock())
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        entries = operation(connection, organization_id, pool.pool_id, number)
        later = undoing(connection, organization_id, pool.pool_id, number)
    if not entries:
        raise refused(RefusalCode.DRAW_UNKNOWN, "there is no draw of this id")
    return DrawView(
        draw, pool.key, [entry_view(one) for one in entries], [entry_view(one) for one in later]
    )


@post(
    "/{draw:str}/reverse",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    status_code=200,
    operation_id="reverse_draw",
    opt=describe(
        "Take back a draw, or a part of it",
        request=ReverseRequest,
        answer=Granted,
        codes=[
            RefusalCode.DRAW_UNKNOWN,
            RefusalCode.DRAW_REVERSED,
            RefusalCode.REVERSAL_TOO_LATE,
            RefusalCode.REVERSAL_EXCEEDS_DRAW,
            RefusalCode.AMOUNT_INVALID,
        ],
        examples=[
            Example(path="/v1/draws/drw_01jbsqz4e2e0rv8h9yj0fn5c7k_9/reverse", body={}, status=404)
        ],
        description=(
            "Units return to where they came from, those taken last first: what is owed shrinks"
            " before a grant grows. Units of a grant that is over expire. The pool's `undo_seconds`"
            " says for how long a draw may be taken back."
        ),
    ),
)
def reverse_one(
    farebox: State,
    principal: Principal,
    draw: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Take back a draw."""
    asked = read_body(body, ReverseRequest)
    amount = None if asked.amount is None else above_zero(asked.amount)
    note = note_text(asked.metadata)
    pool, number = _draw(farebox, principal, draw)
    path = f"POST /v1/draws/{draw}/reverse"

    def act(connection: Connection) -> Reply | Refused:
        outcome = reverse_draw(
            connection,
            principal.organization_id,
            pool.pool_id,
            number,
            amount,
            farebox.clock(),
            key=None if idempotency_key is None else f"reverse {idempotency_key}"[:255],
            digest=request_digest(path, body)[:16].hex(),
            note=note,
        )
        if isinstance(outcome, Refusal):
            return refused_by(pool.key, outcome)
        return reply_with(granted(pool.key, pool.pool_id, outcome))

    return change_once(farebox, principal, idempotency_key, path, body, act)


@post(
    "/{key:str}/moves",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="move_units",
    opt=describe(
        "Move units to another pool",
        request=MoveRequest,
        answer=Granted,
        status=201,
        codes=[
            HttpCode.PARAMETER_INVALID,
            RefusalCode.POOL_UNKNOWN,
            RefusalCode.UNIT_MISMATCH,
            RefusalCode.POOL_CLOSED,
            RefusalCode.INSUFFICIENT_BALANCE,
            RefusalCode.AMOUNT_INVALID,
        ],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/moves",
                body={"to": "nowhere", "amount": "5"},
                status=404,
            ),
            Example(
                path="/v1/pools/chat:acme/moves",
                body={"to": "acme-spare", "amount": "5"},
                status=402,
                answer=_NOT_ENOUGH,
            ),
        ],
        description=(
            "Both sides in one step; cost and expiry of the units go with them. A refusal for want"
            " of units says in `help` what would let it through."
        ),
    ),
)
def move_some(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Move units."""
    asked = read_body(body, MoveRequest)
    amount, note = above_zero(asked.amount), note_text(asked.metadata)
    giving = visible_pool(farebox, principal, key)
    taking = visible_pool(farebox, principal, asked.to)
    if giving.pool_id == taking.pool_id:
        raise refused(HttpCode.PARAMETER_INVALID, "units are moved to another pool", pointer="/to")

    def act(connection: Connection) -> Reply | Refusal:
        organization_id: UUID = principal.organization_id
        done = move_units(
            connection,
            organization_id,
            giving.pool_id,
            taking.pool_id,
            amount,
            farebox.clock(),
            note=note,
        )
        if isinstance(done, Refusal):
            return done
        return reply_with(granted(key, giving.pool_id, done), 201)

    path = f"POST /v1/pools/{key}/moves"
    # What is borrowed or charged for stays where it is: only what grants have is moved.
    use = Use(feature=giving.feature, customer=giving.customer, amount=amount, borrow=False)
    return take_once(farebox, principal, idempotency_key, path, body, act, giving, use)


routes = Router("/v1/pools", route_handlers=[read_statement, move_some], tags=["Ledger"])
draw_routes = Router("/v1/draws", route_handlers=[get_one, reverse_one], tags=["Ledger"])
