"""Usage that reaches no invoice line: by its reason, with what would help.

It is looked for in stages, each a page at a time: event types that no meter reads, users who are
nobody's, customers outside of any subscription or charge, subscriptions whose prices leave usage
out, and pools of which something costs that nobody pays, or comes back that is credited to nobody.
Whoever goes through all pages has seen all of it. Usage that burned a prepaid pool is paid for by
the pool; what should have burned one and had no rate is a list of its own (`burn.unburned`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection

from farebox.flows.burn_targets import Burning, burning_spans
from farebox.flows.due_periods import cycle_of, due_at
from farebox.flows.rate_periods import Due, Terms, rate_periods, read_terms
from farebox.flows.read_usage import read_quantities
from farebox.flows.unbilled import Unbilled, UnbilledReason
from farebox.flows.unpaid_pools import unpaid_pools
from farebox.invoicing.assemble import InvoiceKind
from farebox.metering.quantity import Grouping, Quantity, Target, from_totals
from farebox.period.cycle import index_at, periods_between
from farebox.period.instant import END
from farebox.period.span import Span, without
from farebox.postgres import customer, invoice, unbilled
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.session import Pool, transaction
from farebox.postgres.unbilled import SubscribedSpan
from farebox.postgres.unpaid_beyond import pools_costing
from farebox.postgres.usage import Range
from farebox.rating.charge import UnpricedUsage

PAGE = 200


class Stage(StrEnum):
    """The stages, in the order in which they are gone through."""

    TYPES = "types"
    USERS = "users"
    NAMED = "named"
    CUSTOMERS = "customers"
    SUBSCRIPTIONS = "subscriptions"
    POOLS = "pools"


class UnbilledPlace(Struct, frozen=True):
    """Where a page begins: in a stage, after a key; None at its beginning."""

    stage: Stage
    after: str | None


class UnbilledPage(Struct, frozen=True):
    """Some of the unbilled usage; `following` is None on the last page. A page may be empty."""

    items: tuple[Unbilled, ...]
    following: UnbilledPlace | None


FIRST = UnbilledPlace(Stage.TYPES, None)


def list_unbilled(
    pool: Pool,
    organization_id: UUID,
    start: datetime,
    end: datetime,
    place: UnbilledPlace = FIRST,
) -> UnbilledPage:
    """Return the page of unbilled usage of [start, end) that begins at `place`.

    Usage without a price is rated by billing periods: those that share an instant with the span
    are listed, with all of their unpriced usage up to `end`.
    """
    with transaction(pool, organization_id, snapshot=True) as connection:
        look = _Look(connection, organization_id, start, end)
        match place.stage:
            case Stage.TYPES:
                items, after = look.types(), None
            case Stage.USERS:
                items, after = look.users(place.after)
            case Stage.NAMED:
                items, after = look.named(place.after or "")
            case Stage.CUSTOMERS:
                items, after = look.customers(place.after or "")
            case Stage.SUBSCRIPTIONS:
                items, after = look.subscriptions(place.after or "")
            case Stage.POOLS:
                items, after = look.pools(place.after or "")
    return UnbilledPage(tuple(items), _following(place.stage, after))


def all_unbilled(
    pool: Pool,
    organization_id: UUID,
    start: datetime,
    end: datetime,
    stages: Sequence[Stage] = tuple(Stage),
) -> Iterator[Unbilled]:
    """Yield all unbilled usage of the given stages, page by page."""
    for stage in stages:
        place: UnbilledPlace | None = UnbilledPlace(stage, None)
        while place is not None and place.stage is stage:
            page = list_unbilled(pool, organization_id, start, end, place)
            yield from page.items
            place = page.following


def _following(stage: Stage, after: str | None) -> UnbilledPlace | None:
    if after is not None:
        return UnbilledPlace(stage, after)
    stages = list(Stage)
    position = stages.index(stage) + 1
    return UnbilledPlace(stages[position], None) if position < len(stages) else None


class _Look:
    """One page's look, at one snapshot."""

    def __init__(
        self, connection: Connection, organization_id: UUID, start: datetime, end: datetime
    ) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._start = start
        self._end = end
        self._terms: Terms = read_terms(connection, organization_id)

    def types(self) -> list[Unbilled]:
        found = unbilled.unread_types(
            self._connection, self._organization_id, self._start, self._end
        )
        return [
            Unbilled(
                reason=UnbilledReason.NO_METER,
                event_type=one.type,
                events=one.events,
                start=one.first_time,
                end=one.last_time,
            )
            for one in found
        ]

    def users(self, after: str | None) -> tuple[list[Unbilled], str | None]:
        """Look for subjects that were nobody's for some of the time."""
        subjects = unbilled.users_uncovered(
            self._connection,
            self._organization_id,
            self._start,
            self._end,
            after=after,
            limit=PAGE,
        )
        covered: dict[str, list[Span]] = defaultdict(list)
        for row in unbilled.subject_spans(self._connection, self._organization_id, subjects):
            covered[row.subject].append((row.valid_from, row.valid_to))
        spans = [(subject, span) for subject in subjects for span in self._gaps(covered[subject])]
        items = self._usage(spans, Range(users=True))
        found = [
            replace(one, reason=UnbilledReason.NO_CUSTOMER, subject=one.customer, customer=None)
            for one in items
        ]
        return found, _last(subjects)

    def named(self, after: str) -> tuple[list[Unbilled], str | None]:
        """Look for customers that events named and that are not there."""
        keys = unbilled.unknown_customers(
            self._connection, self._organization_id, after=after, limit=PAGE
        )
        items = self._usage([(key, (self._start, self._end)) for key in keys], Range())
        return [replace(one, reason=UnbilledReason.NO_CUSTOMER) for one in items], _last(keys)

    def customers(self, after: str) -> tuple[list[Unbilled], str | None]:
        """Look for customers who used something outside of a subscription or a charge."""
        page = customer.customers(self._connection, self._organization_id, after=after, limit=PAGE)
        keys = [one.key for one in page]
        subscribed: dict[str, list[SubscribedSpan]] = defaultdict(list)
        for row in unbilled.subscribed_spans(self._connection, self._organization_id, keys):
            subscribed[row.customer_key].append(row)
        outside = [
            (key, gap)
            for key in keys
            for gap in self._gaps([_span(row) for row in subscribed[key]])
        ]
        burning = burning_spans(self._connection, self._organization_id, keys, self._terms.cards)
        items = []
        for meter in self._terms.meters:
            uncharged = self._uncharged(meter, keys, subscribed)
            items += self._apart(UnbilledReason.NO_SUBSCRIPTION, meter, outside, burning)
            items += self._apart(UnbilledReason.NO_CHARGE, meter, uncharged, burning)
        items.sort(key=lambda one: (one.customer or "", one.meter or "", one.start))
        return items, _last(keys)

    def _uncharged(
        self, meter: str, keys: Sequence[str], subscribed: Mapping[str, Sequence[SubscribedSpan]]
    ) -> list[tuple[str, Span]]:
        """Return when customers were under subscriptions that do not charge a meter."""
        spans = []
        for key in keys:
            rows = subscribed[key]
            charged = [_span(row) for row in rows if self._charges(row, meter)]
            for gap in self._gaps(charged):
                spans += [(key, part) for part in _within(gap, [_span(row) for row in rows])]
        return spans

    def _charges(self, row: SubscribedSpan, meter: str) -> bool:
        plan = self._terms.plans[row.plan_key, row.plan_version]
        return any(charge.meter == meter for charge in plan.charges)

    def _apart(
        self,
        reason: UnbilledReason,
        meter: str,
        spans: Sequence[tuple[str, Span]],
        burning: Burning,
    ) -> list[Unbilled]:
        """Return what was used of a meter in the spans and has burned no pool so far."""
        free, burned = [], []
        for key, span in spans:
            parts = without(*span, burning.get((key, meter), ()))
            free += [(key, part) for part in parts]
            burned += [(key, part) for part in without(*span, parts)]
        found = self._usage(free, Range(), [meter]) + self._waiting(meter, burned)
        return [replace(one, reason=reason) for one in found]

    def _waiting(self, meter: str, spans: Sequence[tuple[str, Span]]) -> list[Unbilled]:
        """Return what will burn a pool, but for which no units have moved yet."""
        targets = [Target(key, meter, start, end) for key, (start, end) in spans]
        if not targets:
            return []
        history = self._terms.meters[meter]
        rows = unbilled.waiting_totals(self._connection, self._organization_id, meter, targets)
        quantities = from_totals(history.current, Grouping(history.versions, ()), rows)
        return _listed(meter, targets, quantities)

    def subscriptions(self, after: str) -> tuple[list[Unbilled], str | None]:
        """Look for usage that no rate or cell prices, in final invoices and in open periods."""
        page = customer.subscriptions(
            self._connection, self._organization_id, after=after, limit=PAGE
        )
        keys = [row.key for row in page]
        items = []
        for final in unbilled.final_unpriced(
            self._connection, self._organization_id, keys, self._start, self._end
        ):
            listed = msgspec.json.decode(final.unpriced, type=tuple[UnpricedUsage, ...])
            items += [
                replace(
                    self._unpriced(one, final.customer_key, final.subscription_key),
                    invoice_id=final.invoice_id,
                )
                for one in listed
            ]
        dues = self._open_periods(page)
        if dues:
            bodies = rate_periods(self._connection, self._organization_id, self._terms, dues)
            for due, body in zip(dues, bodies, strict=True):
                row = due.subscription
                items += [self._unpriced(one, row.customer_key, row.key) for one in body.unpriced]
        items.sort(key=lambda one: (one.subscription or "", one.start, one.charge or ""))
        return items, _last(keys)

    def _open_periods(self, page: Sequence[SubscriptionRow]) -> list[Due]:
        invoiced = invoice.last_final_periods(
            self._connection, self._organization_id, [row.key for row in page]
        )
        dues = []
        for row in page:
            cycle = cycle_of(row, self._terms.plans[row.plan_key, row.plan_version])
            last = invoiced.get((row.key, InvoiceKind.PERIOD.value))
            for period in periods_between(cycle, self._start, self._end):
                if last is not None and period.start <= last:
                    continue
                index = index_at(cycle, period.start)
                assert index is not None, "a period has a number"
                due = due_at(row, cycle, index)
                if due is not None:
                    dues.append(replace(due, until=min(due.period.end, self._end)))
        return dues

    def _unpriced(self, one: UnpricedUsage, customer_key: str, subscription: str) -> Unbilled:
        assert one.start is not None, "an invoiced segment has its times"
        assert one.end is not None, "an invoiced segment has its times"
        return Unbilled(
            reason=UnbilledReason(one.reason.value),
            start=one.start,
            end=one.end,
            events=one.usage.events,
            quantity=one.usage.quantity,
            meter=self._meter(subscription, one.charge),
            customer=customer_key,
            subscription=subscription,
            charge=one.charge,
            dimensions={**one.usage.dimensions, **one.usage.original},
        )

    def _meter(self, subscription: str, charge_key: str) -> str | None:
        row = customer.find_subscription(self._connection, self._organization_id, subscription)
        assert row is not None, "the subscription was just listed"
        plan = self._terms.plans[row.plan_key, row.plan_version]
        return next((one.meter for one in plan.charges if one.key == charge_key), None)

    def pools(self, after: str) -> tuple[list[Unbilled], str | None]:
        """Look for what pools cost that nobody pays, and for credits that nobody gets."""
        keys = pools_costing(self._connection, self._organization_id, after=after, limit=PAGE)
        items = unpaid_pools(self._connection, self._organization_id, keys, self._start, self._end)
        return items, _last(keys)

    def _gaps(self, covered: Sequence[Span]) -> list[Span]:
        return without(self._start, self._end, covered)

    def _usage(
        self,
        spans: Sequence[tuple[str, Span]],
        cut: Range,
        meters: Sequence[str] | None = None,
    ) -> list[Unbilled]:
        """Return what customers (or users) used in spans of their own, as outside of any plan."""
        found = []
        for meter in self._terms.meters if meters is None else meters:
            targets = [Target(key, meter, start, end) for key, (start, end) in spans]
            if not targets:
                continue
            quantities = read_quantities(
                self._connection,
                self._organization_id,
                self._terms.meters[meter],
                targets,
                cut=cut,
            )
            found += _listed(meter, targets, quantities)
        return found


def _listed(
    meter: str, targets: Sequence[Target], quantities: Sequence[Quantity]
) -> list[Unbilled]:
    return [
        Unbilled(
            reason=UnbilledReason.NO_SUBSCRIPTION,
            start=targets[one.group.target].start,
            end=targets[one.group.target].end,
            events=one.events,
            quantity=one.quantity,
            meter=meter,
            customer=targets[one.group.target].customer_key,
        )
        for one in quantities
        if one.events
    ]


def _span(row: SubscribedSpan) -> Span:
    return row.starts_at, row.ends_at or END


def _within(gap: Span, covered: Sequence[Span]) -> list[Span]:
    """Return the parts of a gap that one of the spans covers."""
    return without(*gap, without(*gap, covered))


def _last(keys: Sequence[str]) -> str | None:
    """Return the key to go on after; None when this was the last page."""
    return keys[-1] if len(keys) == PAGE else None
