"""Invoices as rows: any text survives, drafts may go, what is final never changes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec.structs import replace

from farebox.postgres import invoice
from farebox.postgres.invoice import InvoiceRow, LineRow
from farebox.postgres.session import Pool, transaction

SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
TEXTS = ["\\N", "a\tb\nc\r\\", "{}", '"quoted", {braces}', "NULL", "", "ü 😀 \u2028", "%s $1"]


@dataclass
class Books:
    pool: Pool
    organization_id: UUID

    def add(self, *rows: InvoiceRow, lines: tuple[LineRow, ...] = ()) -> None:
        with transaction(self.pool, self.organization_id) as connection:
            invoice.add_invoices(connection, self.organization_id, rows, lines)

    def call(self, read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with transaction(self.pool, self.organization_id) as connection:
            return read(connection, self.organization_id, *arguments, **options)

    def execute(self, statement: str) -> None:
        with transaction(self.pool, self.organization_id) as connection:
            connection.execute(statement.encode())


@pytest.fixture
def books(pool: Pool, organization_id: UUID) -> Books:
    return Books(pool, organization_id)


def row(number: int | None = None, **changes: Any) -> InvoiceRow:
    return replace(
        InvoiceRow(
            invoice_id=uuid4(),
            number=None if number is None else f"INV-{number:06d}",
            kind="period",
            status="draft" if number is None else "final",
            customer_key="acme",
            subscription_key="acme-basic",
            plan_key="basic",
            plan_version=1,
            period_start=SEPTEMBER,
            period_end=OCTOBER,
            currency="EUR",
            total=Decimal("12.30"),
            cutoff_sequence=2**40,
            billing_run_id=None,
            created_at=OCTOBER,
            finalized_at=None if number is None else OCTOBER,
            unpriced="[]",
        ),
        **changes,
    )


def line(of: InvoiceRow, position: int = 1, **changes: Any) -> LineRow:
    return replace(
        LineRow(
            invoice_id=of.invoice_id,
            position=position,
            charge_key="calls",
            kind="usage",
            description="Calls",
            quantity=Decimal("0.000000000000000001"),
            amount=Decimal("12.30"),
            segment_start=SEPTEMBER,
            segment_end=OCTOBER,
            meter_key=None,
            detail="{}",
        ),
        **changes,
    )


def test_what_is_written_is_what_is_read(books: Books) -> None:
    one = row(1, billing_run_id=uuid4(), total=Decimal("-0.000"), unpriced='[{"a": "\\\\N\\t"}]')
    lines = tuple(
        line(
            one,
            position,
            description=text,
            charge_key=text or "x",
            quantity=None if position % 2 else Decimal("1E+19"),
            meter_key=text or None,
            detail='{"text": "\\u0022\\\\\\n"}',
        )
        for position, text in enumerate(TEXTS, 1)
    )
    books.add(one, lines=lines)
    assert one == books.call(invoice.find_invoice, one.invoice_id)
    assert one == books.call(invoice.find_number, "INV-000001")
    assert "-0.000".strip("-") == str(books.call(invoice.find_invoice, one.invoice_id).total)
    assert list(lines) == books.call(invoice.lines_of, one.invoice_id)


def test_invoices_without_lines_are_written(books: Books) -> None:
    books.add(row(1), row(2, subscription_key="other"))
    assert 2 == len(books.call(invoice.invoices))


@pytest.mark.parametrize(
    "statement",
    [
        "delete from invoice",
        "delete from invoice_line",
        "update invoice set total = 0",
        "update invoice_line set amount = 0",
        "update invoice set status = 'draft', number = null",
    ],
)
def test_a_final_invoice_never_changes(
    pool: Pool, owner_url: str, books: Books, statement: str
) -> None:
    """Nor for the owner of the tables, whom no policy and no missing privilege stops."""
    final = row(1)
    books.add(final, lines=(line(final),))
    with pytest.raises(psycopg.Error):
        books.execute(statement)
    with (
        psycopg.connect(owner_url) as connection,
        pytest.raises(psycopg.errors.RaiseException, match="invoice_final"),
    ):
        connection.execute(
            f"{statement} where organization_id = '{books.organization_id}'".encode()
        )


def test_only_the_drafts_named_are_dropped(books: Books) -> None:
    draft, kept = row(), row(subscription_key="other")
    final = row(1, subscription_key="third")
    books.add(draft, kept, final, lines=(line(draft), line(kept), line(final)))
    books.call(
        invoice.drop_drafts,
        [("acme-basic", SEPTEMBER, "period"), ("third", SEPTEMBER, "period")],
    )
    assert {kept.invoice_id, final.invoice_id} == {
        one.invoice_id for one in books.call(invoice.invoices)
    }
    assert [] == books.call(invoice.lines_of, draft.invoice_id)


@pytest.mark.parametrize(
    "second",
    [
        row(2),  # the same period again
        row(1, subscription_key="other"),  # the same number again
    ],
)
def test_a_period_and_a_number_are_invoiced_once(books: Books, second: InvoiceRow) -> None:
    books.add(row(1))
    with pytest.raises(psycopg.errors.UniqueViolation):
        books.add(second)


@pytest.mark.parametrize("changes", [{"number": None}, {"status": "draft"}])
def test_final_is_what_has_a_number(books: Books, changes: dict[str, Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        books.add(replace(row(1), **changes))


def test_final_among_tells_periods_and_kinds_apart(books: Books) -> None:
    books.add(
        row(1),
        row(2, kind="start"),
        row(subscription_key="draft"),
        row(3, period_start=OCTOBER, period_end=OCTOBER + timedelta(days=31)),
    )
    wanted = [
        ("acme-basic", SEPTEMBER, "period"),
        ("acme-basic", OCTOBER, "start"),
        ("draft", SEPTEMBER, "period"),
        ("acme-basic", SEPTEMBER + timedelta(days=1), "period"),
    ]
    assert {wanted[0]} == books.call(invoice.final_among, wanted)
    assert {
        ("acme-basic", "period"): OCTOBER,
        ("acme-basic", "start"): SEPTEMBER,
    } == books.call(invoice.last_final_periods, ["acme-basic", "draft"])


def test_pages_follow_each_other_without_gap_or_repeat(books: Books) -> None:
    rows = [
        row(n, subscription_key=f"s{n}", period_end=OCTOBER + timedelta(days=n // 3))
        for n in range(10)
    ]
    books.add(*rows)
    found: list[InvoiceRow] = []
    while page := books.call(
        invoice.invoices,
        after=(found[-1].period_end, found[-1].invoice_id) if found else None,
        limit=3,
    ):
        found += page
    assert sorted(rows, key=lambda one: (one.period_end, one.invoice_id), reverse=True) == found


def test_numbers_are_taken_one_run_at_a_time(pool: Pool, organization_id: UUID) -> None:
    with transaction(pool, organization_id) as one:
        assert 0 == invoice.lock_numbers(one, organization_id, "default")
        invoice.set_last_number(one, organization_id, "default", 5)
        assert 0 == other_entity(pool, organization_id)
    with transaction(pool, organization_id) as one, transaction(pool, organization_id) as two:
        assert 5 == invoice.lock_numbers(one, organization_id, "default")
        two.execute("set local lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            invoice.lock_numbers(two, organization_id, "default")
        two.execute("rollback; begin")


def other_entity(pool: Pool, organization_id: UUID) -> int:
    with transaction(pool, organization_id) as connection:
        return invoice.lock_numbers(connection, organization_id, "another company")
