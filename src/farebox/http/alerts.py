"""Alerts: what fires now, and what did before."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from litestar import Router, get
from litestar.params import QueryParameter
from msgspec import Struct

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.alerts.rule import AlertKind
from farebox.events.time import parse_time
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.code import HttpCode
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, decode_cursor, page_of
from farebox.http.pools import visible_pool
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.ledger.refusal import RefusalCode
from farebox.postgres.alert import AlertRow, AlertState, ClearedBy, alerts
from farebox.postgres.session import transaction

# The framework keeps the name `state` of a parameter for itself.
Shown = Annotated[
    AlertState | None, QueryParameter(name="state", description="only those that fire, or do not")
]


class AlertView(Struct, frozen=True, kw_only=True):
    """One crossing of a rule at a pool, with name and threshold of the rule as it was then.

    value: when it fired. sequence: of the pool's statement, then. cleared_by: `value` when it came
    back, `period` when a new one began, `rule` when the rule no longer watched this pool.
    """

    id: str
    state: AlertState
    rule: str
    name: str
    kind: AlertKind
    pool: str
    customer: str | None
    unit: str
    currency: str | None
    threshold: Decimal
    value: Decimal
    sequence: int
    fired_at: datetime
    cleared_at: datetime | None
    cleared_value: Decimal | None
    cleared_by: ClearedBy | None


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_alerts",
    opt=describe(
        "List alerts, the last to fire first",
        answer=Page[AlertView],
        codes=[HttpCode.CURSOR_INVALID, RefusalCode.POOL_UNKNOWN],
        examples=[
            Example(
                path="/v1/alerts?state=firing&pool=acme-tokens",
                answer={"items": [], "next_cursor": None},
            )
        ],
        description="Those that fire now with `state=firing`; without it, the history too.",
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    shown: Shown = None,
    customer: str | None = None,
    pool: str | None = None,
    rule: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[AlertView]:
    """List alerts, of one customer, pool or rule where that is asked."""
    after = _after(cursor)
    visible = visible_customer(principal, customer)
    pool_id = None if pool is None else visible_pool(farebox, principal, pool).pool_id
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = alerts(
            connection,
            principal.organization_id,
            state=shown,
            customer_key=visible,
            pool_id=pool_id,
            rule_key=rule,
            after=after,
            limit=limit + 1,
        )
    return page_of(
        [_view(row) for row in rows], limit, lambda view: [view.fired_at.isoformat(), view.id]
    )


def _view(row: AlertRow) -> AlertView:
    cleared_by = row.cleared_by
    return AlertView(
        id=encode_id(Prefix.ALERT, row.alert_id),
        state=row.state,
        rule=row.rule_key,
        name=row.rule_name,
        kind=AlertKind(row.kind),
        pool=row.pool_key,
        customer=row.customer_key,
        unit=row.unit,
        currency=row.currency,
        threshold=row.threshold,
        value=row.value,
        sequence=row.sequence,
        fired_at=row.fired_at.astimezone(UTC),
        cleared_at=None if row.cleared_at is None else row.cleared_at.astimezone(UTC),
        cleared_value=row.cleared_value,
        cleared_by=None if cleared_by is None else ClearedBy(cleared_by),
    )


def _after(cursor: str | None) -> tuple[datetime, UUID] | None:
    values = decode_cursor(cursor, 2)
    if values is None:
        return None
    time, identifier = parse_time(values[0]), decode_id(Prefix.ALERT, values[1])
    if time is None or identifier is None:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return time, identifier


routes = Router("/v1/alerts", route_handlers=[list_all], tags=["Alerts"])
