"""What is not on any invoice: usage that reached no line, and usage that came too late for one."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec
from litestar import Router, get
from msgspec import Struct

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.flows.list_late import Late, list_late
from farebox.flows.list_unbilled import FIRST, Stage, UnbilledPlace, list_unbilled
from farebox.flows.query_usage import UsageCode
from farebox.flows.unbilled import Unbilled, UnbilledReason
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.code import HttpCode
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, decode_cursor, encode_cursor
from farebox.http.problem import refused
from farebox.http.span import From, To, in_order, instant, number
from farebox.http.state import State


class UnbilledItem(Struct, frozen=True, kw_only=True):
    """Usage in [from, to) that reaches no line, why, and what would help.

    Of `no_meter` and of pools, from and to are the times of the first and the last of it; of pools,
    quantity is in the pool's unit, and events are draws and settled holds, purchases, or entries
    that came back. Of pools, amount is what it costs in the currency, where there is a price. Both
    are below zero for what is to be credited.
    """

    reason: UnbilledReason
    help: str
    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    events: int
    quantity: Decimal | None
    amount: Decimal | None
    currency: str | None
    event_type: str | None
    meter: str | None
    pool: str | None
    subject: str | None
    customer: str | None
    subscription: str | None
    charge: str | None
    invoice: str | None
    dimensions: Mapping[str, str]


class LateItem(Struct, frozen=True, kw_only=True):
    """Usage of a period that arrived after its invoice was final; it is on no invoice.

    quantity: what these events alone come to; null where that hangs on the others of the period.
    """

    invoice: str
    number: str | None
    customer: str
    subscription: str
    period_start: datetime
    period_end: datetime
    meter: str
    dimensions: Mapping[str, str]
    events: int
    quantity: Decimal | None
    first_time: datetime
    last_time: datetime
    last_received_at: datetime


_PASSED_OVER = 10
"""So many empty pages are passed over before one is answered."""


@get(
    "/unbilled",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_unbilled",
    opt=describe(
        "List usage that reaches no invoice line",
        answer=Page[UnbilledItem],
        codes=[UsageCode.RANGE_EMPTY],
        examples=[
            Example(
                path="/v1/unbilled?from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z",
                answer={"items": [], "next_cursor": None},
            )
        ],
        description=(
            "By reason, in the order in which they are asked: no_meter, no_customer,"
            " no_subscription, no_charge, no_rate, no_cell, no_values. Of pools: of units beyond"
            " the grants, no_overage_price, no_pool_subscription; of purchases,"
            " no_purchase_invoice; and no_credit_invoice of what was charged, came back and has to"
            " be credited by hand. Usage that burned a pool is not listed; what had no rate there"
            " is in `/v1/unburned`. Follow `next_cursor` to the end; a page may be empty"
            " where much is in order."
        ),
    ),
)
def unbilled(
    farebox: State, principal: Principal, starts: From, ends: To, cursor: Cursor = None
) -> Page[UnbilledItem]:
    """List unbilled usage."""
    start, end = instant(starts, "from"), instant(ends, "to")
    in_order(start, end, "to")
    asked = farebox.pool, principal.organization_id, start, end
    page = list_unbilled(*asked, _place(cursor))
    for _ in range(_PASSED_OVER):
        if page.items or page.following is None:
            break
        page = list_unbilled(*asked, page.following)
    return Page([_item(one) for one in page.items], _cursor(page.following))


def _place(cursor: str | None) -> UnbilledPlace:
    values = decode_cursor(cursor, 2)
    if values is None:
        return FIRST
    stage, after = values
    if stage not in list(Stage):
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    # A dash before the key tells the empty key, which is one, from none.
    return UnbilledPlace(Stage(stage), None if after == "-" else after[1:])


def _cursor(place: UnbilledPlace | None) -> str | None:
    if place is None:
        return None
    return encode_cursor(place.stage, "-" if place.after is None else f"+{place.after}")


def _item(one: Unbilled) -> UnbilledItem:
    return UnbilledItem(
        reason=one.reason,
        help=one.help,
        starts=one.start,
        ends=one.end,
        events=one.events,
        quantity=number(one.quantity),
        amount=number(one.amount),
        currency=one.currency,
        event_type=one.event_type,
        meter=one.meter,
        pool=one.pool,
        subject=one.subject,
        customer=one.customer,
        subscription=one.subscription,
        charge=one.charge,
        invoice=None if one.invoice_id is None else encode_id(Prefix.INVOICE, one.invoice_id),
        dimensions=one.dimensions,
    )


@get(
    "/late",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_late",
    opt=describe(
        "List usage that arrived after its invoice was final",
        answer=Page[LateItem],
        examples=[Example(path="/v1/late", answer={"items": [], "next_cursor": None})],
        description=(
            "`limit` counts the invoices looked through, the latest period first; a page may be"
            " empty and still have a next one."
        ),
    ),
)
def late(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[LateItem]:
    """List late usage."""
    values = decode_cursor(cursor, 2)
    after = None
    if values is not None:
        identifier = decode_id(Prefix.INVOICE, values[1])
        if identifier is None:
            raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
        after = (instant(values[0], "cursor"), identifier)
    found, following = list_late(
        farebox.pool,
        principal.organization_id,
        customer_key=visible_customer(principal, customer),
        after=after,
        limit=limit,
    )
    following_cursor = None
    if following is not None:
        identifier_text = encode_id(Prefix.INVOICE, following[1])
        following_cursor = encode_cursor(following[0].isoformat(), identifier_text)
    return Page([_late(one) for one in found], following_cursor)


def _late(one: Late) -> LateItem:
    return LateItem(
        invoice=encode_id(Prefix.INVOICE, one.invoice_id),
        number=one.number,
        customer=one.customer,
        subscription=one.subscription,
        period_start=one.period_start,
        period_end=one.period_end,
        meter=one.meter,
        dimensions=one.dimensions,
        events=one.events,
        quantity=number(one.quantity),
        first_time=one.first_time,
        last_time=one.last_time,
        last_received_at=one.last_received_at,
    )


routes = Router("/v1", route_handlers=[unbilled, late], tags=["Billing"])
