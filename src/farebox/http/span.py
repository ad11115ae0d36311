"""Instants and spans of time in a query: RFC 3339, `from` inclusive, `to` exclusive."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from litestar.params import QueryParameter

from farebox.catalog.number import plain_text
from farebox.events.time import parse_time
from farebox.flows.query_usage import UsageCode
from farebox.http.code import HttpCode
from farebox.http.problem import refused

From = Annotated[str, QueryParameter(name="from", description="from this instant on, RFC 3339")]
To = Annotated[str, QueryParameter(name="to", description="up to this instant, without it")]
MaybeFrom = Annotated[
    str | None, QueryParameter(name="from", description="from this instant on, RFC 3339")
]
MaybeTo = Annotated[
    str | None, QueryParameter(name="to", description="up to this instant, without it")
]
MaybeSince = Annotated[str | None, QueryParameter(description="from this instant on, RFC 3339")]
MaybeUntil = Annotated[str | None, QueryParameter(description="up to this instant, without it")]


def maybe_instant(text: str | None, name: str) -> datetime | None:
    """As `instant`, none where none is given."""
    return None if text is None else instant(text, name)


def instant(text: str, name: str) -> datetime:
    """Return the instant a parameter names; raises Refused (`parameter_invalid`)."""
    found = parse_time(text)
    if found is None:
        detail = f"{name} must be an instant by RFC 3339, like 2026-10-01T00:00:00Z"
        # A plus sign in a query is a space: the usual reason.
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer=f"/{name}")
    return found


def in_order(starts: datetime | None, ends: datetime | None, name: str = "until") -> None:
    """Refuse a span that ends before it has begun, where both are said (`range_empty`).

    name: of the parameter that says when it ends.
    """
    if starts is not None and ends is not None and ends <= starts:
        since = "from" if name == "to" else "since"
        detail = f"`{name}` must lie after `{since}`"
        raise refused(UsageCode.RANGE_EMPTY, detail, pointer=f"/{name}")


def number(value: Decimal | None) -> Decimal | None:
    """Return a quantity without exponent and trailing zeros, as it goes over the wire."""
    return None if value is None else Decimal(plain_text(value))
