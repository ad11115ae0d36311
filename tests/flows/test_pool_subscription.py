"""What a pool cost stands on the invoice of the subscription that it named then, wherever it is."""

from datetime import datetime, timedelta
from decimal import Decimal
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from farebox_pool_lines import (
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    billed,
    buy,
    draw,
    name,
    sell,
    take_back,
    unpaid,
    void,
)
from farebox_world import World, at, new_id
from msgspec.structs import replace

from farebox.catalog.customer import Subscription
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Plan
from farebox.flows import bill
from farebox.flows.put_pool import put_pool
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.ledger.command import Answer, Reserve, Settle
from farebox.postgres import entitlement, invoice
from farebox.postgres.pool import find_definition
from farebox.postgres.session import transaction
from farebox.worker.sync import sync_due

MIDDLE = at("2026-09-15")


@pytest.fixture
def sold(world: World) -> World:
    """Return a world with a customer who has two subscriptions of a plan since September."""
    sell(world)
    world.subscribe("acme", "base", SEPTEMBER, key="acme-other")
    return world


def test_a_change_of_plan_within_a_period_bills_each_plan_for_what_was_used_under_it(
    world: World,
) -> None:
    """Also what was used before the pool was synced, after the first plan had ended."""
    world.now = SEPTEMBER
    price = {"small": "0.02", "large": "0.011"}
    world.publish(
        Feature(key="calls"),
        *(
            Plan(
                key=key,
                currency="USD",
                entitlements=(
                    Entitlement(
                        feature="calls",
                        limit=Decimal(100),
                        beyond=EntitlementLimit.OVERAGE,
                        price=Decimal(price[key]),
                    ),
                ),
            )
            for key in price
        ),
    )
    world.customer("acme")
    for key, start, end in (("small", SEPTEMBER, MIDDLE), ("large", MIDDLE, None)):
        one = Subscription(key=key, customer="acme", plan=key, start=start, end=end)
        done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
        assert isinstance(done, PutSubscription), done
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, "acme")
    pool = found["calls"][0]
    world.now = at("2026-09-10")
    draw(world, pool, 133)  # 33 beyond
    world.now = MIDDLE + timedelta(seconds=30)
    draw(world, pool, 4)  # nothing is synced yet
    world.now = MIDDLE + timedelta(minutes=1)
    sync_due(world.pool, world.now, timedelta(hours=1), new_id)
    world.now = at("2026-09-20")
    draw(world, pool, 157)  # 57 beyond

    assert [
        ("small", "overage", Decimal(33), Decimal("0.66")),
        ("large", "overage", Decimal(61), Decimal("0.67")),
    ] == billed(world, at("2026-10-15"))
    assert [] == unpaid(world)


def test_a_pool_that_goes_to_another_subscription_and_back_costs_each_what_was_used_with_it(
    sold: World,
) -> None:
    """All of it at one instant: it is the order that counts."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    draw(sold, pool, 1000)
    name(sold, "acme-other")
    draw(sold, pool, 200)
    name(sold, "acme-base")
    draw(sold, pool, 40)

    assert [
        ("acme-base", "overage", Decimal(1040), Decimal("1.56")),
        ("acme-other", "overage", Decimal(200), Decimal("0.30")),
    ] == billed(sold, OCTOBER)
    assert [] == unpaid(sold)


def test_a_subscription_that_was_named_and_never_used_pays_nothing(sold: World) -> None:
    name(sold, "acme-base")
    pool = name(sold, "acme-other")
    draw(sold, pool, 200)
    assert [("acme-other", "overage", Decimal(200), Decimal("0.30"))] == billed(sold, OCTOBER)


def test_a_hold_counts_for_the_subscription_with_which_it_was_settled(sold: World) -> None:
    pool = name(sold, "acme-base")
    (held,) = sold.ask(pool, Reserve(amount=Decimal(1000), seconds=86_400))
    assert isinstance(held, Answer)
    assert held.hold is not None
    name(sold, "acme-other")
    sold.ask(pool, Settle(hold=held.hold, amount=Decimal(600)))
    assert [("acme-other", "overage", Decimal(600), Decimal("0.90"))] == billed(sold, OCTOBER)


def test_what_is_taken_back_is_credited_to_the_subscription_that_was_charged(sold: World) -> None:
    """Also after its period was invoiced; it is told apart on the line."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    first = draw(sold, pool, 1000)
    name(sold, "acme-other")
    sold.now += timedelta(hours=1)
    draw(sold, pool, 3000)
    take_back(sold, pool, first.operation, Decimal(400))
    assert [
        ("acme-base", "overage", Decimal(600), Decimal("0.90")),
        ("acme-other", "overage", Decimal(3000), Decimal("4.50")),
    ] == billed(sold, OCTOBER)
    take_back(sold, pool, first.operation, Decimal(600))
    assert ("acme-base", "overage", Decimal(-600), Decimal("-0.90")) == billed(sold, NOVEMBER)[-1]
    assert [] == unpaid(sold)


