"""Grants: units that come into a pool, once or each period, paid for or not."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from litestar import Response, Router, get, post, put
from litestar.params import RawBody
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered
from farebox.access.key import Scope
from farebox.catalog.rule import KEY
from farebox.flows.answer_once import Reply
from farebox.flows.grant_units import change_grant, grant_units, recur, stop_recurring
from farebox.flows.read_pool import books_now, grants_now
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body, read_keyed
from farebox.http.code import HttpCode
from farebox.http.decision import refused_by
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, before_number, page_of
from farebox.http.pool_view import (
    GrantView,
    RecurrenceView,
    grant_view,
    recurrence_view,
)
from farebox.http.pools import visible_pool
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.ledger.administer import NewGrant, NewRecurrence
from farebox.ledger.pool_check import PoolCode, check_grant, check_recurrence
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.book import grant_by_key
from farebox.postgres.pool import find_definition
from farebox.postgres.session import transaction

_GRANT = {
    "id": "grt_01jbsqz4e2e0rv8h9yj0fn5c7k_1",
    "key": "order-1",
    "amount": "100000",
    "available": "100000",
    "held": "0",
    "status": "active",
    "basis": "purchased",
    "priority": 0,
    "issued_at": "2026-10-01T00:00:00Z",
    "effective_at": "2026-10-01T00:00:00Z",
    "expires_at": None,
    "cost": None,
    "on_invoice": False,
    "pay_by": None,
    "metadata": {},
}
_RECURRENCE = {
    "key": "monthly",
    "amount": "1000",
    "priority": 1,
    "basis": "included",
    "cost": None,
    "renewal": {"unit": "month", "count": 1, "anchor_day": None},
    "timezone": "America/New_York",
    "starts_at": "2026-10-01T00:00:00Z",
    "ends_at": None,
    "rollover": {"percent": "50", "units": "200", "seconds": None},
    "prorated": False,
    "next_at": "2026-11-01T00:00:00Z",
}


def _currency(connection: Connection, organization_id: Any, key: str) -> str | None:
    stored = find_definition(connection, organization_id, key)
    return None if stored is None else stored[1].policy.currency


@post(
    "/{key:str}/grants",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="create_grant",
    opt=describe(
        "Grant units: bought, included or given",
        request=NewGrant,
        answer=GrantView,
        status=201,
        codes=[
            RefusalCode.POOL_UNKNOWN,
            RefusalCode.GRANT_KEY_REUSED,
            RefusalCode.GRANT_TIMES_INVALID,
            RefusalCode.GRANT_ALREADY_EXPIRED,
            RefusalCode.POOL_CLOSED,
            PoolCode.AMOUNT_NOT_POSITIVE,
        ],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/grants",
                body={"key": "order-1", "amount": "100000", "basis": "purchased"},
                status=201,
                answer=_GRANT,
            ),
            Example(
                path="/v1/pools/acme-tokens/grants",
                body={"key": "order-2", "amount": "-5"},
                status=422,
            ),
        ],
        description=(
            "With `pending` the units wait until the grant is paid. The same `key` again returns"
            " the grant as it stands."
        ),
    ),
)
def create_one(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Grant units."""
    asked = read_body(body, NewGrant)
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id

    def act(connection: Connection) -> Reply:
        problems = check_grant(asked, _currency(connection, organization_id, key))
        if problems:
            raise refused_for(problems)
        done = grant_units(connection, organization_id, found.pool_id, asked, farebox.clock())
        if isinstance(done, Refusal):
            raise refused_by(key, done)
        return reply_with(grant_view(found.pool_id, done), 201)

    path = f"POST /v1/pools/{key}/grants"
    return change_once(farebox, principal, idempotency_key, path, body, act)


