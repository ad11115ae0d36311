"""Live balances: one look a quarter of a second at all pools that somebody listens to.

A process polls while it has listeners, one query an organization, and makes one event of a pool
that moved for all who listen to it. A listener that is slow gets the latest, not every one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from farebox.catalog.plain_json import encode
from farebox.flows.read_pool import books_now
from farebox.http.pool_capacity import capacity_of
from farebox.http.pool_view import PeriodView
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.postgres.pool_balance import BalanceRow, moved_balances
from farebox.postgres.session import Pool, transaction

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
"""So often a comment is sent, and whoever listens is asked for again."""
LISTENERS_MAX = 5_000
_FIRST_SECONDS = 0.02
"""Newcomers are gathered for so long before they are looked up."""
_BEGIN = b"retry: 2000\n\n"
_BEAT = b": still here\n\n"

_log = structlog.get_logger()


class OwedView(Struct, frozen=True, kw_only=True):
    """What is beyond the grants, as positive numbers, since the pool was opened."""

    overdraft: Decimal
    overage: Decimal
    burst: Decimal


class BalanceEvent(Struct, frozen=True, kw_only=True):
    """What a pool stands at; `version` rises with every commit that changes it.

    capacity: what its grants have, and had, to give in this period; `available` is of that.
    """

    pool: str
    unit: str
    version: int
    available: Decimal
    capacity: Decimal
    held: Decimal
    used: Decimal
    owed: OwedView
    period: PeriodView
    next_change_at: datetime | None
    as_of: datetime


class _Watched:
    """A pool that somebody listens to; `changed` is set once, when `event` is replaced."""

    __slots__ = ("balance", "changed", "event", "listeners")

    def __init__(self) -> None:
        self.listeners = 0
        self.balance: BalanceEvent | None = None
        self.event: bytes | None = None
        self.changed = asyncio.Event()

    def become(self, balance: BalanceEvent) -> None:
        """Tell the listeners, where anything but the time of the look is another."""
        before = self.balance
        if before is not None and balance == msgspec.structs.replace(before, as_of=balance.as_of):
            return
        self.balance = balance
        text = encode(balance)
        self.event = b"event: balance\nid: %d\ndata: %b\n\n" % (balance.version, text)
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


_Place = tuple[UUID, UUID]
"""Organization and pool."""


class LiveBalances:
    """What the pools that somebody listens to stand at, in one process."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._clock = clock
        self._watched: dict[_Place, _Watched] = {}
        self._polling: asyncio.Task[None] | None = None
        self._newcomer = asyncio.Event()
        self._closed = False
        self.listeners = 0
        self.polls = 0

    @property
    def is_full(self) -> bool:
        return self.listeners >= LISTENERS_MAX

    def close(self) -> None:
        """End what every listener reads; a server that stops waits for open answers."""
        self._closed = True
        for watched in self._watched.values():
            watched.wake()

    async def events(
        self, organization_id: UUID, pool_id: UUID, allowed: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events until the listener goes, the server stops or it may no more."""
        place = organization_id, pool_id
        watched = self._join(place)
        loop = asyncio.get_running_loop()
        beat, told = loop.time() + HEARTBEAT_SECONDS, None
        try:
            yield _BEGIN
            while not self._closed:
                changed = watched.changed
                if watched.event is not told and watched.event is not None:
                    told = watched.event
                    yield told
                elif loop.time() < beat:
                    await _either(changed, beat - loop.time())
                else:
                    if not await allowed():
                        return
                    beat = loop.time() + HEARTBEAT_SECONDS
                    yield _BEAT
        finally:
            self._leave(place)

    def _join(self, place: _Place) -> _Watched:
        watched = self._watched.get(place)
        if watched is None:
            watched = self._watched[place] = _Watched()
            self._newcomer.set()
        watched.listeners += 1
        self.listeners += 1
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        return watched

    def _leave(self, place: _Place) -> None:
        watched = self._watched[place]
        watched.listeners -= 1
        self.listeners -= 1
        if not watched.listeners:
            del self._watched[place]

    async def _poll(self) -> None:
        """Look until nobody listens; an error is logged and the next look tries again."""
        while self._watched and not self._closed:
            await asyncio.sleep(_FIRST_SECONDS)
            self._newcomer.clear()
            known: dict[UUID, list[tuple[UUID, int]]] = {}
            for (organization_id, pool_id), watched in self._watched.items():
                version = -1 if watched.balance is None else watched.balance.version
                known.setdefault(organization_id, []).append((pool_id, version))
            try:
                found = await asyncio.to_thread(self._look, known)
            except Exception as error:
                _log.warning("live_failed", error=str(error))
                found = {}
            self.polls += 1
            for place, balance in found.items():
                if place in self._watched:
                    self._watched[place].become(balance)
            await _either(self._newcomer, POLL_SECONDS - _FIRST_SECONDS)

    def _look(self, known: Mapping[UUID, Sequence[tuple[UUID, int]]]) -> dict[_Place, BalanceEvent]:
        now, found = self._clock(), dict[_Place, BalanceEvent]()
        for organization_id, versions in known.items():
            with transaction(self._pool, organization_id, snapshot=True) as connection:
                rows = moved_balances(connection, organization_id, versions, now)
                behind = [row.pool_id for row in rows if row.is_behind(now)]
                books = books_now(connection, organization_id, behind, now) if behind else {}
            for row in rows:
                event = _event(row, books.get(row.pool_id), now)
                found[organization_id, row.pool_id] = event
        return found


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _event(row: BalanceRow, book: Book | None, now: datetime) -> BalanceEvent:
    """Return the event of a pool; `book` where the row does not tell all yet."""
    counters = row.counters if book is None else book.pool.counters
    told = {
        Account.GRANT: row.available,
        Account.HELD: row.held,
        Account.USED: row.used,
        Account.OVERDRAFT: row.overdraft,
        Account.OVERAGE: row.overage,
        Account.BURST: row.burst,
        **({} if book is None else book.pool.balances),
    }
    return BalanceEvent(
        pool=row.key,
        unit=row.unit,
        version=row.version,
        available=told[Account.GRANT],
        capacity=capacity_of(
            told[Account.GRANT], told[Account.OVERDRAFT].copy_abs(), counters, row.refill
        ),
        held=told[Account.HELD],
        used=told[Account.USED],
        owed=OwedView(
            overdraft=told[Account.OVERDRAFT].copy_abs(),
            overage=told[Account.OVERAGE].copy_abs(),
            burst=told[Account.BURST].copy_abs(),
        ),
        period=PeriodView(
            start=counters.period_start,
            end=counters.period_end,
            used=counters.used,
            overage=counters.overage,
            burst=counters.burst,
            spend=counters.spend,
            top_ups=counters.top_ups,
        ),
        next_change_at=row.next_due if book is None else book.next_due,
        as_of=now,
    )
