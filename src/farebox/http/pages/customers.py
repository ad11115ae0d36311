"""Customers: the list, and one customer with usage, subscriptions and the upcoming invoice."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from litestar import get
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, encode_id
from farebox.catalog.customer import Customer
from farebox.flows.due_periods import upcoming
from farebox.flows.rate_periods import Due, Terms, rate_periods, read_terms
from farebox.flows.read_pool import pools_listed
from farebox.flows.read_usage import read_meters
from farebox.http.pages.customer_rights import read_rights
from farebox.http.pages.line_view import LineView, lines_of_body
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.pages.pools import list_items
from farebox.http.pages.sparkline import Sparkline, sparkline
from farebox.http.pages.usage_view import (
    STRETCH_LABELS,
    Stretch,
    UsageView,
    read_usage_view,
)
from farebox.http.state import State
from farebox.invoicing.assemble import InvoiceBody
from farebox.metering.series import Keeping, keeping_of
from farebox.postgres import console, customer, invoice
from farebox.postgres.console import CustomerDay, CustomerItem
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.session import transaction

PAGE = 50
_DAYS = 30
_POOLS = 12


class UpcomingView(Struct, frozen=True):
    """A subscription's invoice as it would be, were its period to end now."""

    due: Due
    body: InvoiceBody
    lines: list[LineView]


@get("/customers", sync_to_thread=True)
def customer_list(
    request: PageRequest, farebox: State, viewer: Viewer, q: str = "", after: str = ""
) -> Page:
    now = farebox.clock()
    organization_id = viewer.organization_id
    search, position = q.strip().replace("\0", ""), after.replace("\0", "")
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        items = console.customer_items(
            connection, organization_id, now, search=search, after=position, limit=PAGE + 1
        )
        shown = items[:PAGE]
        pictures = _pictures(connection, viewer, shown, now)
    return render(
        request,
        "customers.html",
        viewer=viewer,
        items=shown,
        pictures=pictures,
        search=search,
        after=position,
        more=shown[-1].key if len(items) > PAGE else None,
        days=_DAYS,
    )


@get("/customers/{key:str}", sync_to_thread=True)
def customer_page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    key: str,
    meter: str = "",
    by: str = "",
    stretch: str = "",
) -> Page:
    now = farebox.clock()
    organization_id, key = viewer.organization_id, key.replace("\0", "")
    pools = pools_listed(farebox.pool, organization_id, now, customer=key, limit=_POOLS)
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        found = customer.find_customer(connection, organization_id, key)
        if found is None:
            raise missing("customer with this key")
        terms = read_terms(connection, organization_id)
        subscriptions = customer.subscriptions(connection, organization_id, customer_key=found.key)
        return render(
            request,
            "customer.html",
            viewer=viewer,
            customer=found,
            subjects=customer.current_subjects(connection, organization_id, found.key),
            subscriptions=subscriptions,
            terms=terms,
            usage=_usage(
                connection,
                viewer,
                terms,
                found,
                (meter or _charged_meter(terms, subscriptions), by, stretch),
                now,
            ),
            stretches=STRETCH_LABELS,
            upcoming=_upcoming(connection, viewer, terms, subscriptions, now),
            invoices=invoice.invoices(
                connection, organization_id, customer_key=found.key, limit=12
            ),
            pools=list_items(pools, now),
            rights=read_rights(connection, organization_id, found.key, now),
            now=now,
            encode=encode_invoice,
        )


def encode_invoice(row: Any) -> str:
    """Return the id of an invoice as it stands in addresses."""
    return encode_id(Prefix.INVOICE, row.invoice_id)


def _usage(
    connection: Connection,
    viewer: Viewer,
    terms: Terms,
    found: Customer,
    asked: tuple[str, str, str],
    now: datetime,
) -> UsageView | None:
    """Return the usage that was asked for, or of the first meter; None without meters."""
    meter, by, stretch = asked
    history = terms.meters.get(meter) or next(iter(terms.meters.values()), None)
    if history is None:
        return None
    chosen = Stretch(stretch) if stretch in Stretch.__members__.values() else Stretch.MONTH
    return read_usage_view(
        connection,
        viewer.organization_id,
        history,
        found.key,
        found.timezone,
        by,
        chosen,
        now,
    )


def _charged_meter(terms: Terms, subscriptions: Sequence[SubscriptionRow]) -> str:
    """Return the meter that the customer pays for first, which is what one wants to see first."""
    for row in subscriptions:
        for charge in terms.plans[row.plan_key, row.plan_version].charges:
            return charge.meter
    return ""


def _upcoming(
    connection: Connection,
    viewer: Viewer,
    terms: Terms,
    subscriptions: Sequence[SubscriptionRow],
    now: datetime,
) -> list[UpcomingView]:
    dues = [
        due
        for row in subscriptions
        if (due := upcoming(row, terms.plans[row.plan_key, row.plan_version], now)) is not None
    ]
    if not dues:
        return []
    bodies = rate_periods(connection, viewer.organization_id, terms, dues)
    return [
        UpcomingView(due, body, lines_of_body(body)) for due, body in zip(dues, bodies, strict=True)
    ]


def _pictures(
    connection: Connection, viewer: Viewer, items: Sequence[CustomerItem], now: datetime
) -> Mapping[str, Sparkline | None]:
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    start = today - timedelta(days=_DAYS - 1)
    meters = read_meters(connection, viewer.organization_id)
    rows = console.customer_days(
        connection,
        viewer.organization_id,
        [item.key for item in items],
        [key for key, one in meters.items() if keeping_of(one.current) is Keeping.TOTALS],
        start,
        today + timedelta(days=1),
    )
    return {item.key: sparkline(_counts(rows, item.key, start.date())) for item in items}


def _counts(rows: Sequence[CustomerDay], key: str, first: date) -> list[int]:
    counts = [0] * _DAYS
    for row in rows:
        if row.customer_key == key:
            counts[(row.day - first).days] = row.readings
    return counts
