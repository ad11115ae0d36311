"""Where a reading leads: to a customer, a subscription, a price and an invoice line, or why not."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection

from farebox.catalog.customer import Customer
from farebox.catalog.plan import Charge
from farebox.catalog.price import Dynamic, Matrix, Percentage, PerUnit, Price
from farebox.catalog.resolve import resolve
from farebox.flows.due_periods import cycle_of, due_at
from farebox.flows.place_burn import PoolPlace, place_burn
from farebox.flows.rate_periods import Terms, card_version, cards_of
from farebox.flows.reading_at import ReadingAt
from farebox.invoicing.assemble import InvoiceKind, InvoiceLineKind, LineDetail
from farebox.period.cycle import Period, index_at
from farebox.postgres import customer, explain, invoice
from farebox.postgres.customer import SubscriptionRow
from farebox.rating.charge import RateCardVersion, UnpricedUsage
from farebox.rating.rate import rate, split_unpriced
from farebox.rating.usage import Usage, resolve_aliases


class Fate(StrEnum):
    """What becomes of an event's reading, in order of precedence."""

    VOIDED = "voided"
    NO_METER = "no_meter"
    FILTERED_OUT = "filtered_out"
    NO_CUSTOMER = "no_customer"
    NO_SUBSCRIPTION = "no_subscription"
    NO_CHARGE = "no_charge"
    NO_RATE = "no_rate"
    NO_CELL = "no_cell"
    NO_VALUES = "no_values"
    UNBURNED = "unburned"
    LATE = "late"
    BURNS_POOL = "burns_pool"
    BURNED_POOL = "burned_pool"
    NOT_YET_BILLED = "not_yet_billed"
    BILLED = "billed"


_UNPRICED = (Fate.NO_RATE, Fate.NO_CELL, Fate.NO_VALUES)


class LinePlace(Struct, frozen=True, kw_only=True):
    """The charge a reading reaches, and the line where it stands.

    position: of the line on the invoice, where there is one.
    amount_alone: what the reading by itself costs before adjustments and rounding; none where
        that hangs on what else the period holds.
    """

    fate: Fate
    subscription: str
    charge: str
    period: Period
    rate_card: RateCardVersion | None = None
    price: Price | None = None
    priced_as: Mapping[str, str] = {}
    invoice_id: UUID | None = None
    invoice_number: str | None = None
    position: int | None = None
    amount_alone: Decimal | None = None
    currency: str = ""


class ReadingPlace(Struct, frozen=True, kw_only=True):
    """A reading, whose it is, and what it reaches.

    lines: one for each charge of a subscription; none where a pool pays in their place (`burn`).
    """

    fate: Fate
    reading: ReadingAt
    customer: str | None
    lines: tuple[LinePlace, ...] = ()
    burn: PoolPlace | None = None


def place_reading(
    connection: Connection, organization_id: UUID, terms: Terms, reading: ReadingAt
) -> ReadingPlace:
    """Follow a reading as far as it gets; of several lines the furthest gives its fate."""
    owner = _owner(connection, organization_id, reading)
    if reading.voided:
        key = None if owner is None else owner.key
        return ReadingPlace(fate=Fate.VOIDED, reading=reading, customer=key)
    if owner is None:
        return ReadingPlace(fate=Fate.NO_CUSTOMER, reading=reading, customer=None)
    burn = place_burn(connection, organization_id, terms, owner.key, reading)
    if burn is not None and burn.alone:
        fate = Fate(burn.fate.value)
        return ReadingPlace(fate=fate, reading=reading, customer=owner.key, burn=burn)
    place = _charged(connection, organization_id, terms, reading, owner)
    if burn is None:
        return place
    furthest = max(place.fate, Fate(burn.fate.value), key=list(Fate).index)
    return replace(place, fate=furthest, burn=burn)


def _charged(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    reading: ReadingAt,
    owner: Customer,
) -> ReadingPlace:
    """Follow a reading to the lines of the customer's subscriptions."""
    subscribed = [
        row
        for row in customer.subscriptions(connection, organization_id, customer_key=owner.key)
        if row.starts_at <= reading.time and (row.ends_at is None or reading.time < row.ends_at)
    ]
    if not subscribed:
        return ReadingPlace(fate=Fate.NO_SUBSCRIPTION, reading=reading, customer=owner.key)
    lines = tuple(
        _line(connection, organization_id, terms, reading, owner, row, charge)
        for row in subscribed
        for charge in terms.plans[row.plan_key, row.plan_version].charges
        if charge.meter == reading.meter
    )
    if not lines:
        return ReadingPlace(fate=Fate.NO_CHARGE, reading=reading, customer=owner.key)
    furthest = max(lines, key=lambda line: list(Fate).index(line.fate))
    return ReadingPlace(fate=furthest.fate, reading=reading, customer=owner.key, lines=lines)