def test_what_is_voided_counts_against_the_subscription_with_which_it_was_used(
    sold: World,
) -> None:
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    first = draw(sold, pool, 1000)
    draw(sold, pool, 100)
    name(sold, "acme-other")
    draw(sold, pool, 200)
    take_back(sold, pool, first.operation, voided=True)
    assert [
        ("acme-base", "overage", Decimal(100), Decimal("0.15")),
        ("acme-other", "overage", Decimal(200), Decimal("0.30")),
    ] == billed(sold, OCTOBER)


def test_a_pool_that_loses_its_subscription_costs_it_what_was_used_until_then(sold: World) -> None:
    """The rest is unpaid; what comes back of it before another takes over is credited."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    first = draw(sold, pool, 1000)
    name(sold, None)
    sold.now = at("2026-09-20")
    take_back(sold, pool, first.operation, Decimal(200))
    draw(sold, pool, 77)
    assert [("acme-base", "overage", Decimal(800), Decimal("1.20"))] == billed(sold, OCTOBER)
    assert [Decimal(77)] == unpaid(sold)


def test_a_subscription_takes_over_what_nobody_paid_for_and_no_invoice_states(sold: World) -> None:
    pool = name(sold, None)
    sold.now = MIDDLE
    draw(sold, pool, 1000)
    sold.now = at("2026-09-20")
    name(sold, "acme-other")
    assert [] == unpaid(sold)
    assert [("acme-other", "overage", Decimal(1000), Decimal("1.50"))] == billed(sold, OCTOBER)
    name(sold, None)
    draw(sold, pool, 55)
    september = billed(sold, NOVEMBER)
    # October is invoiced to both, without it, and stays so.
    name(sold, "acme-base")
    draw(sold, pool, 10)
    november = [("acme-base", "overage", Decimal(10), Decimal("0.02"))]
    assert september + november == billed(sold, at("2026-12-01"))
    assert [Decimal(55)] == unpaid(sold)


def test_nothing_is_taken_over_that_was_priced_in_another_currency(sold: World) -> None:
    sold.publish(Plan(key="euro", currency="EUR"))
    sold.subscribe("acme", "euro", SEPTEMBER, key="acme-euro")
    pool = name(sold, None)
    sold.now = MIDDLE
    draw(sold, pool, 1000)
    name(sold, "acme-euro", currency="EUR")
    draw(sold, pool, 200)
    assert [("acme-euro", "overage", Decimal(200), Decimal("0.30"))] == billed(sold, OCTOBER)
    assert [Decimal(1000)] == unpaid(sold)


def test_what_follows_the_end_of_a_subscription_is_taken_over_by_the_next(sold: World) -> None:
    sold.subscribe("acme", "base", SEPTEMBER, key="short", end=MIDDLE)
    pool = name(sold, "short")
    sold.now = at("2026-09-14")
    draw(sold, pool, 1000)
    sold.now = at("2026-09-16")
    draw(sold, pool, 2000)
    assert [Decimal(2000)] == unpaid(sold)
    sold.now = at("2026-09-20")
    name(sold, "acme-base")
    assert [] == unpaid(sold)
    assert [
        ("acme-base", "overage", Decimal(2000), Decimal("3.00")),
        ("short", "overage", Decimal(1000), Decimal("1.50")),
    ] == billed(sold, OCTOBER)


def test_a_purchase_is_refunded_to_the_subscription_that_was_charged_to_the_cent(
    sold: World,
) -> None:
    """A third of it comes back at a time, under whichever the pool names."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    bought = buy(sold, pool)
    drawn = [draw(sold, pool, 100) for _ in range(2)]
    void(sold, pool, bought)
    name(sold, "acme-other")
    take_back(sold, pool, drawn[0].operation)
    buy(sold, pool)
    name(sold, "acme-base")
    take_back(sold, pool, drawn[1].operation)
    assert [
        ("acme-base", "purchase", Decimal(300), Decimal("10.00")),
        ("acme-base", "refund", Decimal(-300), Decimal("-10.00")),
        ("acme-other", "purchase", Decimal(300), Decimal("10.00")),
    ] == billed(sold, OCTOBER)


