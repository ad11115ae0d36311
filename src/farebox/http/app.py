"""The application: every route of the API, and what stands before and behind them."""

import warnings
from collections.abc import Sequence
from typing import Any, cast

from litestar import Litestar, Request, Response, Router
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import LitestarDeprecationWarning
from litestar.types import (
    ControllerRouterHandler,
    ExceptionHandler,
    HTTPScope,
    LifeSpanReceive,
    LifeSpanSend,
    Receive,
    Send,
)
from litestar.types import Scope as AsgiScope
from litestar.types.asgi_types import LifeSpanScope

from farebox.catalog.plain_json import encode
from farebox.http import (
    access,
    alert_rules,
    alerts,
    aliases,
    allotments,
    api_keys,
    backfills,
    billing_runs,
    catalog,
    check,
    customers,
    entitlements,
    explain,
    features,
    grants,
    health,
    invoices,
    licenses,
    live,
    meters,
    notices,
    organization,
    partners,
    plans,
    pool_usage,
    pools,
    rate_cards,
    reference,
    refusals,
    sources,
    statements,
    subjects,
    subscriptions,
    unbilled,
    unburned,
    usage,
    uses,
    webhook_deliveries,
    webhook_endpoints,
)
from farebox.http.authenticate import KeyMemory, key_memory, provide_principal
from farebox.http.code import HttpCode
from farebox.http.decisions import AUTHORIZE, BATCH, DecisionsEndpoint, is_hold_verb
from farebox.http.events import PATH as EVENTS
from farebox.http.events import EventsEndpoint
from farebox.http.failure import describe_failure
from farebox.http.live_balance import LiveBalances
from farebox.http.pages.routes import handlers as pages
from farebox.http.plain_response import PlainResponse
from farebox.http.problem import MEDIA_TYPE, problem_details, problem_response
from farebox.http.security import SECURITY_HEADERS, add_security_headers
from farebox.http.state import State

# In this order the examples of the API build on each other.
ROUTES: Sequence[Router] = (
    health.routes,
    reference.routes,
    organization.routes,
    meters.routes,
    backfills.routes,
    features.routes,
    aliases.routes,
    rate_cards.routes,
    plans.routes,
    partners.routes,
    customers.routes,
    subjects.routes,
    subscriptions.routes,
    licenses.routes,
    pools.routes,
    grants.routes,
    entitlements.routes,
    access.routes,
    uses.routes,
    unburned.routes,
    allotments.routes,
    statements.routes,
    pool_usage.routes,
    live.routes,
    statements.draw_routes,
    refusals.routes,
    catalog.routes,
    api_keys.routes,
    usage.routes,
    invoices.routes,
    invoices.upcoming_routes,
    billing_runs.routes,
    unbilled.routes,
    sources.routes,
    explain.routes,
    check.routes,
    alert_rules.routes,
    alerts.routes,
    webhook_endpoints.routes,
    notices.routes,
    webhook_deliveries.routes,
    *pages,
)
_BODY_BYTES_MAX = 10_000_000

HotEndpoint = EventsEndpoint | DecisionsEndpoint


class Farebox(Litestar):
    """The application; the hot paths are taken before the framework's router has a look."""

    farebox: State
    events: EventsEndpoint
    decisions: DecisionsEndpoint
    live: LiveBalances

    async def __call__(
        self,
        scope: AsgiScope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        """Answer a request."""
        if scope["type"] == ScopeType.HTTP:
            http = cast("HTTPScope", scope)
            sender = cast("Send", send)
            if "\0" in http["path"] or b"%00" in http["query_string"]:
                detail = "the null character cannot be stored; no path or query holds it"
                problem = problem_details(HttpCode.PARAMETER_INVALID, detail)
                await _send_problem(sender, problem, {})
                return
            endpoint = self._hot(http["path"]) if http["method"] == "POST" else None
            if endpoint is not None:
                await self._take(endpoint, http, cast("Receive", receive), sender)
                return
        await super().__call__(scope, receive, send)

    def _hot(self, path: str) -> HotEndpoint | None:
        if path == EVENTS:
            return self.events
        if path in (AUTHORIZE, BATCH) or is_hold_verb(path):
            return self.decisions
        return None

    async def _take(
        self, endpoint: HotEndpoint, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        try:
            await endpoint(scope, receive, send)
        except Exception as error:  # the last resort of a server: no answer would be worse
            problem, headers = describe_failure(error, self.farebox.new_id())
            await _send_problem(send, problem, headers)


def create_app(
    farebox: State, *, routes: Sequence[ControllerRouterHandler] = ROUTES, **options: Any
) -> Farebox:
    """Return the application for one process; `options` are Litestar's."""
    memory = key_memory(farebox)
    live_balances = LiveBalances(farebox.pool, farebox.clock)

    def handle(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return problem_response(*describe_failure(error, farebox.new_id()))

    with warnings.catch_warnings():
        # Routes take path, query and dependencies by name, as Litestar 2 infers them; 3 will want
        # each one marked.
        warnings.simplefilter("ignore", LitestarDeprecationWarning)
        app = _build(farebox, memory, live_balances, routes, handle, options)
    app.state.key_memory = memory
    app.live = live_balances
    app.farebox = farebox
    app.events = EventsEndpoint(farebox, memory)
    app.decisions = DecisionsEndpoint(farebox, memory)
    return app


def _build(
    farebox: State,
    memory: KeyMemory,
    live_balances: LiveBalances,
    routes: Sequence[ControllerRouterHandler],
    handle: "ExceptionHandler[Any]",
    options: dict[str, Any],
) -> Farebox:
    return Farebox(
        route_handlers=list(routes),
        dependencies={
            "farebox": Provide(lambda: farebox, sync_to_thread=False),
            "key_memory": Provide(lambda: memory, sync_to_thread=False),
            "live": Provide(lambda: live_balances, sync_to_thread=False),
            "principal": Provide(provide_principal, sync_to_thread=False),
        },
        exception_handlers={Exception: handle},
        before_send=[add_security_headers],
        openapi_config=None,
        logging_config=None,
        response_class=PlainResponse,
        request_max_body_size=_BODY_BYTES_MAX,
        **options,
    )


async def _send_problem(send: Send, problem: Any, headers: Any) -> None:
    body = encode(problem)
    named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    start: Any = {
        "type": "http.response.start",
        "status": problem.status,
        "headers": [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *SECURITY_HEADERS,
            *named,
        ],
    }
    await send(start)
    end: Any = {"type": "http.response.body", "body": body, "more_body": False}
    await send(end)