@get(
    "/{key:str}/grants",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_grants",
    opt=describe(
        "List the grants of a pool, the latest first",
        answer=Page[GrantView],
        codes=[RefusalCode.POOL_UNKNOWN],
        examples=[Example(path="/v1/pools/acme-tokens/grants")],
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    key: str,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[GrantView]:
    """List grants, closed ones too."""
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    grants = grants_now(
        farebox.pool,
        organization_id,
        found.pool_id,
        farebox.clock(),
        before=before_number(cursor),
        limit=limit + 1,
    )
    return page_of(
        [grant_view(found.pool_id, one) for one in grants],
        limit,
        lambda view: [view.id.rpartition("_")[2]],
    )


def _number_of(connection: Connection, organization_id: UUID, pool_id: UUID, name: str) -> int:
    """Return the number of the grant with this id or key; raises Refused."""
    named = decode_numbered(Prefix.GRANT, name)
    if named is not None and named[0] == pool_id:
        return named[1]
    found = None
    if KEY.fullmatch(name) is not None:
        found = grant_by_key(connection, organization_id, pool_id, name)
    if found is None:
        raise refused(RefusalCode.GRANT_UNKNOWN, "there is no such grant in this pool")
    return found.number


def _changing(verb: str, summary: str, description: str) -> Callable[..., Any]:
    @post(
        f"/{{key:str}}/grants/{{grant:str}}/{verb}",
        guards=[requires(Scope.MANAGE)],
        sync_to_thread=True,
        status_code=200,
        operation_id=f"{verb}_grant",
        opt=describe(
            summary,
            answer=GrantView,
            codes=[
                RefusalCode.POOL_UNKNOWN,
                RefusalCode.GRANT_UNKNOWN,
                *(
                    [RefusalCode.GRANT_NOT_PENDING]
                    if verb in _PAYING
                    else [RefusalCode.GRANT_REFILLS, RefusalCode.GRANT_CLOSED]
                ),
            ],
            examples=[
                Example(
                    path=f"/v1/pools/acme-tokens/grants/grt_01jbsqz4e2e0rv8h9yj0fn5c7k_9/{verb}",
                    body={},
                    status=404,
                )
            ],
            description=f"{description} The grant is named by its id or by its key.",
        ),
    )
    def change(
        farebox: State,
        principal: Principal,
        key: str,
        grant: str,
        body: RawBody,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[bytes]:
        """Change a grant."""
        found, organization_id = visible_pool(farebox, principal, key), principal.organization_id

        def act(connection: Connection) -> Reply:
            scope = connection, organization_id, found.pool_id
            done = change_grant(*scope, _number_of(*scope, grant), verb, farebox.clock())
            if isinstance(done, Refusal):
                raise refused_by(key, done)
            return reply_with(grant_view(found.pool_id, done))

        path = f"POST /v1/pools/{key}/grants/{grant}/{verb}"
        return change_once(farebox, principal, idempotency_key, path, body, act)

    return change


_PAYING = frozenset({"pay", "fail"})
pay_one = _changing(
    "pay",
    "Say that a pending grant is paid",
    "Its units may be taken at once, or from when it comes into force.",
)
fail_one = _changing(
    "fail", "Say that a pending grant was not paid", "It falls back to where it came from."
)
void_one = _changing(
    "void",
    "Take back what is left of a grant",
    "What of it is held, or was drawn and is taken back, goes too when it comes back, and is"
    " refunded like the rest where it was bought on invoice; what was used stays used.",
)
expire_one = _changing("expire", "Let a grant expire now", "As if its time had come.")


@put(
    "/{key:str}/recurring_grants/{name:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_recurring_grant",
    opt=describe(
        "Let a grant come anew each period",
        request=NewRecurrence,
        answer=RecurrenceView,
        codes=[
            HttpCode.KEY_MISMATCH,
            RefusalCode.POOL_UNKNOWN,
            RefusalCode.GRANT_KEY_REUSED,
            PoolCode.ROLLOVER_INVALID,
            PoolCode.RENEWAL_INVALID,
        ],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/recurring_grants/monthly",
                body={
                    "amount": "1000",
                    "priority": 1,
                    "rollover": {"percent": "50", "units": "200"},
                },
                answer=_RECURRENCE,
            )
        ],
        description=(
            "The first grant comes when it starts, each expires with its period. `rollover` says"
            " what of the rest is kept. To change one, end it and put another under another name:"
            " the same again changes nothing, anything else is refused."
        ),
    ),
)
def put_recurring(
    farebox: State, principal: Principal, key: str, name: str, body: RawBody
) -> RecurrenceView:
    """Let a grant recur."""
    asked = read_keyed(body, name, NewRecurrence)
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    with transaction(farebox.pool, organization_id) as connection:
        problems = check_recurrence(asked, _currency(connection, organization_id, key))
        if problems:
            raise refused_for(problems)
        done = recur(connection, organization_id, found.pool_id, asked, farebox.clock())
        if isinstance(done, Refusal):
            raise refused_by(key, done)
    return recurrence_view(done)


@get(
    "/{key:str}/recurring_grants",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_recurring_grants",
    opt=describe(
        "List the recurring grants of a pool",
        answer=list[RecurrenceView],
        codes=[RefusalCode.POOL_UNKNOWN],
        examples=[Example(path="/v1/pools/acme-tokens/recurring_grants")],
    ),
)
def list_recurring(farebox: State, principal: Principal, key: str) -> list[RecurrenceView]:
    """List what recurs."""
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        books = books_now(connection, organization_id, [found.pool_id], farebox.clock())
    ordered = sorted(books[found.pool_id].recurrences.values(), key=lambda one: one.key)
    return [recurrence_view(one) for one in ordered]


@post(
    "/{key:str}/recurring_grants/{name:str}/end",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    status_code=200,
    operation_id="end_recurring_grant",
    opt=describe(
        "Let no further grant of a recurring one come",
        answer=RecurrenceView,
        codes=[RefusalCode.POOL_UNKNOWN, RefusalCode.GRANT_UNKNOWN],
        examples=[
            Example(path="/v1/pools/acme-tokens/recurring_grants/weekly/end", body={}, status=404)
        ],
        description="The grant of the running period stays until the period ends.",
    ),
)
def end_recurring(
    farebox: State,
    principal: Principal,
    key: str,
    name: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """End what recurs."""
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id

    def act(connection: Connection) -> Reply:
        done = stop_recurring(connection, organization_id, found.pool_id, name, farebox.clock())
        if isinstance(done, Refusal):
            raise refused_by(key, done)
        return reply_with(recurrence_view(done))

    path = f"POST /v1/pools/{key}/recurring_grants/{name}/end"
    return change_once(farebox, principal, idempotency_key, path, body, act)


routes = Router(
    "/v1/pools",
    route_handlers=[
        create_one,
        list_all,
        pay_one,
        fail_one,
        void_one,
        expire_one,
        put_recurring,
        list_recurring,
        end_recurring,
    ],
    tags=["Grants"],
)