def test_what_fell_due_before_the_change_counts_for_the_subscription_of_before(
    sold: World,
) -> None:
    """Whoever puts the pool is the first to look at it since."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    buy(sold, pool, pending=True, pay_by=at("2026-09-20"))
    sold.now = at("2026-09-25")
    name(sold, "acme-other")
    assert [
        ("acme-base", "purchase", Decimal(300), Decimal("10.00")),
        ("acme-base", "refund", Decimal(-300), Decimal("-10.00")),
    ] == billed(sold, OCTOBER)


def test_what_is_taken_over_while_a_run_rates_the_period_is_on_its_invoice(
    sold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = name(sold, None)
    sold.now = MIDDLE
    draw(sold, pool, 1000)
    rate, rated = bill._rate, []

    def rate_and_name(*arguments: Any) -> Any:
        page = rate(*arguments)
        rated.append(page)
        name(sold, "acme-base")
        return page

    monkeypatch.setattr(bill, "_rate", rate_and_name)
    assert [("acme-base", "overage", Decimal(1000), Decimal("1.50"))] == billed(sold, OCTOBER)
    assert 2 == len(rated)


def change_plans(world: World, *plans: tuple[str, str, datetime, datetime | None]) -> UUID:
    """Sell plans (key, currency, start, end) with overage of a feature; return its pool."""
    world.now = SEPTEMBER
    entitled = Entitlement(feature="calls", limit=Decimal(100), beyond=EntitlementLimit.OVERAGE)
    world.publish(Feature(key="calls"))
    for key, currency, *_ in plans:
        price = Decimal("0.01" if key == "cheap" else "0.02")
        brings = replace(entitled, price=price)
        world.publish(Plan(key=key, currency=currency, entitlements=(brings,)))
    world.customer("acme")
    for key, _, start, end in plans:
        one = Subscription(key=key, customer="acme", plan=key, start=start, end=end)
        done = put_subscription(world.pool, world.organization_id, one, world.now, new_id)
        assert isinstance(done, PutSubscription), done
    with transaction(world.pool, world.organization_id) as connection:
        found = entitlement.pools_of_features(connection, world.organization_id, "acme")
    return found["calls"][0]


def test_a_plan_that_runs_on_pays_until_somebody_puts_the_pool_with_another_one(
    world: World,
) -> None:
    """Though terms have come meanwhile, for another plan that has begun, and nobody has synced."""
    plans = ("small", "USD", SEPTEMBER, None), ("cheap", "USD", MIDDLE, None)
    pool = change_plans(world, ("other", "USD", SEPTEMBER, None), *plans)
    world.now = MIDDLE + timedelta(seconds=1)
    draw(world, pool, 320)  # 20 beyond what all of them bring
    with transaction(world.pool, world.organization_id) as connection:
        found = find_definition(connection, world.organization_id, "calls:acme")
    assert found is not None
    definition = replace(found[1], subscription="small")
    put_pool(world.pool, world.organization_id, definition, world.now, new_id())
    draw(world, pool, 7)
    assert [
        ("other", "overage", Decimal(20), Decimal("0.20")),
        ("small", "overage", Decimal(7), Decimal("0.07")),
    ] == billed(world, at("2026-10-15"))
    assert [] == unpaid(world)


def test_what_a_sync_takes_over_while_a_run_rates_the_period_is_on_its_invoice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = change_plans(world, ("small", "USD", SEPTEMBER, MIDDLE), ("large", "USD", MIDDLE, None))
    world.now = at("2026-09-20")
    draw(world, pool, 157)  # nothing is synced yet
    rate, rated = bill._rate, []

    def rate_and_sync(*arguments: Any) -> Any:
        page = rate(*arguments)
        rated.append(page)
        sync_due(world.pool, world.now, timedelta(days=100), new_id)
        return page

    monkeypatch.setattr(bill, "_rate", rate_and_sync)
    assert [("large", "overage", Decimal(57), Decimal("1.14"))] == billed(world, at("2026-10-15"))
    assert 2 == len(rated)
    assert [] == unpaid(world)


def test_a_sync_takes_over_nothing_while_a_run_writes_the_invoice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, and what the invoice leaves out by then stays unpaid, but is listed."""
    pool = change_plans(world, ("small", "USD", SEPTEMBER, MIDDLE), ("large", "USD", MIDDLE, None))
    world.now = at("2026-09-20")
    draw(world, pool, 157)
    add, threads = invoice.add_invoices, []

    def sync_and_add(*arguments: Any) -> None:
        synced = Thread(target=sync_due, args=(world.pool, world.now, timedelta(days=100), new_id))
        synced.start()
        synced.join(0.5)
        threads.append((synced, synced.is_alive()))
        add(*arguments)

    monkeypatch.setattr(invoice, "add_invoices", sync_and_add)
    world.now = at("2026-10-16")
    world.bill(world.now)
    for synced, waited in threads:
        synced.join()
        assert waited
    monkeypatch.undo()
    assert [] == billed(world, at("2026-10-16"))
    assert [Decimal(57)] == unpaid(world)


