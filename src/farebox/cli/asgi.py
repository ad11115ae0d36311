"""The application of one server process: made by granian in each of its workers."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from random import SystemRandom

import structlog
from litestar import Litestar
from litestar.types import ASGIApp

from farebox.cli.collector import calm_collector, collect_daily
from farebox.cli.runtime import new_id, steady_clock
from farebox.cli.settings import read_settings
from farebox.cli.stop import told_to_stop
from farebox.http.app import Farebox, create_app
from farebox.http.state import Settings, State
from farebox.intake.intake import Intake
from farebox.postgres.session import Pool, open_pool
from farebox.worker.burn import keep_burning
from farebox.worker.deliver import keep_delivering
from farebox.worker.fold import keep_folding
from farebox.worker.follow_pools import keep_following
from farebox.worker.jobs import job_app

DATABASE_URL = "FAREBOX_SERVED_DATABASE_URL"
"""How a worker learns what its parent opened; set by `serve`, not by people."""
RESTART_SECONDS = 5.0
ENDINGS_MAX = 10
SWITCH_SECONDS = 0.0001
"""So long a thread of background work may keep the interpreter while requests wait for it."""

_log = structlog.get_logger()


def create() -> ASGIApp:
    """Return the application, with its background work tied to the server's life."""
    url = os.environ[DATABASE_URL]
    pool, clock = open_pool(url), steady_clock()
    intake = Intake(pool, url, clock)
    private = read_settings().webhook_private_addresses
    settings = Settings(webhook_private_addresses=private)
    state = State(pool, intake, clock, new_id, os.urandom, settings)
    random = SystemRandom().random

    @asynccontextmanager
    async def background(app: Litestar) -> AsyncIterator[None]:
        calm_collector()
        sys.setswitchinterval(SWITCH_SECONDS)
        assert isinstance(app, Farebox)
        async with told_to_stop(app.live.close), intake.opened():
            tasks = [
                asyncio.create_task(keep_folding(pool, clock)),
                asyncio.create_task(keep_following(pool, clock)),
                asyncio.create_task(keep_burning(pool, clock)),
                asyncio.create_task(
                    keep_delivering(pool, clock, new_id, random, private_addresses=private)
                ),
                asyncio.create_task(_work(url, pool, clock)),
                asyncio.create_task(collect_daily()),
            ]
            try:
                yield
            finally:
                await _end(tasks)
                pool.close()

    return create_app(state, lifespan=[background])


async def _end(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks until they end; one that was busy reconnecting may let a cancellation pass."""
    left = set(tasks)
    for _ in range(ENDINGS_MAX):
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1)
        if not left:
            return
    _log.warning("tasks_left", tasks=[str(task.get_coro()) for task in left])


async def _work(url: str, pool: Pool, clock: Callable[[], datetime]) -> None:
    """Work on jobs until cancelled; where the database goes away, again when it is back."""
    while True:
        app = job_app(url, pool, clock, new_id)
        try:
            async with app.open_async():
                await app.run_worker_async(
                    concurrency=2, install_signal_handlers=False, shutdown_graceful_timeout=5
                )
        except Exception as error:
            _log.warning("jobs_interrupted", error=str(error))
        await asyncio.sleep(RESTART_SECONDS)
