"""Group commit of events: requests that arrive together are appended in one transaction.

One committer for each organization. While a transaction is under way the next requests gather;
so the more there is to do, the less each event costs, and nobody waits for a timer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import psycopg

from farebox.events.admit import Admitted
from farebox.events.answer import Outcome
from farebox.flows.ingest import StaleCatalog, ingest
from farebox.flows.load_book import load_book
from farebox.flows.refuse_draw import DrawRefusal
from farebox.intake.overload import Overloaded
from farebox.metering.book import MeterBook
from farebox.metering.reading import ReadingRefusal
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.session import AppendPool, Pool

EVENTS_A_COMMIT = 5_000
EVENTS_WAITING = 100_000
CHARACTERS_A_COMMIT = 8 * 1024 * 1024
CHARACTERS_WAITING = 64 * 1024 * 1024
_SERIES_REMEMBERED = 200_000

Taken = Outcome | ReadingRefusal | DrawRefusal


class _Request:
    __slots__ = ("admitted", "answer", "characters", "prepared", "revision")

    def __init__(self, admitted: Sequence[Admitted], answer: "asyncio.Future[list[Taken]]") -> None:
        self.admitted = admitted
        self.characters = sum([len(one.payload) for one in admitted])
        self.answer = answer
        self.prepared: list[Prepared | ReadingRefusal] = []
        self.revision = -1

    def prepare(self, book: MeterBook) -> None:
        self.prepared = [prepare(book, one) for one in self.admitted]
        self.revision = book.revision


class Committer:
    """Appends the events of one organization; every method runs on the event loop."""

    def __init__(
        self,
        pool: Pool,
        connections: Callable[[], AppendPool],
        organization_id: UUID,
        clock: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._connections = connections
        self._organization_id = organization_id
        self._clock = clock
        self._waiting: deque[_Request] = deque()
        self._events_waiting = self._characters_waiting = 0
        self._running: asyncio.Task[None] | None = None
        self._book: MeterBook | None = None
        self._known_series: set[str] = set()
        self._may_know = False

    async def append(self, admitted: Sequence[Admitted]) -> list[Taken]:
        """Return what became of each event, once that is durable.

        Raises Overloaded, and psycopg.Error where the database is out of reach; then nothing of
        this call is known to be stored, and sending it again counts nothing twice.
        """
        loop = asyncio.get_running_loop()
        request = _Request(admitted, loop.create_future())
        # One request is let in whatever its size; what bounds that is at the door.
        if self._waiting and (
            self._events_waiting + len(admitted) > EVENTS_WAITING
            or self._characters_waiting + request.characters > CHARACTERS_WAITING
        ):
            raise Overloaded
        if self._book is not None:
            request.prepare(self._book)
        self._waiting.append(request)
        self._events_waiting += len(admitted)
        self._characters_waiting += request.characters
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await request.answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._answer(self._next_group())
        finally:
            self._running = None

    def _next_group(self) -> list[_Request]:
        group: list[_Request] = []
        events = characters = 0
        while self._waiting and (
            not group or (events < EVENTS_A_COMMIT and characters < CHARACTERS_A_COMMIT)
        ):
            request = self._waiting.popleft()
            group.append(request)
            events += len(request.admitted)
            characters += request.characters
        self._events_waiting -= events
        self._characters_waiting -= characters
        return group

    async def _answer(self, group: list[_Request]) -> None:
        """Commit the group and tell whoever still waits; a client that left is passed over."""
        try:
            answers = await self._commit(group)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, psycopg.OperationalError):
                # One of them cannot be stored; the others must not fail with it.
                for request in group:
                    await self._answer([request])
                return
            for request in group:
                if not request.answer.done():
                    request.answer.set_exception(error)
        else:
            for request, answer in zip(group, answers, strict=True):
                if not request.answer.done():
                    request.answer.set_result(answer)

    async def _commit(self, group: list[_Request]) -> list[list[Taken]]:
        while True:
            if self._book is None:
                self._book = await asyncio.to_thread(load_book, self._pool, self._organization_id)
            for request in group:
                if request.revision != self._book.revision:
                    request.prepare(self._book)
            try:
                return await self._append(group, self._book)
            except StaleCatalog:
                self._book = None

    async def _append(self, group: list[_Request], book: MeterBook) -> list[list[Taken]]:
        events = [one for request in group for one in request.prepared if isinstance(one, Prepared)]
        outcomes = iter(await self._ingest(events, book) if events else ())
        return [
            [one if isinstance(one, ReadingRefusal) else next(outcomes) for one in request.prepared]
            for request in group
        ]

    async def _ingest(self, events: list[Prepared], book: MeterBook) -> list[Outcome | DrawRefusal]:
        if len(self._known_series) > _SERIES_REMEMBERED:
            self._known_series.clear()
        connections = self._connections()
        try:
            async with connections.connection() as connection:
                ingested = await ingest(
                    connection,
                    self._organization_id,
                    events,
                    book.revision,
                    self._clock(),
                    self._known_series,
                    may_know=self._may_know,
                )
        except psycopg.OperationalError:
            # The other connections may be as dead; the next requests need not find that out.
            await connections.check()
            raise
        self._known_series.update(ingested.series)
        # Who sends again does so for a while.
        self._may_know = ingested.appended < len(events)
        return ingested.outcomes
