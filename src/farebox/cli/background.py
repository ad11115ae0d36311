"""Background work, in a process beside the server process that started it.

Within the server process it would take the interpreter from requests, whose answers then wait for
sums that nobody waits for. It ends with the server process, however that ends: its standard input
closes then.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from random import SystemRandom

import structlog

from farebox.cli.runtime import new_id, steady_clock
from farebox.cli.settings import read_settings
from farebox.postgres.session import Pool, open_pool
from farebox.worker.burn import keep_burning
from farebox.worker.deliver import keep_delivering
from farebox.worker.fold import keep_folding
from farebox.worker.follow_pools import keep_following
from farebox.worker.jobs import job_app
from farebox.worker.sync import keep_syncing

DATABASE_URL = "FAREBOX_SERVED_DATABASE_URL"
"""How a process learns what its parent opened; set by `serve`, not by people."""
RESTART_SECONDS = 5.0
END_SECONDS = 20.0
ENDINGS_MAX = 10

_log = structlog.get_logger()


@asynccontextmanager
async def background_process() -> AsyncIterator[None]:
    """Have background work done by a process meanwhile, and by another one where it fails."""
    async with meanwhile(_keep_process()):
        yield


@asynccontextmanager
async def meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let something go on until the block ends, and wait until it has ended too."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_process() -> None:
    while True:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "farebox.cli.background", stdin=asyncio.subprocess.PIPE
            )
        except OSError as error:
            _log.warning("background_not_started", error=str(error))
        else:
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _end_process(process)
                raise
            _log.warning("background_ended", exit_code=code)
        await asyncio.sleep(RESTART_SECONDS)


async def _end_process(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except TimeoutError:
        _log.warning("background_killed", pid=process.pid)
        process.kill()
        await process.wait()


# The process itself ------------------------------------------------------------------------------


async def work(url: str) -> None:
    """Do all background work until the standard input closes or SIGTERM comes."""
    pool, clock, random = open_pool(url), steady_clock(), SystemRandom().random
    private = read_settings().webhook_private_addresses
    told = asyncio.Event()
    _listen(told)
    tasks = [
        asyncio.create_task(keep_folding(pool, clock)),
        asyncio.create_task(keep_following(pool, clock)),
        asyncio.create_task(keep_burning(pool, clock)),
        asyncio.create_task(keep_syncing(pool, clock, new_id)),
        asyncio.create_task(
            keep_delivering(pool, clock, new_id, random, private_addresses=private)
        ),
        asyncio.create_task(keep_working(url, pool, clock)),
    ]
    try:
        await told.wait()
    finally:
        await _end(tasks)
        pool.close()


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


def _listen(told: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    # A terminal sends SIGINT to all; the parent then ends first, as it does on SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, told.set)

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(told.set)

    threading.Thread(target=wait_for_end, name="parent", daemon=True).start()


async def keep_working(url: str, pool: Pool, clock: Callable[[], datetime]) -> None:
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


if __name__ == "__main__":
    asyncio.Runner().run(work(os.environ[DATABASE_URL]))
    # Connections that were being made when it was told to end are tasks of their library that never
    # do; the database keeps what is left to be done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
