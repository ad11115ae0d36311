"""Reading usage over HTTP: how soon an event is in it, and how long an answer takes."""

import random
import statistics
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import msgspec

from bench.catalog import CUSTOMERS, EVENT_TYPE, customer_key
from bench.events import BATCH, make_batches
from bench.http_client import Connection, Target, get_request, post_request
from bench.ingest import BATCH_CONNECTIONS, EVENTS
from bench.installation import Installation, Organization
from bench.senders import BATCH_TYPE, percentile
from bench.senders import EVENT_TYPE as SINGLE_TYPE

PROBERS = 3
PROBE_SECONDS = 0.2
POLL_SECONDS = 0.01
LATE_EVENTS = 20 * BATCH


def usage_request(
    target: Target, meter: str, customer: str, start: datetime, end: datetime
) -> bytes:
    """Return the request for a customer's use of a meter, as one row."""
    query = {
        "meter": meter,
        "customer": customer,
        "from": start.isoformat(),
        "to": end.isoformat(),
    }
    return get_request(target, f"/v1/usage?{urlencode(query)}")


def read_quantity(connection: Connection, request: bytes) -> Decimal:
    """Ask for one row and return its quantity; no row is zero."""
    status, body = connection.exchange(request)
    assert status == 200, (status, body)
    rows = msgspec.json.decode(body)["items"]
    return sum((Decimal(row["quantity"]) for row in rows), Decimal(0))


def measure_event_to_usage(
    one: Installation,
    organization: Organization,
    seed: int,
    events_per_second: float,
    seconds: float,
) -> dict[str, Any]:
    """Send batches on a schedule, whatever the server does, and see probe events arrive.

    A probe's clock starts when it is due to be sent, and stops when usage shows it.
    """
    target = one.target(organization)
    batches = max(1, round(events_per_second / BATCH * seconds))
    requests = [
        post_request(target, EVENTS, BATCH_TYPE, body)
        for body in make_batches(seed, "load", batches)
    ]
    begin = time.perf_counter() + 0.5
    lateness: list[float] = []
    arrivals: list[float] = []
    acknowledged: list[float] = []
    senders = [
        threading.Thread(
            target=_send_on_schedule,
            args=(target, requests[at::BATCH_CONNECTIONS], begin, at, seconds / batches, lateness),
        )
        for at in range(BATCH_CONNECTIONS)
    ]
    probers = [
        threading.Thread(target=_probe, args=(target, at, begin, seconds, arrivals, acknowledged))
        for at in range(PROBERS)
    ]
    for thread in (*senders, *probers):
        thread.start()
    for thread in (*senders, *probers):
        thread.join()
    return {
        "p50_ms": 1000 * percentile(arrivals, 50),
        "p99_ms": 1000 * percentile(arrivals, 99),
        "max_ms": 1000 * max(arrivals),
        "probes": len(arrivals),
        "probe_acknowledged_p99_ms": 1000 * percentile(acknowledged, 99),
        "offered_events_per_second": batches * BATCH / seconds,
        "batch_acknowledged_p99_ms": 1000 * percentile(lateness, 99),
        "seconds": seconds,
    }


def _send_on_schedule(
    target: Target,
    requests: Sequence[bytes],
    begin: float,
    first: int,
    interval: float,
    lateness: list[float],
) -> None:
    connection = Connection(target)
    for turn, request in enumerate(requests):
        due = begin + (first + turn * BATCH_CONNECTIONS) * interval
        time.sleep(max(0.0, due - time.perf_counter()))
        status, _ = connection.exchange(request)
        assert status == 200, status
        lateness.append(time.perf_counter() - due)
    connection.close()


def _probe(
    target: Target,
    at: int,
    begin: float,
    seconds: float,
    arrivals: list[float],
    acknowledged: list[float],
) -> None:
    connection = Connection(target)
    # A month of a customer whom the load does not touch.
    customer, now = customer_key(CUSTOMERS + at), datetime.now(UTC)
    read = usage_request(
        target, "requests", customer, now - timedelta(days=30), now + timedelta(days=1)
    )
    number = 0
    due = begin + at * PROBE_SECONDS / PROBERS
    while due < begin + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        event = (
            f'{{"specversion":"1.0","id":"probe-{at}-{number}","source":"bench/probe",'
            f'"type":"{EVENT_TYPE}","subject":"{customer}","data":{{"model":"tiny","region":"eu",'
            '"tokens":1,"status":"ok"}}'
        )
        request = post_request(target, EVENTS, SINGLE_TYPE, event.encode())
        status, body = connection.exchange(request)
        assert status == 200, body
        acknowledged.append(time.perf_counter() - due)
        number += 1
        while read_quantity(connection, read) < number:
            time.sleep(POLL_SECONDS)
        arrivals.append(time.perf_counter() - due)
        due = max(due + PROBE_SECONDS, time.perf_counter())
    connection.close()


def measure_query(
    one: Installation,
    large: Organization,
    small: Organization,
    ends: datetime,
    seed: int,
    queries: int,
) -> dict[str, Any]:
    """Ask for random customers and months: cold, warm, and with events not folded yet."""
    found: dict[str, Any] = {}
    for name, organization in (("small", small), ("large", large)):
        one.restart_cold()
        rng = random.Random(f"{seed}/{name}")
        target = one.target(organization)
        cold, warm, late = (list[float](), list[float](), list[float]())
        connection = Connection(target)
        for _ in range(queries):
            cold.append(_ask(connection, target, ends, rng))
        for _ in range(queries):
            warm.append(_ask(connection, target, ends, rng))
        for turn in range(queries):
            if turn % 20 == 0:
                _send_late(connection, target, ends, seed, f"late-{name}-{turn}")
            late.append(_ask(connection, target, ends, rng))
        connection.close()
        for kind, taken in (("cold", cold), ("warm", warm), ("late", late)):
            found[f"{name}_{kind}_p50_ms"] = 1000 * statistics.median(taken)
            found[f"{name}_{kind}_p99_ms"] = 1000 * percentile(taken, 99)
        found[f"{name}_first_ms"] = 1000 * cold[0]
    found["queries"] = queries
    return found


def _ask(connection: Connection, target: Target, ends: datetime, rng: random.Random) -> float:
    first = (ends - timedelta(days=31 * rng.randrange(3))).replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    customer = customer_key(rng.randrange(CUSTOMERS))
    request = usage_request(target, "tokens", customer, first, following)
    started = time.perf_counter()
    quantity = read_quantity(connection, request)
    taken = time.perf_counter() - started
    assert quantity > 0, "every customer used something in every month"
    return taken


def _send_late(connection: Connection, target: Target, ends: datetime, seed: int, run: str) -> None:
    """Send a few batches whose times lie in the months before, which no rollup holds yet."""
    past = (ends - timedelta(days=40)).isoformat()
    for body in make_batches(seed, run, LATE_EVENTS // BATCH // 10):
        events = msgspec.json.decode(body)
        late = msgspec.json.encode([{**event, "time": past} for event in events])
        status, answer = connection.exchange(post_request(target, EVENTS, BATCH_TYPE, late))
        assert status == 200, answer
