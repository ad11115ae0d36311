"""Pools, grants and entries of the ledger as they go over the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.access.id import Prefix, encode_numbered
from farebox.ledger.account import Account
from farebox.ledger.allotment import Allotment, in_force
from farebox.ledger.book import Book
from farebox.ledger.grant import Grant, Recurrence
from farebox.ledger.policy import Policy
from farebox.ledger.pool import PoolDefinition
from farebox.money.rounding import EXACT
from farebox.postgres.transfer import Entry


class PeriodView(Struct, frozen=True, kw_only=True):
    """What a pool counts in the running period."""

    start: datetime | None
    end: datetime | None
    used: Decimal
    overage: Decimal
    burst: Decimal
    spend: Decimal
    top_ups: int


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool as it stands now.

    available: what its grants have left. The others are the balances of its accounts, what is owed
    (overdraft, overage, burst) as a positive number, since the pool was opened.
    """

    key: str
    name: str
    unit: str
    customer: str | None
    license: str | None
    subject: str | None
    subscription: str | None
    timezone: str
    closed: bool
    serves_children: bool
    rate_card: str | None
    available: Decimal
    held: Decimal
    used: Decimal
    pending: Decimal
    expired: Decimal
    overdraft: Decimal
    overage: Decimal
    burst: Decimal
    period: PeriodView
    next_change_at: datetime | None
    policy: Policy
    metadata: Mapping[str, str]
    as_of: datetime


def pool_view(definition: PoolDefinition, book: Book) -> PoolView:
    pool, balances, counters = book.pool, book.pool.balances, book.pool.counters
    period = PeriodView(
        start=counters.period_start,
        end=counters.period_end,
        used=counters.used,
        overage=counters.overage,
        burst=counters.burst,
        spend=counters.spend,
        top_ups=counters.top_ups,
    )
    return PoolView(
        key=pool.key,
        name=definition.name,
        unit=pool.unit,
        customer=pool.customer,
        license=definition.license,
        subject=pool.subject,
        subscription=definition.subscription,
        timezone=pool.timezone,
        closed=definition.closed,
        serves_children=definition.serves_children,
        rate_card=definition.rate_card,
        available=balances[Account.GRANT],
        held=balances[Account.HELD],
        used=balances[Account.USED],
        pending=balances[Account.PENDING],
        expired=balances[Account.EXPIRED],
        overdraft=EXACT.minus(balances[Account.OVERDRAFT]),
        overage=EXACT.minus(balances[Account.OVERAGE]),
        burst=EXACT.minus(balances[Account.BURST]),
        period=period,
        next_change_at=book.next_due,
        policy=definition.policy,
        metadata=definition.metadata,
        as_of=pool.as_of,
    )


class GrantView(Struct, frozen=True, kw_only=True):
    """A grant as it stands; see `NewGrant` for what its fields mean."""

    id: str
    key: str | None
    amount: Decimal
    available: Decimal
    held: Decimal
    status: str
    basis: str
    priority: int
    issued_at: datetime
    effective_at: datetime
    expires_at: datetime | None
    cost: Decimal | None
    on_invoice: bool
    pay_by: datetime | None
    metadata: Mapping[str, str]


def grant_view(pool_id: UUID, grant: Grant) -> GrantView:
    values = msgspec.structs.asdict(grant)
    for name in ("number", "recurrence"):
        del values[name]
    return GrantView(id=encode_numbered(Prefix.GRANT, pool_id, grant.number), **values)


class RecurrenceView(Struct, frozen=True, kw_only=True):
    """A recurring grant; `next_at` is when the next one comes."""

    key: str
    amount: Decimal
    priority: int
    basis: str
    cost: Decimal | None
    renewal: Any
    timezone: str
    starts_at: datetime
    ends_at: datetime | None
    rollover: Any
    prorated: bool
    next_at: datetime | None


def recurrence_view(one: Recurrence) -> RecurrenceView:
    return RecurrenceView(**{name: getattr(one, name) for name in RecurrenceView.__struct_fields__})


class ShareView(Struct, frozen=True, kw_only=True):
    """A share as it stands: `used` counts units taken or held in this period, by all within it.

    lent: what others took of what was kept for it. in_force: whether its dates say so.
    """

    key: str
    parent: str | None
    guarantee: Decimal
    cap: Decimal | None
    weight: int
    subjects: Sequence[str]
    starts_at: datetime | None
    ends_at: datetime | None
    lend_after_seconds: int | None
    overdraft: Decimal | None
    used: Decimal
    beyond: Decimal
    lent: Decimal
    used_at: datetime | None
    in_force: bool


def share_view(one: Allotment, now: datetime) -> ShareView:
    values = msgspec.structs.asdict(one)
    shown = {name: values[name] for name in ShareView.__struct_fields__ if name in values}
    return ShareView(**shown, in_force=in_force(one, now))


class EntryView(Struct, frozen=True, kw_only=True):
    """One entry of a pool's statement: units from `source` to `target`.

    The balances before and after are those of the two accounts; where one is that of grants, those
    of this grant. available_after: what all grants of the pool had left then.
    """

    sequence: int
    id: str
    reason: str
    source: str
    target: str
    amount: Decimal
    source_before: Decimal
    source_after: Decimal
    target_before: Decimal
    target_after: Decimal
    available_after: Decimal
    time: datetime
    grant: str | None
    subject: str | None
    allotment: str | None
    price: Decimal | None
    key: str | None
    undoes: str | None
    used_at: datetime | None
    metadata: Mapping[str, str] | None


def entry_view(entry: Entry) -> EntryView:
    pool_id = entry.pool_id
    grant, undoes = entry.grant_number, entry.undoes
    return EntryView(
        sequence=entry.sequence,
        id=encode_numbered(Prefix.DRAW, pool_id, entry.operation),
        reason=entry.reason,
        source=entry.source,
        target=entry.target,
        amount=entry.amount,
        source_before=EXACT.add(entry.source_after, entry.amount),
        source_after=entry.source_after,
        target_before=EXACT.subtract(entry.target_after, entry.amount),
        target_after=entry.target_after,
        available_after=entry.available_after,
        time=entry.time,
        grant=None if grant is None else encode_numbered(Prefix.GRANT, pool_id, grant),
        subject=entry.subject,
        allotment=entry.allotment,
        price=entry.price,
        key=entry.key,
        undoes=None if undoes is None else encode_numbered(Prefix.DRAW, pool_id, undoes),
        used_at=entry.used_at,
        metadata=None if entry.note is None else msgspec.json.decode(entry.note),
    )
