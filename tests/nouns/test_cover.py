"""What would cover: as many of a top-up as it takes, and the cheapest plan that has enough."""

from decimal import Decimal

import pytest

from farebox.catalog.cover import CoverKind, cheapest
from farebox.catalog.plan import Entitlement, Feature, Fee, Interval, Plan, TopUpOffer

D = Decimal
CALLS = Feature(key="calls", top_ups=(TopUpOffer(units=D(500), price=D(5), currency="USD"),))


def plan(key: str, fee: int, **fields: object) -> Plan:
    given: dict[str, object] = {"key": key, "currency": "USD", **fields}
    return Plan(fees=(Fee(key="fee", amount=D(fee)),), **given)  # type: ignore[arg-type]


PLANS = (
    plan("small", 1, entitlements=(Entitlement(feature="calls", limit=D(10)),)),
    plan("large", 9, entitlements=(Entitlement(feature="calls", limit=D(100)),)),
    plan("listed", 3, features=("calls",)),
    plan("valued", 2, entitlements=(Entitlement(feature="calls", value="eu"),)),
)


@pytest.mark.parametrize(
    ("missing", "count"), [("0", 1), ("500", 1), ("500.1", 2), ("1400", 3), ("1501", 4)]
)
def test_a_top_up_is_bought_as_often_as_it_takes(missing: str, count: int) -> None:
    (found,) = cheapest(CALLS, (), missing=D(missing), needed=None, currency=None)
    assert (CoverKind.TOP_UP, D(500 * count), D(5 * count)) == (
        found.kind,
        found.units,
        found.price,
    )


def test_what_is_counted_needs_a_plan_that_counts_enough() -> None:
    (found,) = cheapest(CALLS, PLANS, missing=None, needed=D(11), currency="USD")
    assert "large" == found.key


def test_of_plans_by_the_day_and_by_the_month_the_cheaper_by_the_year_is_named() -> None:
    enough = (Entitlement(feature="calls", limit=D(100)),)
    daily = plan("daily", 1, interval=Interval.DAY, entitlements=enough)
    (found,) = cheapest(CALLS, (daily, *PLANS), missing=None, needed=D(11), currency="USD")
    assert ("large", D(9), Interval.MONTH, 1) == (
        found.key,
        found.price,
        found.interval,
        found.interval_count,
    )


def test_where_nothing_entitles_a_plan_will_do_that_has_it_simply_on() -> None:
    (found,) = cheapest(CALLS, PLANS, missing=None, needed=D(11), currency=None, plain=True)
    assert ("valued", None) == (found.key, found.units)


def test_where_neither_would_cover_nothing_is_named() -> None:
    assert [] == cheapest(CALLS, PLANS, missing=None, needed=None, currency=None)
