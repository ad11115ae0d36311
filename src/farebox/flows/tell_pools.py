"""What is told of every pool without a rule: read from its entries since it was last looked at."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import RANDOM_BYTES, Prefix, encode_numbered, uuidv7
from farebox.alerts.judge import Verdict, walk
from farebox.alerts.measure import Seen, percent_used, shown
from farebox.catalog.cover import CoverKind
from farebox.flows.entitle import effective
from farebox.flows.resolve_feature import covers, is_overridden, offers_of
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.grant import Grant
from farebox.ledger.policy import LimitMode
from farebox.ledger.pool import Counters
from farebox.ledger.reason import Reason
from farebox.money.rounding import exact_sum
from farebox.notices.type import NoticeType
from farebox.postgres import pool_span
from farebox.postgres.entitlement import find_feature
from farebox.postgres.notice import Notice
from farebox.postgres.pool_span import GrantEntry, Span, Summary
from farebox.postgres.pool_watch import PoolRow, WatchRow

LIMIT_NEAR_PERCENT = Fraction(80)
LIMIT_FAR_PERCENT = Fraction(70)
"""Below this it is told again when it is near."""
ANYTHING = Decimal("0.000000000000000001")
"""The least that a pool can have left."""
_HAPPENED: Mapping[tuple[str, str], NoticeType] = {
    (Reason.GRANT_PENDING, Account.PENDING): NoticeType.GRANT_PENDING,
    (Reason.TOPPED_UP, Account.PENDING): NoticeType.GRANT_PENDING,
    (Reason.TOPPED_UP, Account.GRANT): NoticeType.POOL_TOPPED_UP,
    (Reason.GRANT_ISSUED, Account.GRANT): NoticeType.POOL_TOPPED_UP,
    (Reason.GRANT_PAID, Account.GRANT): NoticeType.GRANT_PAID,
    (Reason.GRANT_EXPIRED, Account.EXPIRED): NoticeType.GRANT_EXPIRED,
    (Reason.GRANT_EXPIRED, Account.SOURCE): NoticeType.GRANT_EXPIRED,
    (Reason.GRANT_VOIDED, Account.SOURCE): NoticeType.GRANT_VOIDED,
}
"""What is told of a grant, by the reason of an entry and the account that its units went to."""


class Told(Struct, frozen=True):
    """A notice without its id, about the pool that is looked at."""

    type: NoticeType
    time: datetime
    data: Mapping[str, object]


class Look(Struct, frozen=True, kw_only=True):
    """One look at a pool: where the last one ended, and how it stands now.

    summary: of the entries in between, none where there are none.
    """

    connection: Connection
    organization_id: UUID
    watch: WatchRow
    row: PoolRow
    seen: Seen
    summary: Summary | None

    @property
    def span(self) -> Span:
        return Span(self.row.pool_id, self.watch.sequence, self.row.end)

    @property
    def current(self) -> bool:
        """Whether this look reaches the pool's last entry."""
        return self.row.end == self.row.sequence


def tell_pool(look: Look) -> tuple[list[Told], WatchRow]:
    """Return what is to be told of a pool, and up to where it was looked at then."""
    told = [*_grants(look), *_exhausted(look)]
    burst, bursting = _burst(look)
    overage, overage_period = _overage(look)
    near, near_period = _limit_near(look)
    told += [*burst, *overage, *near]
    watch = look.watch
    available = watch.available
    if look.current:
        available = look.row.available
    elif look.summary is not None:
        available = pool_span.available_at(look.connection, look.organization_id, look.span)
    moved = msgspec.structs.replace(
        watch,
        sequence=look.row.end,
        available=available,
        bursting=bursting,
        limit_near_period=near_period,
        overage_period=overage_period,
        looks=watch.looks + 1,
        looked_at=look.seen.now,
    )
    return sorted(told, key=lambda one: one.time), moved


def pool_data(look: Look) -> dict[str, object]:
    """Return what every notice of a pool says of it, as it stands now."""
    row = look.row
    return _pool_data(row.key, row.customer, row.unit, row.counters, look.seen)


def _pool_data(
    key: str, customer: str | None, unit: str, counters: Counters, seen: Seen
) -> dict[str, object]:
    percent = percent_used(seen)
    return {
        "pool": key,
        "customer": customer,
        "unit": unit,
        "available": seen.available,
        "percent_used": None if percent is None else shown(percent),
        "period_end": counters.period_end,
    }


def tell_paid_ahead(pool_id: UUID, book: Book, grant: Grant) -> Notice:
    """Return what is told of a grant that was paid before it is in force.

    No units move then, so there is no entry in which a look would see it: whoever changes the grant
    writes this in the same transaction. A grant is paid once, and so its notice has one id.
    """
    pool, counters = book.pool, book.pool.counters
    owed = -pool.balances[Account.OVERDRAFT]
    seen = Seen(
        now=pool.as_of,
        available=pool.available,
        used=exact_sum([counters.used, -counters.unlimited]),
        unlimited=pool.policy.limit.mode is LimitMode.UNLIMITED,
        beyond=exact_sum([counters.overage, counters.burst, owed]),
    )
    entry = GrantEntry(
        sequence=pool.sequence,
        time=pool.as_of,
        reason=Reason.GRANT_PAID,
        target=Account.PENDING,
        units=grant.amount,
        **{name: getattr(grant, name) for name in _OF_GRANT},
    )
    name = f"{NoticeType.GRANT_PAID} {pool_id} {grant.number}"
    return Notice(
        notice_id=uuidv7(
            (pool.as_of - _EPOCH) // timedelta(milliseconds=1),
            blake2b(name.encode(), digest_size=RANDOM_BYTES).digest(),
        ),
        type=NoticeType.GRANT_PAID,
        time=pool.as_of,
        customer=pool.customer,
        data={
            **_pool_data(pool.key, pool.customer, pool.unit, counters, seen),
            **_grant_data(pool_id, pool.policy.currency, entry),
        },
    )


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_OF_GRANT = (
    "number",
    "key",
    "amount",
    "basis",
    "cost",
    "effective_at",
    "expires_at",
    "pay_by",
)


