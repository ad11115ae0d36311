"""Rate billing periods of many subscriptions at once, from one snapshot of usage and catalog."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.customer import Customer, Partner
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan
from farebox.catalog.price import Capacity, Matrix, Price
from farebox.catalog.resolve import Cards, CardVersion, resolve
from farebox.catalog.resolve import Segment as ResolvedSegment
from farebox.catalog.rule import needs_events
from farebox.flows.burn_targets import Burning, burning_spans
from farebox.flows.load_prices import aliases_of, card_histories
from farebox.flows.read_usage import (
    MeterHistory,
    read_meters,
    read_quantities,
    read_single_values,
)
from farebox.invoicing.assemble import InvoiceBody, InvoiceKind, RatedCharge, assemble
from farebox.invoicing.pool_use import PoolUse
from farebox.metering.quantity import Group, Target
from farebox.metering.reading import meter_dimensions
from farebox.period.cycle import Period
from farebox.period.span import without
from farebox.postgres import catalog, customer
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.pool_use import PoolTarget, pool_uses
from farebox.rating.charge import RateCardVersion, Segment, rate_charge
from farebox.rating.usage import Usage


class Due(Struct, frozen=True):
    """A period of a subscription to invoice, and the one that follows where it goes on.

    until: where a period is under way, the instant up to which its usage is rated.
    """

    subscription: SubscriptionRow
    kind: InvoiceKind
    period: Period
    following: Period | None
    until: datetime | None = None


class Terms(Struct, frozen=True):
    """What the catalog says at one snapshot."""

    meters: Mapping[str, MeterHistory]
    plans: Mapping[tuple[str, int], Plan]
    cards: Mapping[str, Sequence[CardVersion]]
    default_card: str | None
    partners: Mapping[str, Partner]
    aliases: Mapping[tuple[str, str], str]


class _Stretch(Struct, frozen=True):
    """One segment of one charge of one due, whose usage is to be read."""

    due: int
    charge: int
    start: datetime
    end: datetime
    price: Price | None
    rate_card: RateCardVersion | None


def read_terms(connection: Connection, organization_id: UUID) -> Terms:
    """Read the whole catalog: every version, because usage is rated by the one in its time."""
    plans = {
        (one.key, one.version): msgspec.json.decode(one.definition, type=Plan)
        for one in catalog.versions(connection, organization_id, Kind.PLAN)
    }
    cards = card_histories(connection, organization_id)
    partners = {
        one.key: msgspec.json.decode(one.definition, type=Partner)
        for one in catalog.versions(connection, organization_id, Kind.PARTNER)
    }
    default = next((key for key, history in cards.items() if history[-1].card.default), None)
    meters = read_meters(connection, organization_id)
    aliases = aliases_of(connection, organization_id)
    return Terms(meters, plans, cards, default, partners, aliases)


def rate_periods(
    connection: Connection, organization_id: UUID, terms: Terms, dues: Sequence[Due]
) -> list[InvoiceBody]:
    """Return the invoice of each due, in order. Reads usage once for each meter and breakdown."""
    keys = sorted({due.subscription.customer_key for due in dues})
    customers = customer.customers_by_key(connection, organization_id, keys)
    plans = [_plan(terms, due) for due in dues]
    burning = burning_spans(connection, organization_id, keys, terms.cards)
    stretches = [
        stretch
        for position, due in enumerate(dues)
        if due.kind is InvoiceKind.PERIOD
        for stretch in _stretches(
            terms, position, due, plans[position], customers[due.subscription.customer_key], burning
        )
    ]
    usages = _read_usages(connection, organization_id, terms, dues, plans, stretches)
    charges = _rate(terms, dues, plans, stretches, usages)
    pools = _read_pools(connection, organization_id, dues, plans)
    return [
        assemble(plan, due.kind, due.period, due.following, charges.get(position, []), uses)
        for position, (due, plan, uses) in enumerate(zip(dues, plans, pools, strict=True))
    ]


def _read_pools(
    connection: Connection, organization_id: UUID, dues: Sequence[Due], plans: Sequence[Plan]
) -> list[list[PoolUse]]:
    """Return what the pools of each due cost; they bill by when units moved."""
    targets = [
        PoolTarget(
            due.subscription.key,
            due.period.start,
            due.until or due.period.end if due.kind is InvoiceKind.PERIOD else due.period.start,
            plan.currency,
        )
        for due, plan in zip(dues, plans, strict=True)
    ]
    return pool_uses(connection, organization_id, targets)


def _plan(terms: Terms, due: Due) -> Plan:
    return terms.plans[due.subscription.plan_key, due.subscription.plan_version]


def _stretches(
    terms: Terms, position: int, due: Due, plan: Plan, owner: Customer, burning: Burning
) -> list[_Stretch]:
    """Cut each charge's period where its rate changes, and leave out what burns a pool."""
    cards, versions = cards_of(terms, plan, owner)
    stretches = []
    for number, charge in enumerate(plan.charges):
        spans = burning.get((owner.key, charge.meter), ())
        for start, end in without(due.period.start, due.until or due.period.end, spans):
            if charge.price is not None:
                stretches.append(_Stretch(position, number, start, end, charge.price, None))
                continue
            for segment in resolve(charge.meter, start, end, cards, versions):
                price = segment.rate.price if segment.rate else None
                card = card_version(segment)
                stretches.append(
                    _Stretch(position, number, segment.start, segment.end, price, card)
                )
    return stretches


