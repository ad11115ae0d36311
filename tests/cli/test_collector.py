"""What stays is looked at twice at most, and cycles of what is young are still freed."""

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from farebox.cli import collector
from farebox.cli.collector import calm_collector, collect_daily

COLLECTOR = """
import gc, weakref
from farebox.cli.collector import YOUNG, calm_collector

calm_collector()
looked = []
gc.callbacks.append(
    lambda phase, info: looked.append(len(gc.get_objects())) if phase == "start" else None
)
kept = [[number] for number in range(20 * YOUNG)]
assert len(looked) >= 19, looked
assert max(looked) < 3 * YOUNG, looked

class Node:
    pass

def cycle():
    one = Node()
    one.itself = one
    return weakref.ref(one)

cycles = [cycle() for _ in range(5 * YOUNG)]
alive = sum(one() is not None for one in cycles)
assert alive < 2 * YOUNG, alive
"""


@pytest.fixture
def collector_as_it_was() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.callbacks.remove(collector._leave_what_stays)
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_a_growing_process_is_not_looked_through_and_cycles_are_freed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTOR], capture_output=True, text=True, timeout=60, check=False
    )
    assert "" == done.stderr


class Node:
    itself: "Node"


def test_once_a_day_old_cycles_are_freed(
    monkeypatch: pytest.MonkeyPatch, collector_as_it_was: None
) -> None:
    del collector_as_it_was
    old = Node()
    old.itself = old
    seen = weakref.ref(old)
    calm_collector()
    del old
    gc.collect()
    assert seen() is not None, "it was there when the process began to serve"
    monkeypatch.setattr(collector, "DAY_SECONDS", 0)

    async def a_day() -> None:
        task = asyncio.create_task(collect_daily())
        while seen() is not None:
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(asyncio.wait_for(a_day(), 10))
    assert gc.get_freeze_count() > 0
