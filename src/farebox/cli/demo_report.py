"""What the demo found: a table a person reads, and whether every total is the trace's."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from farebox.cli.demo_pools import PoolFindings
from farebox.flows.read_usage import read_meters, read_quantities
from farebox.metering.quantity import Target
from farebox.postgres import customer, invoice
from farebox.postgres.session import Pool, transaction

TOKENS = "llm_tokens"
_FIELDS = {
    "input": "input_tokens",
    "cache_read": "cached_input_tokens",
    "output": "output_tokens",
}


class Findings(Struct, frozen=True, kw_only=True):
    """What was sent, what was answered, and how long it took."""

    events: Sequence[dict[str, Any]]
    month: datetime
    outcomes: Counter[str]
    send_seconds: float
    invoices_made: int
    bill_seconds: float
    pools: Sequence[PoolFindings] = ()


def report(console: Console, pool: Pool, organization_id: UUID, findings: Findings) -> bool:
    """Print the findings and return whether metered tokens equal the trace's, to the unit."""
    usage, names = _usage(pool, organization_id, findings.month)
    _print_sending(console, findings)
    _print_usage(console, usage, names)
    exact = _print_totals(console, usage, findings.events)
    _print_invoices(console, pool, organization_id, findings, names)
    _print_pools(console, findings, names)
    return exact


Usage = dict[tuple[str, str, str], Decimal]  # customer, model, token kind


def _usage(pool: Pool, organization_id: UUID, month: datetime) -> tuple[Usage, dict[str, str]]:
    # A day more on both sides: customers' months begin and end in their own time zones.
    start, end = month - timedelta(days=1), month + timedelta(days=33)
    with transaction(pool, organization_id, snapshot=True) as connection:
        customers = customer.customers(connection, organization_id)
        meter = read_meters(connection, organization_id)[TOKENS]
        targets = [Target(one.key, TOKENS, start, end) for one in customers]
        quantities = read_quantities(
            connection, organization_id, meter, targets, dimensions=("model", "token_kind")
        )
    usage: Usage = defaultdict(Decimal)
    for one in quantities:
        model, kind = one.group.dimensions
        usage[customers[one.group.target].key, model, kind] += one.quantity or 0
    return usage, {one.key: one.name for one in customers}


def _print_sending(console: Console, findings: Findings) -> None:
    sent = 2 * len(findings.events)
    rate = sent / findings.send_seconds
    console.print(
        f"\n[bold]{sent:,}[/] events sent in {findings.send_seconds:.1f} s ({rate:,.0f}/s), each"
        f" request answered after its commit:"
        f" [bold]{findings.outcomes['accepted']:,}[/] accepted,"
        f" [bold]{findings.outcomes['duplicates']:,}[/] duplicates,"
        f" {findings.outcomes['conflicts']:,} conflicts,"
        f" {findings.outcomes['rejected']:,} rejected"
    )


def _print_usage(console: Console, usage: Usage, names: dict[str, str]) -> None:
    table = Table("customer", "model", title="Tokens by customer and model, last month")
    for kind in _FIELDS:
        table.add_column(kind.replace("_", " "), justify="right")
    pairs = sorted({(key, model) for key, model, _ in usage})
    for place, (key, model) in enumerate(pairs):
        first = place == 0 or pairs[place - 1][0] != key
        table.add_row(
            names[key] if first else "",
            model,
            *(f"{usage.get((key, model, kind), Decimal(0)):,}" for kind in _FIELDS),
            end_section=place + 1 < len(pairs) and pairs[place + 1][0] != key,
        )
    console.print(table)


def _print_totals(console: Console, usage: Usage, events: Sequence[dict[str, Any]]) -> bool:
    exact = True
    table = Table("tokens", title="Metered against the trace")
    for title in ("in the trace", "metered", "difference"):
        table.add_column(title, justify="right")
    for kind, field in _FIELDS.items():
        expected = sum(event["data"].get(field, 0) for event in events)
        actual = sum((used for (_, _, one), used in usage.items() if one == kind), Decimal(0))
        exact = exact and expected == actual
        table.add_row(
            kind.replace("_", " "), f"{expected:,}", f"{actual:,}", f"{actual - expected:,}"
        )
    console.print(table)
    return exact


def _print_invoices(
    console: Console,
    pool: Pool,
    organization_id: UUID,
    findings: Findings,
    names: dict[str, str],
) -> None:
    with transaction(pool, organization_id, snapshot=True) as connection:
        found = invoice.invoices(connection, organization_id, limit=1000)
    # A month in the customer's time zone begins up to a day beside the one in UTC.
    begins = findings.month - timedelta(days=2), findings.month + timedelta(days=2)
    latest = [
        one for one in found if begins[0] < one.period_start < begins[1] and one.kind == "period"
    ]
    table = Table("number", "customer", "plan", title="Invoices for last month")
    table.add_column("total", justify="right")
    for one in sorted(latest, key=lambda one: one.number or ""):
        table.add_row(
            one.number, names[one.customer_key], one.plan_key, f"{one.total:,} {one.currency}"
        )
    console.print(table)
    console.print(
        f"{findings.invoices_made} invoices made by this run in {findings.bill_seconds:.2f} s;"
        f" {len(found)} in all"
    )


def _print_pools(console: Console, findings: Findings, names: dict[str, str]) -> None:
    table = Table("customer", title="Prepaid tokens, last month")
    for title in ("granted", "used", "beyond the grants"):
        table.add_column(title, justify="right")
    for one in findings.pools:
        total = one.use.total
        table.add_row(
            names[one.customer],
            f"{one.granted:,.0f}",
            f"{total.used:,.0f}",
            f"{total.beyond:,.0f}",
        )
    console.print(table)
