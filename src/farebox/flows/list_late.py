"""What arrived for a period after its invoice was final: not billed, not billed twice, not lost."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.catalog.meter import Meter
from farebox.flows.rate_periods import Terms, read_terms
from farebox.invoicing.assemble import InvoiceKind
from farebox.metering.fold import Totals, quantity_of
from farebox.metering.reading import meter_dimensions
from farebox.metering.series import Keeping, keeping_of
from farebox.postgres import invoice, unbilled
from farebox.postgres.invoice import InvoiceRow
from farebox.postgres.session import Pool, transaction
from farebox.postgres.unbilled import LateRow, LateSpan

# An event is stamped before it waits for its turn to be appended; never for as long as this.
_MARGIN = timedelta(days=1)


class Late(Struct, frozen=True, kw_only=True):
    """Late usage of one invoice, meter and set of dimension values.

    quantity: what these events alone come to; none where that hangs on the others of the period.
    """

    invoice_id: UUID
    number: str | None
    customer: str
    subscription: str
    period_start: datetime
    period_end: datetime
    meter: str
    dimensions: Mapping[str, str]
    events: int
    quantity: Decimal | None
    first_time: datetime
    last_time: datetime
    last_received_at: datetime


def list_late(
    pool: Pool,
    organization_id: UUID,
    *,
    customer_key: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 100,
) -> tuple[list[Late], tuple[datetime, UUID] | None]:
    """Go through a page of final invoices, the latest period first, for what came late to each."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        rows = invoice.invoices(
            connection,
            organization_id,
            customer_key=customer_key,
            status="final",
            after=after,
            limit=limit + 1,
        )
        page = rows[:limit]
        terms = read_terms(connection, organization_id)
        found = _late(connection, organization_id, terms, page)
    following = (page[-1].period_end, page[-1].invoice_id) if len(rows) > limit else None
    return found, following


def _late(
    connection: Connection, organization_id: UUID, terms: Terms, page: Sequence[InvoiceRow]
) -> list[Late]:
    spans = [
        LateSpan(
            number,
            row.customer_key,
            tuple({one.meter for one in terms.plans[row.plan_key, row.plan_version].charges}),
            row.period_start,
            row.period_end,
            row.cutoff_sequence,
            row.created_at - _MARGIN,
        )
        for number, row in enumerate(page)
        if row.kind == InvoiceKind.PERIOD
    ]
    if not spans:
        return []
    return [
        _item(page[one.number], one, terms.meters[one.meter_key].versions[one.meter_version])
        for one in unbilled.late_usage(connection, organization_id, spans)
    ]


def _item(row: InvoiceRow, one: LateRow, meter: Meter) -> Late:
    quantity = None
    if keeping_of(meter) is Keeping.TOTALS and meter.conversion is None:
        totals = Totals(one.events, one.total, one.minimum, one.maximum)
        quantity = quantity_of(meter.aggregation, totals)
    return Late(
        invoice_id=row.invoice_id,
        number=row.number,
        customer=row.customer_key,
        subscription=row.subscription_key,
        period_start=row.period_start,
        period_end=row.period_end,
        meter=one.meter_key,
        dimensions=dict(zip(meter_dimensions(meter), one.dimensions, strict=True)),
        events=one.events,
        quantity=quantity,
        first_time=one.first_time,
        last_time=one.last_time,
        last_received_at=one.last_received_at,
    )
