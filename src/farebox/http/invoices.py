"""Invoices: lists, lines, the upcoming one, and every line opened down to its events."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, Router, get
from litestar.params import QueryParameter
from msgspec import Struct

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.catalog.plan import Timing
from farebox.catalog.price import Price
from farebox.flows.bill import line_rows
from farebox.flows.explain_line import LineEvent, explain_line, find_any
from farebox.flows.preview_invoice import Preview, PreviewCode, preview_invoice
from farebox.http.authenticate import Principal, require_customer, requires, visible_customer
from farebox.http.code import HttpCode
from farebox.http.operation import Example, describe
from farebox.http.page import (
    PAGE_USUAL,
    Cursor,
    Limit,
    Page,
    decode_cursor,
    encode_cursor,
    page_of,
)
from farebox.http.pool_line import PoolLineView, pool_line, pool_price
from farebox.http.problem import Refused, refused
from farebox.http.span import instant, number
from farebox.http.state import State
from farebox.postgres.customer import find_subscription
from farebox.postgres.explain import Place
from farebox.postgres.invoice import InvoiceRow, LineRow, invoices, lines_of
from farebox.postgres.session import transaction
from farebox.rating.charge import ChargeLine, UnpricedUsage

_NO_ID = UUID(int=0)


class InvoiceStatus(StrEnum):
    """A draft is written anew by the next run; a final invoice never changes."""

    DRAFT = "draft"
    FINAL = "final"


class UnpricedView(Struct, frozen=True):
    """Usage of the period that the invoice could not price, with the reason."""

    charge: str
    reason: str
    quantity: Decimal | None
    events: int
    dimensions: Mapping[str, str]


class InvoiceView(Struct, frozen=True, kw_only=True):
    """An invoice; `number` is null until it is final, `total` has the currency's decimals."""

    id: str
    number: str | None
    kind: str
    status: InvoiceStatus
    customer: str
    subscription: str
    plan: str
    plan_version: int
    period_start: datetime
    period_end: datetime
    currency: str
    total: Decimal
    billing_run: str | None
    created_at: datetime
    finalized_at: datetime | None
    unpriced: list[UnpricedView]


class LineView(Struct, frozen=True, kw_only=True):
    """A line; `amount` is rounded half up to the currency's decimals, and only there."""

    position: int
    kind: str
    charge: str
    description: str
    quantity: Decimal | None
    amount: Decimal
    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    meter: str | None


class InvoiceWithLines(Struct, frozen=True):
    """An invoice and its lines, whose amounts add up to its total."""

    invoice: InvoiceView
    lines: list[LineView]


class UpcomingView(Struct, frozen=True, kw_only=True):
    """The period under way as it would be invoiced now; every event up to `sequence` counts."""

    subscription: str
    customer: str
    period_start: datetime
    period_end: datetime
    until: datetime
    currency: str
    total: Decimal
    sequence: int
    lines: list[LineView]
    unpriced: list[UnpricedView]


class LineExplanation(Struct, frozen=True, kw_only=True):
    """What a line was made from.

    usage: quantities by dimension, the parts that add up to `rated`, and the adjustments that lead
    from there to the exact amount, each with its reason. events: in the order of their time. pool:
    of a line of a pool, which has no usage and no events.
    """

    invoice: InvoiceView
    line: LineView
    timing: Timing | None
    price: Price | None
    usage: ChargeLine | None
    pool: PoolLineView | None
    events: list[LineEvent]
    next_cursor: str | None


