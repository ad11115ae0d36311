"""Invoices: the list, one invoice with every line opened, and the events behind a line."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from litestar import get
from psycopg import Connection

from farebox.access.id import Prefix, decode_id
from farebox.flows.explain_line import explain_line
from farebox.http.pages.customers import encode_invoice
from farebox.http.pages.line_view import lines_of_rows
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.state import State
from farebox.postgres import customer, invoice
from farebox.postgres.explain import Place
from farebox.postgres.invoice import InvoiceRow
from farebox.postgres.session import transaction
from farebox.rating.charge import UnpricedUsage

PAGE = 50
_STATUSES = ("final", "draft")
_POSITION_MAX = (1 << 31) - 1
_SEQUENCE_END = 1 << 62


@get("/invoices", sync_to_thread=True)
def invoice_list(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    status: str = "",
    q: str = "",
    after: str = "",
) -> Page:
    wanted = q.strip().replace("\0", "")
    organization_id = viewer.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        numbered = invoice.find_number(connection, organization_id, wanted) if wanted else None
        rows = (
            [numbered]
            if numbered
            else invoice.invoices(
                connection,
                organization_id,
                customer_key=wanted or None,
                status=status if status in _STATUSES else None,
                after=_read_position(after),
                limit=PAGE + 1,
            )
        )
    shown = rows[:PAGE]
    return render(
        request,
        "invoices.html",
        viewer=viewer,
        invoices=shown,
        shown_status=status if status in _STATUSES else "",
        search=wanted,
        more=_write_position(shown[-1]) if len(rows) > PAGE else None,
        encode=encode_invoice,
    )


@get("/invoices/{identifier:str}", sync_to_thread=True)
def invoice_page(request: PageRequest, farebox: State, viewer: Viewer, identifier: str) -> Page:
    with transaction(farebox.pool, viewer.organization_id, snapshot=True) as connection:
        found = _find(connection, viewer.organization_id, identifier)
        if found is None:
            raise missing("invoice with this number")
        lines = invoice.lines_of(connection, viewer.organization_id, found.invoice_id)
        owner = customer.find_customer(connection, viewer.organization_id, found.customer_key)
        subscription = customer.find_subscription(
            connection, viewer.organization_id, found.subscription_key
        )
    return render(
        request,
        "invoice.html",
        viewer=viewer,
        invoice=found,
        identifier=encode_invoice(found),
        customer=owner,
        timezone=subscription.timezone if subscription else "UTC",
        lines=lines_of_rows(lines),
        unpriced=msgspec.json.decode(found.unpriced, type=tuple[UnpricedUsage, ...]),
    )


@get("/invoices/{identifier:str}/lines/{position:int}", sync_to_thread=True)
def line_page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    identifier: str,
    position: int,
    after: str = "",
) -> Page:
    """One line, and the events that it counts, a page at a time."""
    name = decode_id(Prefix.INVOICE, identifier) or identifier.replace("\0", "")
    explained = explain_line(
        farebox.pool,
        viewer.organization_id,
        name,
        min(position, _POSITION_MAX),
        after=_read_place(after),
        limit=PAGE,
    )
    if explained is None:
        raise missing("line with this number")
    following = explained.after
    return render(
        request,
        "line.html",
        viewer=viewer,
        invoice=explained.invoice,
        identifier=encode_invoice(explained.invoice),
        line=lines_of_rows([explained.line])[0],
        events=explained.events.events,
        pool=explained.pool,
        first=not after,
        more=None if following is None else f"{following.time.isoformat()}~{following.sequence}",
    )


def _read_place(text: str) -> Place | None:
    """Return where a page of events begins; any other text begins at the first."""
    instant, _, sequence = text.partition("~")
    try:
        time, number = datetime.fromisoformat(instant), int(sequence)
    except ValueError:
        return None
    return Place(time, number) if time.tzinfo and abs(number) < _SEQUENCE_END else None


def _find(connection: Connection, organization_id: UUID, text: str) -> InvoiceRow | None:
    """Return the invoice with this id or number."""
    invoice_id = decode_id(Prefix.INVOICE, text)
    if invoice_id is not None:
        return invoice.find_invoice(connection, organization_id, invoice_id)
    return invoice.find_number(connection, organization_id, text.replace("\0", ""))


def _write_position(row: InvoiceRow) -> str:
    return f"{row.period_end.astimezone(UTC).isoformat()}~{encode_invoice(row)}"


def _read_position(text: str) -> tuple[datetime, UUID] | None:
    """Return where a page begins; any other text begins at the top."""
    instant, _, identifier = text.partition("~")
    invoice_id = decode_id(Prefix.INVOICE, identifier)
    try:
        parsed = datetime.fromisoformat(instant)
    except ValueError:
        return None
    return (parsed, invoice_id) if invoice_id and parsed.tzinfo else None
