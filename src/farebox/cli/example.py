"""The example that ships with Farebox: two real hours of language-model traffic, as events."""

import csv
import gzip
import heapq
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from msgspec import Struct

from farebox.catalog.document import Document, read_document

AZURE_SOURCE = "example/azure-2023-conv"
MOONCAKE_SOURCE = "example/mooncake"
EVENT_TYPE = "llm.request"

_AZURE_FILE = "AzureLLMInferenceTrace_conv_2023.csv.gz"
_MOONCAKE_FILE = "mooncake_conversation.csv.gz"
_MARGIN = timedelta(hours=15)
"""Kept free at both ends of the month: it is the same month in every time zone in between."""

_CUSTOMER_SHARES = {
    "northwind": 31,
    "lumen-health": 24,
    "kestrel-games": 17,
    "meridian-law": 13,
    "papaya-travel": 9,
    "tamarind-labs": 6,
}
_MODEL_SHARES = {
    "gpt-4o-mini": 26,
    "gpt-4o-mini-2024-07-18": 12,
    "gpt-4o": 20,
    "gpt-4o-2024-08-06": 10,
    "claude-sonnet-4-5": 18,
    "gemini-2.5-flash": 13,
    "orchid-preview": 1,  # on no rate card, so that there is something unpriced to look at
}
_OPERATION_SHARES = {"chat": 85, "summarize": 15}


class _Request(Struct, frozen=True):
    """A row of a trace; `offset` is its time since the first row in units of 100 ns."""

    row: int
    offset: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


def examples_directory() -> Path:
    """Return the directory of the examples: in the installed package, or in the repository."""
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "examples", package.parents[1] / "examples"):
        if directory.is_dir():
            return directory
    raise FileNotFoundError(f"no examples beside {package}; the installation is incomplete")


def example_catalog(directory: Path) -> Document:
    """Return the catalog of the example in `directory` (`examples/llm`)."""
    document = read_document((directory / "catalog.yaml").read_bytes())
    assert isinstance(document, Document), document
    return document


def example_events(trace_directory: Path, month_start: datetime) -> Iterator[dict[str, Any]]:
    """Yield both traces as CloudEvents in the order of their time, the same ones every time.

    month_start: midnight UTC on the first of the month over which each trace's hour is stretched.
    Token counts are the trace's own: `input_tokens` and `cached_input_tokens` add up to the
    prompt. The rest is dealt out by a hash of source and row, see NOTICE.md.
    """
    assert month_start == month_start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    subjects = {
        customer.key: dict.fromkeys(customer.subjects, 1)
        for customer in example_catalog(trace_directory).customers
    }
    traces = (
        (AZURE_SOURCE, list(_azure(trace_directory / _AZURE_FILE))),
        (MOONCAKE_SOURCE, list(_mooncake(trace_directory / _MOONCAKE_FILE))),
    )
    streams = [_stretched(source, requests, month_start) for source, requests in traces]
    for time, source, request in heapq.merge(*streams, key=lambda item: item[0]):
        yield _event(source, request, time, subjects)


def _event(
    source: str, request: _Request, time: datetime, subjects: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    digest = blake2b(f"{source}/{request.row}".encode(), digest_size=20).digest()
    lots = [int.from_bytes(digest[start : start + 4]) for start in range(0, 20, 4)]
    customer = _dealt(_CUSTOMER_SHARES, lots[0])
    prompt = request.input_tokens + request.cached_input_tokens
    return {
        "specversion": "1.0",
        "id": f"request-{request.row:05d}",
        "source": source,
        "type": EVENT_TYPE,
        "subject": _dealt(subjects[customer], lots[1]),
        "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "model": _dealt(_MODEL_SHARES, lots[2]),
            "operation": _dealt(_OPERATION_SHARES, lots[3]),
            "input_tokens": request.input_tokens,
            "cached_input_tokens": request.cached_input_tokens,
            "output_tokens": request.output_tokens,
            "latency_ms": 180 + 18 * request.output_tokens + prompt // 40 + lots[4] % 150,
        },
    }


def _dealt(shares: Mapping[str, int], lot: int) -> str:
    """Return the name whose share `lot` falls into."""
    left = lot % sum(shares.values())
    for name, share in shares.items():
        if left < share:
            return name
        left -= share
    raise AssertionError("a remainder is less than the sum of the shares")


def _stretched(
    source: str, requests: Sequence[_Request], month_start: datetime
) -> Iterator[tuple[datetime, str, _Request]]:
    """Yield the requests with their times in the month; what came first stays first."""
    days = monthrange(month_start.year, month_start.month)[1]
    length = (timedelta(days=days) - 2 * _MARGIN) // timedelta(microseconds=1)
    last = requests[-1].offset
    for request in requests:
        moved = timedelta(microseconds=request.offset * length // last)
        yield month_start + _MARGIN + moved, source, request


def _azure(path: Path) -> Iterator[_Request]:
    first: int | None = None
    for number, row in enumerate(_rows(path)):
        time = _ticks(row["TIMESTAMP"])
        first = time if first is None else first
        yield _Request(
            number, time - first, int(row["ContextTokens"]), 0, int(row["GeneratedTokens"])
        )


def _mooncake(path: Path) -> Iterator[_Request]:
    for number, row in enumerate(_rows(path)):
        cached = int(row["cached_tokens"])
        yield _Request(
            number,
            int(row["timestamp_ms"]) * 10_000,
            int(row["input_length"]) - cached,
            cached,
            int(row["output_length"]),
        )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path) as packed, TextIOWrapper(packed, "utf-8", newline="") as text:
        yield from csv.DictReader(text)


def _ticks(text: str) -> int:
    """Return a time of seven decimals in units of 100 ns; a datetime would cut the last one."""
    whole, _, decimals = text.partition(".")
    time = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    seconds = (time - datetime(2023, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 10_000_000 + int(decimals.ljust(7, "0"))
