"""Taking events in: batches against plain COPY, single events against an empty endpoint."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from bench.events import BATCH, make_batches
from bench.http_client import Target
from bench.installation import Installation, Organization, end, free_port, wait_ready
from bench.senders import Order, Senders, Sent, batch_senders, percentile, single_senders
from farebox.events.admit import Admitted, admit
from farebox.events.decode import decode
from farebox.flows.load_book import load_book
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.stream import Row

ROUNDS = 5
BATCH_CONNECTIONS = 16
SINGLE_CONNECTIONS = 64
EVENTS = "/v1/events"


def measure_batches(
    one: Installation, organization: Organization, seed: int, batches: int
) -> dict[str, Any]:
    """Return the ratio to COPY; rounds alternate, so that both meet the same machine."""
    ours: list[float] = []
    answered: list[float] = []
    theirs: list[float] = []
    latencies: list[float] = []
    with batch_senders() as senders, one.owner() as connection:
        for number in range(ROUNDS + 1):
            theirs.append(_copy_rate(one, connection, organization, seed, number, batches))
            sent, seconds = _send_batches(one, organization, senders, seed, f"b{number}", batches)
            ours.append(batches * BATCH / seconds)
            answered.append(batches * BATCH / sent.seconds)
            latencies += sent.latencies if number else []
    # The first round warms both up: prepared statements, new series, caches.
    rate, copy_rate = statistics.median(ours[1:]), statistics.median(theirs[1:])
    return {
        "ratio": rate / copy_rate,
        "events_per_second": rate,
        "copy_rows_per_second": copy_rate,
        "events_per_second_before_catch_up": statistics.median(answered[1:]),
        "rounds_events_per_second": ours[1:],
        "rounds_copy_rows_per_second": theirs[1:],
        "batch_p50_ms": 1000 * percentile(latencies, 50),
        "batch_p99_ms": 1000 * percentile(latencies, 99),
        "connections": BATCH_CONNECTIONS,
        "batches_a_round": batches,
    }


def _send_batches(
    one: Installation,
    organization: Organization,
    senders: Senders,
    seed: int,
    run: str,
    batches: int,
) -> tuple[Sent, float]:
    """Return what the senders saw, and the time until the rollups held everything."""
    target = one.target(organization)
    senders.prepare(Order(target, EVENTS, BATCH_CONNECTIONS, batches, seed, run))
    one.wait_folded(organization)
    started = time.perf_counter()
    sent = senders.send()
    one.wait_folded(organization)
    seconds = time.perf_counter() - started
    assert set(sent.statuses) == {200}, sent.statuses
    return sent, seconds


def _copy_rate(
    one: Installation,
    connection: psycopg.Connection,
    organization: Organization,
    seed: int,
    number: int,
    batches: int,
) -> float:
    """COPY the rows of as many other events into `flat`, a batch a transaction."""
    rows = [
        _flat_rows(one, organization, body, at)
        for at, body in enumerate(make_batches(seed, f"c{number}", batches))
    ]
    started = time.perf_counter()
    for batch in rows:
        with connection.cursor().copy("copy flat from stdin") as copy:
            copy.write(batch)
    return batches * BATCH / (time.perf_counter() - started)


def _flat_rows(one: Installation, organization: Organization, body: bytes, at: int) -> bytes:
    """Return the rows that the product itself makes of a batch, in the order of `flat`."""
    organization_id, now = organization.organization_id, datetime.now(UTC)
    book = load_book(one.runtime.pool, organization_id)
    decoded = decode("application/cloudevents-batch+json", [], body)
    assert isinstance(decoded, list)
    lines = []
    for place, event in enumerate(decoded):
        admitted = admit(place, event, organization_id.bytes, now)  # type: ignore[arg-type]
        assert isinstance(admitted, Admitted)
        prepared = prepare(book, admitted)
        assert isinstance(prepared, Prepared)
        sequence = 10**9 + at * BATCH + place
        lines.append(_copy_line(organization_id, sequence, now, prepared.row))
    return "".join(lines).encode()


def _copy_line(organization_id: UUID, sequence: int, received_at: datetime, row: Row) -> str:
    """Format a row for COPY; nothing that the benchmark sends needs an escape."""
    time, key, digest, *names_and_readings, payload = row
    texts = [text or "\\N" for text in names_and_readings]
    columns = (organization_id, sequence, received_at.isoformat(), key, digest, time.isoformat())
    return "\t".join([*map(str, columns), *texts, payload]) + "\n"


def measure_singles(
    one: Installation, organization: Organization, seed: int, count: int
) -> dict[str, Any]:
    """Return the ratio of one event a request to an empty endpoint, by the same client."""
    ours: list[float] = []
    theirs: list[float] = []
    unread: list[float] = []
    latencies: list[float] = []
    with single_senders() as senders, _empty_server() as empty:
        target = one.target(organization)
        for number in range(ROUNDS + 1):
            nothing = Order(empty, "/empty", SINGLE_CONNECTIONS, count, seed, f"e{number}")
            theirs.append(_send_singles(senders, nothing, 204)[0])
            ignored = Order(empty, "/unread", SINGLE_CONNECTIONS, count, seed, f"u{number}")
            unread.append(_send_singles(senders, ignored, 204)[0])
            events = Order(target, EVENTS, SINGLE_CONNECTIONS, count, seed, f"s{number}")
            rate, sent = _send_singles(senders, events, 200)
            ours.append(rate)
            latencies += sent.latencies if number else []
            one.wait_folded(organization)
    rate, empty_rate = statistics.median(ours[1:]), statistics.median(theirs[1:])
    return {
        "ratio": rate / empty_rate,
        "requests_per_second": rate,
        "empty_requests_per_second": empty_rate,
        "empty_requests_per_second_body_unread": statistics.median(unread[1:]),
        "rounds_requests_per_second": ours[1:],
        "rounds_empty_requests_per_second": theirs[1:],
        "p50_ms": 1000 * percentile(latencies, 50),
        "p99_ms": 1000 * percentile(latencies, 99),
        "connections": SINGLE_CONNECTIONS,
        "requests_a_round": count,
    }


def _send_singles(senders: Senders, order: Order, status: int) -> tuple[float, Sent]:
    senders.prepare(order)
    sent = senders.send()
    assert set(sent.statuses) == {status}, sent.statuses
    return order.count / sent.seconds, sent


@contextmanager
def _empty_server() -> Iterator[Target]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.empty", str(port)])
    try:
        wait_ready(port, process)
        yield Target("127.0.0.1", port, "")
    finally:
        end(process)
