"""The embedded PostgreSQL in ordinary life: started, shared, left, refused."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from farebox.postgres.server.layout import Layout
from farebox.postgres.server.refusal import ServerCode, ServerError
from farebox.postgres.server.supervisor import Server, open_server
from farebox.postgres.server.temporary import temporary_server

# Opens the server of argv[1], says its pid, and leaves when its standard input ends.
USER = """
import sys
from pathlib import Path
from farebox.postgres.server.supervisor import open_server
print("ready", flush=True)
sys.stdin.readline()
with open_server(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data directory whose cluster is made, and whose server is stopped before and after."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    directory.chmod(0o711)
    open_server(directory / "data").close()
    yield directory / "data"
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with temporary_server({"work_mem": "7MB"}) as server:
        yield server


def start_user(data: Path) -> subprocess.Popen[str]:
    """Start another process that will use `data`; it waits to be told to open it."""
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "ready\n"
    return user


def say(user: subprocess.Popen[str]) -> None:
    assert user.stdin is not None
    user.stdin.write("open\n")
    user.stdin.flush()


def hear(user: subprocess.Popen[str]) -> int:
    assert user.stdout is not None
    return int(user.stdout.readline())


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate(timeout=60)
    assert user.returncode == 0


def left_in(data: Path) -> list[int]:
    """What still runs in `data`; the log collector is meant to end a moment after its server."""
    deadline = time.monotonic() + 5
    while (found := processes_in(data)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def processes_in(data: Path) -> list[int]:
    """Every living process whose working directory lies in `data`, found without the supervisor."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            cwd = (entry / "cwd").readlink()
        except OSError:
            continue
        if str(cwd).startswith(f"{data}/"):
            found.append(int(entry.name))
    return found


def show(url: str, setting: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SHOW {setting}".encode()).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("password_encryption", "scram-sha-256"),
        ("server_encoding", "UTF8"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "15min"),
        ("random_page_cost", "1.1"),
        ("jit", "off"),
        ("max_connections", "100"),
        ("work_mem", "7MB"),
        ("TimeZone", "UTC"),
    ],
)
def test_the_server_runs_with_its_settings(server: Server, setting: str, expected: str) -> None:
    assert expected == show(server.superuser_url, setting)


def test_durability_cannot_be_switched_off_for_the_next_start(data: Path) -> None:
    with (
        open_server(data) as server,
        psycopg.connect(server.superuser_url, autocommit=True) as connection,
    ):
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET full_page_writes = off")
    with open_server(data) as server:
        assert "on" == show(server.superuser_url, "fsync")
        assert "on" == show(server.superuser_url, "full_page_writes")


def test_the_locale_is_the_built_in_one_and_the_database_farebox(server: Server) -> None:
    with psycopg.connect(server.superuser_url) as connection:
        row = connection.execute(
            "SELECT datname, datlocprovider, datlocale FROM pg_database "
            "WHERE datname = current_database()"
        ).fetchone()
    assert ("farebox", "b", "C.UTF-8") == row


def test_nobody_enters_without_the_password(server: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url("postgres", "guess"))


def test_the_password_is_for_its_owner_only(data: Path) -> None:
    layout = Layout(root=data)
    with open_server(layout.root):
        assert 0o600 == layout.password.stat().st_mode & 0o777
        assert 0o700 == layout.cluster.stat().st_mode & 0o777
        assert 0o700 == layout.socket.stat().st_mode & 0o777


def test_a_server_starts_stops_and_starts_again_in_time(place: Path) -> None:
    data = place / "data"
    begun = time.monotonic()
    with open_server(data) as server:
        first_seconds = time.monotonic() - begun
        assert server.pid in processes_in(data)
        with psycopg.connect(server.superuser_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert [] == left_in(data)
    begun = time.monotonic()
    with open_server(data) as server:
        restart_seconds = time.monotonic() - begun
        with psycopg.connect(server.superuser_url) as connection:
            assert (42,) == connection.execute("SELECT answer FROM kept").fetchone()
    # Usual: 1.2 and 0.1; the limits only catch a wait that has crept in.
    assert first_seconds < 20
    assert restart_seconds < 5


def test_processes_share_one_server_and_the_last_one_stops_it(data: Path) -> None:
    user = start_user(data)
    say(user)
    pid = hear(user)
    with open_server(data) as server:
        assert pid == server.pid
        leave(user)  # the one who started it goes first
        assert pid == server.pid
        assert "on" == show(server.superuser_url, "fsync")
    assert [] == left_in(data)


def test_two_users_in_one_process_count_twice(data: Path) -> None:
    first, second = open_server(data), open_server(data)
    first.close()
    first.close()
    assert second.pid is not None
    second.close()
    assert second.pid is None


def test_stop_ends_the_server_though_others_use_it_and_they_bring_it_back(data: Path) -> None:
    with open_server(data) as staying:
        open_server(data).stop()
        assert staying.pid is None
        staying.ensure_running()
        assert "on" == show(staying.superuser_url, "fsync")


def test_first_starts_at_the_same_moment_make_one_cluster(place: Path) -> None:
    data = place / "data"
    users = [start_user(data) for _ in range(4)]
    for user in users:
        say(user)
    pids = {hear(user) for user in users}
    assert 1 == len(pids)
    for user in users:
        leave(user)
    assert [] == left_in(data)
    assert ["cluster"] == [path.name for path in data.glob("cluster*")]
    assert [] == list(data.glob("work-*"))


def test_a_long_path_gets_its_socket_elsewhere(place: Path) -> None:
    data = place / ("d" * 120) / "data"
    with open_server(data) as server:
        assert "/tmp/farebox-" == str(server.socket_directory)[:13]
        assert 0o700 == server.socket_directory.stat().st_mode & 0o777
        assert "on" == show(server.superuser_url, "fsync")
    shutil.rmtree(server.socket_directory)


def test_a_socket_directory_of_somebody_else_is_refused(place: Path) -> None:
    layout = Layout(root=place / ("d" * 120) / "data")
    layout.socket.symlink_to(place)
    try:
        with pytest.raises(ServerError) as refusal:
            open_server(layout.root)
        assert ServerCode.SOCKET_UNSAFE == refusal.value.code
    finally:
        layout.socket.unlink()


@pytest.mark.parametrize(
    ("name", "value"),
    [("fsync", "off"), ("FSYNC", "off"), ("listen_addresses", "*"), ("work_mem", "1\nfsync=off")],
)
def test_a_setting_that_would_break_the_promise_is_refused(
    place: Path, name: str, value: str
) -> None:
    with pytest.raises(ServerError) as refusal:
        open_server(place / "data", {name: value})
    assert ServerCode.SETTING_REFUSED == refusal.value.code
    assert [] == list(place.iterdir())


def test_a_setting_that_the_server_refuses_is_reported_in_its_words(data: Path) -> None:
    with pytest.raises(ServerError, match='unrecognized configuration parameter "no_such"') as told:
        open_server(data, {"no_such": "1"})
    assert ServerCode.START_FAILED == told.value.code
    with open_server(data) as server:
        assert server.pid is not None


def test_a_newer_cluster_is_refused(data: Path) -> None:
    version = Layout(root=data).cluster / "PG_VERSION"
    kept = version.read_text()
    version.write_text("99\n")
    with pytest.raises(ServerError) as refusal:
        open_server(data)
    version.write_text(kept)
    assert ServerCode.CLUSTER_NEWER == refusal.value.code


def test_a_lost_or_wrong_password_is_named(data: Path) -> None:
    layout = Layout(root=data)
    with open_server(layout.root):
        kept = layout.password.read_text()
        layout.password.write_text("wrong\n")
        with pytest.raises(ServerError) as refusal:
            open_server(layout.root)
        assert ServerCode.PASSWORD_REFUSED == refusal.value.code
        layout.password.unlink()
        with pytest.raises(ServerError) as refusal:
            open_server(layout.root)
        assert ServerCode.PASSWORD_MISSING == refusal.value.code
        layout.password.write_text(kept)
        open_server(layout.root).close()


@as_root
def test_a_closed_parent_is_refused_and_left_closed(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerError, match=re.escape(f"cannot enter {closed}.")) as refusal:
        open_server(closed / "data")
    assert ServerCode.PATH_CLOSED == refusal.value.code
    assert 0o700 == closed.stat().st_mode & 0o777


@as_root
def test_root_runs_the_server_as_nobody(server: Server) -> None:
    assert server.pid is not None
    uid = pwd.getpwnam("nobody").pw_uid
    try:
        uid = pwd.getpwnam("farebox").pw_uid
    except KeyError:
        assert uid != 0
    assert uid == Path(f"/proc/{server.pid}").stat().st_uid


def as_nobody(scenario: Callable[[], None]) -> None:
    """Run a scenario in a child that has given up root for good."""
    entry = pwd.getpwnam("nobody")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
            scenario()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert 0 == os.waitstatus_to_exitcode(status)


@as_root
def test_an_ordinary_user_runs_a_server_of_its_own(place: Path) -> None:
    entry = pwd.getpwnam("nobody")
    os.chown(place, entry.pw_uid, entry.pw_gid)
    data = place / "data"

    def scenario() -> None:
        with open_server(data) as server, psycopg.connect(server.superuser_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.pid is None
        with open_server(data) as server, psycopg.connect(server.superuser_url) as connection:
            assert (42,) == connection.execute("SELECT answer FROM kept").fetchone()

    as_nobody(scenario)
    assert [] == left_in(data)
    assert 0o700 == data.stat().st_mode & 0o777
    with open_server(data) as server:  # and root takes part as the same account
        assert server.pid is not None
        assert entry.pw_uid == Path(f"/proc/{server.pid}").stat().st_uid


@as_root
def test_an_ordinary_user_is_refused_what_belongs_to_another(place: Path) -> None:
    layout = Layout(root=place / "data")
    open_server(layout.root).close()
    os.chown(layout.cluster, 4242, 4242)

    def scenario() -> None:
        with pytest.raises(ServerError) as refusal:
            open_server(layout.root)
        assert ServerCode.NOT_OWNER == refusal.value.code

    as_nobody(scenario)


@as_root
def test_an_ordinary_user_is_refused_a_directory_it_cannot_write(place: Path) -> None:
    def scenario() -> None:
        with pytest.raises(ServerError) as refusal:
            open_server(place / "data")
        assert ServerCode.PATH_CLOSED == refusal.value.code

    as_nobody(scenario)


def test_every_code_is_explained_in_the_documentation() -> None:
    page = Path(__file__).parents[2] / "docs" / "embedded-postgresql.md"
    refusals = page.read_text().partition("## When it refuses")[2]
    explained = re.findall(r"^\| `(\w+)` \|", refusals, re.MULTILINE)
    assert [code.value for code in ServerCode] == explained
