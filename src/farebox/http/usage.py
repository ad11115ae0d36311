"""Usage: what customers used, by window, subject and dimension, current to the last event."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from litestar import Request, Router, get
from litestar.datastructures import State as LitestarState
from litestar.params import QueryParameter
from msgspec import Struct

from farebox.access.key import Scope
from farebox.flows.query_usage import (
    UsageAnswer,
    UsageCode,
    UsageQuestion,
    UsageRefusal,
    UsageRow,
    query_usage,
)
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, decode_cursor, encode_cursor
from farebox.http.problem import refused
from farebox.http.span import From, To, instant, number
from farebox.http.state import State
from farebox.metering.window import WindowSize


class UsageItem(Struct, frozen=True, kw_only=True):
    """What was used in [from, to); a combination that used nothing is left out.

    quantity: in the meter's unit; null where the aggregation has none. events: readings behind it.
    """

    customer: str
    subject: str | None
    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    dimensions: Mapping[str, str]
    quantity: Decimal | None
    events: int


class UsagePage(Struct, frozen=True, kw_only=True):
    """Usage from one snapshot; every event up to `sequence` is in it."""

    meter: str
    unit: str
    sequence: int
    items: list[UsageItem]
    next_cursor: str | None


_GroupBy = Annotated[
    str, QueryParameter(description="dimensions to tell apart, with commas; `subject` is one too")
]
_Window = Annotated[
    WindowSize | None, QueryParameter(description="cut the span into these; none: one row")
]
_Timezone = Annotated[
    str | None, QueryParameter(description="IANA name in which days begin; none: the customer's")
]
_Subjects = Annotated[
    list[str] | None, QueryParameter(name="subject", description="only these subjects")
]


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="query_usage",
    opt=describe(
        "Query usage",
        answer=UsagePage,
        codes=list(UsageCode),
        examples=[
            Example(
                path="/v1/usage?meter=llm_tokens&customer=acme&window=day&group_by=model"
                "&from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z",
                answer={
                    "meter": "llm_tokens",
                    "unit": "",
                    "sequence": 0,
                    "items": [],
                    "next_cursor": None,
                },
            ),
            Example(
                path="/v1/usage?meter=nothing&from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z",
                status=422,
            ),
        ],
        description=(
            "`filter.DIMENSION=VALUE` keeps readings with that value; given several times for a"
            " dimension, any of them. Without `customer` all are answered, a page of customers"
            " at a time. Windows begin where the customer's day does and are cut by the span."
        ),
    ),
)
def query(
    farebox: State,
    principal: Principal,
    request: Request[object, object, LitestarState],
    meter: str,
    starts: From,
    ends: To,
    customer: str | None = None,
    window: _Window = None,
    timezone: _Timezone = None,
    group_by: _GroupBy = "",
    subjects: _Subjects = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> UsagePage:
    """Query usage; `limit` counts customers."""
    after = decode_cursor(cursor, 1)
    names = tuple(dict.fromkeys(name for name in group_by.split(",") if name))
    filters: dict[str, set[str]] = defaultdict(set)
    for name, value in request.query_params.multi_items():
        if name.startswith("filter."):
            filters[name.removeprefix("filter.")].add(value)
    found = query_usage(
        farebox.pool,
        principal.organization_id,
        UsageQuestion(
            meter=meter,
            start=instant(starts, "from"),
            end=instant(ends, "to"),
            customer=visible_customer(principal, customer),
            after="" if after is None else after[0],
            customers_max=limit,
            window=window,
            timezone=timezone,
            group_by=tuple(name for name in names if name != "subject"),
            by_subject="subject" in names,
            filters={name: frozenset(values) for name, values in filters.items()},
            subjects=None if subjects is None else tuple(subjects),
        ),
    )
    if isinstance(found, UsageRefusal):
        raise refused(found.code, found.message, pointer=f"/{found.field}")
    return _page(meter, found)


def _page(meter: str, found: UsageAnswer) -> UsagePage:
    return UsagePage(
        meter=meter,
        unit=found.unit,
        sequence=found.sequence,
        items=[_item(row) for row in found.rows],
        next_cursor=None if found.after is None else encode_cursor(found.after),
    )


def _item(row: UsageRow) -> UsageItem:
    return UsageItem(
        customer=row.customer,
        subject=row.subject,
        starts=row.start,
        ends=row.end,
        dimensions=row.dimensions,
        quantity=number(row.quantity),
        events=row.events,
    )


routes = Router("/v1/usage", route_handlers=[query], tags=["Usage"])
