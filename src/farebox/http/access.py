"""Access: a feature, or a license, for a term, bought with units of a pool."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from litestar import Response, Router, post
from litestar.params import RawBody
from msgspec import Meta, Struct, structs
from psycopg import Connection

from farebox.access.id import Prefix, encode_numbered
from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.catalog.license import License
from farebox.catalog.plan import Entitlement
from farebox.flows.answer_once import Reply
from farebox.flows.buy_access import Bought, buy_access, buy_license
from farebox.flows.put_license import LicenseCode
from farebox.flows.serve_children import is_served, not_served
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.cover_memory import Use
from farebox.http.decision import above_zero, amount_of, note_text, text_of
from farebox.http.entitlements import require_known
from farebox.http.helped_change import take_once
from farebox.http.idempotency import IdempotencyKey, reply_with
from farebox.http.operation import Example, describe
from farebox.http.pools import visible_pool
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind

_SECONDS_MAX = 86_400 * 366 * 10


class LicenseAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A license to buy, or to prolong; of one that is there only the key has to be named."""

    key: str
    name: str = ""
    subject: str | None = None
    features: tuple[str, ...] = ()
    entitlements: tuple[Entitlement, ...] = ()
    metadata: dict[str, str] = {}


class AccessRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Buy `feature`, or `license`, for `seconds` with `amount` units of the pool.

    customer: whose it is; none: that of the pool. subject: who buys, and who alone has the feature;
    none: all of the customer have it.
    """

    feature: str | None = None
    license: LicenseAsked | None = None
    customer: str | None = None
    amount: Decimal
    seconds: Annotated[int, Meta(ge=1, le=_SECONDS_MAX)]
    subject: str | None = None
    metadata: dict[str, str] | None = None


class AccessView(Struct, frozen=True, kw_only=True):
    """Access that was bought; taking back its `draw` takes it back.

    starts_at, ends_at: of what was bought; the term of a license that is prolonged begins at what
    was its end.
    """

    feature: str | None
    license: str | None
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
            "currency": "USD",
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
        "Buy a feature, or a license, for a term with units of a pool",
        request=AccessRequest,
        answer=AccessView,
        status=201,
        codes=[
            HttpCode.NOT_FOUND,
            RefusalCode.POOL_UNKNOWN,
            CatalogCode.UNKNOWN_FEATURE,
            LicenseCode.LICENSE_FIXED,
            LicenseCode.LICENSE_REVOKED,
            LicenseCode.LICENSE_ENDLESS,
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
                path="/v1/pools/acme-tokens/access",
                body={
                    "license": {"key": "ACME-LAB-3", "features": ["chat"]},
                    "amount": "100",
                    "seconds": 2592000,
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
            " reversing the draw takes it back. A license that is there is prolonged, from its end"
            " or, where it is over, from now. A refusal is stored, and says in `help` what would"
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
    if (asked.feature is None) == (asked.license is None):
        detail = "what is bought is a feature, or a license"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/feature")
    found = visible_pool(farebox, principal, key)
    customer = (found.customer or "") if asked.customer is None else asked.customer

    def act(connection: Connection) -> Reply | Refusal:
        require_known(connection, principal, customer)
        now = farebox.clock()
        served = found.customer is None or is_served(
            connection, organization_id, found, customer, now
        )
        if not served:
            return not_served(found, customer)
        done = _buy(connection, farebox, organization_id, found.pool_id, customer, asked, note)
        if isinstance(done, Refusal):
            return done
        view = AccessView(
            feature=asked.feature,
            license=done.access.license_key,
            subject=asked.subject,
            starts_at=done.access.starts_at,
            ends_at=done.access.ends_at,
            draw=encode_numbered(Prefix.DRAW, found.pool_id, done.answer.operation),
        )
        return reply_with(view, 201)

    path = f"POST /v1/pools/{key}/access"
    use = Use(feature=found.feature, customer=found.customer, subject=subject, amount=amount)
    return take_once(farebox, principal, idempotency_key, path, body, act, found, use)


def _buy(
    connection: Connection,
    farebox: State,
    organization_id: UUID,
    pool_id: UUID,
    customer: str,
    asked: AccessRequest,
    note: str | None,
) -> Bought | Refusal:
    """Buy what is asked for; raises Refused for what no units would buy."""
    now, access_id, amount = farebox.clock(), farebox.new_id(), amount_of(asked.amount)
    if asked.license is None:
        feature = asked.feature or ""
        if not catalog.versions(connection, organization_id, Kind.FEATURE, feature):
            detail = f"there is no feature {feature[:150]!r}"
            raise refused(CatalogCode.UNKNOWN_FEATURE, detail, pointer="/feature")
        return buy_access(
            connection,
            organization_id,
            pool_id,
            customer,
            feature,
            amount,
            asked.seconds,
            now,
            access_id,
            subject=asked.subject,
            note=note,
        )
    bought = buy_license(
        connection,
        organization_id,
        pool_id,
        License(customer=customer, **structs.asdict(asked.license)),
        amount,
        asked.seconds,
        now,
        access_id,
        subject=asked.subject,
        note=note,
    )
    if isinstance(bought, list):
        raise refused_for(bought)
    return bought


routes = Router("/v1/pools", route_handlers=[buy_one], tags=["Entitlements"])
