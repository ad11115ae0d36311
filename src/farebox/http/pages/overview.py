"""The overview: what came in, what it adds up to, what was billed, and what needs a look."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
from litestar import get
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, encode_id
from farebox.catalog.meter import Aggregation
from farebox.flows.read_usage import MeterHistory, read_meters
from farebox.http.pages.page import Page, PageRequest, Viewer, render
from farebox.http.pages.sparkline import Sparkline, sparkline
from farebox.http.state import State
from farebox.metering.series import Keeping, keeping_of
from farebox.money.rounding import exact_sum
from farebox.postgres import billing_run, console, invoice
from farebox.postgres.console import MeterDay
from farebox.postgres.session import transaction
from farebox.rating.charge import UnpricedUsage

DAYS = 30
_MONTHS = timedelta(days=190)
_WARNINGS_MAX = 5


class MeterUsage(Struct, frozen=True, kw_only=True):
    """A meter's last days: what it adds up to, or how many readings where it does not add up."""

    key: str
    name: str
    unit: str
    total: Decimal | int
    today: Decimal | int
    readings: int
    picture: Sparkline | None


class Finding(Struct, frozen=True, kw_only=True):
    """Usage that will reach no invoice as things are, and what would help."""

    code: str
    what: str
    how_much: str
    help: str
    link: str


@get("/", name="console:overview", sync_to_thread=True)
def overview(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    now = farebox.clock()
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    start = today - timedelta(days=DAYS - 1)
    organization_id = viewer.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        activity = console.read_activity(connection, organization_id)
        meters = read_meters(connection, organization_id)
        days = console.meter_days(
            connection,
            organization_id,
            start,
            today + timedelta(days=1),
            value_meters=_kept(meters, Keeping.VALUES),
            point_meters=_kept(meters, Keeping.POINTS),
        )
        return render(
            request,
            "overview.html",
            viewer=viewer,
            activity=activity,
            days=DAYS,
            events_today=console.events_since(
                connection, organization_id, today, activity.last_sequence
            ),
            meters=meter_usages(meters, days, start.date()),
            sums=console.invoice_sums(connection, organization_id, now - _MONTHS)[::-1],
            invoices=invoice.invoices(connection, organization_id, limit=6),
            runs=billing_run.runs(connection, organization_id, limit=3),
            warnings=_warnings(connection, viewer, start),
            encode=lambda row: encode_id(Prefix.INVOICE, row.invoice_id),
        )


def meter_usages(
    meters: Mapping[str, MeterHistory], days: Sequence[MeterDay], first: date
) -> list[MeterUsage]:
    """Return every meter with its last `DAYS` days, whether or not it was used."""
    by_meter: dict[str, dict[date, MeterDay]] = {}
    for row in days:
        by_meter.setdefault(row.meter_key, {})[row.day] = row
    calendar = [first + timedelta(days=number) for number in range(DAYS)]
    usages = []
    for key, history in sorted(meters.items()):
        found = by_meter.get(key, {})
        adds_up = history.current.aggregation is Aggregation.SUM
        values = [_value(found.get(each), adds_up) for each in calendar]
        usages.append(
            MeterUsage(
                key=key,
                name=history.current.name or key,
                unit=(history.current.unit or "units") if adds_up else "readings",
                total=_sum(values),
                today=values[-1],
                readings=sum(row.readings for row in found.values()),
                picture=sparkline(values),
            )
        )
    return usages


def _sum(values: Sequence[Decimal | int]) -> Decimal:
    return exact_sum(Decimal(value) for value in values)


def _value(row: MeterDay | None, adds_up: bool) -> Decimal | int:
    if row is None:
        return 0
    return row.total if adds_up and row.total is not None else row.readings


def _kept(meters: Mapping[str, MeterHistory], keeping: Keeping) -> list[str]:
    return [key for key, history in meters.items() if keeping_of(history.current) is keeping]


def _warnings(connection: Connection, viewer: Viewer, since: datetime) -> list[Finding]:
    organization_id = viewer.organization_id
    found = [
        Finding(
            code="no_meter",
            what=f"Events of type {row.type}",
            how_much=f"{row.events:,} events",
            help="No meter reads this type. Add one, then backfill.",
            link="/console/meters",
        )
        for row in console.unread_types(connection, organization_id, _WARNINGS_MAX)
    ]
    found += [
        Finding(
            code="no_customer",
            what=f"Subject {row.subject or '(none)'}",
            how_much=f"{row.readings:,} readings",
            help="It belongs to no customer. Add it to the subjects of one.",
            link="/console/customers",
        )
        for row in console.orphans(connection, organization_id, since, _WARNINGS_MAX)
    ]
    return found + _unpriced_warnings(connection, viewer, since - _MONTHS)


def _unpriced_warnings(connection: Connection, viewer: Viewer, since: datetime) -> list[Finding]:
    found = []
    for invoice_id, number, customer_key, text in console.unpriced_invoices(
        connection, viewer.organization_id, since, _WARNINGS_MAX
    ):
        unpriced = msgspec.json.decode(text, type=tuple[UnpricedUsage, ...])
        reasons = sorted({one.reason for one in unpriced})
        found.append(
            Finding(
                code=reasons[0].value,
                what=f"{number or 'Draft'} of {customer_key}",
                how_much=f"{len(unpriced):,} quantities",
                help="Usage on it has no price. Add a rate, a cell or an alias.",
                link=f"/console/invoices/{encode_id(Prefix.INVOICE, invoice_id)}",
            )
        )
    return found
