"""Invoices and their lines: written once, numbered without a gap, never changed."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class InvoiceRow(Struct, frozen=True, kw_only=True):
    """One invoice; `unpriced` is JSON text, `number` is None while it is a draft."""

    invoice_id: UUID
    number: str | None
    kind: str
    status: str
    customer_key: str
    subscription_key: str
    plan_key: str
    plan_version: int
    period_start: datetime
    period_end: datetime
    currency: str
    total: Decimal
    cutoff_sequence: int
    billing_run_id: UUID | None
    created_at: datetime
    finalized_at: datetime | None
    unpriced: str


class LineRow(Struct, frozen=True, kw_only=True):
    """One line of an invoice; `detail` is JSON text."""

    invoice_id: UUID
    position: int
    charge_key: str
    kind: str
    description: str
    quantity: Decimal | None
    amount: Decimal
    segment_start: datetime
    segment_end: datetime
    meter_key: str | None
    detail: str


_INVOICE = (
    "invoice_id, number, kind, status, customer_key, subscription_key, plan_key, plan_version,"
    " period_start, period_end, currency, total, cutoff_sequence, billing_run_id, created_at,"
    " finalized_at, unpriced::text"
)
_LINE = (
    "invoice_id, position, charge_key, kind, description, quantity, amount, segment_start,"
    " segment_end, meter_key, detail::text"
)


def lock_numbers(connection: Connection, organization_id: UUID, legal_entity: str) -> int:
    """Return the last invoice number given, and keep others from giving the next."""
    connection.execute(
        "insert into number_sequence values (%s, %s, 0) on conflict do nothing",
        (organization_id, legal_entity),
    )
    row = connection.execute(
        "select last_number from number_sequence where organization_id = %s and legal_entity = %s"
        " for update",
        (organization_id, legal_entity),
    ).fetchone()
    assert row is not None
    return int(row[0])


def set_last_number(
    connection: Connection, organization_id: UUID, legal_entity: str, number: int
) -> None:
    connection.execute(
        "update number_sequence set last_number = %s"
        " where organization_id = %s and legal_entity = %s",
        (number, organization_id, legal_entity),
    )


def final_among(
    connection: Connection,
    organization_id: UUID,
    wanted: Sequence[tuple[str, datetime, str]],
) -> set[tuple[str, datetime, str]]:
    """Return which of (subscription, period start, kind) have a final invoice."""
    rows = connection.execute(
        "select i.subscription_key, i.period_start, i.kind from invoice i"
        " join unnest(%s::text[], %s::timestamptz[], %s::text[]) as w(subscription, start, kind)"
        "  on i.subscription_key = w.subscription and i.period_start = w.start and i.kind = w.kind"
        " where i.organization_id = %s and i.status = 'final'",
        (
            [subscription for subscription, _, _ in wanted],
            [start for _, start, _ in wanted],
            [kind for _, _, kind in wanted],
            organization_id,
        ),
    ).fetchall()
    return {(row[0], row[1], row[2]) for row in rows}


def drop_drafts(
    connection: Connection, organization_id: UUID, wanted: Sequence[tuple[str, datetime, str]]
) -> None:
    """Remove drafts that are about to be written anew."""
    found = connection.execute(
        "select i.invoice_id from invoice i"
        " join unnest(%s::text[], %s::timestamptz[], %s::text[]) as w(subscription, start, kind)"
        "  on i.subscription_key = w.subscription and i.period_start = w.start and i.kind = w.kind"
        " where i.organization_id = %s and i.status = 'draft'",
        (
            [subscription for subscription, _, _ in wanted],
            [start for _, start, _ in wanted],
            [kind for _, _, kind in wanted],
            organization_id,
        ),
    ).fetchall()
    if found:
        ids = [row[0] for row in found]
        for table in ("invoice_line", "invoice"):
            connection.execute(
                f"delete from {table} where organization_id = %s and invoice_id = any(%s)",
                (organization_id, ids),
            )


def add_invoices(
    connection: Connection,
    organization_id: UUID,
    invoices: Sequence[InvoiceRow],
    lines: Sequence[LineRow],
) -> None:
    """Write whole invoices; the caller holds the numbers and has dropped their drafts."""
    _add(connection, organization_id, "invoice", InvoiceRow, invoices)
    _add(connection, organization_id, "invoice_line", LineRow, lines)


def _add(
    connection: Connection,
    organization_id: UUID,
    table: str,
    kind: type[Struct],
    rows: Sequence[Struct],
) -> None:
    # COPY is refused under row-level security, so rows pass through a temporary table; as array
    # parameters the same rows take five times as long.
    fields = kind.__struct_fields__
    columns = ", ".join(("organization_id", *fields))
    connection.execute(
        f"create temporary table if not exists incoming_{table} (like {table})"
        " on commit delete rows"
    )
    with connection.cursor().copy(f"copy incoming_{table} ({columns}) from stdin") as copy:
        for row in rows:
            copy.write_row((organization_id, *(getattr(row, field) for field in fields)))
    connection.execute(f"insert into {table} ({columns}) select {columns} from incoming_{table}")


def find_invoice(
    connection: Connection, organization_id: UUID, invoice_id: UUID
) -> InvoiceRow | None:
    cursor = connection.cursor(row_factory=class_row(InvoiceRow))
    return cursor.execute(
        f"select {_INVOICE} from invoice where organization_id = %s and invoice_id = %s",
        (organization_id, invoice_id),
    ).fetchone()


def find_number(connection: Connection, organization_id: UUID, number: str) -> InvoiceRow | None:
    cursor = connection.cursor(row_factory=class_row(InvoiceRow))
    return cursor.execute(
        f"select {_INVOICE} from invoice where organization_id = %s and number = %s",
        (organization_id, number),
    ).fetchone()


def find_by_period(
    connection: Connection,
    organization_id: UUID,
    subscription_key: str,
    period_start: datetime,
    kind: str,
) -> InvoiceRow | None:
    cursor = connection.cursor(row_factory=class_row(InvoiceRow))
    return cursor.execute(
        f"select {_INVOICE} from invoice where organization_id = %s and subscription_key = %s"
        " and period_start = %s and kind = %s",
        (organization_id, subscription_key, period_start, kind),
    ).fetchone()


def invoices(
    connection: Connection,
    organization_id: UUID,
    *,
    customer_key: str | None = None,
    status: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 100,
) -> list[InvoiceRow]:
    """Return invoices, the latest period first, a page at a time."""
    start, identifier = after or (None, None)
    cursor = connection.cursor(row_factory=class_row(InvoiceRow))
    return cursor.execute(
        f"select {_INVOICE} from invoice where organization_id = %(org)s"
        " and (%(customer)s::text is null or customer_key = %(customer)s)"
        " and (%(status)s::text is null or status = %(status)s)"
        " and (%(start)s::timestamptz is null"
        "      or (period_end, invoice_id) < (%(start)s, %(id)s::uuid))"
        " order by period_end desc, invoice_id desc limit %(limit)s",
        {
            "org": organization_id,
            "customer": customer_key,
            "status": status,
            "start": start,
            "id": identifier,
            "limit": limit,
        },
    ).fetchall()


def lines_of(connection: Connection, organization_id: UUID, invoice_id: UUID) -> list[LineRow]:
    cursor = connection.cursor(row_factory=class_row(LineRow))
    return cursor.execute(
        f"select {_LINE} from invoice_line where organization_id = %s and invoice_id = %s"
        " order by position",
        (organization_id, invoice_id),
    ).fetchall()


def last_final_periods(
    connection: Connection, organization_id: UUID, subscription_keys: Sequence[str]
) -> dict[tuple[str, str], datetime]:
    """Return the start of the last finally invoiced period, by subscription and kind."""
    rows = connection.execute(
        "select subscription_key, kind, max(period_start) from invoice"
        " where organization_id = %s and subscription_key = any(%s) and status = 'final'"
        " group by 1, 2",
        (organization_id, list(subscription_keys)),
    ).fetchall()
    return {(subscription, kind): start for subscription, kind, start in rows}
