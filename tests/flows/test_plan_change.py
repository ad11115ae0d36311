"""A customer's plan changes at an instant: what is used from then on counts for the next one.

Nothing is synced between the change and the use: a pass may come as late as it likes.
"""

from datetime import datetime, timedelta

import pytest
from farebox_plan_turns import (
    DAY,
    MOMENT,
    OVERAGE,
    START,
    TURN,
    D,
    book,
    change,
    overage,
    override,
    plan,
    put,
    sell,
    sync,
    sync_one,
    told,
    use,
    waits,
)
from farebox_world import World, at

from farebox.catalog.entitled import Override
from farebox.catalog.plan import Plan
from farebox.flows.renew_entitlement import resets_at
from farebox.ledger.account import Account
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal, RefusalCode


@pytest.fixture
def sold(world: World) -> World:
    return sell(world)


def test_the_next_plan_brings_its_limit_at_the_turn(sold: World) -> None:
    change(sold, "free", "pro")
    sold.now = TURN - MOMENT
    assert TURN == resets_at(book(sold))
    assert isinstance(use(sold, 41), Refusal)
    sold.now = TURN
    answer = use(sold, 300)
    assert isinstance(answer, Answer)
    assert (D(300), D(200)) == (answer.covered, answer.available)
    sold.now += MOMENT
    sync(sold)


@pytest.mark.parametrize("after", ["pro", None])
def test_nobody_is_told_that_a_pool_is_empty_where_another_plan_fills_it_or_none_is_left(
    sold: World, after: str | None
) -> None:
    change(sold, "free", after)
    sold.now = TURN + MOMENT
    assert ["grant.expired"] == told(sold)  # what was left of the plan before


def test_who_takes_a_smaller_plan_is_not_near_its_limit(sold: World) -> None:
    change(sold, "pro", "free")
    sold.now = TURN + MOMENT
    assert ["grant.expired"] == told(sold)
    assert isinstance(use(sold, 79), Answer)
    assert [] == told(sold)
    assert isinstance(use(sold, 1), Answer)
    assert ["entitlement.limit_near"] == told(sold)


def test_who_nears_the_limit_of_the_next_plan_is_told_so_again(sold: World) -> None:
    change(sold, "free", "pro")
    assert isinstance(use(sold, 25), Answer)
    assert ["entitlement.limit_near"] == told(sold)
    sold.now = TURN + MOMENT
    assert ["grant.expired"] == told(sold)
    assert isinstance(use(sold, 400), Answer)
    assert ["entitlement.limit_near"] == told(sold)
    assert isinstance(use(sold, 10), Answer)
    assert [] == told(sold)


@pytest.mark.parametrize("before", ["free", "cheap"])
def test_an_unlimited_plan_bounds_nothing_from_the_turn_on(sold: World, before: str) -> None:
    change(sold, before, "enterprise")
    sold.now = TURN
    answer = use(sold, 10_000)
    assert isinstance(answer, Answer)
    assert (D(10_000), {}) == (answer.covered, answer.beyond)
    sync(sold)


def test_a_plan_that_ends_an_unlimited_one_bounds_from_the_turn_on(sold: World) -> None:
    change(sold, "enterprise", "free")
    sold.now = TURN - MOMENT
    assert isinstance(use(sold, 10_000), Answer)
    sold.now = TURN
    assert isinstance(use(sold, 101), Refusal)
    assert isinstance(use(sold, 100), Answer)
    sync(sold)


def test_without_a_further_plan_nothing_is_sold_beyond_the_last(sold: World) -> None:
    change(sold, "cheap", None)
    sold.now = TURN
    refusal = use(sold, 1)
    assert isinstance(refusal, Refusal)
    assert RefusalCode.INSUFFICIENT_BALANCE == refusal.code
    sync(sold)


def test_what_is_beyond_the_next_plan_costs_what_that_one_says_on_its_invoice(sold: World) -> None:
    change(sold, "cheap", "dear")
    sold.now = TURN - MOMENT
    assert isinstance(use(sold, 50), Answer)
    sold.now = TURN
    assert isinstance(use(sold, 230), Answer)
    sold.now += MOMENT
    sync(sold)
    assert {("acme-cheap", D(10), D("0.10")), ("acme-dear", D(30), D("1.50"))} == overage(sold)