def cards_of(
    terms: Terms, plan: Plan, owner: Customer
) -> tuple[Cards, Mapping[str, Sequence[CardVersion]]]:
    """Return the rate cards that may price a customer's usage under a plan, and their versions."""
    partner = terms.partners.get(owner.partner) if owner.partner else None
    cards = Cards(
        customer=owner.rate_card,
        partner=partner.rate_card if partner else None,
        plan=plan.rate_card,
        default=terms.default_card,
    )
    # A card in another currency cannot price this plan.
    versions = {
        key: [one for one in terms.cards.get(key, ()) if one.card.currency == plan.currency]
        for key in (cards.customer, cards.partner, cards.plan, cards.default)
        if key is not None
    }
    return cards, versions


def card_version(segment: ResolvedSegment) -> RateCardVersion | None:
    """Return the rate card version a resolved price came from; of several alike, the newest."""
    if segment.card is None or not segment.versions:
        return None
    return RateCardVersion(segment.card, segment.versions[-1])


def breakdown_of(meter: Meter, price: Price | None) -> tuple[str, ...]:
    """Return the dimensions by which usage is read for a price.

    What adds up is read by every dimension, so that a line shows them all; a maximum or a count
    of distinct values of parts is not that of the whole, so there only the price's own are used.
    """
    adds_up = meter.conversion is None and meter.aggregation in (
        Aggregation.COUNT,
        Aggregation.SUM,
        Aggregation.INCREASE,
        Aggregation.WEIGHTED_SUM,
        Aggregation.LATEST,
    )
    if adds_up:
        return meter_dimensions(meter)
    match price:
        case Matrix():
            return price.dimensions
        case Capacity():
            return (price.dimension,)
        case _:
            return ()


def _read_usages(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    dues: Sequence[Due],
    plans: Sequence[Plan],
    stretches: Sequence[_Stretch],
) -> list[tuple[Usage, ...]]:
    """Return the usage of each stretch; those that read alike are read together."""
    alike: dict[tuple[str, tuple[str, ...], bool], list[int]] = defaultdict(list)
    for number, stretch in enumerate(stretches):
        meter = plans[stretch.due].charges[stretch.charge].meter
        dimensions = breakdown_of(terms.meters[meter].current, stretch.price)
        single = stretch.price is not None and needs_events(stretch.price)
        alike[meter, dimensions, single].append(number)
    usages: list[tuple[Usage, ...]] = [()] * len(stretches)
    for (meter, dimensions, single), numbers in alike.items():
        targets = [
            Target(
                dues[stretches[number].due].subscription.customer_key,
                meter,
                stretches[number].start,
                stretches[number].end,
            )
            for number in numbers
        ]
        found = _read_alike(
            connection, organization_id, terms.meters[meter], targets, dimensions, single
        )
        for number, usage in zip(numbers, found, strict=True):
            usages[number] = usage
    return usages


def _read_alike(
    connection: Connection,
    organization_id: UUID,
    history: MeterHistory,
    targets: Sequence[Target],
    dimensions: tuple[str, ...],
    single: bool,
) -> list[tuple[Usage, ...]]:
    quantities = read_quantities(
        connection, organization_id, history, targets, dimensions=dimensions
    )
    values: Mapping[Group, Sequence[Decimal]] = (
        read_single_values(connection, organization_id, history, targets, dimensions)
        if single
        else {}
    )
    found: list[list[Usage]] = [[] for _ in targets]
    for one in quantities:
        if one.quantity is not None:
            found[one.group.target].append(
                Usage(
                    quantity=one.quantity,
                    dimensions=dict(zip(dimensions, one.group.dimensions, strict=True)),
                    events=one.events,
                    values=tuple(values.get(one.group, ())),
                )
            )
    return [tuple(usages) for usages in found]


def _rate(
    terms: Terms,
    dues: Sequence[Due],
    plans: Sequence[Plan],
    stretches: Sequence[_Stretch],
    usages: Sequence[tuple[Usage, ...]],
) -> dict[int, list[RatedCharge]]:
    """Return the rated charges of each due, in the plan's order."""
    segments: dict[tuple[int, int], list[Segment]] = defaultdict(list)
    for stretch, used in zip(stretches, usages, strict=True):
        segments[stretch.due, stretch.charge].append(
            Segment(
                price=stretch.price,
                usages=used,
                start=stretch.start,
                end=stretch.end,
                rate_card=stretch.rate_card,
            )
        )
    # A charge whose usage burned a pool all the time is there all the same, with nothing used.
    for position, due in enumerate(dues):
        for number in range(len(plans[position].charges) if due.kind is InvoiceKind.PERIOD else 0):
            start, end = due.period.start, due.until or due.period.end
            empty = Segment(price=None, usages=(), start=start, end=end)
            segments.setdefault((position, number), [empty])
    charges: dict[int, list[RatedCharge]] = defaultdict(list)
    for (due_number, number), parts in sorted(segments.items()):
        charge: Charge = plans[due_number].charges[number]
        result = rate_charge(
            charge.key, parts, charge.adjustments, plans[due_number].currency, terms.aliases
        )
        prices = {part.start: part.price for part in parts if part.start is not None}
        charges[due_number].append(
            RatedCharge(charge.key, charge.name, charge.meter, result, prices)
        )
    return charges
