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
from psycopg import Connection

from farebox.flows.close_pools import close_pools
from farebox.flows.due_periods import due_periods
from farebox.flows.fold_rollups import fold_rollups
from farebox.flows.notice_invoices import invoice_notices
from farebox.flows.rate_periods import Due, Terms, rate_periods, read_terms
from farebox.flows.warn_billing import as_json, warn_before, warn_unpriced
from farebox.invoicing.assemble import InvoiceBody
from farebox.invoicing.number import numbers
from farebox.postgres import billing_run, catalog, customer, invoice, notice, rollup, stream
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.invoice import InvoiceRow, LineRow
from farebox.postgres.session import Pool, transaction

SUBSCRIPTIONS_A_PAGE = 500
INVOICES_A_PAGE = 1000
LEGAL_ENTITY = "default"
_ENCODER = msgspec.json.Encoder()


class BillingResult(Struct, frozen=True):
    """How many invoices a run wrote; those that were there already do not count."""

    invoices: int
    pages: int


class _Page(Struct, frozen=True):
    """Dues with their invoices, from one snapshot.

    cutoff_sequence: of the last event in it. rewritten: how often usage had been changed by then.
    """

    dues: Sequence[Due]
    bodies: list[InvoiceBody]
    cutoff_sequence: int
    rewritten: int


class _Catalog:
    """The terms as a snapshot has them, read again only where the catalog has grown."""

    def __init__(self, organization_id: UUID) -> None:
        self._organization_id = organization_id
        self._versions = -1
        self._terms: Terms | None = None

    def terms(self, connection: Connection) -> Terms:
        versions = catalog.count_versions(connection, self._organization_id)
        if self._terms is None or versions != self._versions:
            self._terms = read_terms(connection, self._organization_id)
            self._versions = versions
        return self._terms


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
        billing_run.add_run(connection, organization_id, run_id, as_of, clock(), finalize=finalize)
        head = stream.read_head(connection, organization_id).last_sequence
    reach(pool, organization_id, head, clock)
    warnings = warn_before(pool, organization_id, as_of, clock())
    with transaction(pool, organization_id) as connection:
        # Kept before anything is final, so that they are there whatever happens to the run.
        billing_run.set_warnings(connection, organization_id, run_id, as_json(warnings))
    written: list[Future[int]] = []
    # One page is written while the next is rated, never two: numbers follow the order of pages.
    with ThreadPoolExecutor(1, thread_name_prefix="bill") as writer:
        for page in _pages(pool, organization_id, as_of, clock):
            if written:
                written[-1].result()
            written.append(
                writer.submit(_write, pool, organization_id, run_id, page, clock, new_id, finalize)
            )
    total, pages = sum(page.result() for page in written), len(written)
    warnings += warn_unpriced(pool, organization_id, run_id)
    with transaction(pool, organization_id) as connection:
        billing_run.finish_run(connection, organization_id, run_id, as_json(warnings), clock())
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


def _pages(
    pool: Pool, organization_id: UUID, as_of: datetime, clock: Callable[[], datetime]
) -> Iterator[_Page]:
    known = _Catalog(organization_id)
    for dues in _due_pages(pool, organization_id, as_of, known):
        # A subscription may have missed years of days; memory is bounded all the same.
        for at in range(0, len(dues), INVOICES_A_PAGE):
            page = dues[at : at + INVOICES_A_PAGE]
            ends = [(due.subscription.key, due.period.end) for due in page]
            close_pools(pool, organization_id, ends, clock())
            yield _rate(pool, organization_id, known, page)


def _due_pages(
    pool: Pool, organization_id: UUID, as_of: datetime, known: _Catalog
) -> Iterator[list[Due]]:
    after = ""
    while True:
        with transaction(pool, organization_id, snapshot=True) as connection:
            page = customer.subscriptions(
                connection, organization_id, after=after, limit=SUBSCRIPTIONS_A_PAGE
            )
            keys = [row.key for row in page]
            invoiced = invoice.last_final_periods(connection, organization_id, keys)
            terms = known.terms(connection)
        if not page:
            return
        after = page[-1].key
        yield [due for row in page for due in _dues(row, terms, as_of, invoiced)]


def _rate(pool: Pool, organization_id: UUID, known: _Catalog, dues: Sequence[Due]) -> _Page:
    with transaction(pool, organization_id, snapshot=True) as connection:
        bodies = rate_periods(connection, organization_id, known.terms(connection), dues)
        # Not the watermark: usage is current to the last event, so that is what was invoiced.
        cutoff = stream.read_head(connection, organization_id).last_sequence
        rewritten = rollup.read_rewritten(connection, organization_id)
    return _Page(dues, bodies, cutoff, rewritten)


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
    clock: Callable[[], datetime],
    new_id: Callable[[], UUID],
    finalize: bool,
) -> int:
    """Write a page and return how many invoices are new; rates it anew where usage was undone."""
    while True:
        written = _write_once(pool, organization_id, run_id, page, clock(), new_id, finalize)
        if written is not None:
            return written
        page = _rate(pool, organization_id, _Catalog(organization_id), page.dues)


def _write_once(
    pool: Pool,
    organization_id: UUID,
    run_id: UUID,
    page: _Page,
    now: datetime,
    new_id: Callable[[], UUID],
    finalize: bool,
) -> int | None:
    identities = [identity_of(due) for due in page.dues]
    with transaction(pool, organization_id) as connection:
        # An undo looks for invoices that hold its events, under the same lock: whichever of the two
        # comes second sees what the first one did.
        rollup.wait_watermark(connection, organization_id)
        if rollup.read_rewritten(connection, organization_id) != page.rewritten:
            return None
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
            notice.add_notices(connection, organization_id, invoice_notices(rows, now, new_id))
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
