"""What a customer may use: from its plans, add-ons, purchases and overrides, with the origin.

A metered entitlement is a pool of the customer, filled by a recurring grant for each subscription
that brings a limit. `sync_entitlements` keeps pools and grants in step with what was sold.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
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
from farebox.catalog.license import granted
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Plan
from farebox.flows.burn_feature import begin_burn, cards_of_features, plan_burns
from farebox.flows.change_pool import write_books
from farebox.flows.renew_entitlement import (
    OVERRIDE,
    SUBSCRIPTION,
    renew_entitlement,
    turn_period,
)
from farebox.ledger.account import ZERO
from farebox.ledger.administer import NewRecurrence, change_policy
from farebox.ledger.decide import prepare
from farebox.ledger.grant import Rollover
from farebox.ledger.license import not_in_force
from farebox.ledger.policy import Limit, LimitMode, Renewal
from farebox.ledger.pool import Pool, PoolDefinition
from farebox.money.rounding import exact
from farebox.period.calendar import day_at
from farebox.period.cycle import Unit
from farebox.postgres import burn, catalog, customer
from farebox.postgres import entitlement as store
from farebox.postgres import pool as pools
from farebox.postgres.book import read_books
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.license import find_license

_MODES = {
    EntitlementLimit.HARD: LimitMode.HARD,
    EntitlementLimit.SOFT: LimitMode.SOFT,
    EntitlementLimit.OVERAGE: LimitMode.OVERAGE,
}


def effective(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    now: datetime,
    subject: str | None = None,
    *,
    license: str | None = None,
) -> dict[str, Entitled]:
    """Return what a customer may use at `now`, by feature, those that it may not included.

    subject: whose own access counts too; without, only what the whole customer bought. license: of
    the customer; what it grants counts too, while it is in force.
    """
    sources: dict[str, list[Source]] = {}
    for row, plan in _running(connection, organization_id, customer_key, now):
        for one in sources_of(plan, row.key, row.ends_at):
            sources.setdefault(one.entitlement.feature, []).append(one)
    for access in store.access_of(connection, organization_id, customer_key, now):
        if access.feature_key is not None and access.subject in (None, subject):
            origin = Origin(
                kind=OriginKind.PURCHASE, name=str(access.operation), ends_at=access.ends_at
            )
            given = Entitlement(feature=access.feature_key)
            one = Source(origin=origin, entitlement=given)
            sources.setdefault(access.feature_key, []).append(one)
    for one in _licensed(connection, organization_id, customer_key, license, now):
        sources.setdefault(one.entitlement.feature, []).append(one)
    overrides = store.overrides(connection, organization_id, customer_key, now)
    return {
        feature: combine(feature, sources.get(feature, ()), overrides.get(feature))
        for feature in sorted({*sources, *overrides})
    }


def _licensed(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    key: str | None,
    now: datetime,
) -> list[Source]:
    """Return what a license grants: nothing if it is another's, or not in force at `now`."""
    row = None if key is None else find_license(connection, organization_id, key)
    if row is None or row.license.customer != customer_key or not_in_force(row.term, now):
        return []
    origin = Origin(kind=OriginKind.LICENSE, name=row.license.key, ends_at=row.license.ends_at)
    return [Source(origin=origin, entitlement=one) for one in granted(row.license)]


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
    burns = plan_burns(
        connection,
        organization_id,
        customer_key,
        metered,
        [plan for _, plan in running.values()],
        {feature: pool_id for feature, (pool_id, _) in standing.items()},
        now,
    )
    store.lock_pools_of_features(connection, organization_id, [customer_key])
    for feature in sorted({*metered, *standing}):
        one = metered.get(feature)
        if feature not in standing:
            assert one is not None
            pool_id = _open(
                connection, organization_id, owner.key, owner.timezone, one, running, now, new_id()
            )
        else:
            pool_id = standing[feature][0]
        charged = burns.is_charged(feature)
        _fill(connection, organization_id, pool_id, one, running, now, charged=charged)
        begin_burn(connection, organization_id, pool_id, feature, burns)


def lock_entitlements(
    connection: Connection, organization_id: UUID, customer_keys: Sequence[str]
) -> None:
    """Lock what syncing several customers locks, so that it is in the order of everybody else."""
    burn.wait_for_watermark(connection, organization_id)
    store.lock_pools_of_features(connection, organization_id, customer_keys)


def card_of_feature(
    connection: Connection, organization_id: UUID, customer_key: str, feature: str, now: datetime
) -> str | None:
    """Return by which card usage burns the pool of a customer's feature that has no other."""
    one = effective(connection, organization_id, customer_key, now).get(feature)
    if one is None or one.kind is not EntitledKind.METERED:
        return None
    plans = [plan for _, plan in _running(connection, organization_id, customer_key, now)]
    return cards_of_features(connection, organization_id, {feature: one}, plans).get(feature)


