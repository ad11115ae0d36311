"""Group commit of decisions: requests that arrive together are decided and committed together.

The books of the pools that are asked for stay in memory between commits, with the version they
stand at. A commit names that version; where somebody else has moved the pool since, nothing is
written, the books are read anew and the requests decided again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import psycopg

from farebox.flows.decide_pools import (
    Asked,
    Known,
    Outcome,
    Round,
    add_holds,
    decide_locked,
    known_operations,
    missing_holds,
)
from farebox.intake.books import Books
from farebox.intake.overload import Overloaded
from farebox.intake.waiting import Request, Waiting
from farebox.ledger.book import Book
from farebox.postgres.book import Stated, read_books
from farebox.postgres.posting import Posted, posted
from farebox.postgres.session import AppendPool, Pool, transaction

COMMANDS_A_COMMIT = 500
COMMANDS_WAITING = 20_000
GROUPS_AT_ONCE = 2
"""While one is written another is decided, on other pools: the database has more cores than one."""
ATTEMPTS_APART = 2
"""So often a group is decided on books in memory; then the pools are locked for it."""
LOCKED_ROUNDS = 20
"""So many groups lock at once what was contended, before it is tried without again."""


class Decider:
    """Decides on the pools of one organization; every method runs on the event loop."""

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
        self._waiting = Waiting()
        self._running: set[asyncio.Task[None]] = set()
        self._books = Books()
        self._locked_rounds = 0

    async def decide(self, asked: Sequence[Asked]) -> list[Outcome]:
        """Return the outcome of each command, in order, once it is durable.

        Raises Overloaded, and psycopg.Error where the database is out of reach; then a command
        with a key may be sent again, and moves units once.
        """
        loop = asyncio.get_running_loop()
        waiting = self._waiting
        if waiting.commands and waiting.commands + len(asked) > COMMANDS_WAITING:
            raise Overloaded
        request = Request(asked, loop.create_future())
        if waiting.add(request) and len(self._running) < GROUPS_AT_ONCE:
            self._running.add(loop.create_task(self._run()))
        return await request.answer

    def book(self, pool_id: UUID) -> Book | None:
        """Return the book of a pool as it is in memory, to look at; none where it is not."""
        stated = self._books.get(pool_id)
        return None if stated is None else stated.book

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while (group := self._waiting.next_group(COMMANDS_A_COMMIT)).requests:
                try:
                    await self._answer(group.requests)
                finally:
                    self._waiting.done(group)
        finally:
            # Before anything else runs, which may bring a request and find nobody at work.
            self._running.discard(task)

    async def _answer(self, group: Sequence[Request]) -> None:
        """Decide and commit requests; tell whoever still waits."""
        asked = [one for request in group for one in request.asked]
        try:
            outcomes = iter(await self._decide(asked))
        except Exception as error:
            # What these books hold was not committed, or it is not known whether it was.
            for pool_id in {one.pool_id for one in asked}:
                self._books.drop(pool_id)
            if len(group) > 1 and not isinstance(error, psycopg.OperationalError):
                # One of them cannot be decided; the others must not fail with it.
                for request in group:
                    await self._answer([request])
                return
            for request in group:
                if not request.answer.done():
                    request.answer.set_exception(error)
        else:
            for request in group:
                answers = [next(outcomes) for _ in request.asked]
                if not request.answer.done():
                    request.answer.set_result(answers)

    async def _decide(self, asked: Sequence[Asked]) -> list[Outcome]:
        known: Known = {}
        for _ in range(ATTEMPTS_APART):
            if self._locked_rounds:
                break
            books = await self._stated(asked)
            decided = Round(books, asked, self._clock(), known)
            if not decided.postings:
                return decided.outcomes
            done = await self._post(decided)
            if done:
                decided.committed()
                for pool_id in decided.pool_ids:
                    self._books.keep(books[pool_id])
                return decided.outcomes
            for pool_id in decided.pool_ids:
                self._books.drop(pool_id)
            if done.known:
                known = {**known, **await asyncio.to_thread(self._known, sorted(done.known))}
        if not self._locked_rounds:
            self._locked_rounds = LOCKED_ROUNDS
        self._locked_rounds -= 1
        outcomes, books = await asyncio.to_thread(self._decide_locked, asked)
        for stated in books.values():
            self._books.keep(stated)
        return outcomes

    async def _stated(self, asked: Sequence[Asked]) -> dict[UUID, Stated]:
        """Return the books of the pools that are asked for, read where they are not at hand."""
        books: dict[UUID, Stated] = {}
        missing: set[UUID] = set()
        for one in asked:
            if one.pool_id not in books and one.pool_id not in missing:
                stated = self._books.get(one.pool_id)
                if stated is None:
                    missing.add(one.pool_id)
                else:
                    books[one.pool_id] = stated
        if missing:
            read = await asyncio.to_thread(self._read, sorted(missing))
            for stated in read.values():
                self._books.keep(stated)
            books |= read
        holds = missing_holds(books, asked)
        if holds:
            old = await asyncio.to_thread(self._add_holds, books, holds)
            for pool_id in old:
                self._books.drop(pool_id)
            if old:
                return await self._stated(asked)
        return books

    async def _post(self, decided: Round) -> Posted:
        statement, parameters = decided.call(self._organization_id)
        connections = self._connections()
        try:
            async with connections.connection() as connection:
                cursor = await connection.execute(statement, parameters)
                return posted(await cursor.fetchone())
        except psycopg.OperationalError:
            # The other connections may be as dead; the next requests need not find that out.
            await connections.check()
            raise

    # What follows runs in threads; no two that are under way are about the same pool.

    def _read(self, pool_ids: Sequence[UUID]) -> dict[UUID, Stated]:
        with transaction(self._pool, self._organization_id, snapshot=True) as connection:
            return read_books(connection, self._organization_id, pool_ids)

    def _add_holds(self, books: dict[UUID, Stated], holds: Sequence[tuple[UUID, int]]) -> set[UUID]:
        with transaction(self._pool, self._organization_id, snapshot=True) as connection:
            return add_holds(connection, self._organization_id, books, holds)

    def _known(self, keys: Sequence[tuple[UUID, str]]) -> Known:
        with transaction(self._pool, self._organization_id, snapshot=True) as connection:
            return known_operations(connection, self._organization_id, keys)

    def _decide_locked(self, asked: Sequence[Asked]) -> tuple[list[Outcome], dict[UUID, Stated]]:
        with transaction(self._pool, self._organization_id) as connection:
            return decide_locked(connection, self._organization_id, asked, self._clock())
