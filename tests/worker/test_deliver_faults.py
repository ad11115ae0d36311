"""Slow, dead and hostile receivers, and killed workers: nobody else is kept waiting."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from farebox.connectors import webhook
from farebox.flows.deliver_webhook import LEASE, begin_attempt, finish_attempt
from farebox.notices.delivery import Outcome, SendFailure
from farebox.worker import deliver


def log(desk: Any) -> list[tuple[int, int | None, str | None]]:
    (row,) = desk.deliveries()
    return [(one.number, one.status, one.failure) for one in desk.attempts(row)]


@pytest.mark.parametrize("path", ["/before", "/within"])
def test_an_attempt_has_a_bounded_time_as_a_whole(
    desk: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A receiver that says nothing, or one byte now and then: each byte comes in good time."""
    monkeypatch.setattr(webhook, "SECONDS", 0.4)
    url, stop = dripping(b"" if path == "/before" else b"HTTP/1.1 200 OK\r\nx: ")
    try:
        outcome = send(url)
    finally:
        stop()
    assert (None, "timed_out") == (outcome.status, outcome.failure)
    assert 350 < outcome.duration_ms < 1500


def test_an_answer_counts_when_its_status_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body may never end: the receiver has said what it has to say."""
    monkeypatch.setattr(webhook, "SECONDS", 0.4)
    url, stop = dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    try:
        outcome = send(url)
    finally:
        stop()
    assert outcome.succeeded
    assert outcome.failure is None
    assert set(outcome.excerpt) == {"a"}


def dripping(first: bytes) -> tuple[str, Callable[[], None]]:
    """Return a URL that answers `first` and then a letter every 50 ms, and what stops it."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(first)
                while not stopped.wait(0.05):
                    if first:
                        connection.sendall(b"a")
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()

    def stop() -> None:
        stopped.set()
        listener.close()
        thread.join()

    return f"http://127.0.0.1:{listener.getsockname()[1]}/", stop


