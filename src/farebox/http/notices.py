"""Notices: what happened, as other systems are told of it."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from litestar import Router, get
from msgspec import Struct

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.events.time import parse_time
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.code import HttpCode
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, decode_cursor, page_of
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.notices.type import NoticeType
from farebox.postgres.notice import NoticeRow, notices
from farebox.postgres.session import transaction


class NoticeView(Struct, frozen=True, kw_only=True):
    """What happened, when, and to which customer if to one; `data` is what endpoints get."""

    id: str
    type: NoticeType
    time: datetime
    customer: str | None
    data: msgspec.Raw


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_notices",
    opt=describe(
        "List notices, the newest first",
        answer=Page[NoticeView],
        codes=[HttpCode.CURSOR_INVALID],
        examples=[
            Example(
                path="/v1/notices?type=webhook.test",
                answer={
                    "items": [
                        {
                            "id": "ntc_01jbsqz4e2e0rv8h9yj0fn5c7k",
                            "type": "webhook.test",
                            "time": "2026-10-01T00:00:00Z",
                            "customer": None,
                            "data": {"endpoint": "accounting"},
                        }
                    ],
                    "next_cursor": None,
                },
            )
        ],
        description="Whether or not an endpoint wants them. They are kept for 90 days.",
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    type: NoticeType | None = None,  # noqa: A002 - the name of the parameter in the query
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[NoticeView]:
    """List notices, of one customer or type where that is asked."""
    after = _after(cursor)
    visible = visible_customer(principal, customer)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = notices(
            connection,
            principal.organization_id,
            customer_key=visible,
            notice_type=type,
            after=after,
            limit=limit + 1,
        )
    return page_of(
        [_view(row) for row in rows], limit, lambda view: [view.time.isoformat(), view.id]
    )


def _view(row: NoticeRow) -> NoticeView:
    return NoticeView(
        id=encode_id(Prefix.NOTICE, row.notice_id),
        type=NoticeType(row.type),
        time=row.time.astimezone(UTC),
        customer=row.customer_key,
        data=msgspec.Raw(row.data.encode()),
    )


def _after(cursor: str | None) -> tuple[datetime, UUID] | None:
    values = decode_cursor(cursor, 2)
    if values is None:
        return None
    time, identifier = parse_time(values[0]), decode_id(Prefix.NOTICE, values[1])
    if time is None or identifier is None:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return time, identifier


routes = Router("/v1/notices", route_handlers=[list_all], tags=["Webhooks"])
