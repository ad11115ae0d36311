"""From a feature and who wants to use it to the pool that decides, or to a plain yes or no."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.cover import Cover, cheapest
from farebox.catalog.entitled import Entitled, EntitledKind
from farebox.catalog.plan import Feature, Plan
from farebox.flows.entitle import effective, sync_entitlements
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import exact
from farebox.postgres import catalog
from farebox.postgres import customer as customers
from farebox.postgres import entitlement as store
from farebox.postgres.catalog import Kind
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool, transaction


class Resolved(Struct, frozen=True):
    """Whose entitlement it is, and the pool that decides, none where it is yes without counting."""

    customer: str
    entitled: Entitled
    pool_id: UUID | None
    pool: str | None


class Resolution(Struct, frozen=True):
    """What decides on a use of a feature; until: when that may be another by itself."""

    outcome: Resolved | Refusal
    until: datetime | None = None


def resolve_feature(
    pool: Pool,
    organization_id: UUID,
    feature: str,
    customer: str | None,
    subject: str | None,
    now: datetime,
    new_id: Callable[[], UUID],
    *,
    license: str | None = None,
) -> Resolution:
    """Return what decides on a use of `feature` by a customer, or by the customer of `subject`.

    license: of the customer; what it grants counts too, while it is in force.
    """
    with transaction(pool, organization_id) as connection:
        key = customer or _customer_of(connection, organization_id, subject, now)
        if key is None or customers.find_customer(connection, organization_id, key) is None:
            detail = f"there is no customer {key!r}" if key else "nobody's subject asks"
            return Resolution(Refusal(RefusalCode.CUSTOMER_UNKNOWN, detail))
        until = store.next_change(connection, organization_id, key, license, now)
        entitled = effective(connection, organization_id, key, now, subject, license=license).get(
            feature
        )
        if entitled is None or not entitled.enabled:
            detail = f"nothing entitles customer {key!r} to {feature[:100]!r} now"
            return Resolution(Refusal(RefusalCode.FEATURE_NOT_ENTITLED, detail), until)
        if entitled.kind is not EntitledKind.METERED:
            return Resolution(Resolved(key, entitled, None, None), until)
        standing = store.pools_of_features(connection, organization_id, key)
        if feature not in standing:
            lock_organization(connection, organization_id)
            sync_entitlements(connection, organization_id, key, now, new_id)
            standing = store.pools_of_features(connection, organization_id, key)
        pool_id, pool_key = standing[feature]
        return Resolution(Resolved(key, entitled, pool_id, pool_key), until)


def _customer_of(
    connection: Connection, organization_id: UUID, subject: str | None, now: datetime
) -> str | None:
    if subject is None:
        return None
    rows = customers.subject_rows(connection, organization_id, [subject])
    return next((row.customer_key for row in rows if row.valid_from <= now < row.valid_to), None)


def is_overridden(
    connection: Connection,
    organization_id: UUID,
    feature: str,
    customer: str | None,
    subject: str | None,
    now: datetime,
) -> bool:
    """Return whether an override stands before whatever plan this customer may take."""
    key = customer or _customer_of(connection, organization_id, subject, now)
    return key is not None and feature in store.overrides(connection, organization_id, key, now)


class Offers(Struct, frozen=True):
    """What is sold of a feature: its top-ups, and every plan in its newest version."""

    feature: Feature
    plans: Sequence[Plan]


def offers_of(connection: Connection, organization_id: UUID, feature_key: str) -> Offers | None:
    """Return what is sold of a feature, none where there is no such feature."""
    versions = catalog.versions(connection, organization_id, Kind.FEATURE, feature_key)
    if not versions:
        return None
    newest: dict[str, Plan] = {}
    for one in catalog.versions(connection, organization_id, Kind.PLAN):
        newest[one.key] = msgspec.json.decode(one.definition, type=Plan)
    feature = msgspec.json.decode(versions[-1].definition, type=Feature)
    return Offers(feature, list(newest.values()))


def covers(
    offers: Offers, wanted: Decimal, available: Decimal, used: Decimal, currency: str | None
) -> list[Cover]:
    """Return what would cover `wanted` units where so many are left and were used this period."""
    with exact():
        return cheapest(
            offers.feature,
            offers.plans,
            missing=max(Decimal(0), wanted - available),
            needed=used + wanted,
            currency=currency,
        )
