"""What to look at before a billing run is final: usage that reaches no line, and what is missing.

A run's warnings speak of the time since the last final run: what was open before was listed then.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.flows.list_unbilled import Stage, all_unbilled
from farebox.flows.unbilled import Unbilled, UnbilledReason
from farebox.flows.watch_sources import source_warnings
from farebox.money.rounding import exact_sum
from farebox.period.instant import BEGINNING
from farebox.postgres import billing_run, unbilled
from farebox.postgres.session import Pool, transaction
from farebox.rating.charge import UnpricedUsage


class BillingWarning(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to look at; `subject` is what it is about: a meter, an event type, a source.

    code: an UnbilledReason or a SourceCode.
    found: how many users, customers or segments it was found at. events, quantity: over all.
    """

    code: str
    subject: str
    message: str
    found: int = 1
    events: int = 0
    quantity: Decimal | None = None


class _Key(NamedTuple):
    reason: UnbilledReason
    subject: str


def warn_before(
    pool: Pool, organization_id: UUID, as_of: datetime, now: datetime
) -> tuple[BillingWarning, ...]:
    """Return what is known before anything is rated: usage that leads nowhere, and the sources."""
    with transaction(pool, organization_id) as connection:
        since = billing_run.last_final_as_of(connection, organization_id, as_of)
    start = BEGINNING if since is None else since
    stages = (Stage.TYPES, Stage.USERS, Stage.NAMED, Stage.CUSTOMERS)
    found = _sum_up(all_unbilled(pool, organization_id, start, as_of, stages))
    found += [
        BillingWarning(code=one.code.value, subject=one.source, message=one.message)
        for one in source_warnings(pool, organization_id, start, as_of, now)
    ]
    return tuple(found)


def warn_unpriced(pool: Pool, organization_id: UUID, run_id: UUID) -> tuple[BillingWarning, ...]:
    """Return what the run's own invoices list as unpriced, by reason and charge."""
    with transaction(pool, organization_id) as connection:
        lists = unbilled.run_unpriced(connection, organization_id, run_id)
    found: dict[tuple[UnbilledReason, str], list[UnpricedUsage]] = {}
    for text in lists:
        for one in msgspec.json.decode(text, type=tuple[UnpricedUsage, ...]):
            key = (UnbilledReason(one.reason.value), _named(one.charge, one.usage.dimensions))
            found.setdefault(key, []).append(one)
    order = list(UnbilledReason)
    return tuple(
        BillingWarning(
            code=reason.value,
            subject=subject,
            message=f"{subject}: {len(usages)} times without a price",
            found=len(usages),
            events=sum(one.usage.events for one in usages),
            quantity=exact_sum(one.usage.quantity for one in usages),
        )
        for (reason, subject), usages in sorted(
            found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
    )


def _named(charge: str, dimensions: Mapping[str, str]) -> str:
    values = ", ".join(f"{name}={value}" for name, value in dimensions.items() if value)
    return f"{charge} ({values})" if values else charge


def _sum_up(items: Iterable[Unbilled]) -> list[BillingWarning]:
    """Put together what has the same reason and meter, in the order of the reasons."""
    found: dict[_Key, BillingWarning] = {}
    for one in items:
        key = _Key(one.reason, one.meter or one.event_type or "")
        before = found.get(key)
        count = 1 + (0 if before is None else before.found)
        events = one.events + (0 if before is None else before.events)
        found[key] = BillingWarning(
            code=one.reason.value,
            subject=key.subject,
            message=f"{events} readings of {key.subject} ({count} found): {one.help}",
            found=count,
            events=events,
        )
    order = list(UnbilledReason)
    return sorted(
        found.values(), key=lambda one: (order.index(UnbilledReason(one.code)), one.subject)
    )


def as_json(warnings: tuple[BillingWarning, ...]) -> str:
    """Return warnings as a billing run keeps them."""
    return msgspec.json.encode(warnings).decode()
