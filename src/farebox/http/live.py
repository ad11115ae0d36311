"""The balance of a pool as it changes: server-sent events over one long answer."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from litestar import Request, Router, get
from litestar.concurrency import sync_to_thread
from litestar.response import Stream

from farebox.access.key import Scope
from farebox.http.authenticate import (
    KeyMemory,
    Principal,
    authenticate,
    presented_key,
    requires,
)
from farebox.http.code import HttpCode
from farebox.http.live_balance import BalanceEvent, LiveBalances
from farebox.http.operation import Example, describe
from farebox.http.pools import visible_pool
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.ledger.refusal import RefusalCode

MEDIA_TYPE = "text/event-stream"
# A proxy that gathers an answer before it passes it on would hold every event back.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def live_response(
    live: LiveBalances,
    organization_id: UUID,
    pool_id: UUID,
    allowed: Callable[[], Awaitable[bool]],
) -> Stream:
    """Return the answer that follows a pool; raises Refused (`overloaded`)."""
    if live.is_full:
        detail = "this server has as many listeners as it can; try again soon"
        raise refused(HttpCode.OVERLOADED, detail, headers={"Retry-After": "5"})
    events = live.events(organization_id, pool_id, allowed)
    return Stream(events, media_type=MEDIA_TYPE, headers=_HEADERS)


@get(
    "/{key:str}/live",
    guards=[requires(Scope.READ, customer_bound=True)],
    operation_id="follow_pool",
    opt=describe(
        "Follow the balance of a pool as it changes, as server-sent events",
        answer=BalanceEvent,
        answer_type=MEDIA_TYPE,
        codes=[RefusalCode.POOL_UNKNOWN, HttpCode.OVERLOADED],
        examples=[Example(path="/v1/pools/nowhere/live", status=404)],
        description=(
            "The answer is `text/event-stream` and does not end: an event `balance` at once, then"
            " one whenever the pool has changed, at most four a second, with the version of the"
            " pool as its id. A comment comes every 15 seconds. `Last-Event-ID` may be sent; the"
            " first event says in any case what the pool stands at."
        ),
    ),
)
async def follow(
    request: Request[Any, Any, Any],
    farebox: State,
    principal: Principal,
    key_memory: KeyMemory,
    live: LiveBalances,
    key: str,
) -> Stream:
    """Follow a pool."""
    found = await sync_to_thread(visible_pool, farebox, principal, key)
    presented = presented_key(
        request.headers.get("authorization"), request.headers.get("x-api-key")
    )

    async def allowed() -> bool:
        return await authenticate(key_memory, presented) == principal

    return live_response(live, principal.organization_id, found.pool_id, allowed)


routes = Router("/v1/pools", route_handlers=[follow], tags=["Pools"])
