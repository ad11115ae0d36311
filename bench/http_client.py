"""HTTP clients that cost little beside the server: raw sockets, prebuilt requests, keep-alive."""

import http.client
import socket
from typing import Any

import msgspec
from msgspec import Struct


class Target(Struct, frozen=True):
    """Where to send, and as whom."""

    host: str
    port: int
    api_key: str


def post_request(target: Target, path: str, content_type: str, body: bytes) -> bytes:
    """Return a whole request, ready to be sent."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
        f"Authorization: Bearer {target.api_key}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get_request(target: Target, path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
        f"Authorization: Bearer {target.api_key}\r\n\r\n"
    ).encode()


class Connection:
    """One blocking connection; the answers have a Content-Length, or no body."""

    def __init__(self, target: Target) -> None:
        self._socket = socket.create_connection((target.host, target.port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a prebuilt request; return the answer's status and body."""
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            self._receive(received)
        head = bytes(received[:end]).lower()
        whole = end + 4 + content_length(head)
        while len(received) < whole:
            self._receive(received)
        return int(head[9:12]), bytes(received[end + 4 :])

    def close(self) -> None:
        self._socket.close()

    def _receive(self, received: bytearray) -> None:
        chunk = self._socket.recv(262_144)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        received += chunk


def content_length(head: bytes) -> int:
    """Return the length that a lower-case head names, zero where it names none."""
    at = head.find(b"content-length:")
    if at < 0:
        return 0
    return int(head[at + 15 :].partition(b"\r\n")[0])


def get_json(target: Target, path: str) -> tuple[int, Any]:
    """Return status and decoded body of a GET over a connection of its own."""
    return _exchange_json(target, "GET", path, None)


def post_json(target: Target, path: str, body: object) -> tuple[int, Any]:
    return _exchange_json(target, "POST", path, msgspec.json.encode(body))


def _exchange_json(target: Target, method: str, path: str, body: bytes | None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(target.host, target.port, timeout=600)
    headers = {"Authorization": f"Bearer {target.api_key}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    is_json = "json" in (answer.getheader("Content-Type") or "")
    return answer.status, msgspec.json.decode(text) if is_json and text else text
