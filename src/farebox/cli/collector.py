"""The garbage collector of a server process, which must not stop requests to look at what stays.

Nearly all that a request makes is freed when the last name for it goes; the collector is there for
cycles alone. It looks at what is young, and at what stayed not again: the books of ten thousand
pools took it a fifth of a second each time.
"""

import asyncio
import gc

YOUNG = 50_000
"""So many objects more than before are looked at: with less, it would look through each batch of
events, thousands of objects that die together. That took a fifth of the time of taking them in."""
DAY_SECONDS = 86_400.0


def calm_collector() -> None:
    """Let the collector look at young objects only, twice at most."""
    gc.freeze()
    gc.set_threshold(YOUNG, 0)
    gc.callbacks.append(_leave_what_stays)


def _leave_what_stays(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 1:
        gc.freeze()


async def collect_daily() -> None:
    """Once a day look at everything, for cycles that stayed for long and are not used any more."""
    while True:
        await asyncio.sleep(DAY_SECONDS)
        gc.unfreeze()
        gc.collect()
        gc.freeze()
