"""Pools: opened and changed, seen as they stand now, asked whether they would give."""

from collections.abc import Sequence
from decimal import Decimal

from litestar import Response, Router, get, post, put
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.catalog.cover import Cover
from farebox.flows.put_pool import put_pool
from farebox.flows.read_pool import books_now, check_pool_for
from farebox.flows.serve_children import is_served, not_served
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.body import read_body, read_keyed
from farebox.http.code import HttpCode
from farebox.http.cover_memory import Use, covers_of, is_helped
from farebox.http.decision import (
    AuthorizeRequest,
    DecisionProblem,
    command_of,
    decision_problem,
    refused_by,
)
from farebox.http.definition import tagged
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.pool_view import PoolView, pool_view
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.ledger.account import COVERED, ZERO, Account
from farebox.ledger.book import Book
from farebox.ledger.command import Draw, Reserve
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.pool_check import PoolCode
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import exact_sum
from farebox.postgres.pool import PoolKey, find_definition, find_pool, list_pools
from farebox.postgres.session import transaction


class PoolAnswer(Struct, frozen=True):
    """The pool as it stands; `changed` is false where it was so already."""

    changed: bool
    pool: PoolDefinition


class CheckAnswer(Struct, frozen=True, kw_only=True):
    """Whether it would be granted now: from grants, and from beyond them.

    available: what all grants have left, before the draw that is asked about, which does not
    happen; with what the pool would buy for it.
    """

    granted: bool
    covered: Decimal = ZERO
    beyond: Decimal = ZERO
    available: Decimal
    refusal: DecisionProblem | None = None


_BODY = {
    "unit": "token",
    "customer": "acme",
    "policy": {"limit": {"mode": "hard"}, "renewal": {"unit": "month", "anchor_day": 1}},
}
_POOL = {"key": "acme-tokens", **_BODY}


