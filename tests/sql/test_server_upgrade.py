"""Moving the data of an older PostgreSQL to the one that Farebox brings, also when interrupted."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from farebox.postgres.server import binaries
from farebox.postgres.server.account import Account, account_for, make_root
from farebox.postgres.server.cluster import major_version
from farebox.postgres.server.layout import Layout, make_owned, write_whole
from farebox.postgres.server.lock import FileLock
from farebox.postgres.server.process import leave_running, run, running
from farebox.postgres.server.refusal import ServerCode, ServerError
from farebox.postgres.server.supervisor import Server, open_server

OPENER = """
import sys
from pathlib import Path
from farebox.postgres.server.supervisor import open_server
print("ready", flush=True)
sys.stdin.readline()
open_server(Path(sys.argv[1]))
"""


@pytest.fixture
def layout() -> Iterator[Layout]:
    directory = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    directory.chmod(0o711)
    yield Layout(root=make_root(directory / "data"))
    shutil.rmtree(directory)


def make_old(layout: Layout, major: int) -> None:
    """Make a cluster of version `major` as that version's Farebox would have left it: running."""
    old = binaries.find(layout, major)
    if old is None:
        pytest.skip(f"PostgreSQL {major} is not on this machine")
    account = account_for(layout.cluster)
    password = secrets.token_urlsafe(12)
    write_whole(layout.password, password + "\n", mode=0o600)
    for directory in (layout.log, layout.socket, layout.cluster):
        make_owned(directory, account)
    secret = layout.socket / "secret"
    write_whole(secret, password + "\n", mode=0o644)
    command = [old.program("initdb"), "-D", str(layout.cluster), "-U", "postgres", "-E", "UTF8"]
    command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--data-checksums", "--no-sync"]
    assert 0 == run([*command, "--locale=C.UTF-8"], account, layout.socket).returncode
    secret.unlink()
    start_old(layout, old, account)
    with psycopg.connect(
        host=str(layout.socket), user="postgres", password=password, autocommit=True
    ) as connection:
        connection.execute("CREATE DATABASE farebox")
        connection.execute("CREATE ROLE farebox_runtime LOGIN PASSWORD 'keeps'")
    with psycopg.connect(
        host=str(layout.socket), user="postgres", password=password, dbname="farebox"
    ) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
        connection.execute("GRANT SELECT ON kept TO farebox_runtime")


def start_old(layout: Layout, old: binaries.Binaries, account: Account) -> None:
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={layout.socket}"]
    leave_running(old, layout.cluster, options, account, layout.start_log)
    deadline = time.monotonic() + 20
    while not _ready(layout) and time.monotonic() < deadline:
        time.sleep(0.02)


def _ready(layout: Layout) -> bool:
    lock_file = layout.cluster / "postmaster.pid"
    return lock_file.exists() and "ready" in lock_file.read_text()


def end(layout: Layout, sign: signal.Signals) -> None:
    pid = running(layout.cluster)
    assert pid is not None
    os.kill(pid, sign)
    while running(layout.cluster) == pid:
        time.sleep(0.01)


def assert_moved(server: Server, layout: Layout) -> None:
    for url in (server.superuser_url, server.url("farebox_runtime", "keeps")):
        with psycopg.connect(url) as connection:
            assert (1000, 500500) == connection.execute(
                "SELECT count(*), sum(number) FROM kept"
            ).fetchone()
            assert 18 == connection.info.server_version // 10000
    assert 18 == major_version(layout.cluster)


def test_data_of_15_left_by_a_crash_moves_and_the_swap_can_be_completed(layout: Layout) -> None:
    make_old(layout, 15)
    end(layout, signal.SIGKILL)
    with open_server(layout.root) as server:
        assert_moved(server, layout)
    assert 15 == major_version(layout.root / "cluster.15.old")
    assert [] == list(layout.root.glob("work-*"))

    layout.cluster.rename(layout.upgraded)
    with open_server(layout.root) as server:  # as if killed before the second rename
        assert_moved(server, layout)

    layout.cluster.rename(layout.upgraded)
    (layout.root / "cluster.15.old").rename(layout.cluster)
    with open_server(layout.root) as server:  # as if killed before the first
        assert_moved(server, layout)

    shutil.rmtree(layout.cluster)
    with pytest.raises(ServerError) as refusal:  # a loss is not answered with an empty cluster
        open_server(layout.root)
    assert ServerCode.CLUSTER_MISSING == refusal.value.code
    assert not layout.cluster.exists()


def test_an_upgrade_killed_at_any_moment_is_done_by_the_next_start(layout: Layout) -> None:
    make_old(layout, 16)
    for moment_ms in (400, 1500, 2500):
        opener = subprocess.Popen(
            [sys.executable, "-c", OPENER, str(layout.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert opener.stdout is not None
        assert b"ready\n" == opener.stdout.readline()
        assert opener.stdin is not None
        opener.stdin.write(b"go\n")
        opener.stdin.flush()
        time.sleep(moment_ms / 1000)
        # Every other time the programs it started go on as orphans.
        if moment_ms % 1000 == 500:
            os.killpg(opener.pid, signal.SIGKILL)
        else:
            opener.kill()
        opener.communicate()
    with open_server(layout.root) as server:
        assert_moved(server, layout)


def pretend_old(layout: Layout, major: int) -> None:
    """A cluster of which only the version is ever read."""
    write_whole(layout.password, "secret\n", mode=0o600)
    make_owned(layout.cluster, account_for(layout.cluster))
    (layout.cluster / "PG_VERSION").write_text(f"{major}\n")


def test_an_upgrade_waits_for_the_older_farebox_to_leave(layout: Layout) -> None:
    pretend_old(layout, 16)
    user = FileLock(layout.users)
    user.share()
    with pytest.raises(ServerError) as refusal:
        open_server(layout.root)
    user.close()
    assert ServerCode.UPGRADE_IN_USE == refusal.value.code


def test_without_the_programs_that_wrote_the_data_nothing_is_touched(layout: Layout) -> None:
    pretend_old(layout, 9)
    with pytest.raises(ServerError, match="Install PostgreSQL 9") as refusal:
        open_server(layout.root)
    assert ServerCode.UPGRADE_BINARIES_MISSING == refusal.value.code
    assert ["cluster"] == [path.name for path in layout.root.glob("cluster*")]


def test_an_upgrade_that_fails_leaves_the_data_as_it_was(layout: Layout) -> None:
    make_old(layout, 16)
    with psycopg.connect(
        host=str(layout.socket),
        user="postgres",
        password=layout.password.read_text().strip(),
        autocommit=True,
    ) as connection:
        connection.execute("ALTER DATABASE farebox ALLOW_CONNECTIONS false")
    with pytest.raises(
        ServerError, match="All non-template0 databases must allow connections"
    ) as refusal:
        open_server(layout.root)
    assert ServerCode.UPGRADE_FAILED == refusal.value.code
    assert 16 == major_version(layout.cluster)
