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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
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
        wait_ready(server, port)
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
    script = script.replace(".venv/bin/farebox", str(farebox))
    script = script.replace("examples/", f"{ROOT}/examples/")
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


def test_the_first_event_is_accepted(told: dict[str, list[str]]) -> None:
    (answer,) = answers(told["1"][0])
    assert "accepted" == answer["outcome"]


def test_of_the_batch_one_event_is_refused(told: dict[str, list[str]]) -> None:
    (answer,) = answers(told["2"][-1])
    assert (3, 1) == (answer["accepted"], answer["rejected"])


def test_the_quote_is_that_of_the_story(told: dict[str, list[str]]) -> None:
    assert {"type": "total", "amount": "5.60", "currency": "USD"} == answers(told["3"][1])[-1]