def _open(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    timezone: str,
    entitled: Entitled,
    running: Mapping[str, tuple[SubscriptionRow, Plan]],
    now: datetime,
    pool_id: UUID,
) -> UUID:
    """Open the pool of a feature; it counts in the periods of what fills it, from their start."""
    feature = entitled.feature
    versions = catalog.versions(connection, organization_id, Kind.FEATURE, feature)
    unit = msgspec.json.decode(versions[-1].definition, type=Feature).unit if versions else "use"
    key = f"{feature}:{customer_key}"
    if len(key) > 128 or pools.find_pool(connection, organization_id, key=key) is not None:
        key = f"{feature[:60]}:{pool_id.hex}"
    definition = _definition(
        PoolDefinition(key=key, name=feature, unit=unit, customer=customer_key, timezone=timezone),
        entitled,
        running,
    )
    begun = now
    if definition.subscription is not None:
        row = running[definition.subscription][0]
        begun, timezone = row.starts_at, row.timezone
        definition = msgspec.structs.replace(definition, timezone=timezone)
    opened = Pool(
        key=key,
        unit=unit,
        customer=customer_key,
        policy=definition.policy,
        opened_at=begun,
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
    *,
    charged: bool,
) -> None:
    """Bring policy and recurring grants of a feature's pool to what was sold.

    charged: a plan charges what is used, and no invoice states what the pool counts.
    """
    stated = read_books(connection, organization_id, [pool_id], lock=True)[pool_id]
    with exact():
        prepare(stated.book, now)
    if stated.book.changed:  # what was used is read from what is written
        write_books(connection, organization_id, [stated])
        stated = read_books(connection, organization_id, [pool_id], lock=True)[pool_id]
    book = stated.book
    found = pools.find_definition(connection, organization_id, book.pool.key)
    assert found is not None
    wanted = {} if entitled is None else _recurrences(entitled, running, now)
    mine = {OVERRIDE, *(f"{SUBSCRIPTION}{key}" for key in running)}

    def used(numbers: Sequence[int], since: datetime) -> Decimal:
        return store.used_of(connection, organization_id, pool_id, numbers, since)

    definition = _definition(found[1], entitled, running)
    if charged:
        definition = msgspec.structs.replace(definition, subscription=None)
    with exact():
        if definition != found[1]:
            change_policy(book, definition.policy, now)
        renew_entitlement(book, wanted, mine, used, now)
        if _length(definition) != _length(found[1]):
            turn_period(book)
    if book.changed:
        write_books(connection, organization_id, [stated])
    if definition != found[1]:
        pools.put_definition(connection, organization_id, pool_id, definition)


def _definition(
    definition: PoolDefinition,
    entitled: Entitled | None,
    running: Mapping[str, tuple[SubscriptionRow, Plan]],
) -> PoolDefinition:
    """Return the pool as it should be: its limit, and on whose invoice its overage stands."""
    limit, currency, subscription = Limit(), None, None
    renewal = definition.policy.renewal
    if entitled is not None:
        limit = Limit(mode=_MODES[entitled.beyond], price=entitled.price)
        if entitled.unlimited:
            limit = Limit(mode=LimitMode.UNLIMITED)
        owners = [one.subscription for one in entitled.origins if one.subscription in running]
        if owners:
            row, plan = running[owners[0] or ""]
            subscription, currency = row.key, plan.currency
            renewal = _renewal(row, plan)
        elif any(one.kind is OriginKind.OVERRIDE for one in entitled.origins):
            before = _goes_before(entitled.feature, running)
            renewal = Renewal(anchor_day=renewal.anchor_day) if before is None else _months(before)
    policy = msgspec.structs.replace(
        definition.policy, limit=limit, currency=currency, renewal=renewal
    )
    return msgspec.structs.replace(definition, policy=policy, subscription=subscription)


def _renewal(row: SubscriptionRow, plan: Plan) -> Renewal:
    anchor = row.anchor_day or _local_day(row)
    return Renewal(unit=Unit(plan.interval.value), count=plan.interval_count, anchor_day=anchor)


def _months(row: SubscriptionRow) -> Renewal:
    """Return the months of an override, which turn when those of a subscription do."""
    return Renewal(anchor_day=row.anchor_day or _local_day(row))


def _length(definition: PoolDefinition) -> tuple[Unit, int]:
    return definition.policy.renewal.unit, definition.policy.renewal.count


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
            asked = NewRecurrence(
                key=OVERRIDE, amount=limit, starts_at=now, ends_at=source.origin.ends_at
            )
            wanted[OVERRIDE] = _in_step(asked, entitled.feature, running)
            continue
        row, plan = running[subscription]
        key = f"{SUBSCRIPTION}{subscription}"
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


def _in_step(
    asked: NewRecurrence, feature: str, running: Mapping[str, tuple[SubscriptionRow, Plan]]
) -> NewRecurrence:
    """Let the months of an override turn when those of the plan that it goes before do."""
    row = _goes_before(feature, running)
    if row is None:
        return asked
    return msgspec.structs.replace(
        asked, renewal=_months(row), timezone=row.timezone, starts_at=row.starts_at
    )


def _goes_before(
    feature: str, running: Mapping[str, tuple[SubscriptionRow, Plan]]
) -> SubscriptionRow | None:
    """Return the subscription whose limit of a feature an override replaces, a plan's first."""
    brings = (
        row
        for row, plan in sorted(running.values(), key=lambda one: one[1].add_on)
        if any(
            one.feature == feature and (one.limit is not None or one.unlimited)
            for one in plan.entitlements
        )
    )
    return next(brings, None)


def limits_of(entitled: Entitled) -> Decimal | None:
    """Return the sum of what the sources allow each period; none: without bound, or not metered."""
    if entitled.unlimited or entitled.kind is not EntitledKind.METERED:
        return None
    limits = (one.limit for one in entitled.origins if one.limit is not None)
    return sum(limits, ZERO)