@pytest.mark.parametrize("late", [False, True])
def test_what_is_beyond_the_next_plan_is_in_the_currency_of_that_one(
    sold: World, late: bool
) -> None:
    sold.publish(plan("euro", currency="EUR", limit=D(200), beyond=OVERAGE, price=D("0.05")))
    change(sold, "cheap", "euro")
    sold.now = TURN
    if not late:
        sync_one(sold, "acme")
    assert isinstance(use(sold, 230), Answer)
    sold.now += MOMENT
    sync(sold)
    assert isinstance(use(sold, 1), Answer)
    assert {("acme-euro", D(31), D("1.55"))} == overage(sold)


@pytest.mark.parametrize("late", [False, True])
def test_a_plan_that_comes_beside_another_pays_from_the_turn_on_where_it_goes_before(
    sold: World, late: bool
) -> None:
    put(sold, "dear", START)
    put(sold, "cheap", TURN)
    sold.now = TURN
    if not late:
        sync_one(sold, "acme")
    assert isinstance(use(sold, 330), Answer)
    sold.now += MOMENT
    sync(sold)
    assert {("acme-cheap", D(30), D("0.30"))} == overage(sold)


def test_of_plans_beside_each_other_the_one_that_says_the_price_is_paid_in_its_currency(
    sold: World,
) -> None:
    sold.publish(plan("yen", currency="JPY", limit=D(100), beyond=OVERAGE, price=D(3)))
    put(sold, "free", START)
    put(sold, "yen", START)
    assert isinstance(use(sold, 210), Answer)
    assert {("acme-yen", D(10), D(30))} == overage(sold)


@pytest.mark.parametrize(
    ("after", "end"), [("annual", at("2027-09-20 00:00")), ("pro", at("2026-10-20 00:00"))]
)
def test_what_is_used_of_the_next_plan_counts_from_the_turn_on(
    sold: World, after: str, end: datetime
) -> None:
    change(sold, "free", after)
    sold.now = TURN
    assert isinstance(use(sold, 7), Answer)
    counters = book(sold).pool.counters
    assert (TURN, end, D(7)) == (
        counters.period_start,
        counters.period_end,
        counters.used,
    )
    sold.now = at("2026-10-15 00:00")  # the month before it would have ended by now
    assert isinstance(use(sold, 1), Answer)
    assert D(8) == book(sold).pool.counters.used
    sync(sold)


def test_what_is_used_of_a_plan_that_follows_after_a_while_counts_anew(sold: World) -> None:
    put(sold, "free", START, TURN)
    assert isinstance(use(sold, 60), Answer)
    sold.now = TURN
    sync_one(sold, "acme")
    sold.now = TURN + DAY
    put(sold, "pro", sold.now)
    assert isinstance(use(sold, 7), Answer)
    assert D(7) == book(sold).pool.counters.used
    sync(sold)


def test_what_is_used_beside_another_plan_goes_on_counting_when_that_ends(sold: World) -> None:
    put(sold, "free", START, TURN + DAY)
    put(sold, "pro", TURN)
    assert isinstance(use(sold, 60), Answer)
    sold.now = TURN
    assert isinstance(use(sold, 10), Answer)
    sold.now = TURN + DAY
    sync_one(sold, "acme")
    assert D(70) == book(sold).pool.counters.used


def test_what_only_an_override_gives_is_in_the_currency_of_the_plans(sold: World) -> None:
    sold.publish(Plan(key="support", currency="EUR"))
    put(sold, "support", START, TURN)
    override(sold, Override(limit=D(10)))
    assert "EUR" == book(sold).pool.policy.currency
    sold.now = TURN
    sync_one(sold, "acme")
    assert "EUR" == book(sold).pool.policy.currency


def test_an_upcoming_plan_may_be_cut_short_or_overridden_and_still_brings_its_limit(
    sold: World,
) -> None:
    change(sold, "free", "pro")
    put(sold, "pro", TURN, at("2026-12-01 00:00"))
    override(sold, Override(limit=D(300)))
    assert D(240) == book(sold).pool.available
    override(sold, None)
    sync(sold)
    assert D(40) == book(sold).pool.available
    sold.now = TURN
    assert D(500) == book(sold).pool.available
    sync(sold)
    sold.now = at("2026-12-01 00:00")
    assert D(0) == book(sold).pool.available


