"""Webhooks: which systems are told what happened, whether it arrives, and to send it again."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote
from uuid import UUID

from litestar import get, post
from litestar.concurrency import sync_to_thread
from litestar.exceptions import PermissionDeniedException
from litestar.response import Redirect
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope, allows
from farebox.catalog.problem import Problem
from farebox.flows.replay_webhook import replay_delivery_in
from farebox.flows.webhook_endpoint import WebhookCode, try_endpoint_in
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.pages.session import SessionRefusal, read_claim
from farebox.http.pages.sign_in import SESSION_COOKIE
from farebox.http.state import State
from farebox.notices.delivery import DeliveryStatus
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.console import find_session_key
from farebox.postgres.session import transaction
from farebox.postgres.webhook_delivery import AttemptRow, DeliveryRow
from farebox.postgres.webhook_endpoint import EndpointRow

PAGE = 25
_NOTICES = 10
_WAITING_MAX = 1000
_SAID = {
    "tested": ("good", "A test is on its way; its delivery is the first one below."),
    "replayed": ("good", "The delivery is sent again."),
    WebhookCode.ENDPOINT_DISABLED: ("bad", "The endpoint is disabled, so nothing is sent to it."),
    WebhookCode.DELIVERY_UNDER_WAY: ("warn", "The delivery is being sent at this moment."),
}
_TONES = {
    DeliveryStatus.WAITING: "",
    DeliveryStatus.FAILED: "warn",
    DeliveryStatus.DELIVERED: "accepted",
    DeliveryStatus.GIVEN_UP: "bad",
}


class Health(Struct, frozen=True):
    """How an endpoint goes, in a word, with the tone of it and what it means."""

    word: str
    tone: str
    says: str


class EndpointItem(Struct, frozen=True):
    """An endpoint in the list; `waiting` is counted up to 1,000."""

    row: EndpointRow
    health: Health
    waiting: str


class DeliveryItem(Struct, frozen=True):
    """A delivery with the log of its attempts."""

    id: str
    row: DeliveryRow
    notice: str
    tone: str
    outcome: str
    attempts: Sequence[AttemptRow]
    under_way: bool


def read_may_manage(request: PageRequest, farebox: State, viewer: Viewer) -> bool:
    """Whether the key behind the session may change something, besides reading."""
    claim = read_claim(request.cookies.get(SESSION_COOKIE, ""))
    assert not isinstance(claim, SessionRefusal), "there is a viewer"
    with transaction(farebox.pool, viewer.organization_id) as connection:
        key = find_session_key(connection, viewer.organization_id, claim.api_key_id)
    return key is not None and allows(frozenset(Scope(scope) for scope in key.scopes), Scope.MANAGE)


@get("/webhooks", sync_to_thread=True)
def webhook_list(request: PageRequest, farebox: State, viewer: Viewer, after: str = "") -> Page:
    organization_id = viewer.organization_id
    position = after.replace("\0", "")
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        rows = webhook_endpoint.endpoints(
            connection, organization_id, after=position, limit=PAGE + 1
        )
        items = [
            EndpointItem(row, health_of(row), _waiting(connection, organization_id, row.key))
            for row in rows[:PAGE]
        ]
        told = notice.notices(connection, organization_id, limit=_NOTICES)
    return render(
        request,
        "webhooks.html",
        viewer=viewer,
        items=items,
        notices=told,
        first=not position,
        more=items[-1].row.key if len(rows) > PAGE else None,
    )


@get("/webhooks/{key:str}", sync_to_thread=True)
def webhook_page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    key: str,
    status: str = "",
    after: str = "",
    said: str = "",
) -> Page:
    """One endpoint, its deliveries and every attempt."""
    organization_id = viewer.organization_id
    shown_status = status if status in DeliveryStatus.__members__.values() else ""
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        row = webhook_endpoint.find_endpoint(connection, organization_id, key.replace("\0", ""))
        if row is None:
            raise missing("webhook endpoint with this key")
        found = webhook_delivery.deliveries(
            connection,
            organization_id,
            endpoint_key=row.key,
            status=shown_status or None,
            after=decode_id(Prefix.DELIVERY, after),
            limit=PAGE + 1,
        )
        items = _items(connection, organization_id, found[:PAGE], farebox.clock())
        waiting = _waiting(connection, organization_id, row.key)
    return render(
        request,
        "webhook.html",
        viewer=viewer,
        endpoint=row,
        health=health_of(row),
        waiting=waiting,
        items=items,
        statuses=list(DeliveryStatus),
        shown_status=shown_status,
        first=not after,
        more=items[-1].id if len(found) > PAGE else None,
        may_manage=read_may_manage(request, farebox, viewer),
        said=_SAID.get(said),
    )


@post("/webhooks/{key:str}/test", status_code=303)
async def test_webhook(request: PageRequest, farebox: State, viewer: Viewer, key: str) -> Redirect:
    return await sync_to_thread(_test, request, farebox, viewer, key)


@post("/webhooks/{key:str}/deliveries/{delivery:str}/replay", status_code=303)
async def replay_webhook(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, delivery: str
) -> Redirect:
    return await sync_to_thread(_replay, request, farebox, viewer, key, delivery)


def health_of(row: EndpointRow) -> Health:
    """Return how an endpoint goes."""
    if not row.enabled:
        says = {
            None: "It was disabled by hand.",
            "gone": "Farebox disabled it: it answered 410 Gone.",
            "failing": "Farebox disabled it: for five days nothing arrived.",
        }[row.disabled_reason]
        return Health("disabled", "bad" if row.disabled_reason else "", says)
    if row.failing_since is not None:
        return Health("failing", "warn", "The last attempt failed; it is tried again.")
    if row.last_success_at is None:
        return Health("not used yet", "", "Nothing was sent to it yet.")
    return Health("healthy", "accepted", "The last attempt arrived.")


def _test(request: PageRequest, farebox: State, viewer: Viewer, key: str) -> Redirect:
    _require_manage(request, farebox, viewer)
    with transaction(farebox.pool, viewer.organization_id) as connection:
        row = webhook_endpoint.find_endpoint(
            connection, viewer.organization_id, key.replace("\0", "")
        )
        if row is None:
            raise missing("webhook endpoint with this key")
        made = try_endpoint_in(
            connection,
            viewer.organization_id,
            row,
            farebox.clock(),
            farebox.new_id(),
            farebox.new_id(),
        )
    return _back(row.key, made.code if isinstance(made, Problem) else "tested")


def _replay(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, delivery: str
) -> Redirect:
    _require_manage(request, farebox, viewer)
    identifier = decode_id(Prefix.DELIVERY, delivery)
    if identifier is None:
        raise missing("delivery with this id")
    with transaction(farebox.pool, viewer.organization_id) as connection:
        again = replay_delivery_in(connection, viewer.organization_id, identifier, farebox.clock())
    if again is None:
        raise missing("delivery with this id")
    return _back(key, again.code if isinstance(again, Problem) else "replayed")


def _require_manage(request: PageRequest, farebox: State, viewer: Viewer) -> None:
    if not read_may_manage(request, farebox, viewer):
        raise PermissionDeniedException(
            "This API key may only read. Sign in with one that manages."
        )


def _back(key: str, said: str) -> Redirect:
    return Redirect(f"/console/webhooks/{quote(key, safe='')}?said={said}", status_code=303)


def _items(
    connection: Connection, organization_id: UUID, rows: Sequence[DeliveryRow], now: datetime
) -> list[DeliveryItem]:
    attempts: dict[UUID, list[AttemptRow]] = defaultdict(list)
    for one in webhook_delivery.attempts_of(
        connection, organization_id, [row.delivery_id for row in rows]
    ):
        attempts[one.delivery_id].append(one)
    return [
        DeliveryItem(
            id=encode_id(Prefix.DELIVERY, row.delivery_id),
            row=row,
            notice=encode_id(Prefix.NOTICE, row.notice_id),
            tone=_TONES[DeliveryStatus(row.status)],
            outcome=_outcome(row.last_status, row.last_failure),
            attempts=attempts[row.delivery_id],
            under_way=row.leased_until is not None and row.leased_until > now,
        )
        for row in rows
    ]


def _outcome(status: int | None, failure: str | None) -> str:
    return str(status) if status is not None else (failure or "").replace("_", " ")


def _waiting(connection: Connection, organization_id: UUID, key: str) -> str:
    count = webhook_delivery.count_outstanding(
        connection, organization_id, key, at_most=_WAITING_MAX + 1
    )
    return f"{count:,}" if count <= _WAITING_MAX else f"over {_WAITING_MAX:,}"
