"""One embedded PostgreSQL and one Farebox server of the benchmark's own, from start to removal."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psycopg
from msgspec import Struct

from bench.catalog import METERS, PLAN, customer_key
from bench.http_client import Target, get_json
from farebox.catalog.customer import Customer
from farebox.cli.runtime import Runtime, clock, new_id, open_runtime
from farebox.cli.settings import Settings
from farebox.flows.create_organization import create_organization
from farebox.flows.publish import publish
from farebox.period.instant import BEGINNING, END
from farebox.postgres import customer as store
from farebox.postgres.customer import SubjectRow
from farebox.postgres.server.binaries import installed
from farebox.postgres.server.layout import Layout
from farebox.postgres.server.process import running
from farebox.postgres.session import transaction

READY_SECONDS = 60


class ServerDown(Exception):
    """The server did not come up, or ended."""


class Organization(Struct, frozen=True):
    """An organization of the benchmark and a key that may do everything in it."""

    organization_id: UUID
    api_key: str


class Installation:
    """The database, open in this process too, and the server beside it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.server: subprocess.Popen[bytes] | None = None
        self._runtime: Runtime | None = None
        self._opened = open_runtime(self._settings())

    def _settings(self) -> Settings:
        return Settings(
            database_url=None,
            owner_database_url=None,
            data_directory=self.data,
            host="127.0.0.1",
            port=self.port,
        )

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None, "the database is not open"
        return self._runtime

    def open(self) -> None:
        self._opened = open_runtime(self._settings())
        self._runtime = self._opened.__enter__()

    def close(self) -> None:
        self.stop_server()
        if self._runtime is not None:
            self._runtime = None
            self._opened.__exit__(None, None, None)

    def owner(self) -> psycopg.Connection:
        """Return a connection of the tables' owner, whom row-level security does not bind."""
        assert self.runtime.urls.owner is not None
        return psycopg.connect(self.runtime.urls.owner, autocommit=True)

    def pgbench(self, *options: str) -> list[str]:
        """Return the command that runs PostgreSQL's own benchmark on this database."""
        assert self.runtime.urls.owner is not None
        program = installed(Layout(root=self.data.resolve())).program("pgbench")
        return [program, *options, self.runtime.urls.owner]

    def target(self, organization: Organization) -> Target:
        return Target("127.0.0.1", self.port, organization.api_key)

    def start_server(self) -> None:
        """Start `farebox serve` as anybody would, and wait until it is ready."""
        command = [sys.executable, "-m", "farebox.cli.main", "serve"]
        log = (self.data / "serve.log").open("ab")
        self.server = subprocess.Popen(
            [*command, "--data", str(self.data), "--port", str(self.port)], stdout=log, stderr=log
        )
        log.close()
        try:
            wait_ready(self.port, self.server)
        except ServerDown:
            print((self.data / "serve.log").read_text()[-4000:], file=sys.stderr)
            raise

    def stop_server(self) -> None:
        if self.server is not None:
            end(self.server)
            self.server = None

    def restart_cold(self) -> None:
        """Restart database and server, with none of their files in the system's page cache."""
        self.stop_server()
        self.close()
        os.sync()
        for path in (self.data / "cluster").rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    with path.open("rb") as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.open()
        self.start_server()

    def server_pids(self) -> list[int]:
        assert self.server is not None
        return [self.server.pid, *descendants(self.server.pid)]

    def database_pids(self) -> list[int]:
        postmaster = running(Layout(root=self.data.resolve()).cluster)
        return [] if postmaster is None else [postmaster, *descendants(postmaster)]

    def make_organization(self, key: str, customers: int) -> Organization:
        """Make an organization with the benchmark's catalog and this many customers."""
        pool, now = self.runtime.pool, clock()
        organization_id, api_key = create_organization(pool, key, key, now, new_id, os.urandom)
        publish(pool, organization_id, [*METERS, PLAN], now)
        with transaction(pool, organization_id) as connection:
            for number in range(customers):
                name = customer_key(number)
                customer = Customer(key=name, name=name)
                store.put_customer(connection, organization_id, customer, new_id(), now)
                row = SubjectRow(name, name, BEGINNING, END)
                store.add_subject(connection, organization_id, row)
        return Organization(organization_id, api_key)

    def wait_folded(self, organization: Organization, seconds: float = 300) -> None:
        """Return when the rollups hold the whole stream."""
        deadline = time.monotonic() + seconds
        query = (
            "select h.last_sequence = w.sequence from stream_head h"
            " join watermark w using (organization_id) where h.organization_id = %s"
        )
        with self.owner() as connection:
            while connection.execute(query, (organization.organization_id,)).fetchone() != (True,):
                assert time.monotonic() < deadline, "the rollups do not catch up"
                time.sleep(0.02)


@contextmanager
def installation(data: Path) -> Iterator[Installation]:
    """Open an empty installation in `data`, and remove it with everything in it."""
    shutil.rmtree(data, ignore_errors=True)
    one = Installation(data)
    try:
        one.open()
        yield one
    finally:
        one.close()
        shutil.rmtree(data, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(port: int, process: "subprocess.Popen[bytes]", path: str = "/readyz") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerDown(f"the server ended with code {process.returncode}")
        with suppress(OSError):
            if get_json(Target("127.0.0.1", port, ""), path)[0] < 300:
                return
        time.sleep(0.05)
    raise ServerDown(f"the server was not ready within {READY_SECONDS} s")


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, as /proc tells."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text().split():
                found += [int(word), *descendants(int(word))]
    return found


def midnight(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