def test_a_plan_in_another_currency_pays_for_what_was_used_since_it_began_and_no_more(
    world: World,
) -> None:
    """However late it is synced: prices are in its currency from the instant of its start."""
    pool = change_plans(world, ("yen", "JPY", SEPTEMBER, MIDDLE), ("euro", "EUR", MIDDLE, None))
    world.now = at("2026-09-10")
    draw(world, pool, 150)
    world.now = at("2026-09-20")
    draw(world, pool, 130)
    sync_due(world.pool, world.now, timedelta(days=100), new_id)
    draw(world, pool, 7)
    assert [
        ("euro", "overage", Decimal(37), Decimal("0.74")),
        ("yen", "overage", Decimal(50), Decimal(1)),
    ] == sorted(billed(world, at("2026-10-15")))
    assert [] == unpaid(world)


def test_a_pool_without_subscription_is_brought_to_the_end_of_the_period_all_the_same(
    sold: World,
) -> None:
    """A purchase that nobody paid in September is refunded in September, though nobody looked."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    buy(sold, pool, pending=True, pay_by=at("2026-09-20"))
    name(sold, None)
    assert [
        ("acme-base", "purchase", Decimal(300), Decimal("10.00")),
        ("acme-base", "refund", Decimal(-300), Decimal("-10.00")),
    ] == billed(sold, OCTOBER)
