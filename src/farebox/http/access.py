"""Access: a feature for a term, bought with units of a pool."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from litestar import Response, Router, post
from litestar.params import RawBody
from msgspec import Meta, Struct
from psycopg import Connection

from farebox.access.id import Prefix, encode_numbered
from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.flows.answer_once import Reply
from farebox.flows.buy_access import buy_access
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.cover_memory import Use
from farebox.http.decision import above_zero, note_text, text_of
from farebox.http.entitlements import require_known
from farebox.http.helped_change import take_once
from farebox.http.idempotency import IdempotencyKey, reply_with
from farebox.http.operation import Example, describe
from farebox.http.pools import visible_pool
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind

_SECONDS_MAX = 86_400 * 366 * 10


class AccessRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Buy `feature` for `seconds` with `amount` units of the pool, for one subject or for all.

    customer: whose access it is; none: that of the pool.
    """

    feature: str
    customer: str | None = None
    amount: Decimal
    seconds: Annotated[int, Meta(ge=1, le=_SECONDS_MAX)]
    subject: str | None = None
    metadata: dict[str, str] | None = None


class AccessView(Struct, frozen=True, kw_only=True):
    """Access that was bought; taking back its `draw` takes it back."""

    feature: str
    subject: str | None
    starts_at: datetime
    ends_at: datetime
    draw: str


_NOT_ENOUGH = {
    "type": "/docs/problems#insufficient_balance",
    "title": "Insufficient balance",
    "status": 402,
    "detail": "2500 use asked, 0 available",
    "code": "insufficient_balance",
    "errors": [],
    "pool": "chat:acme",
    "left": "0",
    "refills_at": None,
    "help": [
        {
            "kind": "top_up",
            "key": "chat",
            "name": "3 x 1000 use",
            "price": "24",
            "currency": "EUR",
            "units": "3000",
        }
    ],
}


@post(
    "/{key:str}/access",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="buy_access",
    opt=describe(
        "Buy a feature for a term with units of a pool",
        request=AccessRequest,
        answer=AccessView,
        status=201,
        codes=[
            HttpCode.NOT_FOUND,
            RefusalCode.POOL_UNKNOWN,
            CatalogCode.UNKNOWN_FEATURE,
            RefusalCode.INSUFFICIENT_BALANCE,
        ],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/access",
                body={
                    "feature": "chat",
                    "amount": "100",
                    "seconds": 86400,
                    "subject": "acme-dev",
                },
                status=201,
            ),
            Example(
                path="/v1/pools/chat:acme/access",
                body={"feature": "chat", "amount": "2500", "seconds": 86400},
                status=402,
                answer=_NOT_ENOUGH,
            ),
        ],
        description=(
            "The draw and the access are one transaction. When the term is over the access is;"
            " reversing the draw takes it back. A refusal is stored, and says in `help` what would"
            " let it through."
        ),
    ),
)
def buy_one(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Buy access."""
    asked, organization_id = read_body(body, AccessRequest), principal.organization_id
    amount, note = above_zero(asked.amount), note_text(asked.metadata)
    subject = text_of(asked.subject, "subject")
    found = visible_pool(farebox, principal, key)
    customer = (found.customer or "") if asked.customer is None else asked.customer

    def act(connection: Connection) -> Reply | Refusal:
        require_known(connection, principal, customer)
        if not catalog.versions(connection, organization_id, Kind.FEATURE, asked.feature):
            detail = f"there is no feature {asked.feature[:150]!r}"
            raise refused(CatalogCode.UNKNOWN_FEATURE, detail, pointer="/feature")
        done = buy_access(
            connection,
            organization_id,
            found.pool_id,
            customer,
            asked.feature,
            amount,
            asked.seconds,
            farebox.clock(),
            farebox.new_id(),
            subject=subject,
            note=note,
        )
        if isinstance(done, Refusal):
            return done
        draw = encode_numbered(Prefix.DRAW, found.pool_id, done.answer.operation)
        view = AccessView(
            feature=asked.feature,
            subject=subject,
            starts_at=done.access.starts_at,
            ends_at=done.access.ends_at,
            draw=draw,
        )
        return reply_with(view, 201)

    path = f"POST /v1/pools/{key}/access"
    use = Use(feature=found.feature, customer=found.customer, subject=subject, amount=amount)
    return take_once(farebox, principal, idempotency_key, path, body, act, found, use)


routes = Router("/v1/pools", route_handlers=[buy_one], tags=["Entitlements"])
