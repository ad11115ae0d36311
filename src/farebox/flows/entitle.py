"""What a customer may use: from its plans, add-ons, purchases and overrides, with the origin.

A metered entitlement is a pool of the customer, filled by a recurring grant for each subscription
that brings a limit. `sync_entitlements` keeps pools and grants in step with what was sold.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.entitled import (
    Entitled,
    EntitledKind,
    Origin,
    OriginKind,
    Source,
    combine,
    sources_of,
)
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Plan
from farebox.flows.change_pool import write_books
from farebox.ledger.administer import (
    NewRecurrence,
    add_recurrence,
    change_policy,
    end_recurrence_at,
)
from farebox.ledger.book import Book
from farebox.ledger.grant import Rollover
from farebox.ledger.policy import Limit, LimitMode, Renewal
from farebox.ledger.pool import Pool, PoolDefinition
from farebox.money.rounding import exact
from farebox.period.calendar import day_at
from farebox.period.cycle import Unit
from farebox.postgres import catalog, customer
from farebox.postgres import entitlement as store
from farebox.postgres import pool as pools
from farebox.postgres.book import read_books
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool as Connections
from farebox.postgres.session import transaction, unbound

_MODES = {
    EntitlementLimit.HARD: LimitMode.HARD,
    EntitlementLimit.SOFT: LimitMode.SOFT,
    EntitlementLimit.OVERAGE: LimitMode.OVERAGE,
}
# Recurring grants of entitlements are called `whose/when`. No key of anybody's has a slash, so
# they are neither another's nor among those that people put into the pool by themselves.
_OVERRIDE = "override"
_SUBSCRIPTION = "subscription/"


def effective(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    now: datetime,
    subject: str | None = None,
) -> dict[str, Entitled]:
    """Return what a customer may use at `now`, by feature, those that it may not included.

    subject: whose own access counts too; without, only what the whole customer bought.
    """
    sources: dict[str, list[Source]] = {}
    for row, plan in _running(connection, organization_id, customer_key, now):
        for one in sources_of(plan, row.key, row.ends_at):
            sources.setdefault(one.entitlement.feature, []).append(one)
    for access in store.access_of(connection, organization_id, customer_key, now):
        if access.subject in (None, subject):
            origin = Origin(
                kind=OriginKind.PURCHASE, name=str(access.operation), ends_at=access.ends_at
            )
            given = Entitlement(feature=access.feature_key)
            one = Source(origin=origin, entitlement=given)
            sources.setdefault(access.feature_key, []).append(one)
    overrides = store.overrides(connection, organization_id, customer_key, now)
    return {
        feature: combine(feature, sources.get(feature, ()), overrides.get(feature))
        for feature in sorted({*sources, *overrides})
    }


def _running(
    connection: Connection, organization_id: UUID, customer_key: str, now: datetime
) -> list[tuple[SubscriptionRow, Plan]]:
    rows = store.active_subscriptions(connection, organization_id, customer_key, now)
    return [(row, _plan(connection, organization_id, row)) for row in rows]


def _plan(connection: Connection, organization_id: UUID, row: SubscriptionRow) -> Plan:
    versions = catalog.versions(connection, organization_id, Kind.PLAN, row.plan_key)
    (found,) = [one for one in versions if one.version == row.plan_version]
    return msgspec.json.decode(found.definition, type=Plan)


def sync_entitlements(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    now: datetime,
    new_id: Callable[[], UUID],
) -> None:
    """Let the customer's pools of features hold what was sold; the organization is locked."""
    entitled = effective(connection, organization_id, customer_key, now)
    standing = store.pools_of_features(connection, organization_id, customer_key)
    metered = {key: one for key, one in entitled.items() if one.kind is EntitledKind.METERED}
    if not metered and not standing:
        return
    running = {
        row.key: (row, plan)
        for row, plan in _running(connection, organization_id, customer_key, now)
    }
    owner = customer.find_customer(connection, organization_id, customer_key)
    assert owner is not None, "a subscription has its customer"
    for feature in sorted({*metered, *standing}):
        one = metered.get(feature)
        if feature not in standing:
            assert one is not None
            pool_id = _open(
                connection, organization_id, owner.key, owner.timezone, one, now, new_id()
            )
        else:
            pool_id = standing[feature][0]
        _fill(connection, organization_id, pool_id, one, running, now)


def sync_due(pool: Connections, now: datetime, span: timedelta, new_id: Callable[[], UUID]) -> int:
    """Sync every customer for whom a subscription or an override began or ended within `span`.

    Syncing twice changes nothing, so spans may overlap. Returns how many customers that were.
    """
    with unbound(pool) as connection:
        found = store.customers_to_sync(connection, now - span, now)
    for organization_id, customer_key in found:
        with transaction(pool, organization_id) as connection:
            lock_organization(connection, organization_id)
            sync_entitlements(connection, organization_id, customer_key, now, new_id)
    return len(found)