def _grants(look: Look) -> Iterator[Told]:
    if look.summary is None or not look.summary.grants:
        return
    for one in pool_span.grant_entries(look.connection, look.organization_id, look.span):
        kind = _HAPPENED.get((one.reason, one.target))
        if kind is not None:
            grant = _grant_data(look.row.pool_id, look.row.currency, one)
            yield Told(kind, one.time, {**pool_data(look), **grant})


def _grant_data(pool_id: UUID, currency: str | None, one: GrantEntry) -> dict[str, object]:
    return {
        "grant": encode_numbered(Prefix.GRANT, pool_id, one.number),
        "key": one.key,
        "units": one.units,
        "amount": one.amount,
        "basis": one.basis,
        "cost": one.cost,
        "currency": currency,
        "effective_at": one.effective_at,
        "expires_at": one.expires_at,
        "pay_by": one.pay_by,
        "by_itself": one.reason == Reason.TOPPED_UP,
    }


def _exhausted(look: Look) -> Iterator[Told]:
    """Yield where nothing was left; a rate limit, or what is unlimited, is empty all the time."""
    if look.summary is None or look.row.refilled or look.row.unlimited:
        return
    if look.summary.least >= ANYTHING:
        return
    points = pool_span.balance_points(
        look.connection, look.organization_id, look.span, ANYTHING, ANYTHING
    )
    for one in walk(points, ANYTHING, ANYTHING, firing=look.watch.available < ANYTHING):
        if one.verdict is Verdict.FIRE and _is_sold(look, one.point.time):
            data = {**pool_data(look), **_would_cover(look)}
            yield Told(NoticeType.POOL_EXHAUSTED, one.point.time, data)


def _burst(look: Look) -> tuple[list[Told], bool]:
    bursting = look.watch.bursting
    if look.summary is None or not (bursting or look.summary.burst):
        return [], bursting
    told: list[Told] = []
    for one in pool_span.burst_points(look.connection, look.organization_id, look.span):
        if one.burst is bursting:
            continue
        bursting = one.burst
        kind = NoticeType.POOL_BURST_STARTED if bursting else NoticeType.POOL_BURST_ENDED
        told.append(Told(kind, one.time, {**pool_data(look), "burst": look.row.counters.burst}))
    return told, bursting


def _overage(look: Look) -> tuple[list[Told], int | None]:
    """Tell it once a period, also of one that ended since the last look."""
    counters, before = look.row.counters, look.watch.overage_period
    if look.summary is None or not look.summary.overage or counters.period_start is None:
        return [], before
    earlier, running = pool_span.first_overage(
        look.connection, look.organization_id, look.span, counters.period_start
    )
    told, period = [], before
    data: dict[str, Any] = {**pool_data(look), "overage": counters.overage}
    if earlier is not None and (before is None or before < counters.period - 1):
        told.append(Told(NoticeType.POOL_OVERAGE_STARTED, earlier, data))
        period = counters.period - 1
    if running is not None and before != counters.period:
        told.append(Told(NoticeType.POOL_OVERAGE_STARTED, running, data))
        period = counters.period
    return told, period


def _limit_near(look: Look) -> tuple[list[Told], int | None]:
    before, period = look.watch.limit_near_period, look.row.counters.period
    percent = percent_used(look.seen)
    if before == period and (percent is None or percent < LIMIT_FAR_PERCENT):
        before = None
    if look.row.refilled or before == period:
        return [], before
    if percent is None or percent < LIMIT_NEAR_PERCENT or not _is_sold(look, look.seen.now):
        return [], before
    sold = _would_cover(look)
    kind = NoticeType.ENTITLEMENT_LIMIT_NEAR if sold else NoticeType.POOL_LIMIT_NEAR
    return [Told(kind, look.seen.now, {**pool_data(look), **sold})], period


def _is_sold(look: Look, time: datetime) -> bool:
    """Whether it concerns the customer that little is left: of a feature, if it is sold still."""
    feature = find_feature(look.connection, look.organization_id, look.row.pool_id)
    if feature is None or look.row.customer is None:
        return True
    one = effective(look.connection, look.organization_id, look.row.customer, time).get(feature)
    return one is not None and one.enabled


def _would_cover(look: Look) -> dict[str, object]:
    """Return the feature of a pool that an entitlement brought, and what would cover more of it.

    That is what a tenth more than was granted takes: the cheapest top-up and the cheapest plan.
    """
    feature = find_feature(look.connection, look.organization_id, look.row.pool_id)
    if feature is None:
        return {}
    offers = offers_of(look.connection, look.organization_id, feature)
    used, available = look.row.counters.used, look.row.available
    wanted = max(available, (used + available) / 10) + 1
    found = [] if offers is None else covers(offers, wanted, available, used, look.row.currency)
    customer, now = look.row.customer, look.seen.now
    if is_overridden(look.connection, look.organization_id, feature, customer, None, now):
        found = [one for one in found if one.kind is not CoverKind.PLAN]
    return {"feature": feature, "help": [msgspec.to_builtins(one) for one in found]}
