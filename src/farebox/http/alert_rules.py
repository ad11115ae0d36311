"""Alert rules: what is watched of which pools, and at which threshold it is told."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from litestar import Response, Router, delete, get, put
from litestar.params import RawBody
from msgspec import Struct
from msgspec.structs import asdict

from farebox.access.key import Scope
from farebox.alerts.rule import AlertKind, AlertRule
from farebox.alerts.rule_check import AlertCode
from farebox.catalog.code import CatalogCode
from farebox.flows.put_alert_rule import delete_alert_rule, put_alert_rule
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_keyed
from farebox.http.code import HttpCode
from farebox.http.definition import tagged
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.problem import Refused, refused, refused_for
from farebox.http.state import State
from farebox.postgres import alert_rule as store
from farebox.postgres.alert_rule import RuleRow
from farebox.postgres.session import transaction


class RuleView(Struct, frozen=True, kw_only=True):
    """A rule, and when it was put first and last; see `AlertRule` for what its fields mean."""

    key: str
    name: str
    kind: AlertKind
    threshold: Decimal
    clear_at: Decimal | None
    pool: str | None
    customer: str | None
    window_minutes: int | None
    units: Decimal | None
    currency: str | None
    enabled: bool
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


class RuleAnswer(Struct, frozen=True):
    """The rule as it stands; `changed` is false where it stood so already."""

    changed: bool
    rule: RuleView


_BODY = {
    "name": "Acme is nearly out of tokens",
    "kind": "balance_below",
    "threshold": "1000",
    "clear_at": "2000",
    "pool": "acme-tokens",
}
_RULE: dict[str, object] = {
    "key": "acme-low",
    "name": "Acme is nearly out of tokens",
    "kind": "balance_below",
    "threshold": "1000",
    "clear_at": "2000",
    "pool": "acme-tokens",
    "customer": None,
    "window_minutes": None,
    "units": None,
    "currency": None,
    "enabled": True,
    "metadata": {},
    "created_at": "2026-10-01T00:00:00Z",
    "updated_at": "2026-10-01T00:00:00Z",
}


@put(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_alert_rule",
    opt=describe(
        "Put a rule that watches pools",
        request=AlertRule,
        answer=RuleAnswer,
        codes=[HttpCode.KEY_MISMATCH, CatalogCode.UNKNOWN_CUSTOMER, *AlertCode],
        examples=[
            Example(
                path="/v1/alert_rules/acme-low",
                body=_BODY,
                status=201,
                answer={"changed": True, "rule": _RULE},
            ),
            Example(
                path="/v1/alert_rules/acme-low",
                body=_BODY,
                answer={"changed": False, "rule": _RULE},
            ),
            Example(
                path="/v1/alert_rules/burning",
                body={"kind": "burn_rate_above", "threshold": "5000", "window_minutes": 60},
                status=201,
            ),
            Example(
                path="/v1/alert_rules/wrong",
                body={"kind": "balance_below", "threshold": "10", "clear_at": "5"},
                status=422,
            ),
        ],
        description=(
            "With `pool` it watches that pool, with `customer` all pools of the customer, with"
            " neither all pools. A change judges from the next look on, within a minute. Answers"
            " 201 for a new rule."
        ),
    ),
)
def put_one(farebox: State, principal: Principal, key: str, body: RawBody) -> Response[bytes]:
    """Put a rule."""
    rule = read_keyed(body, key, AlertRule)
    done = put_alert_rule(farebox.pool, principal.organization_id, rule, farebox.clock())
    if isinstance(done, list):
        raise refused_for(done)
    return tagged(RuleAnswer(done.changed, _view(done.row)), None, 201 if done.created else 200)


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_alert_rules",
    opt=describe(
        "List rules by key",
        answer=Page[RuleView],
        examples=[Example(path="/v1/alert_rules")],
    ),
)
def list_all(
    farebox: State, principal: Principal, cursor: Cursor = None, limit: Limit = PAGE_USUAL
) -> Page[RuleView]:
    """List rules."""
    after = after_key(cursor)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = store.rules(connection, principal.organization_id, after=after, limit=limit + 1)
    return page_of([_view(row) for row in rows], limit, lambda view: [view.key])


@get(
    "/{key:str}",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="get_alert_rule",
    opt=describe(
        "Read a rule",
        answer=RuleView,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/alert_rules/acme-low", answer=_RULE)],
    ),
)
def get_one(farebox: State, principal: Principal, key: str) -> RuleView:
    """Read a rule."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = store.find_rule(connection, principal.organization_id, key)
    if row is None:
        raise _missing(key)
    return _view(row)


@delete(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    status_code=204,
    sync_to_thread=True,
    operation_id="delete_alert_rule",
    opt=describe(
        "Delete a rule; what it fired clears, and stays in the history",
        status=204,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/alert_rules/nowhere", status=404)],
    ),
)
def delete_one(farebox: State, principal: Principal, key: str) -> None:
    """Delete a rule."""
    if not delete_alert_rule(farebox.pool, principal.organization_id, key, farebox.clock()):
        raise _missing(key)


def _missing(key: str) -> Refused:
    return refused(HttpCode.NOT_FOUND, f"there is no alert rule {key[:150]!r}")


def _view(row: RuleRow) -> RuleView:
    return RuleView(**asdict(row.rule), created_at=row.created_at, updated_at=row.updated_at)


routes = Router(
    "/v1/alert_rules", route_handlers=[put_one, list_all, get_one, delete_one], tags=["Alerts"]
)
