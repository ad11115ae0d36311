"""Refusals of pools: who was told no, why, how often, and whether it was resolved."""

from datetime import timedelta

from litestar import Router, get

from farebox.access.key import Scope
from farebox.http.authenticate import Principal, requires
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Limit
from farebox.http.pools import visible_pool
from farebox.http.span import MaybeSince, MaybeUntil, maybe_instant
from farebox.http.state import State
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
        examples=[Example(path="/v1/refusals?pool=acme-tokens", answer=[])],
        description=(
            "Refusals of one code to one subject in one minute are one row. `resolved_at` is when"
            " the same subject was next granted something by this pool. Without `since`: of the"
            " last seven days. What is refused before a pool decides is not listed:"
            " `feature_not_entitled`, `unknown_customer`, `pool_unknown`, and whatever is wrong"
            " with the request itself."
        ),
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    pool: str | None = None,
    subject: str | None = None,
    since: MaybeSince = None,
    until: MaybeUntil = None,
    limit: Limit = PAGE_USUAL,
) -> list[RefusalRow]:
    """List refusals."""
    pool_id = None if pool is None else visible_pool(farebox, principal, pool).pool_id
    starts, ends = maybe_instant(since, "since"), maybe_instant(until, "until")
    now = farebox.clock()
    with transaction(farebox.pool, principal.organization_id) as connection:
        return refusals(
            connection,
            principal.organization_id,
            pool_id=pool_id,
            subject=subject,
            since=starts or now - _SHOWN,
            until=ends or now + timedelta(minutes=1),
            limit=limit,
        )


routes = Router("/v1/refusals", route_handlers=[list_all], tags=["Ledger"])
