"""Webhook deliveries: what became of each notice at each endpoint, attempt by attempt."""

from datetime import datetime
from uuid import UUID

from litestar import Response, Router, get, post
from litestar.params import RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.catalog.problem import Problem
from farebox.flows.answer_once import Reply
from farebox.flows.replay_webhook import replay_delivery_in
from farebox.flows.webhook_endpoint import WebhookCode
from farebox.http.authenticate import Principal, requires
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, decode_cursor, page_of
from farebox.http.problem import Refused, refused, refused_for
from farebox.http.state import State
from farebox.notices.delivery import DeliveryStatus, SendFailure
from farebox.notices.type import NoticeType
from farebox.postgres import webhook_delivery as store
from farebox.postgres.session import transaction
from farebox.postgres.webhook_delivery import AttemptRow, DeliveryRow


class DeliveryView(Struct, frozen=True, kw_only=True):
    """A notice on its way to an endpoint.

    last_status: what the endpoint answered last. last_failure: why there was no answer.
    """

    id: str
    endpoint: str
    notice: str
    type: NoticeType
    time: datetime
    customer: str | None
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_failure: SendFailure | None
    created_at: datetime
    delivered_at: datetime | None


class AttemptView(Struct, frozen=True, kw_only=True):
    """One try; `duration_ms` is null while it is under way, and for ever if it was broken off.

    excerpt: the first 1,000 bytes of the answer.
    """

    number: int
    started_at: datetime
    duration_ms: int | None
    status: int | None
    failure: SendFailure | None
    excerpt: str | None


class DeliveryWithAttempts(Struct, frozen=True):
    """A delivery, and the log of its attempts of the last 30 days."""

    delivery: DeliveryView
    attempts: list[AttemptView]


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_webhook_deliveries",
    opt=describe(
        "List deliveries, the newest first",
        answer=Page[DeliveryView],
        examples=[
            Example(path="/v1/webhook_deliveries?endpoint=accounting&status=waiting"),
            Example(
                path="/v1/webhook_deliveries?status=given_up",
                answer={"items": [], "next_cursor": None},
            ),
        ],
        description="Deliveries are kept as long as their notices, for 90 days.",
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    endpoint: str | None = None,
    status: DeliveryStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[DeliveryView]:
    """List deliveries, of one endpoint or status where that is asked."""
    after = _after(cursor)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = store.deliveries(
            connection,
            principal.organization_id,
            endpoint_key=endpoint,
            status=status,
            after=after,
            limit=limit + 1,
        )
    return page_of([delivery_view(row) for row in rows], limit, lambda view: [view.id])


@get(
    "/{delivery_id:str}",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="get_webhook_delivery",
    opt=describe(
        "Read a delivery with its attempts",
        answer=DeliveryWithAttempts,
        codes=[HttpCode.NOT_FOUND],
        examples=[
            Example(path="/v1/webhook_deliveries/dlv_00000000000000000000000000", status=404)
        ],
    ),
)
def get_one(farebox: State, principal: Principal, delivery_id: str) -> DeliveryWithAttempts:
    """Read a delivery."""
    identifier = _decode(delivery_id)
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = store.find_delivery(connection, principal.organization_id, identifier)
        if row is None:
            raise _missing()
        attempts = store.attempts_of(connection, principal.organization_id, [identifier])
    return DeliveryWithAttempts(delivery_view(row), [_attempt_view(one) for one in attempts])


@post(
    "/{delivery_id:str}/replay",
    guards=[requires(Scope.MANAGE)],
    status_code=200,
    sync_to_thread=True,
    operation_id="replay_webhook_delivery",
    opt=describe(
        "Send a delivery again, whatever became of it",
        answer=DeliveryView,
        codes=[HttpCode.NOT_FOUND, WebhookCode.ENDPOINT_DISABLED, WebhookCode.DELIVERY_UNDER_WAY],
        examples=[
            Example(
                path="/v1/webhook_deliveries/dlv_00000000000000000000000000/replay",
                body={},
                status=404,
            )
        ],
        description="It is sent at once, under the same `webhook-id`, and tried like a new one.",
    ),
)
def replay(
    farebox: State,
    principal: Principal,
    delivery_id: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Replay a delivery."""
    identifier = _decode(delivery_id)

    def act(connection: Connection) -> Reply:
        again = replay_delivery_in(
            connection, principal.organization_id, identifier, farebox.clock()
        )
        if again is None:
            raise _missing()
        if isinstance(again, Problem):
            raise refused_for([again])
        return reply_with(delivery_view(again))

    place = f"POST /v1/webhook_deliveries/{delivery_id}/replay"
    return change_once(farebox, principal, idempotency_key, place, body, act)


def delivery_view(row: DeliveryRow) -> DeliveryView:
    """Return a delivery as the API shows it."""
    failure = row.last_failure
    return DeliveryView(
        id=encode_id(Prefix.DELIVERY, row.delivery_id),
        endpoint=row.endpoint_key,
        notice=encode_id(Prefix.NOTICE, row.notice_id),
        type=NoticeType(row.type),
        time=row.time,
        customer=row.customer_key,
        status=DeliveryStatus(row.status),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_status=row.last_status,
        last_failure=None if failure is None else SendFailure(failure),
        created_at=row.created_at,
        delivered_at=row.delivered_at,
    )


def _attempt_view(row: AttemptRow) -> AttemptView:
    return AttemptView(
        number=row.number,
        started_at=row.started_at,
        duration_ms=row.duration_ms,
        status=row.status,
        failure=None if row.failure is None else SendFailure(row.failure),
        excerpt=row.excerpt,
    )


def _decode(text: str) -> UUID:
    identifier = decode_id(Prefix.DELIVERY, text)
    if identifier is None:
        raise _missing()
    return identifier


def _missing() -> Refused:
    return refused(HttpCode.NOT_FOUND, "there is no such webhook delivery")


def _after(cursor: str | None) -> UUID | None:
    values = decode_cursor(cursor, 1)
    if values is None:
        return None
    identifier = decode_id(Prefix.DELIVERY, values[0])
    if identifier is None:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return identifier


routes = Router(
    "/v1/webhook_deliveries", route_handlers=[list_all, get_one, replay], tags=["Webhooks"]
)