def visible_pool(farebox: State, principal: Principal, key: str) -> PoolKey:
    """Return a pool that whoever asks may see; raises Refused."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        found = find_pool(connection, principal.organization_id, key=key)
    if found is None or principal.customer_key not in (None, found.customer):
        raise refused(RefusalCode.POOL_UNKNOWN, f"there is no pool {key[:150]!r}")
    return found


@put(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_pool",
    opt=describe(
        "Put a pool: open it, or change what it allows",
        request=PoolDefinition,
        answer=PoolAnswer,
        codes=[HttpCode.KEY_MISMATCH, CatalogCode.UNKNOWN_CUSTOMER, *PoolCode],
        examples=[
            Example(path="/v1/pools/acme-tokens", body=_BODY, status=201),
            Example(path="/v1/pools/acme-tokens", body={**_BODY, "unit": "credit"}, status=422),
            Example(path="/v1/pools/acme-spare", body={"unit": "use"}, status=201),
            Example(
                path="/v1/pools/acme-seat-12",
                body={"unit": "render", "license": "ACME-7F3K-22QX"},
                status=201,
            ),
            Example(
                path="/v1/pools/acme-burst",
                body={
                    "unit": "token",
                    "customer": "acme",
                    "policy": {"currency": "USD", "limit": {"mode": "hard", "price": "0.01"}},
                },
                status=422,
            ),
        ],
        description=(
            "A change is in force from the next decision on, without a restart. The unit, customer,"
            " license, subject and time zone of a pool never change. Answers 201 for a new pool."
        ),
    ),
)
def put_one(farebox: State, principal: Principal, key: str, body: RawBody) -> Response[bytes]:
    """Put a pool."""
    definition = read_keyed(body, key, PoolDefinition)
    done = put_pool(
        farebox.pool,
        principal.organization_id,
        definition,
        farebox.clock(),
        farebox.new_id(),
    )
    if isinstance(done, Refusal):
        raise refused_by(key, done)
    if isinstance(done, list):
        raise refused_for(done)
    answer = PoolAnswer(done.changed, done.definition)
    return tagged(answer, None, 201 if done.created else 200)


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_pools",
    opt=describe(
        "List pools by key, as they stand now",
        answer=Page[PoolView],
        examples=[
            Example(path="/v1/pools?customer=acme"),
            Example(path="/v1/pools?license=ACME-7F3K-22QX"),
        ],
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    license: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[PoolView]:
    """List pools, of one customer or license where that is asked."""
    visible = visible_customer(principal, customer)
    after, organization_id = after_key(cursor), principal.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        found = list_pools(
            connection,
            organization_id,
            customer=visible,
            license=license,
            after=after,
            limit=limit + 1,
        )
        ids = [one.pool_id for one in found]
        books = books_now(connection, organization_id, ids, farebox.clock())
        views = []
        for one in found:
            stored = find_definition(connection, organization_id, one.key)
            assert stored is not None, "a snapshot does not change"
            views.append(pool_view(stored[1], books[one.pool_id]))
    return page_of(views, limit, lambda view: [view.key])


@get(
    "/{key:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_pool",
    opt=describe(
        "Read a pool: what is available, held, used and owed now",
        answer=PoolView,
        codes=[RefusalCode.POOL_UNKNOWN],
        examples=[Example(path="/v1/pools/acme-tokens")],
    ),
)
def get_one(farebox: State, principal: Principal, key: str) -> PoolView:
    """Read a pool."""
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        stored = find_definition(connection, organization_id, key)
        assert stored is not None, "a pool is never removed"
        books = books_now(connection, organization_id, [found.pool_id], farebox.clock())
    return pool_view(stored[1], books[found.pool_id])


@post(
    "/{key:str}/check",
    guards=[requires(Scope.DRAW, Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    status_code=200,
    operation_id="check_pool",
    opt=describe(
        "Ask whether a pool would give, without taking",
        request=AuthorizeRequest,
        answer=CheckAnswer,
        codes=[HttpCode.KEY_MISMATCH, RefusalCode.POOL_UNKNOWN],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/check",
                body={"pool": "acme-tokens", "amount": "5"},
            )
        ],
        description=(
            "What `POST /v1/authorize` would answer now; nothing moves, nothing is stored."
            " `available` is what there is before the draw, where the answer to a draw has what is"
            " left after it. A key that may draw or read may ask."
        ),
    ),
)
def check_one(farebox: State, principal: Principal, key: str, body: RawBody) -> CheckAnswer:
    """Check without taking."""
    asked = read_body(body, AuthorizeRequest)
    if asked.pool not in (None, key):
        detail = f"the body says {asked.pool!r}, the path says {key!r}"
        raise refused(HttpCode.KEY_MISMATCH, detail, pointer="/pool")
    if asked.feature is not None:
        detail = "a check is of the pool in its path, not of a feature"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/feature")
    command = command_of(asked, None)
    assert isinstance(command, (Draw, Reserve))
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    if asked.license not in (None, found.license):
        detail = f"pool {key!r} is not one of license {asked.license!r}"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/license")
    customer, now = asked.customer, farebox.clock()
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        book, outcome = check_pool_for(connection, organization_id, found.pool_id, command, now)
        if customer is not None and not is_served(
            connection, organization_id, found, customer, now
        ):
            outcome = not_served(found, customer)
    available = book.pool.balances[Account.GRANT]
    if isinstance(outcome, Refusal):
        covers = _covers(farebox, principal, found, command, outcome, book)
        problem = decision_problem(key, outcome, covers)
        return CheckAnswer(granted=False, available=available, refusal=problem)
    covered = exact_sum([one.amount for one in outcome if one.account in COVERED])
    return CheckAnswer(
        granted=True, covered=covered, beyond=command.amount - covered, available=available
    )


def _covers(
    farebox: State,
    principal: Principal,
    pool: PoolKey,
    command: Draw | Reserve,
    refusal: Refusal,
    book: Book,
) -> Sequence[Cover]:
    """Return what would cover what a check refused."""
    use = Use(
        feature=pool.feature,
        customer=pool.customer,
        subject=command.subject,
        allotment=command.allotment,
        amount=command.amount,
    )
    if not is_helped(refusal, use):
        return ()
    now = farebox.clock()
    sold = farebox.covers.read(farebox.pool, principal.organization_id, use, now)
    return covers_of(sold, refusal, use, book)


routes = Router("/v1/pools", route_handlers=[put_one, list_all, get_one, check_one], tags=["Pools"])
