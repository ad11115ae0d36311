"""The table for people: each headline figure, what it is asked to be, and what it was made of."""

from typing import Any

from rich.console import Console
from rich.table import Table

_ROWS = (
    ("ingest_batch_vs_copy", "ingest, batches of 1,000, against COPY", "{:.2f}", "at least 0.6"),
    ("ingest_single_vs_empty", "ingest, one event, against an empty endpoint", "{:.2f}", "0.4"),
    ("event_to_usage_p99_ms", "from event to usage, p99", "{:.0f} ms", "under 1,000 ms"),
    ("invoices_per_second", "invoices of 3 lines", "{:,.0f} a second", "2,000 a second"),
    ("usage_query_ms", "usage of a customer's month, cold, p99", "{:.1f} ms", "under 50 ms"),
    ("server_memory_mb", "memory of the server (PSS)", "{:.0f} MB", "under 400 MB"),
    ("draw_hot_vs_pgbench", "live draws on one pool, against pgbench", "{:.2f}", "at least 2"),
    ("draw_p99_ms", "a draw at half that load, p99", "{:.1f} ms", "under 20 ms"),
    ("draw_spread_vs_hot", "draws over 10,000 pools, against one", "{:.2f}", "at least 1"),
)
_PARTS = {
    "ingest_batch_vs_copy": "batch",
    "ingest_single_vs_empty": "single",
    "event_to_usage_p99_ms": "event_to_usage",
    "invoices_per_second": "invoices",
    "usage_query_ms": "usage_query",
    "server_memory_mb": "memory",
    "draw_hot_vs_pgbench": "draws",
    "draw_p99_ms": "draws",
    "draw_spread_vs_hot": "draws",
}


def print_table(console: Console, found: dict[str, Any]) -> None:
    """Print what was measured; a figure that was left out has no row."""
    table = Table("what", "measured", "aim", "made of", title="Farebox benchmark")
    for name, what, form, aim in _ROWS:
        if found[name] is not None:
            table.add_row(what, form.format(found[name]), aim, _raw(found["raw"][_PARTS[name]]))
    console.print(table)


def _raw(figures: dict[str, Any]) -> str:
    return "\n".join(
        f"{name} {value:,.1f}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in figures.items()
        if isinstance(value, int | float) and name != "ratio"
    )
