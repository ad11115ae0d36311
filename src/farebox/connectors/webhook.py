"""Sends webhooks: one POST, ten seconds, to an address that was checked, no redirects.

httpcore is the engine of httpx. It is used by itself because the door is its network backend: a
name is looked up once, its addresses are checked, and to one of these the connection is made. The
certificate is checked against the name all the same. Nothing of the environment, like a proxy,
comes in between.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore

from farebox import __version__
from farebox.notices.address import check_url, is_public
from farebox.notices.delivery import EXCERPT_BYTES, Outcome, SendFailure

SECONDS = 10.0
"""For the whole of an attempt, from looking the name up to the end of the answer."""
_CONNECT_SECONDS = 4.0
"""For one address of a name, so that there is time for a second one."""
_IDLE_SECONDS = 2.0
"""Shorter than receivers keep an idle connection, so that none is used as it closes."""
_LOOKUPS = 128
"""Names looked up at once; a lookup cannot be broken off, and slow ones must not block others."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Send = Callable[[str, Mapping[str, str], bytes], Awaitable[Outcome]]


class NameUnknown(Exception):
    """The name leads to no address."""


class AddressRefused(Exception):
    """The name leads to an address that is not public."""


@asynccontextmanager
async def open_sender(
    *, private_addresses: bool, connections: int, resolve: Resolve | None = None
) -> AsyncIterator[Send]:
    """Yield the function that sends; it keeps connections open for a few seconds.

    private_addresses: plain HTTP and addresses that are not public may be called, too.
    resolve: how names are looked up, by default as the system does.
    """
    threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup")
    backend = CheckedBackend(
        httpcore.AnyIOBackend(), resolve or _system_resolve(threads), private_addresses
    )
    pool = httpcore.AsyncConnectionPool(
        ssl_context=httpcore.default_ssl_context(),
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=_IDLE_SECONDS,
        network_backend=backend,
    )

    async def send(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        return await _send(pool, url, headers, body, private_addresses=private_addresses)

    try:
        async with pool:
            yield send
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only."""

    def __init__(
        self, inner: httpcore.AsyncNetworkBackend, resolve: Resolve, private_addresses: bool
    ) -> None:
        self._inner = inner
        self._resolve = resolve
        self._private_addresses = private_addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that answers.

        One address that is not public refuses the name: whoever gives such a name means no good.
        Raises NameUnknown, AddressRefused, httpcore.ConnectError, httpcore.ConnectTimeout.
        """
        addresses = await self._resolve(host, port)
        if not self._private_addresses and not all(
            is_public(ip_address(address)) for address in addresses
        ):
            raise AddressRefused(host)
        for last, address in enumerate(addresses, 1):
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last == len(addresses):
                    raise
        raise NameUnknown(host)


class _Answer:
    """What is known of an answer so far; a broken end does not take its status away."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after: str | None = None
        self.body = b""

    def outcome(self, failure: SendFailure | None, started: float) -> Outcome:
        text = self.body[:EXCERPT_BYTES].decode(errors="replace")
        return Outcome(
            status=self.status,
            failure=failure if self.status is None else None,
            duration_ms=round((time.monotonic() - started) * 1000),
            excerpt=text.replace("\0", "\ufffd"),  # which PostgreSQL keeps in no text
            retry_after=self.retry_after,
        )


async def _send(
    pool: httpcore.AsyncConnectionPool,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    private_addresses: bool,
) -> Outcome:
    """Send once and return how that ended; raises nothing that a receiver could cause."""
    started = time.monotonic()
    answer = _Answer()
    # The URL was checked when it was put; the setting may be another one since.
    if check_url(url, private_addresses=private_addresses) is not None:
        return answer.outcome(SendFailure.URL_REFUSED, started)
    try:
        async with asyncio.timeout(SECONDS):
            await _exchange(pool, url, headers, body, answer)
    except NameUnknown:
        failure = SendFailure.NAME_UNKNOWN
    except AddressRefused:
        failure = SendFailure.ADDRESS_REFUSED
    except (TimeoutError, httpcore.TimeoutException):
        failure = SendFailure.TIMED_OUT
    except (httpcore.NetworkError, OSError) as error:
        tls = any(isinstance(reason, ssl.SSLError) for reason in error.args)
        failure = SendFailure.TLS_FAILED if tls else SendFailure.CONNECTION_FAILED
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
        failure = SendFailure.ANSWER_UNREADABLE
    else:
        return answer.outcome(None, started)
    return answer.outcome(failure, started)


async def _exchange(
    pool: httpcore.AsyncConnectionPool,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    answer: _Answer,
) -> None:
    sent: list[tuple[bytes | str, bytes | str]] = [
        ("host", urlsplit(url).netloc),
        ("content-type", "application/json"),
        ("user-agent", f"Farebox/{__version__}"),
        ("accept-encoding", "identity"),
        *headers.items(),
    ]
    timeouts = {"connect": _CONNECT_SECONDS, "read": SECONDS, "write": SECONDS, "pool": SECONDS}
    async with pool.stream(
        "POST", url, headers=sent, content=body, extensions={"timeout": timeouts}
    ) as response:
        answer.status = response.status
        for name, value in response.headers:
            if name.lower() == b"retry-after":
                answer.retry_after = value.decode("latin-1")
        async for chunk in response.aiter_stream():
            answer.body += chunk
            if len(answer.body) >= EXCERPT_BYTES:
                return  # what is left unread closes the connection


def _system_resolve(threads: ThreadPoolExecutor) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(threads, _look_up, host, port)
        except (OSError, UnicodeError):
            raise NameUnknown(host) from None
        return list(dict.fromkeys(found))

    return resolve


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
