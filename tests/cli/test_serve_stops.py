"""A server that is told to stop while it starts: it ends all the same, and its database with it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farebox.cli.background import DATABASE_URL
from farebox.postgres.server.process import lives

SECONDS = 30


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def children(parent: int) -> list[int]:
    """Return the processes that a process started."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(one) for one in listed.split()]


@pytest.fixture
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "FAREBOX" not in name}


@pytest.mark.parametrize("seconds", [0, 0.1, 0.4])
def test_while_its_worker_starts(
    runtime_url: str, environment: dict[str, str], seconds: float
) -> None:
    environment |= {DATABASE_URL: runtime_url, "FAREBOX_PORT": str(free_port())}
    command = [sys.executable, "-m", "farebox.cli.serve"]
    with subprocess.Popen(command, env=environment) as server:
        try:
            until(lambda: children(server.pid))
            (worker,) = children(server.pid)
            time.sleep(seconds)
            server.terminate()
            server.wait(SECONDS)
        finally:
            server.kill()
    until(lambda: not lives(worker))


@pytest.fixture
def data() -> Iterator[Path]:
    """Return a data directory that the account of the database may enter."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-"))
    directory.chmod(0o711)
    yield directory / "data"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_its_database_starts(
    data: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "farebox.cli.main", "serve", "--data", str(data)]
    port = ["--port", str(free_port())]
    with subprocess.Popen([*command, *port], env=environment) as server:
        try:
            until(lambda: list(data.glob("socket/.s.PGSQL.*")))
            (told,) = data.glob("**/postmaster.pid")
            database = int(told.read_text().split()[0])
            server.send_signal(number)
            assert 128 + signal.SIGINT == server.wait(SECONDS)
        finally:
            server.kill()
    assert not lives(database)
