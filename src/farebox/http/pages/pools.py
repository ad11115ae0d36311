"""Pools: the list, those that run low first, and one pool with all that is in it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from litestar import get
from litestar.concurrency import sync_to_thread
from litestar.response import Stream
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.code import CatalogCode
from farebox.flows.post_due import post_due
from farebox.flows.read_pool import books_now, pools_listed
from farebox.flows.read_pool_usage import PoolUse, UsageBy, read_pool_usage
from farebox.http.live import live_response
from farebox.http.live_balance import LiveBalances
from farebox.http.pages.format import words
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.pages.pools_view import (
    LOW,
    STRETCHES,
    Bar,
    Stretch,
    bar_of,
    burn_down,
    chosen_stretch,
    grant_items,
    hold_items,
    share_items,
)
from farebox.http.pages.pools_words import LicenseStop, license_stop, policy_words
from farebox.http.pages.sign_in import SignInNeeded, read_viewer
from farebox.http.pages.webhooks import read_may_manage
from farebox.http.pool_capacity import capacity_of
from farebox.http.pool_view import entry_view, pool_view
from farebox.http.state import State
from farebox.ledger.grant import Basis, GrantStatus
from farebox.ledger.policy import LimitMode
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.pool_check import PoolCode
from farebox.ledger.refusal import RefusalCode
from farebox.period.calendar import local
from farebox.postgres.pool import PoolKey, RefusalRow, find_definition, find_pool, refusals
from farebox.postgres.pool_list import PoolItem
from farebox.postgres.session import transaction
from farebox.postgres.transfer import statement

PAGE = 50
ENTRIES = 25
_LATEST = 6
_USERS = 25
_WINDOWS = 200
_REFUSED = timedelta(days=7)
_REFUSALS = 10
_PAGES_MAX = 10_000
_SAID = {
    "granted": ("good", "The units are granted."),
    "pending": ("good", "The grant waits until it is paid."),
    "paid": ("good", "The grant is paid; its units may be used."),
    "failed": ("good", "The grant was not paid and fell back."),
    "number_unreadable": ("bad", "Nothing was granted: enter the units as a number, like 1000."),
    "day_unreadable": ("bad", "Nothing was granted: enter the last day like 2026-12-31."),
}
_REFUSED_BY = {code.value for codes in (RefusalCode, PoolCode, CatalogCode) for code in codes}


class PoolListItem(Struct, frozen=True):
    """A pool in the list, with how it goes in a word.

    limitless: nothing bounds it and it has no units, so what was used is all there is to tell.
    """

    row: PoolItem
    capacity: Decimal
    bar: Bar
    word: str
    tone: str
    stop: LicenseStop | None
    limitless: bool


class Shown(Struct, frozen=True):
    """A pool that a page is about."""

    pool_id: UUID
    definition: PoolDefinition


def list_items(rows: Sequence[PoolItem], now: datetime) -> list[PoolListItem]:
    """Return pools of a list as they are shown at `now`."""
    return [_list_item(row, now) for row in rows]


def _list_item(row: PoolItem, now: datetime) -> PoolListItem:
    capacity = capacity_of(row.available, row.overdraft, row.counters, row.refill)
    stop = license_stop(row.license, now)
    return PoolListItem(
        row,
        capacity,
        bar_of(row.available, capacity, row.held),
        *_goes(row, capacity, stop),
        stop,
        row.mode is LimitMode.UNLIMITED and not capacity,
    )


def _goes(row: PoolItem, capacity: Decimal, stop: LicenseStop | None) -> tuple[str, str]:
    if row.status != "open":
        return "closed", ""
    if stop is not None:
        return stop.word, stop.tone
    if row.mode is LimitMode.UNLIMITED:
        return ("unlimited" if capacity else "fine"), "accepted"
    if not capacity:
        return "nothing granted", ""
    if not row.available:
        return ("empty", "bad") if row.mode is LimitMode.HARD else ("beyond grants", "warn")
    return ("low", "warn") if row.level < LOW else ("fine", "accepted")


@get("/pools", sync_to_thread=True)
def pool_list(
    request: PageRequest, farebox: State, viewer: Viewer, q: str = "", page: int = 1
) -> Page:
    now, search = farebox.clock(), q.strip().replace("\0", "")
    number = min(max(page, 1), _PAGES_MAX)
    rows = pools_listed(
        farebox.pool,
        viewer.organization_id,
        now,
        search=search,
        offset=(number - 1) * PAGE,
        limit=PAGE + 1,
    )
    return render(
        request,
        "pools.html",
        viewer=viewer,
        items=list_items(rows[:PAGE], now),
        search=search,
        page=number,
        more=len(rows) > PAGE,
    )


@get("/pools/{key:str}", sync_to_thread=True)
def pool_page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    key: str,
    stretch: str = "",
    since: str = "",
    until: str = "",
    by: str = "",
    said: str = "",
) -> Page:
    """One pool; `since` and `until` are days, both in the span that is shown."""
    now, organization_id = farebox.clock(), viewer.organization_id
    post_due(farebox.pool, organization_id, [_find(farebox, viewer, key).pool_id], now)
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        shown = find_shown(connection, organization_id, key)
        book = books_now(connection, organization_id, [shown.pool_id], now)[shown.pool_id]
        pool = book.pool
        span = chosen_stretch(pool, stretch, since, until, now)
        told = UsageBy(by) if by in UsageBy.__members__.values() else UsageBy.SUBJECT
        usage = _usage(connection, organization_id, shown.pool_id, pool.timezone, told, span)
        entries = statement(connection, organization_id, shown.pool_id, limit=_LATEST)
        chart = burn_down(connection, organization_id, shown.pool_id, pool, now)
        refused = _refusals(connection, organization_id, shown.pool_id, now)
    view = pool_view(shown.definition, book)
    capacity = capacity_of(view.available, view.overdraft, pool.counters, pool.policy.refill)
    unlimited = pool.policy.limit.mode is LimitMode.UNLIMITED
    return render(
        request,
        "pool.html",
        viewer=viewer,
        pool=view,
        capacity=capacity,
        unlimited=unlimited,
        limitless=unlimited and not capacity,
        stop=license_stop(pool.license, now),
        bar=bar_of(view.available, capacity, view.held),
        words=policy_words(pool.policy, pool.unit),
        grants=grant_items(shown.pool_id, book),
        grants_in_all=len(book.grants),
        shares=share_items(book, now),
        holds=hold_items(shown.pool_id, book),
        holds_in_all=len(book.holds),
        usage=usage,
        usage_by=told,
        span=span,
        stretches=STRETCHES,
        first_day=_day(span.since, pool.timezone),
        last_day=_day(span.until - timedelta(microseconds=1), pool.timezone),
        groupings=list(UsageBy),
        entries=[entry_view(one) for one in entries],
        may_manage=read_may_manage(request, farebox, viewer),
        said=_message(said),
        bases=(Basis.PURCHASED, Basis.PROMOTIONAL, Basis.INCLUDED),
        pending=GrantStatus.PENDING,
        grant_key=f"console-{farebox.new_id()}",
        chart=chart,
        refused=refused,
    )


@get("/pools/{key:str}/statement", sync_to_thread=True)
def statement_page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    key: str,
    before: str = "",
    subject: str = "",
) -> Page:
    """Every unit that moved, the latest first."""
    organization_id, only = viewer.organization_id, subject.strip().replace("\0", "")
    after = int(before) if before.isdecimal() and len(before) < 19 else None
    pool_id = _find(farebox, viewer, key).pool_id
    post_due(farebox.pool, organization_id, [pool_id], farebox.clock())
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        shown = find_shown(connection, organization_id, key)
        found = find_pool(connection, organization_id, pool_id=shown.pool_id)
        entries = statement(
            connection,
            organization_id,
            shown.pool_id,
            before=after,
            subject=only or None,
            limit=ENTRIES + 1,
        )
    assert isinstance(found, PoolKey)
    return render(
        request,
        "pool_statement.html",
        viewer=viewer,
        key=found.key,
        definition=shown.definition,
        entries=[entry_view(one) for one in entries[:ENTRIES]],
        more=entries[ENTRIES - 1].sequence if len(entries) > ENTRIES else None,
        first=after is None,
        subject=only,
    )


@get("/pools/{key:str}/live")
async def pool_live(
    request: PageRequest, farebox: State, viewer: Viewer, live: LiveBalances, key: str
) -> Stream:
    """The balance of a pool as it changes, for a page that is open."""
    shown = await sync_to_thread(_find, farebox, viewer, key)

    async def allowed() -> bool:
        try:
            await sync_to_thread(read_viewer, request, farebox)
        except SignInNeeded:
            return False
        return True

    return live_response(live, viewer.organization_id, shown.pool_id, allowed)


def _message(said: str) -> tuple[str, str] | None:
    if said in _REFUSED_BY:
        return "bad", f"Nothing was changed: {words(said)}."
    return _SAID.get(said)


def find_shown(connection: Connection, organization_id: UUID, key: str) -> Shown:
    """Return the pool that a page is about; raises NotFoundException."""
    found = find_definition(connection, organization_id, key.replace("\0", ""))
    if found is None:
        raise missing("pool with this key")
    return Shown(*found)


def _find(farebox: State, viewer: Viewer, key: str) -> Shown:
    with transaction(farebox.pool, viewer.organization_id) as connection:
        return find_shown(connection, viewer.organization_id, key)


def _usage(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    timezone: str,
    by: UsageBy,
    span: Stretch,
) -> PoolUse | None:
    """Return who used what; None where the span has too many windows for a page."""
    use = read_pool_usage(
        connection,
        organization_id,
        pool_id,
        timezone,
        by,
        span.since,
        span.until,
        limit=_USERS,
    )
    return use if isinstance(use, PoolUse) and len(use.rows) <= _WINDOWS else None


def _refusals(
    connection: Connection, organization_id: UUID, pool_id: UUID, now: datetime
) -> list[RefusalRow]:
    return refusals(
        connection,
        organization_id,
        pool_id=pool_id,
        since=now - _REFUSED,
        until=now + timedelta(minutes=1),
        limit=_REFUSALS,
    )


def _day(instant: datetime, timezone: str) -> str:
    """Return a day as a form's field takes it."""
    return local(instant, timezone).date().format_iso()
