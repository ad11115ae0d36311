"""A server that is killed, and clients that remember what it told them."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from farebox.access.id import uuidv7
from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan
from farebox.catalog.price import PerUnit
from farebox.flows.create_organization import create_organization
from farebox.flows.publish import publish
from farebox.period.instant import BEGINNING, END
from farebox.postgres import customer as store
from farebox.postgres.customer import SubjectRow, SubscriptionRow
from farebox.postgres.database import open_database
from farebox.postgres.server.supervisor import open_server
from farebox.postgres.session import open_pool, transaction

UNIT_PRICE = Decimal("0.01")
EVENT_TYPE = "job.done"
RECOVERY_SECONDS = 60


def new_id() -> UUID:
    return uuidv7(time.time_ns() // 1_000_000, os.urandom(10))


class Victim(StrEnum):
    """What is killed with SIGKILL."""

    WORKER = "worker"  # the process that answers requests; its parent starts another
    SERVER = "server"  # the worker and its parent, at once
    BACKEND = "backend"  # one process of PostgreSQL, which restarts itself
    POSTGRESQL = "postgresql"  # the whole database server


class Service:
    """One data directory with a server on it: started, killed, brought back."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.port = _free_port()
        self._opened = ExitStack()
        urls = self._opened.enter_context(open_database(None, None, self.data))
        assert urls.owner is not None
        self.owner_url = urls.owner
        self.runtime_url = urls.runtime
        self.database = self._opened.enter_context(open_server(self.data))
        self._log_path = directory / "serve.log"
        self._log = self._log_path.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, customers: int, month: datetime) -> tuple[UUID, str]:
        """Make an organization with as many customers, each subscribed from `month` on."""
        now = datetime.now(UTC)
        with open_pool(self.runtime_url, size=2) as pool:
            organization_id, key = create_organization(
                pool, f"faults-{new_id()}", "Faults", now, new_id, os.urandom
            )
            meter = Meter(
                key="units", event_type=EVENT_TYPE, aggregation=Aggregation.SUM, value="$.units"
            )
            charge = Charge(key="units", meter="units", price=PerUnit(unit=UNIT_PRICE))
            plan = Plan(key="metered", currency="USD", charges=(charge,))
            publish(pool, organization_id, [meter, plan], now)
            with transaction(pool, organization_id) as connection:
                for number in range(customers):
                    name = customer_key(number)
                    customer = Customer(key=name, name=name)
                    store.put_customer(connection, organization_id, customer, new_id(), now)
                    mapping = SubjectRow(name, name, BEGINNING, END)
                    store.add_subject(connection, organization_id, mapping)
                    subscription = Subscription(
                        key=name, customer=name, plan="metered", start=month
                    )
                    row = SubscriptionRow(
                        name, new_id(), name, "metered", 1, month, None, "UTC", None, "{}"
                    )
                    store.put_subscription(connection, organization_id, subscription, row, now)
        return organization_id, key

    def owner(self) -> psycopg.Connection:
        """Return a connection that row-level security does not bind."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            try:
                return psycopg.connect(self.owner_url, autocommit=True)
            except psycopg.OperationalError:  # it is recovering
                assert time.monotonic() < deadline, "the database does not come back"
                time.sleep(0.02)

    def start(self) -> None:
        command = [sys.executable, "-m", "farebox.cli.main", "serve"]
        self._process = subprocess.Popen(
            [*command, "--data", str(self.data), "--port", str(self.port)],
            stdout=self._log,
            stderr=self._log,
        )
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + RECOVERY_SECONDS
        while self._readiness() != 200:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"the server does not come back: {self.log()}"
            time.sleep(0.02)

    def log(self) -> str:
        """Return the end of what the server said."""
        return self._log_path.read_text()[-3000:]

    def _readiness(self) -> int | None:
        with suppress(OSError, http.client.HTTPException):
            return exchange(self.port, "", "GET", "/readyz")[0]
        return None

    def kill(self, victim: Victim, rng: random.Random) -> None:
        """Kill, and bring back what does not come back by itself."""
        assert self._process is not None
        match victim:
            case Victim.WORKER:
                for pid in _children(self._process.pid):
                    _kill(pid)
            case Victim.SERVER:
                pids = [self._process.pid, *_children(self._process.pid)]
                for pid in pids:
                    _kill(pid)
                self._process.wait()
                self.start()
            case Victim.BACKEND:
                self._kill_backend(rng)
            case Victim.POSTGRESQL:
                self._kill_postmaster()
                self.database.ensure_running()
        self.wait_ready()

    def _kill_backend(self, rng: random.Random) -> None:
        """Kill one backend; PostgreSQL then ends all of them, and recovers."""
        postmaster = self.database.pid
        assert postmaster is not None
        with suppress(psycopg.OperationalError), self.owner() as witness:
            _kill(rng.choice(_backends(postmaster)))
            while True:
                witness.execute("select 1")
                time.sleep(0.002)

    def kill_database(self) -> None:
        """Kill the whole database server, and return when nothing of it answers any more.

        A backend outlives its postmaster until it next looks, and may serve a request till then.
        """
        for pid in self._kill_postmaster():
            while _runs(pid):
                time.sleep(0.005)

    def _kill_postmaster(self) -> list[int]:
        """Kill the process that PostgreSQL's others belong to; return those."""
        postmaster = self.database.pid
        assert postmaster is not None
        others = _children(postmaster)
        _kill(postmaster)
        while self.database.pid == postmaster:
            time.sleep(0.005)
        return others

    def stop(self) -> bool:
        """Tell the server to stop; return whether it did so by itself, and in time."""
        process, self._process = self._process, None
        if process is None:
            return True
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            for pid in [*_children(process.pid), process.pid]:
                _kill(pid)
            process.wait()
            return False
        return True

    def close(self) -> None:
        self.stop()
        self._log.close()
        self.database.ensure_running()
        self._opened.close()


