"""Refusals of pools: who was told no, why, how often, and whether it was resolved."""

from datetime import timedelta

from litestar import Router, get

from farebox.access.key import Scope
from farebox.flows.query_usage import UsageCode
from farebox.http.authenticate import Principal, requires
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Limit
from farebox.http.pools import visible_pool
from farebox.http.span import MaybeSince, MaybeUntil, in_order, maybe_instant
from farebox.http.state import State
from farebox.ledger.refusal import RefusalCode
from farebox.postgres.pool import RefusalRow, refusals
from farebox.postgres.session import transaction

_SHOWN = timedelta(days=7)


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_refusals",
    opt=describe(
        "List what pools refused, by minute, the latest first",
        answer=list[RefusalRow],
        codes=[RefusalCode.POOL_UNKNOWN, UsageCode.RANGE_EMPTY],
        examples=[
            Example(path="/v1/refusals?pool=acme-tokens", answer=[]),
            Example(path="/v1/refusals?customer=acme"),
        ],
        description=(
            "Refusals of one code to one subject in one minute are one row. `resolved_at` is when"
            " the same subject was next granted something by this pool. Without `since`: of the"
            " last seven days. `customer`: of that customer's pools. What is refused before a pool"
            " decides is not listed: `feature_not_entitled`, `unknown_customer`, `pool_unknown`,"
            " and whatever is wrong with the request itself."
        ),
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    pool: str | None = None,
    customer: str | None = None,
    subject: str | None = None,
    since: MaybeSince = None,
    until: MaybeUntil = None,
    limit: Limit = PAGE_USUAL,
) -> list[RefusalRow]:
    """List refusals."""
    pool_id = None if pool is None else visible_pool(farebox, principal, pool).pool_id
    starts, ends = maybe_instant(since, "since"), maybe_instant(until, "until")
    in_order(starts, ends)
    now = farebox.clock()
    with transaction(farebox.pool, principal.organization_id) as connection:
        return refusals(
            connection,
            principal.organization_id,
            pool_id=pool_id,
            customer=customer,
            subject=subject,
            since=starts or now - _SHOWN,
            until=ends or now + timedelta(minutes=1),
            limit=limit,
        )


routes = Router("/v1/refusals", route_handlers=[list_all], tags=["Ledger"])
