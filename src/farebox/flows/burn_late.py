"""Usage that becomes a customer's after the steps of burning have passed it by.

A step asks whose an event is as it stands by then, a bill as it stands when the bill is made. So
whoever says otherwise for a time that has passed burns what the steps would have burned, in the
same transaction, and may not say so where the usage has burned another pool.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.flows.burn_targets import Target, burn_targets, serving_pools
from farebox.flows.burn_usage import burn_readings
from farebox.flows.rate_periods import read_terms
from farebox.period.instant import END
from farebox.period.span import without
from farebox.postgres import burn
from farebox.postgres import burn_late as store
from farebox.postgres.burn_late import Burned, Mapped, SubjectTarget
from farebox.postgres.customer import SubjectRow

Targets = Mapping[str | None, Sequence[Target]]
"""By customer, which pools its use burns; nobody burns none."""


def changed(
    rows: Sequence[SubjectRow], subject: str, customer: str, starts: datetime
) -> list[Mapped]:
    """Return what becomes the customer's if a subject so mapped is its from `starts` on."""
    standing = [
        (max(row.valid_from, starts), row.valid_to, row.customer_key)
        for row in rows
        if row.valid_to > starts
    ]
    free = without(starts, END, [(since, until) for since, until, _ in standing])
    return [
        *(Mapped(subject, customer, *span) for span in free),
        *(Mapped(subject, customer, *one) for one in standing if one[2] != customer),
    ]


def burn_late(
    connection: Connection, organization_id: UUID, mapped: Sequence[Mapped], now: datetime
) -> list[Burned]:
    """Burn what of these changes lies behind the steps, in the caller's transaction, once.

    No step goes on until that ends, so a step sees all of the change or nothing. Returns the
    usage that has burned a pool which it would not burn as what it becomes; where there is some
    nothing has burned, and the change must not be made.
    """
    if not mapped:
        return []
    customers = {one.customer for one in mapped} | {one.former for one in mapped if one.former}
    serving = serving_pools(connection, organization_id, sorted(customers))
    if not serving.pools:
        return []
    targets: dict[str | None, list[Target]] = defaultdict(list)
    for target in burn_targets(serving, read_terms(connection, organization_id).cards):
        targets[target[0]].append(target)
    near = [part for one in mapped for part in _near(one, targets)]
    burned = burn.wait_for_watermark(connection, organization_id) if near else None
    if burned is None:
        return []
    takers = store.read_late(connection, organization_id, near, burned)
    former = [target for one in near for target in _of(one, targets.get(one.former, ()))]
    later = [target for one in near for target in _of(one, targets.get(one.customer, ()))]
    found = store.paid_before(connection, [*former, *later])
    if former:
        found += store.leave_burned(connection, organization_id, former, later)
    if found:
        return found
    burn_readings(connection, organization_id, takers, now)
    return []


def _near(one: Mapped, targets: Targets) -> Iterable[Mapped]:
    """Yield the part of a change from the first to the last instant at which a pool may burn."""
    burning = [*targets.get(one.customer, ()), *targets.get(one.former, ())]
    start = max(one.start, min((target[3] for target in burning), default=END))
    end = min(one.end, max((target[4] for target in burning), default=END))
    if start < end:
        yield msgspec.structs.replace(one, start=start, end=end)


def _of(one: Mapped, targets: Sequence[Target]) -> Iterable[SubjectTarget]:
    for _, meter, pool_id, since, until in targets:
        start, end = max(since, one.start), min(until, one.end)
        if start < end:
            yield SubjectTarget(one.subject, meter, pool_id, start, end)
