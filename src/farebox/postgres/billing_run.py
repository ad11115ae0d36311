"""Billing runs: when invoices were made, up to when, and what was found on the way."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class BillingRunRow(Struct, frozen=True, kw_only=True):
    """One run; `warnings` is JSON text. A run that does not finalize writes drafts."""

    billing_run_id: UUID
    as_of: datetime
    finalize: bool
    status: str
    invoices: int
    warnings: str
    started_at: datetime
    finished_at: datetime | None


_COLUMNS = (
    "billing_run_id, as_of, finalize, status, invoices, warnings::text, started_at, finished_at"
)


class InterruptedRun(Struct, frozen=True, kw_only=True):
    """A run whose process ended before it did, with what it takes to go on."""

    organization_id: UUID
    billing_run_id: UUID
    as_of: datetime
    finalize: bool


def interrupted_runs(connection: Connection, before: datetime) -> Sequence[InterruptedRun]:
    """Return runs that began before an instant and did not end; needs no organization."""
    cursor = connection.cursor(row_factory=class_row(InterruptedRun))
    return cursor.execute("select * from interrupted_billing_runs(%s)", (before,)).fetchall()


def add_run(
    connection: Connection,
    organization_id: UUID,
    run_id: UUID,
    as_of: datetime,
    now: datetime,
    *,
    finalize: bool = True,
) -> None:
    connection.execute(
        "insert into billing_run (organization_id, billing_run_id, as_of, finalize, status,"
        "  started_at) values (%s, %s, %s, %s, 'running', %s) on conflict do nothing",
        (organization_id, run_id, as_of, finalize, now),
    )


def last_final_as_of(
    connection: Connection, organization_id: UUID, before: datetime
) -> datetime | None:
    """Return up to when the last run before this instant finalized what was due."""
    row = connection.execute(
        "select max(as_of) from billing_run where organization_id = %s and finalize"
        " and status = 'finished' and as_of < %s",
        (organization_id, before),
    ).fetchone()
    return None if row is None else row[0]


def set_warnings(
    connection: Connection, organization_id: UUID, run_id: UUID, warnings: str
) -> None:
    connection.execute(
        "update billing_run set warnings = %s where organization_id = %s and billing_run_id = %s",
        (warnings, organization_id, run_id),
    )


def count_invoices(
    connection: Connection, organization_id: UUID, run_id: UUID, invoices: int
) -> None:
    connection.execute(
        "update billing_run set invoices = invoices + %s"
        " where organization_id = %s and billing_run_id = %s",
        (invoices, organization_id, run_id),
    )


def finish_run(
    connection: Connection, organization_id: UUID, run_id: UUID, warnings: str, now: datetime
) -> None:
    connection.execute(
        "update billing_run set status = 'finished', warnings = %s, finished_at = %s"
        " where organization_id = %s and billing_run_id = %s",
        (warnings, now, organization_id, run_id),
    )


def find_run(connection: Connection, organization_id: UUID, run_id: UUID) -> BillingRunRow | None:
    cursor = connection.cursor(row_factory=class_row(BillingRunRow))
    return cursor.execute(
        f"select {_COLUMNS} from billing_run where organization_id = %s and billing_run_id = %s",
        (organization_id, run_id),
    ).fetchone()


def runs(
    connection: Connection, organization_id: UUID, limit: int = 100
) -> Sequence[BillingRunRow]:
    """Return the latest runs, newest first."""
    cursor = connection.cursor(row_factory=class_row(BillingRunRow))
    return cursor.execute(
        f"select {_COLUMNS} from billing_run where organization_id = %s"
        " order by started_at desc, billing_run_id limit %s",
        (organization_id, limit),
    ).fetchall()
