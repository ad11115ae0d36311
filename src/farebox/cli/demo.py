"""`farebox demo`: real LLM traffic, from HTTP events to invoices, checked to the unit.

The events go through the running server, each one twice, in shuffled order, from senders that do
not wait for each other: what is billed must be what the trace says all the same.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from rich.console import Console

from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope
from farebox.cli.background import DATABASE_URL
from farebox.cli.demo_pools import pool_findings, prepare_pools
from farebox.cli.demo_report import Findings, report
from farebox.cli.example import example_catalog, example_events, examples_directory
from farebox.cli.runtime import Runtime, clock, new_id, open_runtime
from farebox.cli.serve import refuse_taken_port
from farebox.cli.settings import Settings
from farebox.flows.api_key import NewApiKey, create_api_key_in
from farebox.flows.apply_catalog import apply_catalog
from farebox.flows.bill import bill
from farebox.flows.create_organization import create_organization
from farebox.postgres import access
from farebox.postgres.session import transaction, unbound

SENDERS = 4
EVENTS_A_REQUEST = 500
_READY_SECONDS = 30


class Sent(Struct, frozen=True):
    """What the senders were told: outcomes and how often, and how long it took."""

    outcomes: Counter[str]
    seconds: float


def demo(settings: Settings, detach: bool) -> int:
    """Run the demo and return its exit code: 0 where every total is the trace's."""
    console = Console()
    refuse_taken_port(settings)
    with open_runtime(settings) as runtime:
        month = last_month(clock())
        organization_id = prepare(runtime, month)
        key = _fresh_key(runtime, organization_id)
        events = list(example_events(examples_directory() / "llm", month))
        with console.status("Drawing on prepaid pools"):
            prepare_pools(runtime.pool, organization_id, month, events, clock(), new_id)
        server = _start_server(runtime, settings)
        try:
            _wait_ready(settings, server)
            with console.status(f"Sending {2 * len(events):,} events over HTTP"):
                sent = send_twice(settings, key, events)
            started = time.perf_counter()
            with console.status("Billing last month"):
                billed = bill(runtime.pool, organization_id, new_id(), clock(), clock, new_id)
            findings = Findings(
                events=events,
                month=month,
                outcomes=sent.outcomes,
                send_seconds=sent.seconds,
                invoices_made=billed.invoices,
                bill_seconds=time.perf_counter() - started,
                pools=pool_findings(runtime.pool, organization_id, month),
            )
            exact = report(console, runtime.pool, organization_id, findings)
            if detach:
                return 0 if exact else 1
            console.print(
                f"\nConsole: http://{settings.host}:{settings.port}/console\n"
                f"Sign in with the key {key}\nStop with Ctrl-C."
            )
            return _serve_until_stopped(server)
        finally:
            _stop(server)


def _serve_until_stopped(server: subprocess.Popen[bytes]) -> int:
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0


def last_month(now: datetime) -> datetime:
    """Return midnight UTC on the first day of the last complete month."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first - timedelta(days=1)).replace(day=1)


def prepare(runtime: Runtime, month: datetime) -> UUID:
    """Return the organization of the demo of a month, with its catalog, made where it is missing.

    Each month has its own: the same requests at other times would be conflicts in an older one.
    """
    key = f"demo-{month:%Y-%m}"
    with unbound(runtime.pool) as connection:
        organization_id = access.find_organization(connection, key)
    if organization_id is None:
        organization_id, _ = create_organization(
            runtime.pool, key, f"Farebox demo, {month:%B %Y}", clock(), new_id, os.urandom
        )
    catalog = example_catalog(examples_directory() / "llm")
    applied = apply_catalog(runtime.pool, organization_id, catalog, clock(), new_id)
    problems = [one for one in applied if hasattr(one, "code")]
    assert not problems, problems
    return organization_id


def _fresh_key(runtime: Runtime, organization_id: UUID) -> str:
    with transaction(runtime.pool, organization_id) as connection:
        made = create_api_key_in(
            connection,
            organization_id,
            new_id(),
            "demo",
            frozenset({Scope.MANAGE}),
            None,
            clock(),
            os.urandom(ID_BYTES + SECRET_BYTES),
        )
    assert isinstance(made, NewApiKey), made
    return made.text


def _start_server(runtime: Runtime, settings: Settings) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        DATABASE_URL: runtime.urls.runtime,
        "FAREBOX_HOST": settings.host,
        "FAREBOX_PORT": str(settings.port),
    }
    return subprocess.Popen([sys.executable, "-m", "farebox.cli.serve"], env=environment)


def _wait_ready(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"farebox: the server ended with code {server.returncode}")
        with suppress(OSError):  # it does not listen yet
            connection = HTTPConnection(settings.host, settings.port, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise SystemExit(f"the server was not ready within {_READY_SECONDS} s")


def send_twice(settings: Settings, key: str, events: Sequence[dict[str, Any]]) -> Sent:
    """Send every event twice, shuffled the same way each time, from senders side by side."""
    doubled = [*events, *events]
    random.Random(20231116).shuffle(doubled)  # noqa: S311 - an order, not a secret
    batches = [
        msgspec.json.encode(doubled[at : at + EVENTS_A_REQUEST])
        for at in range(0, len(doubled), EVENTS_A_REQUEST)
    ]
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    with ThreadPoolExecutor(SENDERS) as senders:
        for counted in senders.map(
            lambda sender: _send(settings, key, batches[sender::SENDERS]), range(SENDERS)
        ):
            outcomes.update(counted)
    return Sent(outcomes, time.perf_counter() - started)


def _send(settings: Settings, key: str, batches: Sequence[bytes]) -> Counter[str]:
    connection = HTTPConnection(settings.host, settings.port, timeout=60)
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/cloudevents-batch+json",
    }
    outcomes: Counter[str] = Counter()
    for batch in batches:
        connection.request("POST", "/v1/events", batch, headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"the server answered {response.status}: {body.decode()}")
        answer = msgspec.json.decode(body)
        for outcome in ("accepted", "duplicates", "conflicts", "rejected"):
            outcomes[outcome] += answer[outcome]
    return outcomes


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