def _owner(connection: Connection, organization_id: UUID, reading: ReadingAt) -> Customer | None:
    key = reading.customer or explain.customer_at(
        connection, organization_id, reading.subject, reading.time
    )
    return None if key is None else customer.find_customer(connection, organization_id, key)


def _line(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    reading: ReadingAt,
    owner: Customer,
    row: SubscriptionRow,
    charge: Charge,
) -> LinePlace:
    plan = terms.plans[row.plan_key, row.plan_version]
    cycle = cycle_of(row, plan)
    index = index_at(cycle, reading.time)
    assert index is not None, "the subscription has started"
    due = due_at(row, cycle, index)
    assert due is not None, "the subscription has not ended"
    price, card = charge.price, None
    if price is None:
        cards, versions = cards_of(terms, plan, owner)
        instant = reading.time + datetime.resolution
        (segment,) = resolve(charge.meter, reading.time, instant, cards, versions)
        price = segment.rate.price if segment.rate else None
        card = card_version(segment)
    usage = _usage(terms, reading, price)
    line = LinePlace(
        fate=Fate.NOT_YET_BILLED,
        subscription=row.key,
        charge=charge.key,
        period=due.period,
        rate_card=card,
        price=price,
        priced_as={name: usage.dimensions[name] for name in usage.original},
        amount_alone=_amount_alone(price, usage),
        currency=plan.currency,
    )
    _, unpriced = split_unpriced(price, [usage])
    found = _on_invoice(connection, organization_id, reading, line)
    if unpriced and found.fate not in (Fate.BILLED, *_UNPRICED):
        # Late usage without a price is without a price first: that is what can be mended.
        return replace(found, fate=Fate(unpriced[0].reason.value))
    return found


def _usage(terms: Terms, reading: ReadingAt, price: Price | None) -> Usage:
    number = reading.value if isinstance(reading.value, Decimal) else Decimal(1)
    meter = terms.meters[reading.meter].current
    single = isinstance(price, Percentage) and price.reads_each_event and meter.per_event
    usage = Usage(
        quantity=number,
        dimensions=reading.dimensions,
        events=1,
        values=(number,) if single else (),
    )
    return resolve_aliases([usage], terms.aliases)[0]


def _amount_alone(price: Price | None, usage: Usage) -> Decimal | None:
    match price:
        case PerUnit() | Matrix() | Dynamic():
            rated = rate(price, [usage])
        case Percentage(free_events=None, free_amount=None):
            rated = rate(price, [usage])
        case _:
            return None
    return None if rated.unpriced else rated.amount


def _on_invoice(
    connection: Connection, organization_id: UUID, reading: ReadingAt, line: LinePlace
) -> LinePlace:
    row = invoice.find_by_period(
        connection, organization_id, line.subscription, line.period.start, InvoiceKind.PERIOD.value
    )
    if row is None:
        return line
    after_cutoff = reading.sequence is None or reading.sequence > row.cutoff_sequence
    if after_cutoff:
        fate = Fate.LATE if row.status == "final" else Fate.NOT_YET_BILLED
        return replace(line, fate=fate, invoice_id=row.invoice_id, invoice_number=row.number)
    found = replace(line, invoice_id=row.invoice_id, invoice_number=row.number)
    if row.status != "final":
        lines = invoice.lines_of(connection, organization_id, row.invoice_id)
        at = _line_at(lines, line.charge, reading.time)
        return replace(found, position=None if at is None else at.position)
    # What was final then holds, whatever the catalog says since.
    for one in msgspec.json.decode(row.unpriced, type=tuple[UnpricedUsage, ...]):
        if one.charge == line.charge and _is_in(reading, one):
            return replace(found, fate=Fate(one.reason.value), price=None, amount_alone=None)
    at = _line_at(
        invoice.lines_of(connection, organization_id, row.invoice_id), line.charge, reading.time
    )
    if at is None:
        return replace(found, fate=Fate.BILLED)
    detail = msgspec.json.decode(at.detail, type=LineDetail)
    return replace(
        found,
        fate=Fate.BILLED,
        position=at.position,
        price=detail.price,
        rate_card=None if detail.charge is None else detail.charge.rate_card,
    )


def _is_in(reading: ReadingAt, unpriced: UnpricedUsage) -> bool:
    if unpriced.start is None or unpriced.end is None:
        return False
    reported = {**unpriced.usage.dimensions, **unpriced.usage.original}
    return unpriced.start <= reading.time < unpriced.end and all(
        reading.dimensions.get(name, "") == value for name, value in reported.items()
    )


def _line_at(
    lines: Sequence[invoice.LineRow], charge_key: str, time: datetime
) -> invoice.LineRow | None:
    for line in lines:
        if (
            line.charge_key == charge_key
            and line.kind == InvoiceLineKind.USAGE
            and line.segment_start <= time < line.segment_end
        ):
            return line
    return None
