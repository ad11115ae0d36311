"""What other systems are told of invoices that became final."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from farebox.access.id import Prefix, encode_id
from farebox.notices.type import NoticeType
from farebox.postgres.invoice import InvoiceRow
from farebox.postgres.notice import Notice


def invoice_notices(
    rows: Sequence[InvoiceRow], now: datetime, new_id: Callable[[], UUID]
) -> list[Notice]:
    """Return a notice for each invoice, to be told in the order of the invoices."""
    # Ids of one millisecond come in any order; receivers get notices in that of their ids.
    ids = sorted(new_id() for _ in rows)
    return [
        Notice(
            notice_id=identifier,
            type=NoticeType.INVOICE_FINALIZED,
            time=now,
            customer=row.customer_key,
            data=_data(row),
        )
        for identifier, row in zip(ids, rows, strict=True)
    ]


def _data(row: InvoiceRow) -> dict[str, object]:
    """Return an invoice as `GET /v1/invoices/{name}` names its parts, without its lines."""
    run = row.billing_run_id
    return {
        "invoice": encode_id(Prefix.INVOICE, row.invoice_id),
        "number": row.number,
        "kind": row.kind,
        "customer": row.customer_key,
        "subscription": row.subscription_key,
        "plan": row.plan_key,
        "plan_version": row.plan_version,
        "period_start": row.period_start.astimezone(UTC),
        "period_end": row.period_end.astimezone(UTC),
        "currency": row.currency,
        "total": f"{row.total:f}",  # with the digits of its currency
        "billing_run": None if run is None else encode_id(Prefix.BILLING_RUN, run),
    }