def test_a_pool_that_is_put_before_the_turn_keeps_what_was_put(sold: World) -> None:
    change(sold, "free", "cheap")
    pool = book(sold).pool
    sold.pool_of(
        pool.key,
        unit=pool.unit,
        customer="acme",
        subscription="acme-free",
        currency="USD",
        renewal=pool.policy.renewal,
        hold_seconds=77,
    )
    sold.now = TURN
    answer = use(sold, 150)
    assert isinstance(answer, Answer)
    assert {Account.OVERAGE: D(50)} == answer.beyond
    assert 77 == book(sold).pool.policy.hold_seconds


@pytest.mark.parametrize("until", [None, TURN + 3 * DAY])
def test_a_plan_whose_end_is_withdrawn_or_put_off_keeps_what_is_left(
    sold: World, until: datetime | None
) -> None:
    put(sold, "free", START, TURN)
    assert isinstance(use(sold, 60), Answer)
    put(sold, "free", START, until)
    sold.now = TURN + DAY
    assert D(40) == book(sold).pool.available
    sync(sold)
    sold.now += 3 * DAY
    assert D(40 if until is None else 0) == book(sold).pool.available


def test_an_override_that_is_prolonged_keeps_what_is_left(sold: World) -> None:
    put(sold, "free", START)
    override(sold, Override(limit=D(300), ends_at=TURN))
    assert isinstance(use(sold, 60), Answer)
    override(sold, Override(limit=D(300), ends_at=TURN + 5 * DAY))
    sold.now = TURN + DAY
    assert D(240) == book(sold).pool.available


@pytest.mark.parametrize("end", [TURN, at("2026-10-01 00:00")])
def test_a_plan_that_ends_leaves_nothing_also_where_a_share_rolls_over(
    sold: World, end: datetime
) -> None:
    sold.publish(plan("roll", limit=D(300), rollover_percent=D(50)))
    put(sold, "roll", START, end)
    assert isinstance(use(sold, 60), Answer)
    sold.now = end
    assert D(0) == book(sold).pool.available
    sync(sold)


def test_a_put_that_waited_while_others_used_the_pool_still_brings_its_limit(sold: World) -> None:
    put(sold, "free", START)
    asked = START + DAY
    sold.now = asked + timedelta(seconds=6)
    assert isinstance(use(sold, 10), Answer)
    sold.now = asked
    put(sold, "pro", START + timedelta(hours=1))
    sold.now = asked + timedelta(hours=3)
    assert D(590) == book(sold).pool.available
    sync(sold)


@pytest.mark.parametrize("after", ["annual", "pro"])
def test_a_sync_whose_clock_is_before_the_turn_changes_nothing_that_came(
    sold: World, after: str
) -> None:
    change(sold, "free", after)
    sold.now = TURN + timedelta(seconds=2)
    assert isinstance(use(sold, 7), Answer)
    before = book(sold).pool
    sold.now = TURN - timedelta(seconds=1)
    sync_one(sold, "acme")
    sold.now = TURN + timedelta(seconds=2)
    assert before == book(sold).pool
    sync(sold)


def test_a_pass_that_finds_nothing_sold_keeps_the_periods_that_came(sold: World) -> None:
    put(sold, "free", START, TURN)
    put(sold, "annual", TURN, TURN + DAY)
    assert isinstance(use(sold, 60), Answer)
    sold.now = TURN
    assert isinstance(use(sold, 7), Answer)
    override(sold, Override(enabled=False))  # before any pass came
    counters = book(sold).pool.counters
    assert (TURN, D(7)) == (counters.period_start, counters.used)


def test_a_limit_resets_when_one_comes_or_goes_and_not_where_none_follows(sold: World) -> None:
    put(sold, "free", START, TURN)
    assert (None, None, None) == (resets_at(book(sold)), *waits(use(sold, 101)))
    put(sold, "enterprise", TURN)
    assert (TURN, TURN, TURN) == (resets_at(book(sold)), *waits(use(sold, 101)))
    sold.now = TURN
    assert at("2026-10-20 00:00") == resets_at(book(sold))
