"""What a customer may use: from its plans, add-ons, purchases and overrides, with the origin.

A metered entitlement is a pool of the customer, filled by a recurring grant for each subscription
that brings a limit. `sync_entitlements` keeps pools and grants in step with what was sold.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.customer import Customer
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
from farebox.catalog.plan import Entitlement, Feature, Plan
from farebox.flows.burn_feature import begin_burn, cards_of_features, plan_burns
from farebox.flows.change_pool import write_books
from farebox.flows.entitled_pool import (
    Running,
    Sold,
    definition_of,
    plans_since,
    recurrences_of,
    terms_of,
    upcoming_of,
)
from farebox.flows.renew_entitlement import (
    OVERRIDE,
    SUBSCRIPTION,
    renew_entitlement,
)
from farebox.ledger.account import ZERO
from farebox.ledger.administer import change_policy, set_terms
from farebox.ledger.decide import prepare
from farebox.ledger.due import turn_now
from farebox.ledger.license import not_in_force
from farebox.ledger.pool import Pool, PoolDefinition
from farebox.money.rounding import exact
from farebox.postgres import burn, catalog, customer, rollup
from farebox.postgres import entitlement as store
from farebox.postgres import pool as pools
from farebox.postgres.book import read_books
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.license import find_license


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
    running = _running(connection, organization_id, customer_key, now)
    return _combined(connection, organization_id, customer_key, running, now, subject, license)


def _combined(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    running: Running,
    now: datetime,
    subject: str | None = None,
    license: str | None = None,
) -> dict[str, Entitled]:
    sources: dict[str, list[Source]] = {}
    for row, plan in running.values():
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
) -> Running:
    rows = store.active_subscriptions(connection, organization_id, customer_key, now)
    return {row.key: (row, _plan(connection, organization_id, row)) for row in rows}


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
    """Let the customer's pools of features hold what was sold; the organization is locked.

    What a subscription brings that has not begun, and how a pool decides when it begins or another
    ends, is put into pools that there are: so it counts from that instant, whenever it is synced.
    """
    sold = _sold(connection, organization_id, customer_key, now)
    standing = store.pools_of_features(connection, organization_id, customer_key)
    metered = {key: one for key in sold.entitled if (one := sold.metered(key)) is not None}
    if not metered and not standing:
        return
    turns_at = store.next_turn(connection, organization_id, customer_key, now)
    then = None if turns_at is None else _sold(connection, organization_id, customer_key, turns_at)
    owner = customer.find_customer(connection, organization_id, customer_key)
    assert owner is not None, "a subscription has its customer"
    if standing:
        # Who pays may change: no invoice becomes final from here to the commit. Before any pool is
        # locked, and whatever changes, for this is rare.
        rollup.hold_watermark(connection, organization_id)
    burns = plan_burns(
        connection,
        organization_id,
        customer_key,
        metered,
        [plan for _, plan in sold.running.values()],
        {feature: pool_id for feature, (pool_id, _) in standing.items()},
        now,
    )
    store.lock_pools_of_features(connection, organization_id, [customer_key])
    for feature in sorted({*metered, *standing}):
        if feature in standing:
            pool_id = standing[feature][0]
        else:
            pool_id = new_id()
            _open(connection, organization_id, owner, metered[feature], sold, pool_id)
        charged = burns.is_charged(feature)
        _fill(connection, organization_id, pool_id, feature, sold, then, charged=charged)
        begin_burn(connection, organization_id, pool_id, feature, burns)


def _sold(connection: Connection, organization_id: UUID, customer_key: str, at: datetime) -> Sold:
    scope = connection, organization_id, customer_key
    running = _running(*scope, at)
    return Sold(at, running, _combined(*scope, running, at))


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
    sold = _sold(connection, organization_id, customer_key, now)
    one = sold.metered(feature)
    if one is None:
        return None
    plans = [plan for _, plan in sold.running.values()]
    return cards_of_features(connection, organization_id, {feature: one}, plans).get(feature)


def _open(
    connection: Connection,
    organization_id: UUID,
    owner: Customer,
    entitled: Entitled,
    sold: Sold,
    pool_id: UUID,
) -> None:
    """Open the pool of a feature; it counts in the periods of what fills it, from their start."""
    feature, now, timezone = entitled.feature, sold.at, owner.timezone
    versions = catalog.versions(connection, organization_id, Kind.FEATURE, feature)
    unit = msgspec.json.decode(versions[-1].definition, type=Feature).unit if versions else "use"
    key = f"{feature}:{owner.key}"
    if len(key) > 128 or pools.find_pool(connection, organization_id, key=key) is not None:
        key = f"{feature[:60]}:{pool_id.hex}"
    definition = definition_of(
        PoolDefinition(key=key, name=feature, unit=unit, customer=owner.key, timezone=timezone),
        entitled,
        sold.running,
    )
    begun = now
    if definition.subscription is not None:
        row = sold.running[definition.subscription][0]
        begun, timezone = row.starts_at, row.timezone
        definition = msgspec.structs.replace(definition, timezone=timezone)
    opened = Pool(
        key=key,
        unit=unit,
        customer=owner.key,
        policy=definition.policy,
        opened_at=begun,
        as_of=now,
        timezone=timezone,
    )
    pools.add_pool(connection, organization_id, pool_id, opened, definition)
    store.set_feature(connection, organization_id, pool_id, feature)


def _fill(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    feature: str,
    sold: Sold,
    then: Sold | None,
    *,
    charged: bool,
) -> None:
    """Bring policy and recurring grants of a feature's pool to what was sold, and what comes next.

    charged: a plan charges what is used, and no invoice states what the pool counts.
    """
    stated = read_books(connection, organization_id, [pool_id], lock=True)[pool_id]
    now = max(sold.at, stated.book.pool.as_of)  # whoever syncs may have waited for the lock
    with exact():
        prepare(stated.book, now)
    if stated.book.changed:  # what was used is read from what is written
        write_books(connection, organization_id, [stated])
        stated = read_books(connection, organization_id, [pool_id], lock=True)[pool_id]
    book = stated.book
    found = pools.find_definition(connection, organization_id, book.pool.key)
    assert found is not None
    mine = {OVERRIDE, *(f"{SUBSCRIPTION}{key}" for key in sold.running)}

    def used(numbers: Sequence[int], since: datetime) -> Decimal:
        return store.used_of(connection, organization_id, pool_id, numbers, since)

    # Where next terms have come the book has them, and what is stored does not.
    standing = msgspec.structs.replace(found[1], policy=book.pool.policy)
    definition = definition_of(standing, sold.metered(feature), sold.running)
    if charged:
        definition = msgspec.structs.replace(definition, subscription=None)
    terms = terms_of(definition, sold, then, feature)
    before, length = book.pool.terms, book.pool.policy.renewal.length
    counted, since = book.pool.counters.period_start, plans_since(sold, feature)
    anew = False
    if counted is not None and since is not None and counted < since:
        begun = _sold(connection, organization_id, book.pool.customer or "", since)
        anew = plans_since(begun, feature) == since
    with exact():
        if terms != before:
            set_terms(book, terms)
        if definition.policy != book.pool.policy:
            change_policy(book, definition.policy, now)
        upcoming = upcoming_of(sold, then, feature)
        renew_entitlement(book, recurrences_of(sold, feature), upcoming, mine, used, now)
        if anew or book.pool.policy.renewal.length != length:
            turn_now(book)
    if book.changed or definition != found[1]:
        # The version tells whoever keeps the books in memory that they are others.
        write_books(connection, organization_id, [stated])
    if definition != found[1] and pools.put_definition(
        connection, organization_id, pool_id, definition
    ):
        rollup.note_rewritten(connection, organization_id)  # for a run that has read it
    if terms != before:
        pools.put_terms(connection, organization_id, pool_id, terms)


def limits_of(entitled: Entitled) -> Decimal | None:
    """Return the sum of what the sources allow each period; none: without bound, or not metered."""
    if entitled.unlimited or entitled.kind is not EntitledKind.METERED:
        return None
    limits = (one.limit for one in entitled.origins if one.limit is not None)
    return sum(limits, ZERO)
