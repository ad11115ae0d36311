"""Who used what of a pool over what time: from sums and the ledger's tail, in one snapshot."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.flows.read_pool import books_now
from farebox.metering.window import WindowSize, windows
from farebox.period.calendar import local, to_instant
from farebox.period.instant import BEGINNING, END
from farebox.postgres.pool_balance import BalanceRow
from farebox.postgres.pool_usage import Teller, Used, total_use, use_by_name, use_by_window

WINDOWS_MAX = 1_000
_HOUR = timedelta(hours=1)


class UsageBy(StrEnum):
    """What is told apart."""

    SUBJECT = "subject"
    ALLOTMENT = "allotment"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class UseRow(Struct, frozen=True, kw_only=True):
    """Use of one subject or allotment ("" for none) in the whole span, or of all in a window."""

    name: str | None = None
    start: datetime
    end: datetime
    used: Used


class PoolUse(Struct, frozen=True, kw_only=True):
    """What was used in [since, until), which are full hours of the pool's time zone.

    after: use and name with which the next page begins, where there is one.
    """

    since: datetime
    until: datetime
    total: Used
    rows: Sequence[UseRow]
    after: tuple[Decimal, str] | None = None


class TooManyWindows(Struct, frozen=True):
    """The span has more windows than one answer holds."""


def read_pool_usage(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    timezone: str,
    by: UsageBy,
    since: datetime,
    until: datetime,
    *,
    subject: str | None = None,
    after: tuple[Decimal, str] | None = None,
    limit: int = 100,
) -> PoolUse | TooManyWindows:
    """Return what was used; the connection is in a snapshot.

    The span is widened to full hours on the clock of `timezone`, the pool's own. Windows are cut
    there too; those in which nothing happened are left out. Names come with the greatest use first.
    """
    since = _hour_of(min(max(since, BEGINNING), END), timezone)
    until = _hour_after(min(max(until, BEGINNING), END), timezone)
    total = total_use(connection, organization_id, pool_id, since, until, subject)
    if by in (UsageBy.SUBJECT, UsageBy.ALLOTMENT):
        named = use_by_name(
            connection,
            organization_id,
            pool_id,
            Teller(by),
            since,
            until,
            subject=subject,
            after=after,
            limit=limit + 1,
        )
        rows = [UseRow(name=name, start=since, end=until, used=used) for name, used in named]
        if len(rows) <= limit:
            return PoolUse(since=since, until=until, total=total, rows=rows)
        last, rows = named[limit - 1], rows[:limit]
        return PoolUse(
            since=since, until=until, total=total, rows=rows, after=(last[1].used, last[0])
        )
    # Longer than any window lasts, whatever its clocks do: so a span of centuries is not cut first.
    if (until - since) > WINDOWS_MAX * _LENGTH_MAX[by]:
        return TooManyWindows()
    spans = windows(since, until, WindowSize(by), timezone)
    if len(spans) > WINDOWS_MAX:
        return TooManyWindows()
    if not spans:
        return PoolUse(since=since, until=until, total=total, rows=())
    starts = [start for start, _ in spans]
    found = use_by_window(connection, organization_id, pool_id, starts, until, subject=subject)
    rows = [UseRow(start=spans[at][0], end=spans[at][1], used=used) for at, used in found]
    return PoolUse(since=since, until=until, total=total, rows=rows)


def period_start(
    connection: Connection, organization_id: UUID, row: BalanceRow, now: datetime
) -> datetime:
    """Return when the period of a pool began that is under way at `now`."""
    counters = row.counters
    if counters.period_end is None or counters.period_end <= now:
        counters = books_now(connection, organization_id, [row.pool_id], now)[
            row.pool_id
        ].pool.counters
    return counters.period_start or row.opened_at


_LENGTH_MAX = {
    UsageBy.HOUR: 2 * _HOUR,
    UsageBy.DAY: 26 * _HOUR,
    UsageBy.MONTH: timedelta(days=32),
}


def _hour_of(instant: datetime, timezone: str) -> datetime:
    """Return the instant at which the hour of `instant` began; the same as `hour_of` in SQL."""
    return to_instant(local(instant, timezone).start_of("hour"))


def _hour_after(instant: datetime, timezone: str) -> datetime:
    """Return the instant, or the end of its hour where it is inside one."""
    begun = _hour_of(instant, timezone)
    if begun == instant:
        return instant
    return windows(begun, begun + 3 * _HOUR, WindowSize.HOUR, timezone)[0][1]
