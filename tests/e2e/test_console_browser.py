"""The console in a real browser, on a running server: charts, live values, keyboard, no script."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from farebox.cli.background import DATABASE_URL
from farebox.flows.create_organization import create_organization
from farebox.http.pages.assets import load_assets
from farebox.postgres.session import Pool

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not load_assets().scripts, reason="the islands are not built: make web"),
]
PATHS = (
    "/console",
    "/console/customers",
    "/console/customers/acme?by=model",
    "/console/invoices",
    "/console/events",
    "/console/meters/tokens",
    "/console/plans/team",
    "/console/calculator?example=matrix",
    "/console/event-tester",
    "/console/pools",
    "/console/pools/acme-tokens",
)


def new_id() -> Any:
    from farebox.access.id import uuidv7

    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


class Site:
    """A running server with one organization and its owner key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"})

    def put(self, path: str, body: dict[str, Any]) -> None:
        answer = self.api.put(path, json=body)
        assert answer.status_code < 300, answer.text

    def send(self, identifier: str, tokens: int, model: str = "large") -> None:
        event = {
            "specversion": "1.0",
            "id": identifier,
            "source": "e2e",
            "type": "llm.request",
            "subject": "acme",
            "data": {"tokens": tokens, "model": model},
        }
        media_type = {"Content-Type": "application/cloudevents+json"}
        answer = self.api.post("/v1/events", json=event, headers=media_type)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def site(pool: Pool, runtime_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = Path(tmp_path_factory.mktemp("console")) / "server.log"
    arguments = ["--interface", "asgi", "--factory", "--port", str(port), "--no-access-log"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "granian", *arguments, "farebox.cli.asgi:create"],
            env={**os.environ, DATABASE_URL: runtime_url},
            stdout=output,
            stderr=output,
        )
    try:
        _wait(f"http://127.0.0.1:{port}", server, log)
        _, key = create_organization(
            pool, str(new_id()), "Browser", datetime.now(UTC), new_id, os.urandom
        )
        made = Site(f"http://127.0.0.1:{port}", key)
        _fill(made)
        yield made
        made.api.close()
    finally:
        server.terminate()
        server.wait(20)


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(150):
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def _fill(site: Site) -> None:
    meter = {
        "event_type": "llm.request",
        "aggregation": "sum",
        "value": "$.tokens",
        "dimensions": {"model": "$.model"},
    }
    price = {"model": "per_unit", "unit": "2.50", "per": "1000"}
    plan = {"currency": "USD", "charges": [{"key": "tokens", "meter": "tokens", "price": price}]}
    site.put("/v1/meters/tokens?publish=true", meter)
    site.put("/v1/plans/team?publish=true", plan)
    site.put("/v1/customers/acme", {"name": "Acme"})
    start = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    site.put("/v1/subscriptions/main", {"customer": "acme", "plan": "team", "start": start})
    for number, model in enumerate(("large", "small", "large")):
        site.send(f"e{number}", 1000, model)
    site.put("/v1/pools/acme-tokens", {"unit": "token", "customer": "acme"})
    grant = {"key": "order-1", "amount": "100000"}
    assert 201 == site.api.post("/v1/pools/acme-tokens/grants", json=grant).status_code


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def _sign_in(chromium: Any, site: Site, **options: Any) -> tuple[Any, list[str]]:
    """Return a page that has signed in, and what its browser complains about from then on."""
    context = chromium.new_context(base_url=site.url, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.goto("/console")
    page.fill("input[name=key]", site.key)
    page.press("input[name=key]", "Enter")
    page.wait_for_selector("text=Events in all")
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    return page, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_nothing_complains(
    chromium: Any, site: Site, scheme: str, width: int
) -> None:
    page, complaints = _sign_in(
        chromium, site, color_scheme=scheme, viewport={"width": width, "height": 844}
    )
    for path in PATHS:
        page.goto(path)
        page.wait_for_load_state("networkidle")
        over = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert over <= 0, path
    assert [] == complaints
    page.context.close()


def test_a_chart_is_drawn_in_the_colours_of_the_page(chromium: Any, site: Site) -> None:
    page, complaints = _sign_in(chromium, site)
    page.goto("/console/customers/acme?by=model")
    page.wait_for_selector(".chart canvas")
    painted = page.evaluate(
        """() => {
          const canvas = document.querySelector(".chart canvas");
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const want = [];
          for (const name of ["s1", "s2"]) {
            const probe = document.querySelector("." + name);
            want.push(getComputedStyle(probe).backgroundColor.match(/\\d+/g).map(Number));
          }
          return want.map(([r, g, b]) => {
            for (let at = 0; at < data.length; at += 4)
              if (data[at] === r && data[at + 1] === g && data[at + 2] === b) return true;
            return false;
          });
        }"""
    )
    assert [True, True] == painted
    assert [] == complaints
    page.context.close()


def test_a_new_pools_chart_is_drawn_over_its_whole_period(chromium: Any, site: Site) -> None:
    page, complaints = _sign_in(chromium, site)
    page.goto("/console/pools/acme-tokens")
    page.wait_for_selector(".chart canvas")
    # What happened so far is at the left edge of a month: its dot, and nothing to the right of it.
    left, right = page.evaluate(
        """() => {
          const canvas = document.querySelector(".chart canvas");
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const have = getComputedStyle(document.querySelector(".gauge .have"));
          const [r, g, b] = have.fill.match(/\\d+/g).map(Number);
          const found = [];
          for (let at = 0; at < data.length; at += 4)
            if (data[at] === r && data[at + 1] === g && data[at + 2] === b)
              found.push(((at / 4) % canvas.width) / canvas.width);
          return [Math.min(...found), Math.max(...found)];
        }"""
    )
    assert 0 < left <= right < 0.15
    assert [] == complaints
    page.context.close()


def test_a_table_that_is_cut_off_has_a_shadow_at_its_edge(chromium: Any, site: Site) -> None:
    page, _ = _sign_in(chromium, site, viewport={"width": 390, "height": 844})
    page.goto("/console/pools/acme-tokens")
    table = page.locator(".scroll[aria-label='Latest entries']")
    hidden = table.evaluate("one => one.scrollWidth - one.clientWidth")
    assert hidden > 40
    # The ground that covers the shadow moves with the table, the shadow stays at the edge.
    attached = table.evaluate("one => getComputedStyle(one).backgroundAttachment")
    assert "local, local, scroll, scroll" == attached
    page.context.close()


def test_the_calculator_answers_as_one_types(chromium: Any, site: Site) -> None:
    page, complaints = _sign_in(chromium, site)
    page.goto("/console/calculator?example=per_unit")
    page.wait_for_load_state("networkidle")  # who types before the script is there is not heard
    page.fill("textarea[name=usage]", "4000000")
    page.wait_for_selector("#result >> text=$10.00")
    page.fill("textarea[name=price]", "{model: flat")
    page.wait_for_selector("#result >> text=This cannot be rated")
    assert "/console/calculator?example=per_unit" in page.url
    # The browser itself reports the refused request; nothing else may complain.
    assert all("422" in text for text in complaints)
    page.context.close()


def test_the_upcoming_invoice_follows_new_events(chromium: Any, site: Site) -> None:
    page, _ = _sign_in(chromium, site)
    page.goto("/console/customers/acme")
    page.wait_for_selector("#upcoming-1 >> text=$7.50")
    site.send("live", 2000)
    page.wait_for_selector("#upcoming-1 >> text=$12.50", timeout=15_000)
    page.context.close()


def test_the_keyboard_is_enough(chromium: Any, site: Site) -> None:
    page, _ = _sign_in(chromium, site)
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Tab")
    assert "Skip to content" == page.evaluate("document.activeElement.textContent")
    for letter, heading in (("c", "Customers"), ("i", "Invoices"), ("l", "Price calculator")):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_selector(f"h1:has-text('{heading}')")
        page.wait_for_load_state("networkidle")
    page.goto("/console/customers")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("/")
    page.keyboard.type("nobody")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=No customer matches")
    page.context.close()


def test_all_but_charts_works_without_scripts(chromium: Any, site: Site) -> None:
    page, _ = _sign_in(chromium, site, java_script_enabled=False)
    for path in PATHS:
        assert 200 == page.goto(path).status
    page.goto("/console/customers/acme")
    page.select_option("select[name=by]", "model")
    page.click("text=Show")
    assert page.is_visible("td:has-text('small')")
    page.goto("/console/calculator?example=per_unit")
    page.fill("textarea[name=usage]", "4000000")
    page.click("text=Calculate")
    assert page.is_visible("#result >> text=$10.00")
    page.click("text=Sign out")
    assert page.is_visible("h1:has-text('Sign in')")
    page.context.close()
