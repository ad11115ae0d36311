"""A webhook goes to the address that was checked, to who holds the certificate of the name."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest

from farebox.connectors.webhook import AddressRefused, CheckedBackend, NameUnknown, open_sender
from farebox.notices.delivery import Outcome

NO_OPENSSL = shutil.which("openssl") is None


def post(url: str, *, private: bool, addresses: Sequence[str] | None = None) -> Outcome:
    """Send `{}` to a URL; `addresses` are what every name leads to, by default what it does."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        assert addresses is not None
        return addresses

    async def run() -> Outcome:
        async with open_sender(
            private_addresses=private,
            connections=4,
            resolve=None if addresses is None else resolve,
        ) as send:
            return await send(url, {"webhook-id": "ntc_1"}, b"{}")

    return asyncio.run(run())


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["::1"], ["1.1.1.1", "192.168.0.1"]],
)
def test_a_name_that_leads_inside_is_refused(addresses: list[str]) -> None:
    outcome = post("https://hooks.example.com/", private=False, addresses=addresses)
    assert (None, "address_refused") == (outcome.status, outcome.failure)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "127.1"])
def test_this_machine_is_not_called_however_it_is_written(host: str, receiver: Any) -> None:
    port = receiver.base.rpartition(":")[2]
    outcome = post(f"https://{host}:{port}/", private=False)
    # Some spellings the system's lookup does not take for a name or an address at all.
    assert outcome.failure in ("url_refused", "address_refused", "name_unknown")
    assert [] == receiver.got


def test_plain_http_is_refused_also_for_an_endpoint_of_earlier(receiver: Any) -> None:
    """The setting was another one when the endpoint was put."""
    assert "url_refused" == post(f"{receiver.base}/", private=False).failure
    assert 204 == post(f"{receiver.base}/", private=True).status
    assert 1 == len(receiver.got)


def test_a_name_that_is_none_is_named() -> None:
    assert "name_unknown" == post("https://nowhere.invalid/", private=False).failure
    assert "name_unknown" == post("https://nowhere.example/", private=False, addresses=[]).failure


def test_a_proxy_of_the_environment_does_not_come_in_between(
    receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert 204 == post(f"{receiver.base}/", private=True).status


def test_the_request_names_the_host_as_the_url_does(receiver: Any) -> None:
    port = receiver.base.rpartition(":")[2]
    outcome = post(f"http://hooks.test:{port}/a?b=c", private=True, addresses=["127.0.0.1"])
    assert 204 == outcome.status
    (got,) = receiver.got
    assert (f"hooks.test:{port}", "/a?b=c") == (got.headers["host"], got.path)


class Recorded(httpcore.AsyncNetworkBackend):
    """Stands for the network: notes where a connection is made to, and fails where told to."""

    def __init__(self, *dead: str) -> None:
        self.called: list[str] = []
        self._dead = dead

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.called.append(host)
        if host in self._dead:
            raise httpcore.ConnectError
        return httpcore.AsyncNetworkStream()


def connect(backend: Recorded, *answers: Sequence[str], private: bool = False) -> None:
    """Connect to a name whose lookup answers differently each time."""
    waiting = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return waiting.pop(0)

    asyncio.run(CheckedBackend(backend, resolve, private).connect_tcp("hooks.example.com", 443))


def test_the_connection_is_made_to_the_address_that_was_checked() -> None:
    """A name that answers with a private address the second time is not looked up a second time."""
    backend = Recorded()
    connect(backend, ["93.184.216.34"], ["127.0.0.1"])
    assert ["93.184.216.34"] == backend.called


def test_nothing_is_called_where_one_address_is_refused() -> None:
    backend = Recorded()
    with pytest.raises(AddressRefused):
        connect(backend, ["93.184.216.34", "10.0.0.1"])
    assert [] == backend.called
    connect(backend, ["93.184.216.34", "10.0.0.1"], private=True)
    assert ["93.184.216.34"] == backend.called


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    backend = Recorded("2606:4700::1111")
    connect(backend, ["2606:4700::1111", "1.1.1.1"])
    assert ["2606:4700::1111", "1.1.1.1"] == backend.called
    dead = Recorded("1.1.1.1")
    with pytest.raises(httpcore.ConnectError):
        connect(dead, ["1.1.1.1"])
    with pytest.raises(NameUnknown):
        connect(dead, [])


@contextmanager
def secure_listener(folder: Path, name: str) -> Iterator[int]:
    """Yield the port of a server with a certificate of its own for `name`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN={name} -addext subjectAltName=DNS:{name} -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        request = b""
                        while not request.endswith(b"{}") and (part := connection.recv(65536)):
                            request += part
                        connection.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.skipif(NO_OPENSSL, reason="makes a certificate with the program openssl")
def test_the_certificate_is_checked_against_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with secure_listener(tmp_path, "hooks.test") as port:
        url = f"https://hooks.test:{port}/"
        outcome = post(url, private=True, addresses=["127.0.0.1"])
        assert (None, "tls_failed") == (outcome.status, outcome.failure)  # signed by nobody known
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert 204 == post(url, private=True, addresses=["127.0.0.1"]).status
        other = post(f"https://other.test:{port}/", private=True, addresses=["127.0.0.1"])
        assert (None, "tls_failed") == (other.status, other.failure)
        assert "tls_failed" == post(f"https://127.0.0.1:{port}/", private=True).failure
