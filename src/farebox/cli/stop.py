"""Hear that the server is told to stop: it then waits for open answers, and some have no end."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType


@asynccontextmanager
async def told_to_stop(tell: Callable[[], None]) -> AsyncIterator[None]:
    """Call `tell`, in this event loop, on SIGINT and SIGTERM, besides what is done on them anyhow.

    The server's own handlers are the loop's, which are run by a byte that the interpreter writes
    for every signal; what is set here is called in addition to them.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():  # no signal comes here
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, heard)
        signal.siginterrupt(number, False)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is heard:
                signal.signal(number, handler)
