"""The benchmark's command line: prepare, measure, print a table, and JSON as the last line."""

import os
import platform
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.catalog import CUSTOMERS
from bench.draws import measure_draws
from bench.ingest import measure_batches, measure_singles
from bench.installation import Installation, Organization, installation, midnight
from bench.invoices import measure_invoices
from bench.memory import measure_memory
from bench.preload import DAYS, History, preload, preload_flat
from bench.report import print_table
from bench.usage import PROBERS, measure_event_to_usage, measure_query

app = App(name="bench", help="Measure Farebox's hot paths, as ratios in one run.")


class Part(StrEnum):
    """What can be measured."""

    BATCH = "batch"
    SINGLE = "single"
    EVENT_TO_USAGE = "event_to_usage"
    INVOICES = "invoices"
    USAGE_QUERY = "usage_query"
    MEMORY = "memory"
    DRAWS = "draws"


class Size(Struct, frozen=True):
    """How much is loaded before, and how much is measured."""

    large: int
    small: int
    batches: int
    singles: int
    seconds: float
    customers_billed: int
    queries: int
    draws: int


FULL = Size(10_000_000, 1_000_000, 200, 20_000, 30, 5_000, 300, 30_000)
QUICK = Size(1_000_000, 100_000, 100, 10_000, 10, 2_000, 100, 15_000)


@app.default
def run(
    *,
    quick: Annotated[bool, Parameter(help="1 million events before, instead of 10.")] = False,
    only: Annotated[list[Part] | None, Parameter(help="Measure this alone; repeatable.")] = None,
    seed: Annotated[int, Parameter(help="Of what is sent and asked.")] = 1,
    data: Annotated[Path, Parameter(help="Made anew and removed after.")] = Path(".farebox/bench"),
) -> None:
    """Run the benchmark."""
    size = QUICK if quick else FULL
    parts = set(only or Part)
    console = Console()
    started = time.perf_counter()
    load_before = os.getloadavg()[0]
    with installation(data.absolute()) as one:
        large = one.make_organization("large", CUSTOMERS + PROBERS)
        small = one.make_organization("small", CUSTOMERS)
        ends = midnight(datetime.now(UTC))
        if parts - {Part.INVOICES, Part.MEMORY, Part.DRAWS}:
            _preload(console, one, size, large, small, ends)
        # Restarted, so that the preload's checkpoint does not fall into the measurements.
        one.close()
        one.open()
        one.start_server()
        found = _measure(console, one, size, parts, seed, (large, small), ends)
    found["run"] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - started,
        "seed": seed,
        "preloaded_events": size.large,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_before": load_before,
    }
    print_table(console, found)
    print(msgspec.json.encode(_rounded(found)).decode())


def _preload(
    console: Console,
    one: Installation,
    size: Size,
    large: Organization,
    small: Organization,
    ends: datetime,
) -> None:
    histories = [
        History(organization.organization_id, -(-events // DAYS), ends)
        for organization, events in ((large, size.large), (small, size.small))
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"Preloading {size.large:,} events", total=2 * DAYS + 1)

        def flat() -> None:
            with one.owner() as owner:
                preload_flat(owner, histories[0])

        beside = threading.Thread(target=flat)
        beside.start()
        with one.owner() as owner:
            preload(owner, histories, lambda: progress.advance(task))
        beside.join()
        progress.advance(task)


def _measure(
    console: Console,
    one: Installation,
    size: Size,
    parts: set[Part],
    seed: int,
    organizations: tuple[Organization, Organization],
    ends: datetime,
) -> dict[str, Any]:
    large, small = organizations
    month = (ends.replace(day=1) - timedelta(days=1)).replace(day=1)
    # Half of what was measured; where it was not, half of what is asked for.
    load = [15_000.0]

    def batches() -> dict[str, Any]:
        measured = measure_batches(one, large, seed, size.batches)
        load[0] = measured["events_per_second"] / 2
        return measured

    steps: dict[Part, Callable[[], dict[str, Any]]] = {
        Part.BATCH: batches,
        Part.SINGLE: lambda: measure_singles(one, large, seed, size.singles),
        Part.EVENT_TO_USAGE: lambda: measure_event_to_usage(
            one, large, seed, load[0], size.seconds
        ),
        Part.DRAWS: lambda: measure_draws(one, large, seed, size.draws),
        Part.INVOICES: lambda: measure_invoices(one, size.customers_billed, month),
        # Before the usage queries, which restart the server.
        Part.MEMORY: lambda: measure_memory(one),
        Part.USAGE_QUERY: lambda: measure_query(one, large, small, ends, seed, size.queries),
    }
    found: dict[str, Any] = {}
    for part, step in steps.items():
        if part in parts:
            with console.status(f"Measuring {part}"):
                found[str(part)] = step()
    return _named(found)


def _named(found: dict[str, Any]) -> dict[str, Any]:
    """Put the headline figures first, then the raw figures each was made of."""
    headlines = {
        "ingest_batch_vs_copy": (Part.BATCH, "ratio"),
        "ingest_single_vs_empty": (Part.SINGLE, "ratio"),
        "event_to_usage_p99_ms": (Part.EVENT_TO_USAGE, "p99_ms"),
        "invoices_per_second": (Part.INVOICES, "invoices_per_second"),
        "usage_query_ms": (Part.USAGE_QUERY, "large_cold_p99_ms"),
        "server_memory_mb": (Part.MEMORY, "server_mb"),
        "draw_hot_vs_pgbench": (Part.DRAWS, "hot_vs_pgbench"),
        "draw_p99_ms": (Part.DRAWS, "p99_ms"),
        "draw_spread_vs_hot": (Part.DRAWS, "spread_vs_hot"),
    }
    named = {
        name: found[part][figure] if part in found else None
        for name, (part, figure) in headlines.items()
    }
    return {**named, "raw": {str(part): figures for part, figures in found.items()}}


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 3 if value < 100 else 1)
        case dict():
            return {name: _rounded(one) for name, one in value.items()}
        case list():
            return [_rounded(one) for one in value]
    return value


if __name__ == "__main__":
    app()
