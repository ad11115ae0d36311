"""Live balances from a running server: every change, every listener, and an end when it stops."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from farebox.access.id import uuidv7
from farebox.cli.background import DATABASE_URL
from farebox.flows.create_organization import create_organization
from farebox.http.pages.assets import load_assets
from farebox.postgres.session import Pool

# One server for them all; each test has a pool of its own.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("live")]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(
    CHROMIUM is None or not load_assets().scripts, reason="needs Chromium, and make web"
)


def new_id() -> UUID:
    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


class Server:
    """A server with one organization."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, key: str) -> None:
        self.process = process
        self.url = url
        self.key = key
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"})
        self.listeners: list[Listener] = []

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.api.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def open_pool(self, granted: str = "1000") -> str:
        """Return the key of a new pool of so many tokens."""
        key = f"tokens-{new_id().hex}"
        answer = self.api.put(f"/v1/pools/{key}", json={"unit": "token"})
        assert answer.status_code == 201, answer.text
        if granted != "0":
            self.post(f"/v1/pools/{key}/grants", {"key": "first", "amount": granted})
        return key

    def draw(self, pool: str, amount: str = "1") -> None:
        self.post("/v1/authorize", {"pool": pool, "amount": amount, "subject": "ann"})

    def stop(self) -> float:
        """Ask the server to stop and return how many seconds it took."""
        begun = time.monotonic()
        self.process.terminate()
        self.process.wait(20)
        self.api.close()
        return time.monotonic() - begun


@contextmanager
def serving(pool: Pool, runtime_url: str, log: Path) -> Iterator[Server]:
    """Run a server with an organization of its own until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "farebox.cli.serve"],
            env={
                **os.environ,
                DATABASE_URL: runtime_url,
                "FAREBOX_HOST": "127.0.0.1",
                "FAREBOX_PORT": str(port),
            },
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            assert process.poll() is None, log.read_text()
            try:
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        now = datetime.now(UTC)
        _, key = create_organization(pool, str(new_id()), "Live", now, new_id, os.urandom)
        made = Server(process, url, key)
        yield made
        for listener in made.listeners:
            listener.drop()
        made.api.close()
    finally:
        if process.poll() is None:
            # Its workers too: one that stays goes on working on the database of the other tests.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def server(
    pool: Pool, runtime_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(pool, runtime_url, tmp_path_factory.mktemp("live") / "server.log") as made:
        yield made


@pytest.fixture
def tokens(server: Server) -> str:
    """Return the key of a pool of 1,000 tokens that only this test knows."""
    return server.open_pool()


class Listener:
    """A client that reads events in a thread of its own until the answer ends."""

    def __init__(self, server: Server, pool: str, **headers: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.ended = ""
        self._connection = HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        self._connection.request(
            "GET",
            f"/v1/pools/{pool}/live",
            headers={"Authorization": f"Bearer {server.key}", **headers},
        )
        self._answer = self._connection.getresponse()
        server.listeners.append(self)
        self.status = self._answer.status
        self.type = self._answer.headers["content-type"]
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while line := self._answer.readline():
                if line.startswith(b"id: "):
                    self.ids.append(line[4:].decode().strip())
                if line.startswith(b"data: "):
                    self.events.append(json.loads(line[6:]))
            self.ended = "complete"
        except (OSError, HTTPException) as error:
            self.ended = f"broken off: {error}"

    def wait(self, available: str, seconds: float = 5) -> dict[str, Any]:
        """Return the event that says this, however many came before."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.events and self.events[-1]["available"] == available:
                return self.events[-1]
            time.sleep(0.01)
        raise AssertionError((available, self.events[-1:], self.ended))

    def close(self) -> None:
        """Go away in the middle of the answer."""
        self._connection.sock.shutdown(socket.SHUT_RDWR)
        self.join()

    def drop(self) -> None:
        """Leave nothing open, also where a test ended before it closed."""
        with suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self.join()

    def join(self) -> str:
        """Return how the answer ended."""
        self._thread.join(20)
        self._answer.close()
        self._connection.close()
        return self.ended


def test_an_event_comes_at_once_and_with_every_change(server: Server, tokens: str) -> None:
    listener = Listener(server, tokens, **{"Last-Event-ID": "77"})
    first = listener.wait("1000")
    assert (200, "text/event-stream; charset=utf-8") == (listener.status, listener.type)
    assert (tokens, "token", "0", "0") == tuple(
        first[name] for name in ("pool", "unit", "held", "used")
    )
    assert {"overdraft": "0", "overage": "0", "burst": "0"} == first["owed"]
    began = time.monotonic()
    server.draw(tokens, "10")
    changed = listener.wait("990")
    assert time.monotonic() - began < 1
    assert ("10", "10") == (changed["used"], changed["period"]["used"])
    assert listener.ids[-1] == str(changed["version"])
    assert changed["version"] > first["version"]
    listener.close()