def send(url: str) -> Outcome:
    async def run() -> Outcome:
        async with webhook.open_sender(private_addresses=True, connections=1) as sender:
            return await sender(url, {}, b"{}")

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", "answer_unreadable"),
        (b"nonsense\r\n\r\n", "answer_unreadable"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000, "answer_unreadable"),
    ],
)
def test_what_is_no_answer_is_named(said: bytes, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request = b""
                # All of it, else closing would break the connection off.
                while not request.endswith(b"{}") and (part := connection.recv(65536)):
                    request += part
                try:
                    connection.sendall(said)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        outcome = send(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert (None, expected) == (outcome.status, outcome.failure)


def test_a_closed_port_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "connection_failed" == send(f"http://127.0.0.1:{port}/").failure


def test_a_dead_receiver_keeps_nobody_else_waiting(new_desk: Any) -> None:
    """Neither another endpoint of its organization nor another organization."""
    desk, other = new_desk(), new_desk()
    desk.put("alive")
    other.put("theirs")
    desk.put("dead")
    desk.receiver.answer("/dead", 204, seconds=20)

    async def act(deliverer: Any) -> None:
        running = asyncio.create_task(deliverer.run())
        for _ in range(3):
            desk.tell()
        while not desk.receiver.on("/dead"):
            await asyncio.sleep(0.01)
        began = time.monotonic()
        desk.tell()
        other.tell()
        while len(desk.receiver.on("/alive")) < 4 or not desk.receiver.on("/theirs"):
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 1.5
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.with_deliverer(act)
    assert 1 == len(desk.receiver.on("/dead"))


def test_a_dead_receiver_costs_an_attempt_now_and_then(desk: Any) -> None:
    """However much waits for it: whoever does not answer is left alone for a while."""
    desk.put("ours")
    made = 0

    async def refuse(*_: object) -> Outcome:
        nonlocal made
        made += 1
        return Outcome(failure=SendFailure.CONNECTION_FAILED)

    for _ in range(50):
        desk.tell()

    async def run() -> None:
        deliverer = desk.deliverer(refuse)
        for _ in range(600):
            await deliverer.begin_turns()
            await deliverer.finish_turns()
            desk.clock.move(seconds=1)
        await deliverer.close()

    asyncio.run(run())
    # 1, 2, 4, 8, 16, 32 seconds, then every minute: some 15 in ten minutes.
    assert 12 <= made <= 18


def test_a_killed_worker_is_succeeded_when_its_lease_has_ended(desk: Any, runtime_url: str) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 204, seconds=60)
    told = desk.tell()
    program = Path(__file__).with_name("deliver_process.py")
    worker = subprocess.Popen([sys.executable, program, runtime_url])
    try:
        deadline = time.monotonic() + 20
        while not desk.receiver.got:
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    desk.receiver.answer("/ours", 204)
    desk.deliver()
    assert 1 == len(desk.receiver.got)  # nobody takes it while the lease lasts
    desk.clock.ahead += LEASE
    desk.deliver()
    assert [told, told] == [got.message_id for got in desk.receiver.got]
    (row,) = desk.deliveries()
    assert ("delivered", 2) == (row.status, row.attempts)
    first, second = desk.attempts(row)
    assert (None, None, None) == (first.duration_ms, first.status, first.failure)
    assert 204 == second.status


def test_a_worker_that_lost_its_lease_changes_nothing_but_the_log(desk: Any) -> None:
    desk.put("ours")
    desk.tell()

    async def act(deliverer: Any) -> None:
        await deliverer.begin_turns()  # hands the notice on
        await deliverer.finish_turns()

    async def stall(*_: object) -> Outcome:
        await asyncio.sleep(60)
        raise AssertionError

    async def run() -> None:
        deliverer = desk.deliverer(stall)
        await deliverer.begin_turns()
        await asyncio.sleep(0.2)
        await deliverer.close()

    asyncio.run(run())
    desk.clock.ahead += LEASE
    late = begin_attempt(desk.pool, desk.organization_id, "ours", desk.clock())
    assert late is not None
    desk.clock.ahead += LEASE
    desk.with_deliverer(act)
    assert ["delivered"] == [row.status for row in desk.deliveries()]
    finish_attempt(desk.pool, late, Outcome(status=500, duration_ms=1), desk.clock(), 0.5)
    (row,) = desk.deliveries()
    assert ("delivered", 3, 204, None) == (
        row.status,
        row.attempts,
        row.last_status,
        row.next_attempt_at,
    )
    assert [(1, None, None), (2, 500, None), (3, 204, None)] == log(desk)


def test_workers_side_by_side_send_each_notice_once_and_one_at_a_time(desk: Any) -> None:
    for key in ("a", "b", "c"):
        desk.put(key)
    told = [desk.tell() for _ in range(40)]

    async def run() -> None:
        under_way: set[str] = set()

        async def watched(url: str, *_: object) -> Outcome:
            assert url not in under_way, "two attempts at once"
            under_way.add(url)
            await asyncio.sleep(0.001)
            under_way.remove(url)
            sent.append(url)
            return Outcome(status=204)

        sent: list[str] = []
        workers = [desk.deliverer(watched) for _ in range(4)]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        while len(sent) < 120:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert 120 == len(sent)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert {"delivered"} == {row.status for row in desk.deliveries()}
    assert len(told) * 3 == len(desk.deliveries())
    assert {1} == {row.attempts for row in desk.deliveries()}


def test_delivering_goes_on_after_the_database_was_away(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.put("ours")
    desk.tell()
    real, calls = deliver._dispatch_and_look, []

    def away_at_first(*args: Any) -> Any:
        calls.append(args)
        if len(calls) < 3:
            raise psycopg.OperationalError("no connection")
        return real(*args)

    monkeypatch.setattr(deliver, "_dispatch_and_look", away_at_first)
    monkeypatch.setattr(deliver, "PAUSE_SECONDS", 0.01)

    async def act(deliverer: Any) -> None:
        running = asyncio.create_task(deliverer.run())
        while not desk.receiver.got:
            await asyncio.sleep(0.01)
        await deliverer.finish_turns()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.with_deliverer(act)
    assert ["delivered"] == [row.status for row in desk.deliveries()]
