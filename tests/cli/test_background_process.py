"""The process beside a server: it works, comes back when it dies and goes when the server does."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farebox.cli import background
from farebox.cli.background import DATABASE_URL, background_process

PARENT = """
import asyncio
from farebox.cli.background import background_process

async def serve():
    async with background_process():
        await asyncio.sleep(60)

asyncio.run(serve())
"""


@pytest.fixture(autouse=True)
def served(runtime_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_URL, runtime_url)
    monkeypatch.setattr(background, "RESTART_SECONDS", 0)


def children(parent: int) -> list[int]:
    """Return the processes for background work that a process started and that run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit():
                continue
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(stat[1]) == parent and stat[0] != "Z" and b"farebox.cli.background" in words:
            found.append(int(process.name))
    return found


def runs(process: int) -> bool:
    """Whether a process has not ended, collected by its parent or not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def listens(process: int) -> bool:
    """Whether a process has come so far that it hears SIGTERM itself."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) & 1 << signal.SIGTERM - 1)


async def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


def test_it_is_there_while_the_server_is_and_again_where_it_dies() -> None:
    async def story() -> None:
        async with background_process():
            for number in (signal.SIGKILL, signal.SIGTERM):
                await until(lambda: any(map(listens, children(os.getpid()))))
                (first,) = children(os.getpid())
                os.kill(first, number)
                await until(lambda first=first: children(os.getpid()) not in ([], [first]))
            await until(lambda: any(map(listens, children(os.getpid()))))

    with capture_logs() as logs:
        asyncio.run(story())
    assert [] == children(os.getpid())
    ended = [one["exit_code"] for one in logs if one["event"] == "background_ended"]
    assert [-signal.SIGKILL, 0] == ended


def test_it_ends_when_the_server_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT]) as parent:
        try:
            asyncio.run(until(lambda: any(map(listens, children(parent.pid)))))
            (child,) = children(parent.pid)
        finally:
            parent.kill()
    asyncio.run(until(lambda: not runs(child)))


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "END_SECONDS", 2)

    async def story() -> None:
        async with background_process():
            await until(lambda: any(map(listens, children(os.getpid()))))
            os.kill(children(os.getpid())[0], signal.SIGSTOP)

    with capture_logs() as logs:
        asyncio.run(story())
    assert ["background_killed"] == [one["event"] for one in logs]
    assert [] == children(os.getpid())


def test_one_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def story() -> None:
        async with background_process():
            await until(lambda: len(logs) >= 2)
            monkeypatch.undo()

    with capture_logs() as logs:
        asyncio.run(story())
    assert {"background_not_started"} == {one["event"] for one in logs}
