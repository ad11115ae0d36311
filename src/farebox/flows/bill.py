"""A billing run: invoice every period that ended, each once, whatever happens half-way.

Subscriptions are taken a page at a time. A page is rated from one snapshot and written in one
transaction: invoices, lines and numbers together. A run that is killed leaves whole pages; the next
one goes on with what has no final invoice yet.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.flows.due_periods import due_periods
from farebox.flows.fold_rollups import fold_rollups
from farebox.flows.rate_periods import Due, Terms, rate_periods, read_terms
from farebox.invoicing.assemble import InvoiceBody
from farebox.invoicing.number import numbers
from farebox.postgres import billing_run, customer, invoice, rollup, stream
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.invoice import InvoiceRow, LineRow
from farebox.postgres.session import Pool, transaction

SUBSCRIPTIONS_A_PAGE = 500
LEGAL_ENTITY = "default"
_ENCODER = msgspec.json.Encoder()


class BillingResult(Struct, frozen=True):
    """How many invoices a run wrote; those that were there already do not count."""

    invoices: int
    pages: int


class _Page(Struct, frozen=True):
    dues: list[Due]
    bodies: list[InvoiceBody]
    cutoff_sequence: int


def bill(
    pool: Pool,
    organization_id: UUID,
    run_id: UUID,
    as_of: datetime,
    clock: Callable[[], datetime],
    new_id: Callable[[], UUID],
    *,
    finalize: bool = True,
) -> BillingResult:
    """Invoice what ended by `as_of`. Without `finalize` the invoices are drafts, without number.

    A draft is written anew by every run, from usage as it then is, until a run finalizes it.
    """
    with transaction(pool, organization_id) as connection:
        billing_run.add_run(connection, organization_id, run_id, as_of, clock())
        head = stream.read_head(connection, organization_id).last_sequence
    reach(pool, organization_id, head, clock)
    written: list[Future[int]] = []
    # One page is written while the next is rated, never two: numbers follow the order of pages.
    with ThreadPoolExecutor(1, thread_name_prefix="bill") as writer:
        for page in _pages(pool, organization_id, as_of):
            if written:
                written[-1].result()
            written.append(
                writer.submit(
                    _write, pool, organization_id, run_id, page, clock(), new_id, finalize
                )
            )
    total, pages = sum(page.result() for page in written), len(written)
    with transaction(pool, organization_id) as connection:
        billing_run.finish_run(connection, organization_id, run_id, "[]", clock())
    return BillingResult(total, pages)


def reach(pool: Pool, organization_id: UUID, sequence: int, clock: Callable[[], datetime]) -> None:
    """Fold until the rollups hold everything up to `sequence`."""
    while True:
        with transaction(pool, organization_id) as connection:
            # Waits for another process that is folding, then sees how far it came.
            rollup.wait_watermark(connection, organization_id)
            if rollup.read_watermark(connection, organization_id) >= sequence:
                return
        fold_rollups(pool, organization_id, clock(), up_to=sequence)


def _pages(pool: Pool, organization_id: UUID, as_of: datetime) -> Iterator[_Page]:
    after = ""
    terms: Terms | None = None
    while True:
        with transaction(pool, organization_id, snapshot=True) as connection:
            page = customer.subscriptions(
                connection, organization_id, after=after, limit=SUBSCRIPTIONS_A_PAGE
            )
            if not page:
                return
            after = page[-1].key
            if terms is None or any(
                (row.plan_key, row.plan_version) not in terms.plans for row in page
            ):
                # At first, and again for a subscription to a plan that was published meanwhile.
                terms = read_terms(connection, organization_id)
            keys = [row.key for row in page]
            invoiced = invoice.last_final_periods(connection, organization_id, keys)
            dues = [due for row in page for due in _dues(row, terms, as_of, invoiced)]
            bodies = rate_periods(connection, organization_id, terms, dues) if dues else []
            cutoff = rollup.read_watermark(connection, organization_id)
        if dues:
            yield _Page(dues, bodies, cutoff)


def _dues(
    row: SubscriptionRow,
    terms: Terms,
    as_of: datetime,
    invoiced: dict[tuple[str, str], datetime],
) -> list[Due]:
    return due_periods(row, terms.plans[row.plan_key, row.plan_version], as_of, invoiced)


def _write(
    pool: Pool,
    organization_id: UUID,
    run_id: UUID,
    page: _Page,
    now: datetime,
    new_id: Callable[[], UUID],
    finalize: bool,
) -> int:
    identities = [identity_of(due) for due in page.dues]
    with transaction(pool, organization_id) as connection:
        # This lock keeps two runs apart: what is final after it was taken stays as it is.
        last = invoice.lock_numbers(connection, organization_id, LEGAL_ENTITY)
        final = invoice.final_among(connection, organization_id, identities)
        open_ = [number for number, identity in enumerate(identities) if identity not in final]
        if not open_:
            return 0
        invoice.drop_drafts(connection, organization_id, [identities[number] for number in open_])
        given = list(numbers(last, len(open_))) if finalize else [None] * len(open_)
        rows = [
            _invoice_row(page, number, given[place], run_id, now, new_id())
            for place, number in enumerate(open_)
        ]
        lines = [
            line
            for row, number in zip(rows, open_, strict=True)
            for line in line_rows(row.invoice_id, page.bodies[number])
        ]
        invoice.add_invoices(connection, organization_id, rows, lines)
        if finalize:
            invoice.set_last_number(connection, organization_id, LEGAL_ENTITY, last + len(open_))
        billing_run.count_invoices(connection, organization_id, run_id, len(open_))
    return len(open_)


def identity_of(due: Due) -> tuple[str, datetime, str]:
    """Return what an invoice is unique by: subscription, period start and kind."""
    return (due.subscription.key, due.period.start, due.kind.value)


def _invoice_row(
    page: _Page,
    number: int,
    given: str | None,
    run_id: UUID,
    now: datetime,
    invoice_id: UUID,
) -> InvoiceRow:
    due, body = page.dues[number], page.bodies[number]
    return InvoiceRow(
        invoice_id=invoice_id,
        number=given,
        kind=due.kind.value,
        status="draft" if given is None else "final",
        customer_key=due.subscription.customer_key,
        subscription_key=due.subscription.key,
        plan_key=due.subscription.plan_key,
        plan_version=due.subscription.plan_version,
        period_start=due.period.start,
        period_end=due.period.end,
        currency=body.currency,
        total=body.total,
        cutoff_sequence=page.cutoff_sequence,
        billing_run_id=run_id,
        created_at=now,
        finalized_at=None if given is None else now,
        unpriced=_ENCODER.encode(body.unpriced).decode(),
    )


def line_rows(invoice_id: UUID, body: InvoiceBody) -> Sequence[LineRow]:
    """Return the lines as they are stored."""
    return [
        LineRow(
            invoice_id=invoice_id,
            position=position,
            charge_key=line.charge_key,
            kind=line.kind.value,
            description=line.description,
            quantity=line.quantity,
            amount=line.amount,
            segment_start=line.start,
            segment_end=line.end,
            meter_key=line.meter_key,
            detail=_ENCODER.encode(line.detail).decode(),
        )
        for position, line in enumerate(body.lines, 1)
    ]
