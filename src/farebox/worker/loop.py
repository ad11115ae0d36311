"""Work that goes on beside a server process: pass after pass in a thread of its own."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import structlog

_log = structlog.get_logger()


async def keep(name: str, work: Callable[[], int], pause: Callable[[int, float], float]) -> None:
    """Do `work` until cancelled; an error is logged and the next pass tries again.

    pause: for how many seconds, by what a pass returned (0 where it raised) and how long it took.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        while True:
            done, started = 0, loop.time()
            try:
                done = await loop.run_in_executor(thread, work)
            except Exception as error:
                # The database may be gone for a while; it keeps what is to be done.
                _log.warning(f"{name}_failed", error=str(error))
            await asyncio.sleep(pause(done, loop.time() - started))


@contextmanager
def going_on(event: str, **facts: object) -> Iterator[None]:
    """Let what fails inside be logged as `event`, for the others to go on.

    Raises psycopg.OperationalError where the database is out of reach.
    """
    try:
        yield
    except psycopg.OperationalError:
        raise
    except Exception as error:
        _log.error(event, **{name: str(fact) for name, fact in facts.items()}, error=str(error))
