"""The README's "Your own event" is run as a person would: block by block, against a real server."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTION = README.split("\n## Your own event\n", 1)[1].split("\n## ", 1)[0]
READY_SECONDS = 60
MARK = "-- next block --"
REFUSED = """api $FAREBOX/v1/authorize -d '{"pool": "pixelworks-credits", "amount": "60", \
"subject": "ada", "key": "job-2"}'"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_ready(server: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, output.read_text()
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError(f"not ready within {READY_SECONDS} s")


def blocks() -> list[tuple[str, str]]:
    """Return each block of the section with the heading it stands under, in their order."""
    found = []
    heading = ""
    for match in re.finditer(
        r"^### ([^\n]*)$|^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL
    ):
        if match.group(1):
            heading = match.group(1)
        else:
            found.append((heading, match.group(2)))
    return found


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, list[str]]]:
    """Return what each block printed, by the number of its heading."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-"))
    directory.chmod(0o711)
    port = free_port()
    farebox = Path(sys.executable).with_name("farebox")
    environment = {name: value for name, value in os.environ.items() if "FAREBOX" not in name}
    environment["FAREBOX_DATA"] = str(directory / "data")
    output = directory / "output"
    with output.open("wb") as sink:
        server = subprocess.Popen(
            [farebox, "serve", "--port", str(port)], env=environment, stdout=sink, stderr=sink
        )
    try:
        wait_ready(server, port, output)
        key = re.search(r"fbx_\w{16}_\w{52}", output.read_text())
        assert key, "the first start prints a key"
        yield run(f"http://127.0.0.1:{port}", key.group(), farebox, environment, directory)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def run(
    base: str, key: str, farebox: Path, environment: dict[str, str], directory: Path
) -> dict[str, list[str]]:
    """Run all blocks in one shell; one that fails ends it."""
    script = f"\necho '{MARK}'\n".join(block for _, block in blocks())
    assert script.count("KEY=fbx_...") == 1
    script = script.replace("KEY=fbx_...", f"KEY={key}")
    script = script.replace("FAREBOX=http://127.0.0.1:8377", f"FAREBOX={base}")
    script = script.replace("curl -sS", "curl -sS --fail-with-body")
    # It is asked for twice; the first time it is refused, which is no fault of the page.
    assert script.count(REFUSED) == 2
    script = script.replace(REFUSED, f"{REFUSED} || true", 1)
    # Before the program's own path comes in: the checkout may lie there too.
    script = script.replace("/tmp/", f"{directory}/")
    script = script.replace(".venv/bin/farebox", str(farebox))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=180,
    )
    printed = done.stdout.split(f"{MARK}\n")
    assert 0 == done.returncode, f"{printed[-1]}\n{done.stderr}"
    by_number: dict[str, list[str]] = {}
    for (heading, _), text in zip(blocks(), printed, strict=True):
        by_number.setdefault(heading[:1], []).append(text)
    return by_number


def answers(text: str) -> list[Any]:
    """Return the JSON values in what was printed, one after another."""
    decoder = json.JSONDecoder()
    found, rest = [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def test_the_first_event_is_accepted_and_named_as_unread(told: dict[str, list[str]]) -> None:
    (accepted,), (explained,) = (answers(text) for text in told["1"])
    assert ("accepted", "no_meter") == (accepted["outcome"], explained["fate"])


def test_the_backfill_reads_the_first_event(told: dict[str, list[str]]) -> None:
    preview, counted = told["2"][1].split("A preview: usage is as it was.\n")
    assert preview == counted
    assert "1 events looked at, 1 readings" in counted


def test_of_the_batch_one_event_is_refused(told: dict[str, list[str]]) -> None:
    (answer,) = answers(told["2"][-1])
    assert (3, 1) == (answer["accepted"], answer["rejected"])


def test_the_quote_is_that_of_the_story(told: dict[str, list[str]]) -> None:
    assert {"type": "total", "amount": "8.30", "currency": "USD"} == answers(told["3"][1])[-1]


def test_usage_is_found_by_day_and_style(told: dict[str, list[str]]) -> None:
    *_, usage = answers(told["4"][0])
    rows = [(row["dimensions"]["style"], row["quantity"]) for row in usage["items"]]
    assert [("photo", "90"), ("photo", "80"), ("sketch", "40")] == rows


def test_the_upcoming_invoice_has_this_month(told: dict[str, list[str]]) -> None:
    (upcoming,) = answers(told["5"][0])
    assert "20.63" == upcoming["total"]
    assert ["20.00", "0.63"] == [line["amount"] for line in upcoming["lines"]]


def test_the_check_names_where_the_event_would_go(told: dict[str, list[str]]) -> None:
    (checked,) = answers(told["5"][1])
    (meter,) = checked["meters"]
    (reading,) = meter["readings"]
    (line,) = reading["lines"]
    assert ("megapixels", "pixelworks", "pixelworks-studio", "rendering") == (
        meter["meter"],
        reading["customer"],
        line["subscription"],
        line["charge"],
    )


def test_the_run_bills_what_the_page_says(told: dict[str, list[str]]) -> None:
    run, listed = answers(told["5"][2])
    assert (2, []) == (run["invoices"], run["warnings"])
    totals = {invoice["number"]: invoice["total"] for invoice in listed["items"]}
    assert {"INV-000001": "20.00", "INV-000002": "28.30"} == totals


def test_the_line_opens_to_its_tiers_and_events(told: dict[str, list[str]]) -> None:
    invoice, line, event = answers(told["5"][3])
    assert ["20.00", "8.30"] == [line["amount"] for line in invoice["lines"]]
    assert ["5.00", "3.30"] == [part["amount"] for part in line["usage"]["parts"]]
    assert ["render-1", "render-2", "render-3"] == [one["id"] for one in line["events"]]
    assert "billed" == event["fate"]


def test_a_new_price_is_shown_before_it_is_applied(told: dict[str, list[str]]) -> None:
    (text,) = told["6"]
    assert 2 == text.count("rates[megapixels].price.tiers[1].unit: 0.03 -> 0.02")
    assert 1 == text.count("A dry run: nothing was changed.")


def test_units_are_granted_refused_topped_up_and_burned(told: dict[str, list[str]]) -> None:
    *_, grant = answers(told["7"][0])
    first, refused = answers(told["7"][1])
    _, second = answers(told["7"][2])
    event, pool = answers(told["7"][3])
    assert "100" == grant["available"]
    assert (True, "40") == (first["granted"], first["available"])
    assert ("insufficient_balance", "40") == (refused["code"], refused["left"])
    assert (True, "80") == (second["granted"], second["available"])
    assert ("accepted", "55") == (event["outcome"], pool["available"].removesuffix("." + 18 * "0"))
