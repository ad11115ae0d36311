"""Put a pool as it should be: open it, or change what it allows from now on."""

from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct, structs
from psycopg import Connection

from farebox.catalog.code import CatalogCode
from farebox.catalog.plan import Plan, RateCard
from farebox.catalog.problem import Problem
from farebox.flows.change_pool import write_books
from farebox.flows.entitle import card_of_feature
from farebox.flows.load_catalog import standing_customers
from farebox.ledger.administer import change_policy
from farebox.ledger.pool import Pool, PoolDefinition, PoolStatus
from farebox.ledger.pool_check import PoolCode, check_pool
from farebox.ledger.refusal import Refusal
from farebox.money.rounding import exact
from farebox.postgres import burn, catalog, rollup
from farebox.postgres import pool as store
from farebox.postgres.book import read_books
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import find_subscription
from farebox.postgres.draft import lock_organization
from farebox.postgres.entitlement import find_feature
from farebox.postgres.license import find_license
from farebox.postgres.session import Pool as Connections
from farebox.postgres.session import transaction


class PutPool(Struct, frozen=True):
    """The pool as it stands, and whether anything changed."""

    pool_id: UUID
    definition: PoolDefinition
    changed: bool
    created: bool = False


def put_pool(
    connections: Connections,
    organization_id: UUID,
    definition: PoolDefinition,
    now: datetime,
    pool_id: UUID,
) -> PutPool | Refusal | list[Problem]:
    """Open a pool, or change what it allows; `pool_id` is for a new one.

    Its unit, customer, license, subject and time zone never change. The customer of a pool of a
    license is that of the license.
    """
    with transaction(connections, organization_id) as connection:
        lock_organization(connection, organization_id)
        definition, problems = _licensed(connection, organization_id, definition)
        found = store.find_definition(connection, organization_id, definition.key)
        if found is not None:
            definition = _as_stored(connection, organization_id, *found, definition)
            if definition == found[1]:  # whatever would be refused of it by now
                return PutPool(found[0], definition, changed=False)
        problems += check_pool(definition)
        timezone = "UTC"
        if definition.customer is not None:
            standing = standing_customers(connection, organization_id, [definition.customer])
            if not standing:
                message = f"there is no customer {definition.customer!r}"
                problems.append(Problem(CatalogCode.UNKNOWN_CUSTOMER, "/customer", message))
            else:
                timezone = standing[0].timezone
        problems += _subscription(connection, organization_id, definition)
        problems += _rate_card(connection, organization_id, definition)
        if problems:
            return problems
        if found is None:
            opened = Pool(
                key=definition.key,
                unit=definition.unit,
                customer=definition.customer,
                subject=definition.subject,
                policy=definition.policy,
                status=PoolStatus.CLOSED if definition.closed else PoolStatus.OPEN,
                opened_at=now,
                as_of=now,
                timezone=definition.timezone or timezone,
            )
            store.add_pool(connection, organization_id, pool_id, opened, definition)
            if definition.rate_card is not None and not definition.closed:
                since = burn.boundary(connection, organization_id, _whose(definition), now)
                _burn(connection, organization_id, pool_id, definition, since)
            return PutPool(pool_id, definition, changed=True, created=True)
        return _change(connection, organization_id, *found, definition, now)


def _licensed(
    connection: Connection, organization_id: UUID, definition: PoolDefinition
) -> tuple[PoolDefinition, list[Problem]]:
    """Return a definition with the customer of its license, and what is wrong with that."""
    if definition.license is None:
        return definition, []
    found = find_license(connection, organization_id, definition.license)
    whose = definition.customer
    if found is not None and whose in (None, found.license.customer):
        return structs.replace(definition, customer=found.license.customer), []
    message = f"there is no license {definition.license!r}"
    if found is not None or whose is not None:
        message = f"the pool's customer has no license {definition.license!r}"
    return definition, [Problem(PoolCode.LICENSE_UNKNOWN, "/license", message)]


def _as_stored(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    before: PoolDefinition,
    definition: PoolDefinition,
) -> PoolDefinition:
    """Return a definition with the time zone that it was stored with, where it says no other.

    That of its customer is shown and not stored; that of a feature's pool is stored, and may be
    left out.
    """
    if definition.timezone is None:
        return structs.replace(definition, timezone=before.timezone)
    if before.timezone is None and definition.timezone is not None:
        zone = store.timezone_of(connection, organization_id, pool_id)
        if definition.timezone == zone:
            return structs.replace(definition, timezone=None)
    return definition


