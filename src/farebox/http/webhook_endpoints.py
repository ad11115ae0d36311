"""Webhook endpoints: which systems are told what, by which secret they know who tells them."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from litestar import Response, Router, delete, get, put
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.flows.webhook_endpoint import (
    WebhookCode,
    WebhookEndpoint,
    delete_endpoint,
    put_endpoint,
)
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_keyed
from farebox.http.code import HttpCode
from farebox.http.definition import tagged
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.problem import refused_for
from farebox.http.state import State
from farebox.http.webhook_actions import (
    EXAMPLE_SECRET,
    missing_endpoint,
    read_endpoint,
    replay,
    rotate_secret,
    send_test,
)
from farebox.notices.delivery import DisabledReason
from farebox.notices.message import SECRET_BYTES
from farebox.notices.type import NoticeType
from farebox.postgres import webhook_endpoint as store
from farebox.postgres.session import transaction
from farebox.postgres.webhook_endpoint import EndpointRow


class EndpointView(Struct, frozen=True, kw_only=True):
    """An endpoint and how it goes.

    disabled_reason: why Farebox disabled it by itself, or null. failing_since: the first failure
    since the last success.
    """

    key: str
    url: str
    types: list[NoticeType]
    customer: str | None
    description: str
    enabled: bool
    metadata: Mapping[str, str]
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None
    failing_since: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    created_at: datetime
    updated_at: datetime


class EndpointAnswer(Struct, frozen=True):
    """The endpoint as it stands; `changed` is false where it stood so already.

    secret: what signs, where the endpoint is new. It is not shown again; a new one can be made.
    """

    changed: bool
    endpoint: EndpointView
    secret: str | None


_BODY = {
    "url": "https://hooks.example.com/farebox",
    "types": ["invoice.finalized"],
    "description": "Accounting",
}
_ENDPOINT: dict[str, object] = {
    "key": "accounting",
    "url": "https://hooks.example.com/farebox",
    "types": ["invoice.finalized"],
    "customer": None,
    "description": "Accounting",
    "enabled": True,
    "metadata": {},
    "disabled_at": None,
    "disabled_reason": None,
    "failing_since": None,
    "last_success_at": None,
    "last_failure_at": None,
    "created_at": "2026-10-01T00:00:00Z",
    "updated_at": "2026-10-01T00:00:00Z",
}


@put(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_webhook_endpoint",
    opt=describe(
        "Put an endpoint to which notices are sent",
        request=WebhookEndpoint,
        answer=EndpointAnswer,
        codes=[
            HttpCode.KEY_MISMATCH,
            WebhookCode.URL_INVALID,
            WebhookCode.URL_NOT_HTTPS,
            WebhookCode.URL_PRIVATE,
            WebhookCode.UNKNOWN_NOTICE_TYPE,
            CatalogCode.UNKNOWN_CUSTOMER,
            WebhookCode.TOO_MANY_ENDPOINTS,
        ],
        examples=[
            Example(
                path="/v1/webhook_endpoints/accounting",
                body=_BODY,
                status=201,
                answer={"changed": True, "endpoint": _ENDPOINT, "secret": EXAMPLE_SECRET},
            ),
            Example(
                path="/v1/webhook_endpoints/accounting",
                body=_BODY,
                answer={"changed": False, "endpoint": _ENDPOINT, "secret": None},
            ),
            Example(
                path="/v1/webhook_endpoints/inside",
                body={"url": "https://10.0.0.1/"},
                status=422,
            ),
        ],
        description=(
            "Answers 201 for a new endpoint, with the secret that signs what it gets. An endpoint"
            " that Farebox disabled is enabled again by `enabled` true."
        ),
    ),
)
def put_one(farebox: State, principal: Principal, key: str, body: RawBody) -> Response[bytes]:
    """Put an endpoint."""
    endpoint = read_keyed(body, key, WebhookEndpoint)
    done = put_endpoint(
        farebox.pool,
        principal.organization_id,
        endpoint,
        farebox.clock(),
        farebox.random_bytes(SECRET_BYTES),
        private_addresses=farebox.settings.webhook_private_addresses,
    )
    if isinstance(done, list):
        raise refused_for(done)
    answer = EndpointAnswer(done.changed, _view(done.row), done.secret)
    return tagged(answer, None, 200 if done.secret is None else 201)


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_webhook_endpoints",
    opt=describe(
        "List endpoints by key",
        answer=Page[EndpointView],
        examples=[
            Example(
                path="/v1/webhook_endpoints",
                answer={"items": [_ENDPOINT], "next_cursor": None},
            )
        ],
    ),
)
def list_all(
    farebox: State, principal: Principal, cursor: Cursor = None, limit: Limit = PAGE_USUAL
) -> Page[EndpointView]:
    """List endpoints."""
    after = after_key(cursor)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = store.endpoints(connection, principal.organization_id, after=after, limit=limit + 1)
    return page_of([_view(row) for row in rows], limit, _sort_values)


@get(
    "/{key:str}",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="get_webhook_endpoint",
    opt=describe(
        "Read an endpoint",
        answer=EndpointView,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/webhook_endpoints/accounting", answer=_ENDPOINT)],
    ),
)
def get_one(farebox: State, principal: Principal, key: str) -> EndpointView:
    """Read an endpoint."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        return _view(read_endpoint(connection, principal, key))


@delete(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    status_code=204,
    sync_to_thread=True,
    operation_id="delete_webhook_endpoint",
    opt=describe(
        "Delete an endpoint, with its deliveries and their log",
        status=204,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/webhook_endpoints/nowhere", status=404)],
        description="To keep the log, put it with `enabled` false instead.",
    ),
)
def delete_one(farebox: State, principal: Principal, key: str) -> None:
    """Delete an endpoint."""
    if not delete_endpoint(farebox.pool, principal.organization_id, key):
        raise missing_endpoint(key)


def _sort_values(view: EndpointView) -> Sequence[str]:
    return [view.key]


def _view(row: EndpointRow) -> EndpointView:
    reason = row.disabled_reason
    return EndpointView(
        key=row.key,
        url=row.url,
        types=[NoticeType(name) for name in row.types],
        customer=row.customer_key,
        description=row.description,
        enabled=row.enabled,
        metadata=msgspec.json.decode(row.metadata, type=dict[str, str]),
        disabled_at=row.disabled_at,
        disabled_reason=None if reason is None else DisabledReason(reason),
        failing_since=row.failing_since,
        last_success_at=row.last_success_at,
        last_failure_at=row.last_failure_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


routes = Router(
    "/v1/webhook_endpoints",
    route_handlers=[put_one, rotate_secret, send_test, replay, list_all, get_one, delete_one],
    tags=["Webhooks"],
)
