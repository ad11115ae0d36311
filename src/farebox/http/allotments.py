"""Allotments: how a pool is shared among teams, projects and users."""

from collections.abc import Sequence

from litestar import Router, get, put
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.flows.read_pool import books_now
from farebox.flows.share_pool import Share, share_pool
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.decision import refused_by
from farebox.http.operation import Example, describe
from farebox.http.pool_view import ShareView, share_view
from farebox.http.pools import visible_pool
from farebox.http.problem import refused_for
from farebox.http.state import State
from farebox.ledger.pool_check import PoolCode
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.session import transaction


class SharesRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All shares of the pool; one that is left out is taken away."""

    allotments: tuple[Share, ...]


class SharesAnswer(Struct, frozen=True):
    """The shares of a pool as they stand now."""

    allotments: Sequence[ShareView]


@put(
    "/{key:str}/allotments",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_allotments",
    opt=describe(
        "Share a pool among teams, projects and users",
        request=SharesRequest,
        answer=SharesAnswer,
        codes=[RefusalCode.POOL_UNKNOWN, *PoolCode],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/allotments",
                body={
                    "allotments": [
                        {"key": "research", "guarantee": "20000", "weight": 2},
                        {"key": "vision", "parent": "research", "cap": "5000"},
                        {"key": "support", "weight": 1, "subjects": ["acme-dev"]},
                    ]
                },
            ),
            Example(
                path="/v1/pools/acme-tokens/allotments",
                body={"allotments": [{"key": "vision", "parent": "nobody"}]},
                status=422,
            ),
        ],
        description=(
            "In force from the next decision on. A subject takes from the share that is named like"
            " it or lists it. What a share has used in this period stays with it; that of one that"
            " is left out stays with the shares that it was part of."
        ),
    ),
)
def put_all(farebox: State, principal: Principal, key: str, body: RawBody) -> SharesAnswer:
    """Put all shares."""
    asked = read_body(body, SharesRequest)
    found = visible_pool(farebox, principal, key)
    now = farebox.clock()
    with transaction(farebox.pool, principal.organization_id) as connection:
        done = share_pool(
            connection, principal.organization_id, found.pool_id, asked.allotments, now
        )
        if isinstance(done, Refusal):
            raise refused_by(key, done)
        if isinstance(done, list):
            raise refused_for(done)
    return SharesAnswer([share_view(one, now) for one in done.allotments])


@get(
    "/{key:str}/allotments",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_allotments",
    opt=describe(
        "List the shares of a pool, and what each has used in this period",
        answer=SharesAnswer,
        codes=[RefusalCode.POOL_UNKNOWN],
        examples=[Example(path="/v1/pools/acme-tokens/allotments")],
    ),
)
def list_all(farebox: State, principal: Principal, key: str) -> SharesAnswer:
    """List shares."""
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    now = farebox.clock()
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        books = books_now(connection, organization_id, [found.pool_id], now)
    shares = books[found.pool_id].shares.present()
    return SharesAnswer([share_view(one, now) for one in shares])


routes = Router("/v1/pools", route_handlers=[put_all, list_all], tags=["Allotments"])
