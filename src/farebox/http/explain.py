"""Events again: lists of them, and what became of each."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter
from msgspec import Struct

from farebox.access.id import Prefix, encode_id, encode_numbered
from farebox.access.key import Scope
from farebox.catalog.price import Price
from farebox.flows.explain_event import EventQuestion, explain_event, list_events
from farebox.flows.place_burn import PoolPlace
from farebox.flows.place_reading import Fate, LinePlace, ReadingPlace
from farebox.flows.query_usage import UsageCode
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.code import HttpCode
from farebox.http.invoices import cursor_at, place_after
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page
from farebox.http.problem import refused
from farebox.http.span import MaybeFrom, MaybeTo, in_order, maybe_instant, number
from farebox.http.state import State
from farebox.period.instant import BEGINNING
from farebox.postgres.explain import EventRow
from farebox.rating.charge import RateCardVersion

_USUAL_SPAN = timedelta(days=31)


class EventView(Struct, frozen=True, kw_only=True):
    """An event as it is stored; `payload` holds its data and extensions.

    sequence: its place in the stream. voided: it was taken back and counts nowhere.
    """

    source: str
    id: str
    type: str
    subject: str | None
    time: datetime
    received_at: datetime
    sequence: int
    voided: bool
    payload: msgspec.Raw


class LinePlaceView(Struct, frozen=True, kw_only=True):
    """The charge that a reading reaches, and its line where there is one.

    priced_as: the names that aliases led to. amount_alone: what the reading costs by itself before
    adjustments and rounding; null where that hangs on what else the period holds.
    """

    fate: Fate
    subscription: str
    charge: str
    period_start: datetime
    period_end: datetime
    price: Price | None
    rate_card: RateCardVersion | None
    priced_as: Mapping[str, str]
    invoice: str | None
    invoice_number: str | None
    position: int | None
    amount_alone: Decimal | None
    currency: str


class PoolPlaceView(Struct, frozen=True, kw_only=True):
    """The pool that a reading burns.

    units: what the reading takes by itself; null where that is not known. rate_card: the version
    that says so. draw: the operation in the ledger. reason: why it burned nothing.
    """

    pool: str
    units: Decimal | None
    rate_card: RateCardVersion | None
    draw: str | None
    reason: str | None


class ReadingPlaceView(Struct, frozen=True, kw_only=True):
    """What a meter read, whose it is, and the lines it reaches, or the pool that it burns."""

    fate: Fate
    value: str
    dimensions: Mapping[str, str]
    subject: str
    customer: str | None
    lines: list[LinePlaceView]
    burn: PoolPlaceView | None


class MeterFateView(Struct, frozen=True, kw_only=True):
    """A meter of the event's type, and what it read; nothing where it was filtered out."""

    meter: str
    fate: Fate
    readings: list[ReadingPlaceView]


class EventExplanation(Struct, frozen=True, kw_only=True):
    """What became of an event: the fate of its reading that got furthest, and all of them."""

    event: EventView
    fate: Fate
    meters: list[MeterFateView]


_Source = Annotated[str, QueryParameter(description="the event's `source`")]
_Id = Annotated[str, QueryParameter(name="id", description="the event's `id`")]
_Type = Annotated[str | None, QueryParameter(name="type", description="only of this event type")]


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_events",
    opt=describe(
        "List events by time, newest first",
        answer=Page[EventView],
        codes=[UsageCode.RANGE_EMPTY],
        examples=[
            Example(
                path="/v1/events?customer=acme&from=2026-10-01T00:00:00Z",
                answer={"items": [], "next_cursor": None},
            )
        ],
        description=(
            "With `customer` those that a meter read and that counted for the customer at that"
            " time. Without `from` the 31 days before `to`, without `to` up to now. A page looks"
            " through a bounded part of the stream: it may hold fewer than"
            " `limit`, or none, and still have a next one."
        ),
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    kind: _Type = None,
    starts: MaybeFrom = None,
    ends: MaybeTo = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[EventView]:
    """List events."""
    # A day ahead: clocks of senders may be.
    begins, stops = maybe_instant(starts, "from"), maybe_instant(ends, "to")
    in_order(begins, stops, "to")
    end = stops or farebox.clock() + timedelta(days=1)
    question = EventQuestion(
        start=begins or max(end - _USUAL_SPAN, BEGINNING),
        end=end,
        customer=visible_customer(principal, customer),
        type=kind,
        after=place_after(cursor),
        limit=limit,
    )
    rows, following = list_events(farebox.pool, principal.organization_id, question)
    return Page([event_view(row) for row in rows], cursor_at(following))


@get(
    "/explain",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="explain_event",
    opt=describe(
        "Tell what became of an event",
        answer=EventExplanation,
        codes=[HttpCode.NOT_FOUND],
        examples=[Example(path="/v1/events/explain?source=gateway-1&id=nothing", status=404)],
        description=(
            "Its readings by meter, the customer at that time, the price and the invoice line, or"
            " why there is none: the `fate` names it. What burns a pool has `burn` and no lines."
        ),
    ),
)
def explain(farebox: State, principal: Principal, source: _Source, name: _Id) -> EventExplanation:
    """Explain an event."""
    found = explain_event(farebox.pool, principal.organization_id, source, name)
    if found is None:
        raise refused(HttpCode.NOT_FOUND, "no event with this source and id was received")
    return EventExplanation(
        event=event_view(found.event),
        fate=found.fate,
        meters=[
            MeterFateView(
                meter=one.meter,
                fate=one.fate,
                readings=[reading_view(place) for place in one.readings],
            )
            for one in found.meters
        ],
    )


def event_view(row: EventRow) -> EventView:
    """Return an event as it goes over the wire."""
    return EventView(
        source=row.source,
        id=row.id,
        type=row.type,
        subject=row.subject,
        time=row.time,
        received_at=row.received_at,
        sequence=row.sequence,
        voided=row.voided,
        payload=msgspec.Raw(row.payload.encode()),
    )


def reading_view(place: ReadingPlace) -> ReadingPlaceView:
    """Return the way of a reading as it goes over the wire."""
    value = place.reading.value
    return ReadingPlaceView(
        fate=place.fate,
        value=str(number(value)) if isinstance(value, Decimal) else value,
        dimensions=place.reading.dimensions,
        subject=place.reading.subject,
        customer=place.customer,
        lines=[_line(line) for line in place.lines],
        burn=None if place.burn is None else _burn(place.burn),
    )


def _burn(burn: PoolPlace) -> PoolPlaceView:
    draw = None if burn.draw is None else encode_numbered(Prefix.DRAW, burn.pool_id, burn.draw)
    return PoolPlaceView(
        pool=burn.pool,
        units=burn.units,
        rate_card=burn.rate_card,
        draw=draw,
        reason=burn.reason,
    )


def _line(line: LinePlace) -> LinePlaceView:
    invoice = line.invoice_id
    return LinePlaceView(
        fate=line.fate,
        subscription=line.subscription,
        charge=line.charge,
        period_start=line.period.start,
        period_end=line.period.end,
        price=line.price,
        rate_card=line.rate_card,
        priced_as=line.priced_as,
        invoice=None if invoice is None else encode_id(Prefix.INVOICE, invoice),
        invoice_number=line.invoice_number,
        position=line.position,
        amount_alone=number(line.amount_alone),
        currency=line.currency,
    )


routes = Router("/v1/events", route_handlers=[list_all, explain], tags=["Events"])
