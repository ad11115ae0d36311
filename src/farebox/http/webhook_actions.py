"""What is done with a webhook endpoint: a new secret, a test, and notices sent again."""

from datetime import datetime

from litestar import Response, post
from litestar.params import RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.key import Scope
from farebox.catalog.problem import Problem
from farebox.flows.answer_once import Reply
from farebox.flows.replay_webhook import replay_span_in
from farebox.flows.webhook_endpoint import (
    WebhookCode,
    rotate_secret_in,
    try_endpoint_in,
    type_problems,
)
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with
from farebox.http.operation import Example, describe
from farebox.http.problem import Refused, refused, refused_for
from farebox.http.state import State
from farebox.http.webhook_deliveries import DeliveryView, delivery_view
from farebox.notices.message import SECRET_BYTES
from farebox.postgres import webhook_endpoint as store
from farebox.postgres.webhook_endpoint import EndpointRow


class SecretView(Struct, frozen=True, kw_only=True):
    """A new secret, shown this once; the earlier one signs too until then.

    Repeated under the same Idempotency-Key, the answer has null in its place.
    """

    secret: str | None
    earlier_until: datetime


class ReplayRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which notices to send again: from `since` up to `until` (now), of `types` (empty: all)."""

    since: datetime
    until: datetime | None = None
    types: tuple[str, ...] = ()


class ReplayView(Struct, frozen=True):
    """How many notices are sent again."""

    replayed: int


EXAMPLE_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # noqa: S105 - an example
_TEST = {
    "id": "dlv_01jbsqz4e2e0rv8h9yj0fn5c7k",
    "endpoint": "accounting",
    "notice": "ntc_01jbsqz4e2e0rv8h9yj0fn5c7k",
    "type": "webhook.test",
    "time": "2026-10-01T00:00:00Z",
    "customer": None,
    "status": "waiting",
    "attempts": 0,
    "next_attempt_at": "2026-10-01T00:00:00Z",
    "last_status": None,
    "last_failure": None,
    "created_at": "2026-10-01T00:00:00Z",
    "delivered_at": None,
}


@post(
    "/{key:str}/rotate_secret",
    guards=[requires(Scope.MANAGE)],
    status_code=200,
    sync_to_thread=True,
    operation_id="rotate_webhook_secret",
    opt=describe(
        "Make a new secret for an endpoint",
        answer=SecretView,
        codes=[HttpCode.NOT_FOUND],
        examples=[
            Example(
                path="/v1/webhook_endpoints/accounting/rotate_secret",
                body={},
                answer={"secret": EXAMPLE_SECRET, "earlier_until": "2026-10-02T00:00:00Z"},
            )
        ],
        description=(
            "For 24 hours everything is signed by both, so that the receiver can change over."
            " A third secret within that time ends the first."
        ),
    ),
)
def rotate_secret(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Make a new secret."""

    def act(connection: Connection) -> Reply:
        rotated = rotate_secret_in(
            connection,
            principal.organization_id,
            key,
            farebox.clock(),
            farebox.random_bytes(SECRET_BYTES),
        )
        if rotated is None:
            raise missing_endpoint(key)
        return reply_with(
            SecretView(secret=rotated.secret, earlier_until=rotated.earlier_until),
            remembered=SecretView(secret=None, earlier_until=rotated.earlier_until),
        )

    place = f"POST /v1/webhook_endpoints/{key}/rotate_secret"
    return change_once(farebox, principal, idempotency_key, place, body, act)


@post(
    "/{key:str}/test",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="test_webhook_endpoint",
    opt=describe(
        "Send a test to an endpoint",
        answer=DeliveryView,
        status=201,
        codes=[HttpCode.NOT_FOUND, WebhookCode.ENDPOINT_DISABLED],
        examples=[
            Example(
                path="/v1/webhook_endpoints/accounting/test",
                body={},
                status=201,
                answer=_TEST,
            )
        ],
        description="The endpoint gets a `webhook.test`, whatever its types; no other one does.",
    ),
)
def send_test(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Send a test."""

    def act(connection: Connection) -> Reply:
        made = try_endpoint_in(
            connection,
            principal.organization_id,
            read_endpoint(connection, principal, key),
            farebox.clock(),
            farebox.new_id(),
            farebox.new_id(),
        )
        if isinstance(made, Problem):
            raise refused_for([made])
        return reply_with(delivery_view(made), 201)

    place = f"POST /v1/webhook_endpoints/{key}/test"
    return change_once(farebox, principal, idempotency_key, place, body, act)


@post(
    "/{key:str}/replay",
    guards=[requires(Scope.MANAGE)],
    status_code=200,
    sync_to_thread=True,
    operation_id="replay_webhook_endpoint",
    opt=describe(
        "Send the notices of a span of time to an endpoint again",
        request=ReplayRequest,
        answer=ReplayView,
        codes=[
            HttpCode.NOT_FOUND,
            WebhookCode.UNKNOWN_NOTICE_TYPE,
            WebhookCode.ENDPOINT_DISABLED,
            WebhookCode.RANGE_EMPTY,
            WebhookCode.TOO_MANY_NOTICES,
        ],
        examples=[
            Example(
                path="/v1/webhook_endpoints/accounting/replay",
                body={"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
                answer={"replayed": 0},
            )
        ],
        description=(
            "Those that the endpoint wants, delivered or not, and those from before it was there."
            " At most 10,000 at once; notices are kept for 90 days."
        ),
    ),
)
def replay(
    farebox: State,
    principal: Principal,
    key: str,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Replay a span of time."""
    wanted = read_body(body, ReplayRequest)
    unknown = list(type_problems(wanted.types))
    if unknown:
        raise refused_for(unknown)

    def act(connection: Connection) -> Reply:
        now = farebox.clock()
        count = replay_span_in(
            connection,
            principal.organization_id,
            read_endpoint(connection, principal, key),
            wanted.since,
            wanted.until or now,
            wanted.types,
            now,
            farebox.new_id,
        )
        if isinstance(count, Problem):
            raise refused_for([count])
        return reply_with(ReplayView(count))

    place = f"POST /v1/webhook_endpoints/{key}/replay"
    return change_once(farebox, principal, idempotency_key, place, body, act)


def read_endpoint(connection: Connection, principal: Principal, key: str) -> EndpointRow:
    """Return the endpoint of a path; raises Refused (`not_found`)."""
    row = store.find_endpoint(connection, principal.organization_id, key)
    if row is None:
        raise missing_endpoint(key)
    return row


def missing_endpoint(key: str) -> Refused:
    """Return the refusal of a path that names no endpoint."""
    return refused(HttpCode.NOT_FOUND, f"there is no webhook endpoint {key[:150]!r}")
