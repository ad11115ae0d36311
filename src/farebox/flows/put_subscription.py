"""Put a customer on a plan: the version is pinned and the time zone settled, once for all."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.check import check_document
from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.document import Document
from farebox.catalog.plan import Plan
from farebox.catalog.problem import Problem
from farebox.flows.entitle import sync_entitlements
from farebox.flows.load_catalog import standing_catalog, standing_customers
from farebox.postgres import catalog
from farebox.postgres import customer as store
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool, transaction


class SubscriptionCode(StrEnum):
    """Why a subscription is not put, in order of precedence."""

    UNKNOWN_PLAN_VERSION = "unknown_plan_version"
    SUBSCRIPTION_FIXED = "subscription_fixed"
    SUBSCRIPTION_ENDED = "subscription_ended"
    END_IN_PAST = "end_in_past"


class PutSubscription(Struct, frozen=True):
    """The subscription as it stands, and whether anything changed."""

    row: SubscriptionRow
    changed: bool
    created: bool = False


def put_subscription(
    pool: Pool,
    organization_id: UUID,
    subscription: Subscription,
    now: datetime,
    new_id: Callable[[], UUID],
) -> PutSubscription | list[Problem]:
    """Add a subscription, or set the end and metadata of one that is there.

    It takes the plan version given, or the newest published. The pools of the customer's metered
    entitlements are opened and filled in the same transaction.
    """
    with transaction(pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        known = msgspec.structs.replace(
            standing_catalog(connection, organization_id),
            customers=tuple(
                standing_customers(connection, organization_id, [subscription.customer])
            ),
        )
        problems = [
            msgspec.structs.replace(one, pointer=one.pointer.removeprefix("/subscriptions/0"))
            for one in check_document(Document(subscriptions=(subscription,)), known)
        ]
        return problems or put_subscription_in(
            connection, organization_id, subscription, now, new_id
        )


def put_subscription_in(
    connection: Connection,
    organization_id: UUID,
    subscription: Subscription,
    now: datetime,
    new_id: Callable[[], UUID],
) -> PutSubscription | list[Problem]:
    """As `put_subscription`, in a transaction that holds the organization's lock and checked."""
    standing = store.find_subscription(connection, organization_id, subscription.key)
    version = _pinned(connection, organization_id, subscription, standing)
    if isinstance(version, Problem):
        return [version]
    customer = store.find_customer(connection, organization_id, subscription.customer)
    assert customer is not None, "the check found the customer"
    row = _row(subscription, version, customer, standing, new_id)
    if standing is not None:
        problems = _fixed(row, standing) or _end_problems(row, standing, now)
        if problems:
            return problems
        before = msgspec.json.decode(standing.definition, type=Subscription)
        if before == subscription:
            return PutSubscription(standing, changed=False)
    store.put_subscription(connection, organization_id, subscription, row, now)
    sync_entitlements(connection, organization_id, subscription.customer, now, new_id)
    after = store.find_subscription(connection, organization_id, subscription.key)
    assert after is not None
    return PutSubscription(after, changed=True, created=standing is None)


def _pinned(
    connection: Connection,
    organization_id: UUID,
    subscription: Subscription,
    standing: SubscriptionRow | None,
) -> int | Problem:
    """Return the plan version: the one given, else the one it has, else the newest."""
    if subscription.plan_version is None and standing is not None:
        return standing.plan_version
    versions = catalog.versions(connection, organization_id, Kind.PLAN, subscription.plan)
    numbers = [version.version for version in versions]
    wanted = numbers[-1] if subscription.plan_version is None else subscription.plan_version
    if wanted not in numbers:
        message = f"plan {subscription.plan} has no version {wanted} (1 to {numbers[-1]})"
        return Problem(SubscriptionCode.UNKNOWN_PLAN_VERSION, "/plan_version", message)
    plan = msgspec.json.decode(versions[wanted - 1].definition, type=Plan)
    newest = msgspec.json.decode(versions[-1].definition, type=Plan)
    if plan.currency != newest.currency:
        message = f"version {wanted} of plan {plan.key} is in {plan.currency}, an older currency"
        return Problem(SubscriptionCode.UNKNOWN_PLAN_VERSION, "/plan_version", message)
    return wanted


def _row(
    subscription: Subscription,
    plan_version: int,
    customer: Customer,
    standing: SubscriptionRow | None,
    new_id: Callable[[], UUID],
) -> SubscriptionRow:
    settled = customer.timezone if standing is None else standing.timezone
    return SubscriptionRow(
        key=subscription.key,
        subscription_id=new_id() if standing is None else standing.subscription_id,
        customer_key=subscription.customer,
        plan_key=subscription.plan,
        plan_version=plan_version,
        starts_at=subscription.start,
        ends_at=subscription.end,
        timezone=subscription.timezone or settled,
        anchor_day=subscription.anchor_day,
        definition="",
    )


_FIXED = (
    ("customer_key", "customer"),
    ("plan_key", "plan"),
    ("plan_version", "plan_version"),
    ("starts_at", "start"),
    ("timezone", "timezone"),
    ("anchor_day", "anchor_day"),
)


def _fixed(row: SubscriptionRow, standing: SubscriptionRow) -> list[Problem]:
    return [
        Problem(
            SubscriptionCode.SUBSCRIPTION_FIXED,
            f"/{field}",
            f"{field} of a subscription stays as it began; end it and begin another",
        )
        for name, field in _FIXED
        if getattr(row, name) != getattr(standing, name)
    ]


def _end_problems(row: SubscriptionRow, standing: SubscriptionRow, now: datetime) -> list[Problem]:
    if row.ends_at == standing.ends_at:
        return []
    if standing.ends_at is not None and standing.ends_at <= now:
        message = f"it ended at {standing.ends_at.isoformat()}; begin another"
        return [Problem(SubscriptionCode.SUBSCRIPTION_ENDED, "/end", message)]
    if row.ends_at is not None and row.ends_at <= now:
        message = "the end of a subscription that runs lies in the future"
        return [Problem(SubscriptionCode.END_IN_PAST, "/end", message)]
    return []