_Status = Annotated[InvoiceStatus | None, QueryParameter(description="only of this status")]


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_invoices",
    opt=describe(
        "List invoices, the latest period first",
        answer=Page[InvoiceView],
        examples=[
            Example(
                path="/v1/invoices?customer=acme&status=final",
                answer={"items": [], "next_cursor": None},
            )
        ],
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    status: _Status = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[InvoiceView]:
    """List invoices."""
    after = decode_cursor(cursor, 2)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = invoices(
            connection,
            principal.organization_id,
            customer_key=visible_customer(principal, customer),
            status=status,
            after=None if after is None else (instant(after[0], "cursor"), _invoice_id(after[1])),
            limit=limit + 1,
        )
    return page_of(
        [view_of(row) for row in rows], limit, lambda one: [one.period_end.isoformat(), one.id]
    )


@get(
    "/{name:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_invoice",
    opt=describe(
        "Read an invoice with its lines, by its id or its number",
        answer=InvoiceWithLines,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/invoices/INV-000001", status=404)],
    ),
)
def get_one(farebox: State, principal: Principal, name: str) -> InvoiceWithLines:
    """Read an invoice."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = find_any(connection, principal.organization_id, _name(name))
        if row is None:
            raise _not_found()
        require_customer(principal, row.customer_key, "invoice")
        lines = lines_of(connection, principal.organization_id, row.invoice_id)
    return InvoiceWithLines(view_of(row), [_line(line) for line in lines])


@get(
    "/{name:str}/lines/{position:int}/explain",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="explain_line",
    opt=describe(
        "Open a line: price, tiers, adjustments, quantities, events, or a pool's entries",
        answer=LineExplanation,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/invoices/INV-000001/lines/1/explain", status=404)],
        description=(
            "The events are those the line counts: of its segment, received before the invoice"
            " was written. A page may hold fewer than `limit` and still have a next one. The line"
            " of a pool has `pool`: episodes beyond the grants, or the grant that was bought, and"
            " a page of its entries in the ledger."
        ),
    ),
)
def explain(
    farebox: State,
    principal: Principal,
    name: str,
    position: int,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> LineExplanation:
    """Open a line."""
    found = explain_line(
        farebox.pool,
        principal.organization_id,
        _name(name),
        position,
        after=place_after(cursor),
        limit=limit,
    )
    if found is None:
        raise _not_found()
    require_customer(principal, found.invoice.customer_key, "invoice")
    return LineExplanation(
        invoice=view_of(found.invoice),
        line=_line(found.line),
        timing=found.detail.timing,
        price=found.detail.price or pool_price(found.detail.pool),
        usage=found.detail.charge,
        pool=None if found.pool is None else pool_line(found.pool),
        events=list(found.events.events),
        next_cursor=cursor_at(found.after),
    )


@get(
    "/{key:str}/upcoming",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_upcoming_invoice",
    opt=describe(
        "Read the upcoming invoice of a subscription, live",
        answer=UpcomingView,
        codes=list(PreviewCode),
        examples=[Example(path="/v1/subscriptions/nothing/upcoming", status=404)],
        description="Usage counts up to now; fees and minimums are those of the whole period.",
    ),
)
def upcoming(farebox: State, principal: Principal, key: str) -> UpcomingView:
    """Rate the period under way."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = find_subscription(connection, principal.organization_id, key)
    now = farebox.clock()
    found: Preview | PreviewCode = PreviewCode.UNKNOWN_SUBSCRIPTION
    # To a customer's key another customer's subscription is as if it were not there.
    if row is not None and principal.customer_key in (None, row.customer_key):
        found = preview_invoice(farebox.pool, principal.organization_id, key, now)
    if isinstance(found, PreviewCode):
        raise refused(found, _NO_UPCOMING[found].format(key=key))
    return _upcoming(found, now)


_NO_UPCOMING = {
    PreviewCode.UNKNOWN_SUBSCRIPTION: "there is no subscription {key!r}",
    PreviewCode.SUBSCRIPTION_NOT_STARTED: "subscription {key!r} has not started yet",
    PreviewCode.SUBSCRIPTION_ENDED: "subscription {key!r} has ended; its last invoice is the last",
}


def _upcoming(found: Preview, now: datetime) -> UpcomingView:
    due, body = found.due, found.body
    return UpcomingView(
        subscription=due.subscription.key,
        customer=due.subscription.customer_key,
        period_start=due.period.start,
        period_end=due.period.end,
        until=due.until or now,
        currency=body.currency,
        total=body.total,
        sequence=found.sequence,
        lines=[_line(line) for line in line_rows(_NO_ID, body)],
        unpriced=[_unpriced(one) for one in body.unpriced],
    )


def place_after(cursor: str | None) -> Place | None:
    """Return where a page of events begins; raises Refused."""
    values = decode_cursor(cursor, 2)
    if values is None:
        return None
    try:
        return Place(instant(values[0], "cursor"), int(values[1]))
    except ValueError:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor`") from None


def cursor_at(place: Place | None) -> str | None:
    """Return the cursor of a page of events that begins at a place."""
    return None if place is None else encode_cursor(place.time.isoformat(), str(place.sequence))


def view_of(row: InvoiceRow) -> InvoiceView:
    """Return an invoice as it goes over the wire."""
    listed = msgspec.json.decode(row.unpriced, type=Sequence[UnpricedUsage])
    run = row.billing_run_id
    return InvoiceView(
        id=encode_id(Prefix.INVOICE, row.invoice_id),
        number=row.number,
        kind=row.kind,
        status=InvoiceStatus(row.status),
        customer=row.customer_key,
        subscription=row.subscription_key,
        plan=row.plan_key,
        plan_version=row.plan_version,
        period_start=row.period_start,
        period_end=row.period_end,
        currency=row.currency,
        total=row.total,
        billing_run=None if run is None else encode_id(Prefix.BILLING_RUN, run),
        created_at=row.created_at,
        finalized_at=row.finalized_at,
        unpriced=[_unpriced(one) for one in listed],
    )


def _unpriced(one: UnpricedUsage) -> UnpricedView:
    usage = one.usage
    reported = {**usage.dimensions, **usage.original}
    return UnpricedView(
        one.charge, one.reason.value, number(usage.quantity), usage.events, reported
    )


def _line(line: LineRow) -> LineView:
    return LineView(
        position=line.position,
        kind=line.kind,
        charge=line.charge_key,
        description=line.description,
        quantity=number(line.quantity),
        amount=line.amount,
        starts=line.segment_start,
        ends=line.segment_end,
        meter=line.meter_key,
    )


def _name(name: str) -> str | UUID:
    return decode_id(Prefix.INVOICE, name) or name


def _invoice_id(text: str) -> UUID:
    found = decode_id(Prefix.INVOICE, text)
    if found is None:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return found


def _not_found() -> Refused:
    return refused(HttpCode.NOT_FOUND, "there is no such invoice or line")


# Money keeps the digits of its currency.
routes = Router(
    "/v1/invoices",
    route_handlers=[list_all, get_one, explain],
    tags=["Invoices"],
    response_class=Response,
)
upcoming_routes = Router(
    "/v1/subscriptions", route_handlers=[upcoming], tags=["Subscriptions"], response_class=Response
)
