"""A receiver of webhooks on this machine, and an organization that sends to it."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct
from standardwebhooks import Webhook

from farebox.access.id import Prefix, encode_id, uuidv7
from farebox.connectors.webhook import Send, open_sender
from farebox.flows.webhook_endpoint import PutEndpoint, WebhookEndpoint, put_endpoint
from farebox.notices.delivery import Outcome, SendFailure
from farebox.notices.type import NoticeType
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.notice import Notice
from farebox.postgres.session import Pool, transaction
from farebox.postgres.webhook_delivery import AttemptRow, DeliveryRow
from farebox.postgres.webhook_endpoint import EndpointRow
from farebox.worker.deliver import ENDPOINTS, Deliverer

ELSEWHERE = Outcome(failure=SendFailure.CONNECTION_FAILED)


def new_id() -> UUID:
    """Return a fresh time-ordered id."""
    return uuidv7(time.time_ns() // 1_000_000, os.urandom(10))


class Got(Struct, frozen=True):
    """A request as the receiver got it."""

    path: str
    headers: Message
    body: bytes
    at: float

    @property
    def message_id(self) -> str:
        return str(self.headers["webhook-id"])

    def verified(self, secret: str) -> Any:
        """Return what the library makes of it; raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, dict(self.headers.items()))


class Answer(Struct, frozen=True, kw_only=True):
    """What a path answers; `seconds` it takes before it does."""

    status: int = 204
    headers: Mapping[str, str] = {}
    body: bytes = b""
    seconds: float = 0


class Receiver:
    """An HTTP server whose paths answer as a test says: each answer once, the last for ever."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answers: dict[str, list[Answer]] = {}
        self.stopped = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(Got(self.path, self.headers, body, time.monotonic()))
                answer = receiver.next_answer(self.path)
                receiver.stopped.wait(answer.seconds)
                with suppress(OSError):
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    if answer.status != 204:
                        self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, path: str, *statuses: int, **fields: Any) -> None:
        """Answer with these statuses in turn; `fields` are those of `Answer`."""
        self.answers[path] = [Answer(status=status, **fields) for status in statuses]

    def next_answer(self, path: str) -> Answer:
        waiting = self.answers.get(path, [Answer()])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def on(self, path: str) -> list[Got]:
        return [one for one in list(self.got) if one.path == path]

    def close(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Clock:
    """The real time, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def move(self, **span: float) -> None:
        self.ahead += timedelta(**span)


class Desk:
    """One organization: its endpoints, what it tells, and what became of that."""

    def __init__(self, pool: Pool, organization_id: UUID, clock: Clock, receiver: Receiver) -> None:
        self.pool = pool
        self.organization_id = organization_id
        self.clock = clock
        self.receiver = receiver
        self.secrets: dict[str, str] = {}

    def put(self, key: str, path: str | None = None, **fields: Any) -> EndpointRow:
        """Put an endpoint at a path of the receiver, by default that of its key."""
        url = fields.pop("url", f"{self.receiver.base}/{key if path is None else path}")
        done = put_endpoint(
            self.pool,
            self.organization_id,
            WebhookEndpoint(key=key, url=url, **fields),
            self.clock(),
            os.urandom(32),
            private_addresses=True,
        )
        assert isinstance(done, PutEndpoint), done
        if done.secret is not None:
            self.secrets[key] = done.secret
        return done.row

    def tell(
        self,
        kind: NoticeType = NoticeType.ALERT_FIRED,
        *,
        customer: str | None = None,
        **data: object,
    ) -> str:
        """Write a notice and return its id on the wire."""
        told = Notice(
            notice_id=new_id(), type=kind, time=self.clock(), customer=customer, data=data
        )
        with transaction(self.pool, self.organization_id) as connection:
            notice.add_notices(connection, self.organization_id, [told])
        return encode_id(Prefix.NOTICE, told.notice_id)

    def endpoint(self, key: str) -> EndpointRow:
        with transaction(self.pool, self.organization_id) as connection:
            row = webhook_endpoint.find_endpoint(connection, self.organization_id, key)
        assert row is not None
        return row

    def deliveries(self, key: str | None = None) -> list[DeliveryRow]:
        """Return the deliveries, the oldest first."""
        with transaction(self.pool, self.organization_id) as connection:
            found = webhook_delivery.deliveries(
                connection, self.organization_id, endpoint_key=key, limit=10_000
            )
        return list(reversed(found))

    def attempts(self, row: DeliveryRow) -> Sequence[AttemptRow]:
        with transaction(self.pool, self.organization_id) as connection:
            return webhook_delivery.attempts_of(connection, self.organization_id, [row.delivery_id])

    def deliverer(self, send: Send) -> Deliverer:
        """Return a deliverer that reaches this test's receiver only, whatever else is due."""

        async def near(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
            if not url.startswith(self.receiver.base):
                return ELSEWHERE
            return await send(url, headers, body)

        return Deliverer(self.pool, self.clock, new_id, Random(7).random, near)

    def with_deliverer(self, act: Callable[[Deliverer], Awaitable[None]]) -> None:
        """Run `act` with a deliverer that sends over real connections."""

        async def run() -> None:
            async with open_sender(private_addresses=True, connections=ENDPOINTS) as send:
                deliverer = self.deliverer(send)
                try:
                    await asyncio.wait_for(act(deliverer), 30)
                finally:
                    await deliverer.close()

        asyncio.run(run())

    def deliver(self) -> None:
        """Send everything that is due now, and what becomes due by that."""

        async def act(deliverer: Deliverer) -> None:
            while await deliverer.begin_turns():
                await deliverer.finish_turns()

        self.with_deliverer(act)

    def clear(self) -> None:
        with transaction(self.pool, self.organization_id) as connection:
            for row in webhook_endpoint.endpoints(connection, self.organization_id, limit=1000):
                webhook_endpoint.delete_endpoint(connection, self.organization_id, row.key)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def new_desk(
    pool: Pool, new_organization: Callable[[], UUID], receiver: Receiver
) -> Iterator[Callable[[], Desk]]:
    """Return a function that makes an organization with a clock that can be moved."""
    made: list[Desk] = []

    def make() -> Desk:
        made.append(Desk(pool, new_organization(), Clock(), receiver))
        return made[-1]

    yield make
    for desk in made:
        desk.clear()


@pytest.fixture
def desk(new_desk: Callable[[], Desk]) -> Desk:
    return new_desk()
