"""Senders in a process of their own: bodies are made before the clock starts."""

import asyncio
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

from msgspec import Struct

from bench.draw_requests import Draws, make_draws
from bench.events import BATCH, make_batches, make_events
from bench.http_client import Connection, Target, content_length, post_request

BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"
JSON_TYPE = "application/json"


class Order(Struct, frozen=True):
    """What to send: `count` requests, in total, over `connections`, with ids of this `run`.

    rate: requests a second, whether answers have come or not (an open loop); none: each
    connection sends when its answer has come. draws: ask for decisions instead of sending events.
    """

    target: Target
    path: str
    connections: int
    count: int
    seed: int
    run: str
    rate: float | None = None
    draws: Draws | None = None


class Sent(Struct, frozen=True):
    """What the senders saw; `latencies` in seconds, in no order."""

    seconds: float
    statuses: dict[int, int]
    latencies: list[float]


class Senders:
    """A process that makes an order's requests when told `prepare` and sends them on `send`."""

    def __init__(self, run: Callable[[Pipe], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs,), daemon=True)
        self._process.start()

    def prepare(self, order: Order) -> None:
        self._pipe.send(order)
        self._answer()

    def send(self) -> Sent:
        self._pipe.send(None)
        sent: Sent = self._answer()
        return sent

    def _answer(self) -> Any:
        while not self._pipe.poll(1):
            assert self._process.is_alive(), "the senders' process died"
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()


@contextmanager
def batch_senders() -> Iterator[Senders]:
    """Closed loop, batches of events: each connection sends when its answer has come."""
    senders = Senders(_run_batches)
    try:
        yield senders
    finally:
        senders.close()


@contextmanager
def single_senders() -> Iterator[Senders]:
    """Closed loop, one event a request, many connections on one event loop."""
    senders = Senders(_run_singles)
    try:
        yield senders
    finally:
        senders.close()


def _run_batches(pipe: Pipe) -> None:
    while True:
        try:
            order: Order = pipe.recv()
        except EOFError:
            return
        bodies = make_batches(order.seed, order.run, order.count)
        requests = [post_request(order.target, order.path, BATCH_TYPE, body) for body in bodies]
        pipe.send("ready")
        pipe.recv()
        pipe.send(_send_batches(order, requests))


def _send_batches(order: Order, requests: list[bytes]) -> Sent:
    waiting = iter(requests)
    lock = threading.Lock()
    statuses: Counter[int] = Counter()
    latencies: list[float] = []

    def work() -> None:
        connection = Connection(order.target)
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                return connection.close()
            started = time.perf_counter()
            status, _ = connection.exchange(request)
            latencies.append(time.perf_counter() - started)
            with lock:
                statuses[status] += BATCH

    threads = [threading.Thread(target=work) for _ in range(order.connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Sent(time.perf_counter() - started, dict(statuses), latencies)


def _run_singles(pipe: Pipe) -> None:
    import uvloop

    while True:
        try:
            order: Order = pipe.recv()
        except EOFError:
            return
        requests = _requests(order)
        pipe.send("ready")
        pipe.recv()
        send = _send_singles if order.rate is None else _send_paced
        pipe.send(uvloop.run(send(order, requests)))


def _requests(order: Order) -> list[bytes]:
    if order.draws is not None:
        return [
            post_request(order.target, order.path, JSON_TYPE, body)
            for body in make_draws(order.draws, order.seed, order.run, order.count)
        ]
    return [
        post_request(order.target, order.path, EVENT_TYPE, event.encode())
        for event in make_events(order.seed, order.run, order.count)
    ]


class _Paced(asyncio.Protocol):
    """One connection of an open loop: it takes what is due, and says when it is free again."""

    transport: asyncio.Transport

    def __init__(self, sent: Sent, free: list["_Paced"]) -> None:
        self._sent, self._free = sent, free
        self._received, self._due = b"", 0.0

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or len(received) < end + 4 + content_length(received[:end].lower()):
            return
        self._sent.latencies.append(time.perf_counter() - self._due)
        status = int(received[9:12])
        self._sent.statuses[status] = self._sent.statuses.get(status, 0) + 1
        self._received = b""
        self._free.append(self)


async def _send_paced(order: Order, requests: list[bytes]) -> Sent:
    """Send each request at its time; where no connection is free it waits, and that counts."""
    assert order.rate is not None
    loop = asyncio.get_running_loop()
    sent, free = Sent(0.0, {}, []), list[_Paced]()
    for _ in range(order.connections):
        one = _Paced(sent, free)
        host, port = order.target.host, order.target.port
        transport, _ = await loop.create_connection(lambda one=one: one, host, port)  # type: ignore[misc]
        one.transport = transport
        free.append(one)
    started = time.perf_counter()
    place = 0
    while len(sent.latencies) < len(requests):
        due = int((time.perf_counter() - started) * order.rate)
        while place < min(due, len(requests)) and free:
            free.pop().send(requests[place], started + place / order.rate)
            place += 1
        # The timer counts in whole milliseconds; for less it would spin, on a core of the server's.
        await asyncio.sleep(0.001)
    return Sent(time.perf_counter() - started, sent.statuses, sent.latencies)


async def _send_singles(order: Order, requests: list[bytes]) -> Sent:
    loop = asyncio.get_running_loop()
    waiting = iter(requests)
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    left = [order.connections]
    done: asyncio.Future[None] = loop.create_future()

    class Exchange(asyncio.Protocol):
        transport: asyncio.Transport
        received = b""

        def next(self) -> None:
            request = next(waiting, None)
            if request is None:
                self.transport.close()
                left[0] -= 1
                if left[0] == 0:
                    done.set_result(None)
                return
            self.started = time.perf_counter()
            self.transport.write(request)

        def data_received(self, data: bytes) -> None:
            received = self.received = self.received + data
            end = received.find(b"\r\n\r\n")
            if end < 0 or len(received) < end + 4 + content_length(received[:end].lower()):
                return
            latencies.append(time.perf_counter() - self.started)
            statuses[int(received[9:12])] += 1
            self.received = b""
            self.next()

        def connection_lost(self, error: Exception | None) -> None:
            if error is not None and not done.done():
                done.set_exception(error)

    exchanges = []
    for _ in range(order.connections):
        host, port = order.target.host, order.target.port
        transport, exchange = await loop.create_connection(Exchange, host, port)
        exchange.transport = transport
        exchanges.append(exchange)
    started = time.perf_counter()
    for exchange in exchanges:
        exchange.next()
    await done
    return Sent(time.perf_counter() - started, dict(statuses), latencies)


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
