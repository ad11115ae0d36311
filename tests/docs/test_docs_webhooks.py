"""The page on webhooks: a heading a type, Python that verifies, the schedule that is kept."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from farebox.notices.delivery import SCHEDULE, SendFailure
from farebox.notices.message import make_secret, message_body, message_headers
from farebox.notices.type import SAYS

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
SECRET = make_secret(bytes(range(32)))


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_every_type_has_its_heading_and_sentence() -> None:
    told = re.findall(r"^### `([\w.]+)`\n\n(.*?)(?=\n\n|\Z)", section("Types"), re.M | re.S)
    said = [(kind, " ".join(text.split())) for kind, text in told]
    assert [(kind.value, says) for kind, says in SAYS.items()] == said


def test_every_failure_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("When it does not arrive"), re.M)
    assert [failure.value for failure in SendFailure] == [
        one for one in rows if one in set(SendFailure)
    ]


def test_the_schedule_is_the_one_that_is_kept() -> None:
    (row,) = re.findall(r"^\| the next one in about \| (.*) \|$", PAGE, re.M)
    units = {"s": 1, "min": 60, "h": 3600}
    *waits, last = row.split(" | ")
    assert "given up" == last
    seconds = [int(number) * units[unit] for number, unit in (wait.split() for wait in waits)]
    assert [wait.total_seconds() for wait in SCHEDULE] == seconds


@pytest.fixture
def receive() -> Any:
    """Return the page's own function, with a secret in the place of its dots."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    remembered: list[tuple[str, str, Any]] = []
    names: dict[str, Any] = {"remember": lambda *what: remembered.append(what)}
    exec(block.replace("whsec_...", SECRET), names)
    names["receive"].remembered = remembered
    return names["receive"]


def test_the_receiver_of_the_page_takes_what_is_sent_and_nothing_else(receive: Any) -> None:
    body = message_body("pool.exhausted", datetime.now(UTC), '{"pool":"gpu"}')
    headers = dict(message_headers("ntc_1", body, [SECRET], datetime.now(UTC)))
    assert 204 == receive(body, headers)
    assert 400 == receive(body.replace(b"gpu", b"cpu"), headers)
    assert 400 == receive(body, {**headers, "webhook-signature": "v1,AAAA"})
    assert [("ntc_1", "pool.exhausted", {"pool": "gpu"})] == receive.remembered