def _change(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    before: PoolDefinition,
    definition: PoolDefinition,
    now: datetime,
) -> PutPool | Refusal | list[Problem]:
    problems = _fixed(before, definition)
    if problems:
        return problems
    # Who pays may change, also by terms that have come: no invoice becomes final from here to the
    # commit. Before any pool is locked.
    rollup.hold_watermark(connection, organization_id)
    since = now
    burns_anew = _burns(definition) != _burns(before) or (
        definition.closed != before.closed
        and (
            definition.rate_card is not None
            or find_feature(connection, organization_id, pool_id) is not None
        )
    )
    if burns_anew:
        whose = _whose(before, definition)
        since = burn.boundary(connection, organization_id, whose, now)
    stated = read_books(connection, organization_id, [pool_id], lock=True)[pool_id]
    with exact():
        refusal = change_policy(stated.book, definition.policy, now)
    if refusal is not None:
        return refusal
    write_books(connection, organization_id, [stated])
    if store.put_definition(connection, organization_id, pool_id, definition):
        rollup.note_rewritten(connection, organization_id)  # for a run that has read it
    if burns_anew:
        since = max(since, stated.book.pool.as_of)
        _burn(connection, organization_id, pool_id, definition, since)
        serves = definition.serves_children
        if serves != before.serves_children:
            store.serve_children(connection, organization_id, pool_id, since, serves=serves)
    return PutPool(pool_id, definition, changed=True)


def _burns(definition: PoolDefinition) -> tuple[str | None, bool]:
    return definition.rate_card, definition.serves_children


def _whose(*definitions: PoolDefinition) -> str | None:
    """Return whose usage burns the pool; none where it is not one customer's alone."""
    if any(one.serves_children for one in definitions):
        return None
    return definitions[0].customer


def _burn(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    definition: PoolDefinition,
    now: datetime,
) -> None:
    """Let usage burn the pool as its definition says from now on, or no more.

    A feature's pool that names no rate card is used up by the feature's meter. A closed one pays
    for nothing, so what is used from now on is for whoever pays next.
    """
    scope = connection, organization_id, pool_id
    if definition.closed:
        burn.end(*scope, now)
        return
    card, children = definition.rate_card, definition.serves_children
    if card is None:
        children = False
        feature = find_feature(*scope)
        if feature is not None and definition.customer is not None:
            whose = connection, organization_id, definition.customer
            card = card_of_feature(*whose, feature, now)
    if card is None:
        burn.end(*scope, now)
    else:
        burn.begin(*scope, card, now, serves_children=children)


def _subscription(
    connection: Connection, organization_id: UUID, definition: PoolDefinition
) -> list[Problem]:
    if definition.subscription is None:
        return []
    row = find_subscription(connection, organization_id, definition.subscription)
    if row is None or row.customer_key != definition.customer:
        message = f"the pool's customer has no subscription {definition.subscription!r}"
        return [Problem(PoolCode.SUBSCRIPTION_UNKNOWN, "/subscription", message)]
    versions = catalog.versions(connection, organization_id, Kind.PLAN, row.plan_key)
    (found,) = [one for one in versions if one.version == row.plan_version]
    plan = msgspec.json.decode(found.definition, type=Plan)
    if definition.policy.currency not in (None, plan.currency):
        message = f"the subscription is invoiced in {plan.currency}"
        return [Problem(CatalogCode.CURRENCY_MISMATCH, "/policy/currency", message)]
    return []


def _rate_card(
    connection: Connection, organization_id: UUID, definition: PoolDefinition
) -> list[Problem]:
    key = definition.rate_card
    if key is None:
        return []
    versions = catalog.versions(connection, organization_id, Kind.RATE_CARD, key)
    if not versions:
        message = f"there is no rate card {key!r}"
        return [Problem(CatalogCode.UNKNOWN_RATE_CARD, "/rate_card", message)]
    card = msgspec.json.decode(versions[-1].definition, type=RateCard)
    if card.custom_unit and card.currency == definition.unit and definition.customer is not None:
        return []
    message = f"rate card {key} is not one in the custom unit {definition.unit}, or nobody's pool"
    return [Problem(PoolCode.RATE_CARD_UNIT, "/rate_card", message)]


def _fixed(before: PoolDefinition, after: PoolDefinition) -> list[Problem]:
    return [
        Problem(PoolCode.POOL_FIXED, f"/{name}", f"the {name} of a pool never changes")
        for name in ("unit", "customer", "license", "subject", "timezone")
        if getattr(before, name) != getattr(after, name)
    ]
