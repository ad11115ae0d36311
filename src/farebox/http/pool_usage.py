"""Who used what of a pool, and when: by subject, by share, by hour, day or month."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter
from msgspec import Struct

from farebox.access.key import Scope
from farebox.flows.query_usage import UsageCode
from farebox.flows.read_pool_usage import (
    WINDOWS_MAX,
    PoolUse,
    TooManyWindows,
    UsageBy,
    UseRow,
    period_start,
    read_pool_usage,
)
from farebox.http.authenticate import Principal, requires
from farebox.http.code import HttpCode
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, decode_cursor, encode_cursor
from farebox.http.pools import visible_pool
from farebox.http.problem import refused
from farebox.http.span import in_order, maybe_instant, number
from farebox.http.state import State
from farebox.ledger.refusal import RefusalCode
from farebox.postgres.pool_balance import find_balance
from farebox.postgres.pool_usage import Used
from farebox.postgres.session import transaction


class UsedView(Struct, frozen=True, kw_only=True):
    """Units used, less those taken back in this time.

    covered: by grants. beyond: by overdraft, overage and burst. operations: draws and settled
    holds.
    """

    used: Decimal
    covered: Decimal
    beyond: Decimal
    operations: int


class UseItem(Struct, frozen=True, kw_only=True):
    """What was used in [from, to); `subject` and `allotment` are null where not told apart."""

    subject: str | None = None
    allotment: str | None = None
    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    used: Decimal
    covered: Decimal
    beyond: Decimal
    operations: int


class PoolUsageAnswer(Struct, frozen=True, kw_only=True):
    """Usage of a pool in [since, until), current to the last answered draw."""

    pool: str
    unit: str
    timezone: str
    since: datetime
    until: datetime
    by: UsageBy
    total: UsedView
    items: Sequence[UseItem]
    next_cursor: str | None


_INSTANT = timedelta(microseconds=1)
_DIGITS_MAX = 100
_Since = Annotated[
    str | None, QueryParameter(description="from this instant on, RFC 3339; none: this period")
]
_Until = Annotated[
    str | None, QueryParameter(description="up to this instant, without it; none: now")
]


@get(
    "/{key:str}/usage",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_pool_usage",
    opt=describe(
        "Read who used what of a pool, and when",
        answer=PoolUsageAnswer,
        codes=[RefusalCode.POOL_UNKNOWN, UsageCode.RANGE_EMPTY],
        examples=[
            Example(
                path="/v1/pools/acme-tokens/usage?by=day"
                "&since=2026-10-01T00:00:00Z&until=2026-11-01T00:00:00Z",
                answer={
                    "pool": "acme-tokens",
                    "unit": "token",
                    "timezone": "America/New_York",
                    "since": "2026-10-01T00:00:00Z",
                    "until": "2026-11-01T00:00:00Z",
                    "by": "day",
                    "total": {"used": "0", "covered": "0", "beyond": "0", "operations": 0},
                    "items": [],
                    "next_cursor": None,
                },
            ),
            Example(path="/v1/pools/acme-tokens/usage?by=subject"),
            Example(path="/v1/pools/acme-tokens/usage?since=yesterday", status=400),
        ],
        description=(
            "Counted by the hour of use (`used_at` of the draw, else its time); what is taken back"
            " counts in the hour in which that happens. `since` and `until` are widened to full"
            " hours, days and months are cut in the time zone of the pool. Subjects and allotments"
            " come with the greatest use first; windows in which nothing happened are left out."
        ),
    ),
)
def read_usage(
    farebox: State,
    principal: Principal,
    key: str,
    since: _Since = None,
    until: _Until = None,
    by: UsageBy = UsageBy.SUBJECT,
    subject: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> PoolUsageAnswer:
    """Read usage."""
    found, organization_id = visible_pool(farebox, principal, key), principal.organization_id
    after = _after(cursor)
    begins, stops = maybe_instant(since, "since"), maybe_instant(until, "until")
    in_order(begins, stops)
    now = farebox.clock()
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        pool = find_balance(connection, organization_id, found.pool_id)
        assert pool is not None, "a pool is never removed"
        # A pool may have been decided on by a clock that goes before this one.
        ends = stops or max(now, pool.as_of) + _INSTANT
        starts = begins or min(period_start(connection, organization_id, pool, now), ends)
        use = read_pool_usage(
            connection,
            organization_id,
            found.pool_id,
            pool.timezone,
            by,
            starts,
            max(starts, ends),
            subject=subject,
            after=after,
            limit=limit,
        )
    if isinstance(use, TooManyWindows):
        detail = f"at most {WINDOWS_MAX} windows are answered; ask for a shorter time"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/by")
    return PoolUsageAnswer(
        pool=key,
        unit=pool.unit,
        timezone=pool.timezone,
        since=use.since,
        until=use.until,
        by=by,
        total=UsedView(**_numbers(use.total)),
        items=[_item(by, row) for row in use.rows],
        next_cursor=_cursor(use),
    )


def _item(by: UsageBy, row: UseRow) -> UseItem:
    return UseItem(
        subject=row.name or None if by is UsageBy.SUBJECT else None,
        allotment=row.name or None if by is UsageBy.ALLOTMENT else None,
        starts=row.start,
        ends=row.end,
        **_numbers(row.used),
    )


def _numbers(used: Used) -> dict[str, Any]:
    return {
        "used": number(used.used),
        "covered": number(used.covered),
        "beyond": number(used.beyond),
        "operations": used.operations,
    }


def _cursor(use: PoolUse) -> str | None:
    return None if use.after is None else encode_cursor(f"{use.after[0]:f}", use.after[1])


def _after(cursor: str | None) -> tuple[Decimal, str] | None:
    values = decode_cursor(cursor, 2)
    if values is None:
        return None
    try:
        least = Decimal(values[0])
    except InvalidOperation:
        least = Decimal("NaN")
    if not least.is_finite() or abs(least.adjusted()) > _DIGITS_MAX:
        raise refused(HttpCode.CURSOR_INVALID, "take the cursor from `next_cursor` of a page")
    return least, values[1]


routes = Router("/v1/pools", route_handlers=[read_usage], tags=["Pools"])
