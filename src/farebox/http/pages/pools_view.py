"""What the page of a pool shows, made of its books."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from whenever import Date

from farebox.access.id import Prefix, encode_numbered
from farebox.http.pages.chart import Chart, ChartSeries
from farebox.ledger.account import ZERO
from farebox.ledger.allotment import Allotment, in_force
from farebox.ledger.book import Book
from farebox.ledger.grant import Grant
from farebox.ledger.hold import Hold
from farebox.ledger.pool import Pool
from farebox.metering.window import WindowSize, windows
from farebox.money.rounding import divide
from farebox.period.calendar import day_at, start_of_day
from farebox.postgres.pool_list import balance_changes, balance_course

GRANTS_SHOWN = 50
HOLDS_SHOWN = 50
LOW = Decimal("0.2")
"""A pool with less than this left of what there was in this period runs low."""
_BY_HOUR, _BY_DAY = timedelta(days=8), timedelta(days=120)
_POINTS_MAX = 200
_ENTRIES_MAX = 1_000
"""With no more entries than this in a period, each change of the balance is a step of its chart."""
_INSTANT = timedelta(microseconds=1)
_UNIT_COST_DECIMALS = 8


class Bar(Struct, frozen=True):
    """A bar of 100: what there is, and beside it what is held."""

    have: Decimal
    held: Decimal = ZERO


def bar_of(have: Decimal, whole: Decimal, held: Decimal = ZERO) -> Bar:
    """Return a bar; more than the whole fills it, nothing of nothing is empty."""
    if whole <= 0:
        return Bar(ZERO)
    shown = divide(min(max(have, ZERO), whole) * 100, whole, 1)
    return Bar(shown, min(divide(max(held, ZERO) * 100, whole, 1), 100 - shown))


class GrantItem(Struct, frozen=True):
    """A grant, its place among those that are taken from, and what a unit of it cost."""

    id: str
    grant: Grant
    place: int | None
    bar: Bar
    unit_cost: Decimal | None


class ShareItem(Struct, frozen=True):
    """A share, how deep it is nested, and what it used of what it may."""

    share: Allotment
    depth: int
    in_force: bool
    bar: Bar | None


class HoldItem(Struct, frozen=True):
    id: str
    hold: Hold


def grant_items(pool_id: UUID, book: Book) -> list[GrantItem]:
    """Return open grants: in the order in which they are taken, then those that wait."""
    burning = book.first_grants(GRANTS_SHOWN)
    taken = {one.number for one in burning}
    waiting = [one for one in book.grants.values() if one.number not in taken]
    waiting.sort(key=lambda one: (one.effective_at, one.number))
    shown = [*burning, *waiting[: GRANTS_SHOWN - len(burning)]]
    return [
        GrantItem(
            id=encode_numbered(Prefix.GRANT, pool_id, one.number),
            grant=one,
            place=place + 1 if place < len(burning) else None,
            bar=bar_of(one.available, one.amount, one.held),
            unit_cost=None
            if one.cost is None
            else divide(one.cost, one.amount, _UNIT_COST_DECIMALS),
        )
        for place, one in enumerate(shown)
    ]


def share_items(book: Book, now: datetime) -> list[ShareItem]:
    """Return shares as a tree that is read from the top, each below the one that it is part of."""
    below: dict[str | None, list[Allotment]] = {}
    for one in book.shares.present():
        below.setdefault(one.parent, []).append(one)

    def walk(parent: str | None, depth: int) -> Iterable[ShareItem]:
        for one in below.get(parent, ()):
            whole = one.cap if one.cap is not None else one.guarantee
            yield ShareItem(
                one, depth, in_force(one, now), bar_of(one.used, whole) if whole else None
            )
            yield from walk(one.key, depth + 1)

    return list(walk(None, 0))


def hold_items(pool_id: UUID, book: Book) -> list[HoldItem]:
    """Return open holds, those that end first first."""
    holds = sorted(book.holds.values(), key=lambda one: (one.expires_at, one.number))
    return [
        HoldItem(encode_numbered(Prefix.HOLD, pool_id, one.number), one)
        for one in holds[:HOLDS_SHOWN]
    ]


def burn_down(
    connection: Connection, organization_id: UUID, pool_id: UUID, pool: Pool, now: datetime
) -> Chart | None:
    """Return what was available in the period under way, up to now; none before the first entry."""
    now = max(now, pool.as_of)
    start = pool.counters.period_start or pool.opened_at
    (before,) = balance_course(connection, organization_id, pool_id, [start])
    changes = balance_changes(connection, organization_id, pool_id, start, _ENTRIES_MAX + 1)
    if before is None and not changes:
        return None
    steps = _steps([(start, before or ZERO), *changes])
    if len(changes) > _ENTRIES_MAX or len(steps) > _POINTS_MAX:
        instants = _instants(start, now, pool.timezone)
        values = balance_course(connection, organization_id, pool_id, instants)
        steps = _steps([(at, value or ZERO) for at, value in zip(instants, values, strict=True)])
    steps[_second(now)] = pool.available  # what fell due since the last entry counts too
    return Chart(
        kind="steps",
        x=tuple(steps),
        series=(ChartSeries("available", tuple(steps.values())),),
        label=f"Units available in {pool.key} over the period",
        timezone=pool.timezone,
        unit=pool.unit,
        span=(_second(start), _second(max(pool.counters.period_end or now, now))),
    )


def _steps(course: Iterable[tuple[datetime, Decimal]]) -> dict[datetime, Decimal]:
    """Return from when on there was how much, to the second, where it became another."""
    by_second = {_second(instant): value for instant, value in course}
    steps: dict[datetime, Decimal] = {}
    last: Decimal | None = None
    for instant, value in by_second.items():
        if value != last:
            steps[instant] = last = value
    return steps


def _second(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(microsecond=0)


def _instants(start: datetime, now: datetime, timezone: str) -> list[datetime]:
    """Return the ends of the windows that are short enough for a chart to be told by them."""
    size = WindowSize.HOUR if now - start <= _BY_HOUR else WindowSize.DAY
    size = size if now - start <= _BY_DAY else WindowSize.WEEK
    return [start, *(end for _, end in windows(start, now, size, timezone))][-_POINTS_MAX:]


class Stretch(Struct, frozen=True):
    """A span of time that was chosen: `name` of the choice, none where its days were given."""

    name: str | None
    since: datetime
    until: datetime


STRETCHES: Sequence[tuple[str, str]] = (
    ("period", "This period"),
    ("today", "Today"),
    ("week", "7 days"),
    ("month", "30 days"),
)
_DAYS = {"today": 1, "week": 7, "month": 30}


def chosen_stretch(pool: Pool, name: str, first: str, last: str, now: datetime) -> Stretch:
    """Return the span of days `first` to `last` (both in it), or the one that the name says.

    It ends with what was decided last, which another process's clock may show as later than `now`.
    """
    until = max(now, pool.as_of) + _INSTANT
    days = [day_of(text) for text in (first, last)]
    if days[0] is not None and days[1] is not None and days[0] <= days[1]:
        since = start_of_day(days[0], pool.timezone)
        return Stretch(None, since, start_of_day(days[1].add(days=1), pool.timezone))
    if name in _DAYS:
        begins = day_at(now, pool.timezone).add(days=1 - _DAYS[name])
        return Stretch(name, start_of_day(begins, pool.timezone), until)
    return Stretch("period", pool.counters.period_start or pool.opened_at, until)


def day_of(text: str) -> Date | None:
    """Return the day that a form's field names; None for what is none, or far from any ledger."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return Date(found.year, found.month, found.day) if 1990 <= found.year <= 2200 else None
