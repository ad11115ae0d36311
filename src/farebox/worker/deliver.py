"""Hand on notices and deliver webhooks: a loop beside every server process.

An endpoint has one attempt at a time, many endpoints are sent to at once, and of one organization
no more than a few: so a receiver that is slow or dead keeps nobody else waiting. What is due is in
the database, so any process may take it up, and does where another was killed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import ParamSpec, TypeVar
from uuid import UUID

import psycopg
import structlog

from farebox.connectors.webhook import Send, open_sender
from farebox.flows.deliver_webhook import begin_attempt, finish_attempt
from farebox.flows.dispatch_notices import NOTICES_A_STEP, dispatch_notices
from farebox.postgres import notice, webhook_endpoint
from farebox.postgres.session import Pool, unbound

PAUSE_SECONDS = 0.3
ENDPOINTS = 128
"""How many are sent to at once, by one process."""
ENDPOINTS_EACH = 16
"""How many of them may be of one organization."""
ATTEMPTS_A_TURN = 20
"""Then another endpoint has its turn, if one waits."""
_DATABASE_THREADS = 4

_log = structlog.get_logger()
_P = ParamSpec("_P")
_R = TypeVar("_R")


async def keep_delivering(
    pool: Pool,
    clock: Callable[[], datetime],
    new_id: Callable[[], UUID],
    random: Callable[[], float],
    *,
    private_addresses: bool,
) -> None:
    """Deliver until cancelled; `random` gives numbers from 0 up to 1, without it."""
    async with open_sender(private_addresses=private_addresses, connections=ENDPOINTS) as send:
        await Deliverer(pool, clock, new_id, random, send).run()


class Deliverer:
    """The turns of one process: an endpoint whose turn it is has a task of its own."""

    def __init__(
        self,
        pool: Pool,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
        random: Callable[[], float],
        send: Send,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._new_id = new_id
        self._random = random
        self._send = send
        self._threads = ThreadPoolExecutor(_DATABASE_THREADS, thread_name_prefix="deliver")
        self._turns: dict[tuple[UUID, str], asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; an error is logged and the next pass tries again."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.begin_turns()
                except Exception as error:
                    # The database may be gone for a while; it keeps what is to be delivered.
                    _log.warning("deliver_failed", error=str(error))
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._wake.wait()
        finally:
            await self.close()

    async def begin_turns(self) -> int:
        """Hand on what happened, begin the turns that are due, and return how many that were."""
        due, more = await self._in_thread(
            _dispatch_and_look, self._pool, self._clock(), self._new_id
        )
        if more:
            self._wake.set()
        busy = Counter(organization_id for organization_id, _ in self._turns)
        begun = 0
        for organization_id, key in due:
            full = len(self._turns) >= ENDPOINTS or busy[organization_id] >= ENDPOINTS_EACH
            if full or (organization_id, key) in self._turns:
                continue
            turn = self._turn(organization_id, key)
            self._turns[organization_id, key] = asyncio.create_task(turn)
            busy[organization_id] += 1
            begun += 1
        return begun

    async def finish_turns(self) -> None:
        """Wait until every turn that was begun has ended."""
        while self._turns:
            await asyncio.wait(list(self._turns.values()))

    async def close(self) -> None:
        """Break off what is under way; it is taken up again when its leases have ended."""
        tasks = list(self._turns.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, organization_id: UUID, key: str) -> None:
        try:
            for _ in range(ATTEMPTS_A_TURN):
                if not await self._attempt(organization_id, key):
                    return
            self._wake.set()  # there may be more
        except Exception as error:
            _log.warning(
                "delivery_failed",
                organization_id=str(organization_id),
                endpoint=key,
                error=str(error),
            )
        finally:
            del self._turns[organization_id, key]

    async def _attempt(self, organization_id: UUID, key: str) -> bool:
        """Make one attempt; False where there was nothing to send."""
        attempt = await self._in_thread(
            begin_attempt, self._pool, organization_id, key, self._clock()
        )
        if attempt is None:
            return False
        outcome = await self._send(attempt.url, attempt.headers, attempt.body)
        await self._in_thread(
            finish_attempt, self._pool, attempt, outcome, self._clock(), self._random()
        )
        return True

    async def _in_thread(
        self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *args, **kwargs))


def _dispatch_and_look(
    pool: Pool, now: datetime, new_id: Callable[[], UUID]
) -> tuple[list[tuple[UUID, str]], bool]:
    """Hand on a step of each organization's notices.

    Returns the endpoints with something due, and whether there are notices left.
    """
    more = False
    with unbound(pool) as connection:
        waiting = notice.organizations_to_dispatch(connection)
    for organization_id in waiting:
        try:
            count = dispatch_notices(pool, organization_id, now, new_id)
            more = more or count == NOTICES_A_STEP
        except psycopg.OperationalError:
            raise
        except Exception as error:
            # An endpoint that was deleted at this moment; the next pass no longer sees it.
            _log.warning("dispatch_failed", organization_id=str(organization_id), error=str(error))
    with unbound(pool) as connection:
        return webhook_endpoint.endpoints_due(connection, now, ENDPOINTS_EACH, ENDPOINTS), more
