"""Subscriptions: which customer is on which plan version, from when to when."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from litestar import Response, Router, get, put
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.id import Prefix, encode_id
from farebox.access.key import Scope
from farebox.catalog.customer import Subscription
from farebox.flows.put_subscription import SubscriptionCode, put_subscription
from farebox.http.authenticate import Principal, require_customer, requires, visible_customer
from farebox.http.body import read_keyed
from farebox.http.code import HttpCode
from farebox.http.definition import tagged
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.postgres.customer import SubscriptionRow, find_subscription, subscriptions
from farebox.postgres.session import transaction


class SubscriptionView(Struct, frozen=True):
    """A subscription with its plan version pinned and its time zone settled."""

    id: str
    key: str
    customer: str
    plan: str
    plan_version: int
    start: datetime
    end: datetime | None
    anchor_day: int | None
    timezone: str
    metadata: Mapping[str, str]


class SubscriptionAnswer(Struct, frozen=True):
    """The subscription as it stands; `changed` is false where it stood so already."""

    changed: bool
    subscription: SubscriptionView


_BODY = {"customer": "acme", "plan": "team", "start": "2026-10-01T00:00:00Z"}
_VIEW = {
    "id": "sub_01jbsqz4e2e0rv8h9yj0fn5c7k",
    "key": "acme-team",
    "customer": "acme",
    "plan": "team",
    "plan_version": 1,
    "start": "2026-10-01T00:00:00Z",
    "end": None,
    "anchor_day": None,
    "timezone": "America/New_York",
    "metadata": {},
}


@put(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_subscription",
    opt=describe(
        "Put a customer on a plan, or set the end and metadata of a subscription",
        request=Subscription,
        answer=SubscriptionAnswer,
        codes=[HttpCode.KEY_MISMATCH, *SubscriptionCode],
        examples=[
            Example(
                path="/v1/subscriptions/acme-team",
                body=_BODY,
                status=201,
                answer={"changed": True, "subscription": _VIEW},
            ),
            Example(
                path="/v1/subscriptions/acme-team",
                body={**_BODY, "plan": "enterprise"},
                status=409,
            ),
        ],
        description="Answers 201 for a new subscription. Plan, version and start never change.",
    ),
)
def put_one(farebox: State, principal: Principal, key: str, body: RawBody) -> Response[bytes]:
    """Put a subscription."""
    subscription = read_keyed(body, key, Subscription)
    done = put_subscription(
        farebox.pool, principal.organization_id, subscription, farebox.clock(), farebox.new_id
    )
    if isinstance(done, list):
        raise refused_for(done)
    answer = SubscriptionAnswer(done.changed, _view(done.row))
    return tagged(answer, None, 201 if done.created else 200)


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_subscriptions",
    opt=describe(
        "List subscriptions by key",
        answer=Page[SubscriptionView],
        examples=[
            Example(
                path="/v1/subscriptions?customer=acme",
                answer={"items": [_VIEW], "next_cursor": None},
            )
        ],
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[SubscriptionView]:
    """List subscriptions, of one customer where that is asked."""
    after = after_key(cursor)
    visible = visible_customer(principal, customer)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = subscriptions(
            connection,
            principal.organization_id,
            after=after,
            limit=limit + 1,
            customer_key=visible,
        )
    return page_of([_view(row) for row in rows], limit, lambda view: [view.key])


@get(
    "/{key:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_subscription",
    opt=describe(
        "Read a subscription",
        answer=SubscriptionView,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/subscriptions/acme-team", answer=_VIEW)],
    ),
)
def get_one(farebox: State, principal: Principal, key: str) -> SubscriptionView:
    """Read a subscription."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = find_subscription(connection, principal.organization_id, key)
    if row is None:
        raise refused(HttpCode.NOT_FOUND, "there is no such subscription")
    require_customer(principal, row.customer_key, "subscription")
    return _view(row)


def _view(row: SubscriptionRow) -> SubscriptionView:
    put_as = msgspec.json.decode(row.definition, type=Subscription)
    return SubscriptionView(
        encode_id(Prefix.SUBSCRIPTION, row.subscription_id),
        row.key,
        row.customer_key,
        row.plan_key,
        row.plan_version,
        row.starts_at,
        row.ends_at,
        row.anchor_day,
        row.timezone,
        put_as.metadata,
    )


routes = Router(
    "/v1/subscriptions", route_handlers=[put_one, list_all, get_one], tags=["Subscriptions"]
)