class Record:
    """What was sent, and every answer to it; shared by the clients of one organization."""

    def __init__(self, port: int, key: str, customers: int, seed: int) -> None:
        self.port = port
        self.key = key
        self.customers = customers
        self.seed = seed
        self.units: dict[str, int] = {}
        self.place: dict[str, tuple[str, datetime]] = {}
        self.told: dict[str, Counter[str]] = defaultdict(Counter)
        self._lock = threading.Lock()

    def note(self, answer: dict[str, Any]) -> None:
        with self._lock:
            for one in answer["events"]:
                self.told[one["id"]][one["outcome"]] += 1

    def expect(self, identifier: str, units: int, customer: str, month: datetime) -> None:
        with self._lock:
            self.units[identifier] = units
            self.place[identifier] = (customer, month)

    def units_by_customer(self, month: datetime | None = None) -> dict[str, int]:
        """Return the oracle: the units of every event sent, summed one by one."""
        found: dict[str, int] = defaultdict(int)
        for identifier, units in self.units.items():
            customer, used = self.place[identifier]
            if month is None or used == month:
                found[customer] += units
        return dict(found)


class Client(threading.Thread):
    """Sends batches until told to stop; what is not acknowledged is sent again, unchanged."""

    def __init__(self, record: Record, name: str, month: datetime, batch: int = 100) -> None:
        super().__init__(name=name)
        self._record = record
        self._month = month
        self._batch = batch
        self._rng = random.Random(f"{record.seed}/{name}")
        self._stop_asked = threading.Event()
        self._old: list[dict[str, Any]] = []
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Let the batch under way be acknowledged, then end."""
        self._stop_asked.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        try:
            number = 0
            while not self._stop_asked.is_set():
                self._deliver(self._events(number))
                number += 1
        except BaseException as error:
            self.failure = error

    def _events(self, number: int) -> list[dict[str, Any]]:
        events = []
        for place in range(self._batch):
            identifier = f"{self.name}-{number}-{place}"
            customer = customer_key(self._rng.randrange(self._record.customers))
            units = self._rng.randrange(1, 100)
            time_ = self._month + timedelta(seconds=self._rng.randrange(27 * 86_400))
            self._record.expect(identifier, units, customer, self._month)
            event = {
                "specversion": "1.0",
                "id": identifier,
                "source": "faults",
                "type": EVENT_TYPE,
                "subject": customer,
                "time": time_.isoformat(),
                "data": {"units": units},
            }
            events.append(event)
        # Some that were acknowledged before come again, among the new ones.
        again = self._rng.sample(self._old, min(len(self._old), 5))
        self._old = events[:20]
        return [*events, *again]

    def _deliver(self, events: list[dict[str, Any]]) -> None:
        body = json.dumps(events).encode()
        deadline = time.monotonic() + RECOVERY_SECONDS
        while True:
            with suppress(OSError, http.client.HTTPException):
                status, text = exchange(
                    self._record.port, self._record.key, "POST", "/v1/events", body
                )
                if status == 200:
                    self._record.note(json.loads(text))
                    return
                assert status in (429, 503), (status, text)
            assert time.monotonic() < deadline, "the batch is never acknowledged"
            time.sleep(0.02)


def customer_key(number: int) -> str:
    return f"customer-{number:04d}"


def exchange(
    port: int,
    key: str,
    method: str,
    path: str,
    body: bytes | None = None,
    content_type: str = "application/cloudevents-batch+json",
) -> tuple[int, bytes]:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": content_type}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX"  # dead, but not waited for by whoever inherited it
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _backends(postmaster: int) -> list[int]:
    """Return the processes of PostgreSQL that serve Farebox's connections."""
    return [
        pid
        for pid in _children(postmaster)
        if b"farebox_app" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