def _open(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    timezone: str,
    entitled: Entitled,
    now: datetime,
    pool_id: UUID,
) -> UUID:
    feature = entitled.feature
    versions = catalog.versions(connection, organization_id, Kind.FEATURE, feature)
    unit = msgspec.json.decode(versions[-1].definition, type=Feature).unit if versions else "use"
    key = f"{feature}:{customer_key}"
    if len(key) > 128 or pools.find_pool(connection, organization_id, key=key) is not None:
        key = f"{feature[:60]}:{pool_id.hex}"
    definition = PoolDefinition(
        key=key, name=feature, unit=unit, customer=customer_key, timezone=timezone
    )
    opened = Pool(
        key=key,
        unit=unit,
        customer=customer_key,
        opened_at=now,
        as_of=now,
        timezone=timezone,
    )
    pools.add_pool(connection, organization_id, pool_id, opened, definition)
    store.set_feature(connection, organization_id, pool_id, feature)
    return pool_id


def _fill(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    entitled: Entitled | None,
    running: Mapping[str, tuple[SubscriptionRow, Plan]],
    now: datetime,
) -> None:
    """Bring policy and recurring grants of a feature's pool to what was sold."""
    stated = read_books(connection, organization_id, [pool_id], lock=True)[pool_id]
    book = stated.book
    found = pools.find_definition(connection, organization_id, book.pool.key)
    assert found is not None
    wanted = {} if entitled is None else _recurrences(entitled, running, now)
    definition = _definition(found[1], entitled, running)
    with exact():
        if definition != found[1]:
            change_policy(book, definition.policy, now)
        _renew(book, wanted, now)
    if definition != found[1]:
        pools.put_definition(connection, organization_id, pool_id, definition)
    if book.changed:
        write_books(connection, organization_id, [stated])


def _definition(
    definition: PoolDefinition,
    entitled: Entitled | None,
    running: Mapping[str, tuple[SubscriptionRow, Plan]],
) -> PoolDefinition:
    """Return the pool as it should be: its limit, and on whose invoice its overage stands."""
    limit, currency, subscription = Limit(), None, None
    renewal = definition.policy.renewal
    if entitled is not None:
        mode = LimitMode.OVERAGE if entitled.unlimited else _MODES[entitled.beyond]
        price = None if entitled.unlimited else entitled.price
        limit = Limit(mode=mode, price=price)
        owners = [one.subscription for one in entitled.origins if one.subscription in running]
        if owners:
            row, plan = running[owners[0] or ""]
            subscription, currency = row.key, plan.currency
            renewal = _renewal(row, plan)
    policy = msgspec.structs.replace(
        definition.policy, limit=limit, currency=currency, renewal=renewal
    )
    return msgspec.structs.replace(definition, policy=policy, subscription=subscription)


def _renewal(row: SubscriptionRow, plan: Plan) -> Renewal:
    anchor = row.anchor_day or _local_day(row)
    return Renewal(unit=Unit(plan.interval.value), count=plan.interval_count, anchor_day=anchor)


def _local_day(row: SubscriptionRow) -> int:
    return day_at(row.starts_at, row.timezone).day


def _recurrences(
    entitled: Entitled, running: Mapping[str, tuple[SubscriptionRow, Plan]], now: datetime
) -> dict[str, NewRecurrence]:
    """Return the grants that should recur, by whose they are."""
    wanted = {}
    for source in entitled.sources:
        limit = source.entitlement.limit
        if limit is None or limit == 0:
            continue
        percent = source.entitlement.rollover_percent
        rollover = Rollover(percent=percent) if percent else None
        subscription = source.origin.subscription
        if subscription is None:
            wanted[_OVERRIDE] = NewRecurrence(
                key=_OVERRIDE, amount=limit, starts_at=now, ends_at=source.origin.ends_at
            )
            continue
        row, plan = running[subscription]
        key = f"{_SUBSCRIPTION}{subscription}"
        wanted[key] = NewRecurrence(
            key=key,
            amount=limit,
            renewal=_renewal(row, plan),
            timezone=row.timezone,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            rollover=rollover,
        )
    return wanted


def _renew(book: Book, wanted: Mapping[str, NewRecurrence], now: datetime) -> None:
    # Numbers count down, so of one name the newest is the last.
    ordered = sorted(book.recurrences.values(), key=lambda one: -one.number)
    standing = {one.key.rpartition("/")[0]: one for one in ordered if "/" in one.key}
    for key, one in standing.items():
        if one.next_at is None:
            continue  # it has ended
        asked = wanted.get(key)
        if asked is None or asked.amount != one.amount or asked.rollover != one.rollover:
            end_recurrence_at(book, one.number, now, now)
        elif asked.ends_at != one.ends_at:
            end_recurrence_at(book, one.number, asked.ends_at, now)
    for key, asked in wanted.items():
        before = standing.get(key)
        if before is None or before.next_at is None:
            # A key of a pool's recurrence is never used twice: what follows gets a number.
            number = 1 - min(book.recurrences, default=0)
            renamed = msgspec.structs.replace(asked, key=f"{key}/{now:%Y%m%dT%H%M%S%f}-{number}")
            add_recurrence(book, renamed, now)


def limits_of(entitled: Entitled) -> Decimal | None:
    """Return the sum of what the sources allow each period; none: without bound, or not metered."""
    if entitled.unlimited or entitled.kind is not EntitledKind.METERED:
        return None
    limits = (one.limit for one in entitled.origins if one.limit is not None)
    return sum(limits, Decimal(0))
