"""Subscriptions: what is pinned when they begin, and the little that may change."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from farebox.access.id import uuidv7
from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.plan import Plan
from farebox.flows.publish import publish
from farebox.flows.put_customer import put_customer
from farebox.flows.put_subscription import PutSubscription, SubscriptionCode, put_subscription
from farebox.postgres.session import Pool

NOW = datetime(2026, 3, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def world(pool: Pool, organization_id: UUID) -> UUID:
    publish(pool, organization_id, [Plan(key="p", currency="USD")], NOW)
    publish(pool, organization_id, [Plan(key="p", currency="USD", name="Two")], NOW)
    customer = Customer(key="acme", timezone="Asia/Tokyo")
    put_customer(pool, organization_id, customer, NOW, uuidv7(1, os.urandom(10)))
    return organization_id


def _put(pool: Pool, world: UUID, at: datetime = NOW, **fields: Any) -> Any:
    subscription = Subscription(
        **{"key": "s", "customer": "acme", "plan": "p", "start": START, **fields}
    )
    return put_subscription(pool, world, subscription, at, lambda: uuidv7(1, os.urandom(10)))


def _codes(answer: Any) -> list[tuple[str, str]]:
    assert isinstance(answer, list), answer
    return [(one.code.value, one.pointer) for one in answer]


def test_it_pins_the_newest_plan_version_and_the_customers_time_zone(
    pool: Pool, world: UUID
) -> None:
    done = _put(pool, world)
    assert (True, True) == (done.created, done.changed)
    assert (2, "Asia/Tokyo") == (done.row.plan_version, done.row.timezone)
    publish(pool, world, [Plan(key="p", currency="USD", name="Three")], NOW)
    put_customer(pool, world, Customer(key="acme"), NOW, uuidv7(1, os.urandom(10)))
    again = _put(pool, world)
    assert (False, 2, "Asia/Tokyo") == (again.changed, again.row.plan_version, again.row.timezone)


def test_a_version_and_a_time_zone_that_are_given(pool: Pool, world: UUID) -> None:
    done = _put(pool, world, plan_version=1, timezone="UTC")
    assert (1, "UTC") == (done.row.plan_version, done.row.timezone)


# One row a refusal, in the order of the enum: what stands, and what is put over it.
REFUSALS: dict[SubscriptionCode, tuple[dict[str, Any], dict[str, Any], str]] = {
    SubscriptionCode.UNKNOWN_PLAN_VERSION: ({}, {"plan_version": 3}, "/plan_version"),
    SubscriptionCode.SUBSCRIPTION_FIXED: ({}, {"start": START + DAY}, "/start"),
    SubscriptionCode.SUBSCRIPTION_ENDED: ({"end": NOW - DAY}, {"end": NOW + DAY}, "/end"),
    SubscriptionCode.END_IN_PAST: ({}, {"end": NOW}, "/end"),
}


def test_every_refusal_has_its_row() -> None:
    assert list(SubscriptionCode) == list(REFUSALS)


@pytest.mark.parametrize("code", SubscriptionCode)
def test_refusals(pool: Pool, world: UUID, code: SubscriptionCode) -> None:
    standing, put, pointer = REFUSALS[code]
    before = _put(pool, world, **standing)
    assert isinstance(before, PutSubscription)
    assert [(code.value, pointer)] == _codes(_put(pool, world, **put))
    assert before.row == _put(pool, world, **standing).row


@pytest.mark.parametrize(
    "fields",
    [{"timezone": "UTC"}, {"anchor_day": 15}, {"plan_version": 1}, {"start": NOW}],
)
def test_what_never_changes(pool: Pool, world: UUID, fields: dict[str, Any]) -> None:
    _put(pool, world)
    assert [("subscription_fixed", f"/{next(iter(fields))}")] == _codes(_put(pool, world, **fields))


def test_the_end_may_move_while_it_lies_ahead(pool: Pool, world: UUID) -> None:
    _put(pool, world)
    for end in (NOW + 9 * DAY, NOW + 3 * DAY, None):
        assert end == _put(pool, world, end=end, metadata={"reason": "x"}).row.ends_at
    past = _put(pool, world, key="old", end=NOW - DAY)
    assert NOW - DAY == past.row.ends_at
    assert _put(pool, world, key="old", end=NOW - DAY, metadata={"a": "b"}).changed


def test_it_is_checked(pool: Pool, world: UUID) -> None:
    assert [("unknown_plan", "/plan"), ("unknown_customer", "/customer")] == _codes(
        _put(pool, world, plan="none", customer="none")
    )
    assert [("subscription_ends_before_start", "/end")] == _codes(
        _put(pool, world, end=START - DAY)
    )