def test_at_most_four_events_a_second_and_the_last_is_the_truth(
    server: Server, tokens: str
) -> None:
    listener = Listener(server, tokens)
    listener.wait("1000")
    begun, ends, drawn = len(listener.events), time.monotonic() + 2, 0
    while time.monotonic() < ends:
        server.draw(tokens)
        drawn += 1
    listener.wait(str(1000 - drawn))
    assert drawn > 20
    assert 3 < len(listener.events) - begun <= 11
    listener.close()


def test_what_falls_due_is_told_without_a_draw(server: Server, tokens: str) -> None:
    listener = Listener(server, tokens)
    listener.wait("1000")
    server.post("/v1/authorize", {"pool": tokens, "amount": "40", "hold": {"seconds": 1}})
    listener.wait("960")
    assert "0" == listener.wait("1000")["held"]
    listener.close()


def test_only_those_who_may_see_a_pool_hear_of_it(server: Server, tokens: str) -> None:
    server.api.put("/v1/customers/acme", json={"name": "Acme"})
    body = {"name": "acme", "scopes": ["read"], "customer": "acme"}
    key = server.post("/v1/api_keys", body)["key"]
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.get(f"{server.url}/v1/pools/{tokens}/live", headers=headers)
    assert (404, "pool_unknown") == (answer.status_code, answer.json()["code"])
    answer = httpx.get(f"{server.url}/v1/pools/{tokens}/live")
    assert 401 == answer.status_code


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def signed_in(chromium: Any, server: Server, **options: Any) -> tuple[Any, list[str]]:
    """Return a page that has signed in, and what its browser complains about from then on."""
    page = chromium.new_context(base_url=server.url, **options).new_page()
    complaints: list[str] = []
    page.goto("/console/pools")
    page.fill("input[name=key]", server.key)
    page.press("input[name=key]", "Enter")
    page.wait_for_selector("h1:has-text('Pools')")
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def shows(page: Any, name: str, text: str) -> None:
    """Wait until the page says this of the balance."""
    page.wait_for_selector(f"#balance [data-value={name}]:text-is('{text}')")


@browser
def test_a_page_that_is_open_follows_the_balance(
    chromium: Any, server: Server, tokens: str
) -> None:
    page, complaints = signed_in(chromium, server)
    page.goto(f"/console/pools/{tokens}")
    page.wait_for_selector("#balance [data-state]:has-text('live')")
    available = page.locator("#balance [data-value=available]")
    assert "1,000" == available.inner_text()
    width = page.locator("#balance .have").get_attribute("width")
    server.draw(tokens, "250")
    shows(page, "available", "750")
    assert float(width) > float(page.locator("#balance .have").get_attribute("width")) > 0
    hold = server.post("/v1/authorize", {"pool": tokens, "amount": "100", "hold": {}})["hold"]
    shows(page, "held", "100")
    server.post(f"/v1/holds/{hold}/release", {})
    shows(page, "held", "0")
    server.post(f"/v1/pools/{tokens}/grants", {"key": "browser", "amount": "250"})
    shows(page, "available", "1,000")
    assert [] == complaints
    page.context.close()


@browser
def test_units_are_granted_with_the_keyboard_alone(chromium: Any, server: Server) -> None:
    page, complaints = signed_in(chromium, server)
    empty = server.open_pool("0")
    page.goto(f"/console/pools/{empty}")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("g")
    page.keyboard.press("u")
    page.wait_for_selector("h1:has-text('Pools')")
    page.goto(f"/console/pools/{empty}")
    page.focus("input[name=amount]")
    page.keyboard.type("1,234")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The units are granted.")
    assert "1,234" == page.locator("#balance [data-value=available]").inner_text()
    assert [] == complaints
    page.context.close()


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_pages_of_pools_fit(
    chromium: Any, server: Server, tokens: str, scheme: str, width: int
) -> None:
    page, complaints = signed_in(
        chromium, server, color_scheme=scheme, viewport={"width": width, "height": 844}
    )
    server.draw(tokens, "10")
    for path in ("", f"/{tokens}", f"/{tokens}?by=hour&stretch=week", f"/{tokens}/statement"):
        page.goto(f"/console/pools{path}")
        page.wait_for_selector("h1")
        page.wait_for_timeout(300)
        over = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert over <= 0, path
    assert [] == complaints
    page.context.close()


def test_many_listeners_hear_the_same_and_the_server_stops_in_time(
    pool: Pool, runtime_url: str, tmp_path: Path
) -> None:
    with serving(pool, runtime_url, tmp_path / "server.log") as server:
        drawn, quiet = server.open_pool(), server.open_pool()
        listeners = [Listener(server, drawn) for _ in range(60)]
        bystander = Listener(server, quiet)
        for listener in [*listeners, bystander]:
            listener.wait("1000")
        for listener in listeners[:30]:
            listener.close()
        server.draw(drawn, "3")
        for listener in listeners[30:]:
            listener.wait("997")
        assert "0" == bystander.events[-1]["used"]
        assert server.stop() < 8
        assert {"complete"} == {listener.join() for listener in [*listeners[30:], bystander]}
