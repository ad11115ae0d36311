"""A refusal says to wait only where what is known to come lets the request through."""

from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal, Inexact, localcontext
from typing import Any

import pytest
from farebox_ledger_desk import START, Desk
from farebox_ledger_strategies import few, policies, rollovers, steps, trees, zones
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.ledger.administer import (
    NewRecurrence,
    add_recurrence,
    move_units,
    set_terms,
    void_grant,
)
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Draw, Extend, Reserve
from farebox.ledger.decide import check
from farebox.ledger.grant import GrantStatus, Rollover
from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import Burst, Limit, LimitMode, Payment, Policy, Refill, Renewal, TopUp
from farebox.ledger.pool import Terms
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.transfer import Cause
from farebox.ledger.wait import say_when
from farebox.money.rounding import exact
from farebox.period.cycle import Unit

pytestmark = pytest.mark.usefixtures("exactly")
D = Decimal
SCHEDULED = GrantStatus.SCHEDULED
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MONTH = Renewal(unit=Unit.MONTH)


def refused(outcome: object) -> Refusal:
    assert isinstance(outcome, Refusal), outcome
    return outcome


def waits(desk: Desk, amount: int, subject: str | None = None) -> datetime | None:
    """Return until when a draw that is refused is told to wait."""
    return refused(desk.ask(Draw(amount=D(amount), subject=subject), desk.pool.as_of)).enough_at


def renewed() -> Desk:
    """Return a desk of ten units a month, of which two are left."""
    desk = Desk()
    desk.recur("10", renewal=MONTH)
    desk.ask(Draw(amount=D(8)), START)
    return desk


def renews(desk: Desk) -> datetime | None:
    (one,) = desk.recurrences.values()
    return one.next_at


def test_a_renewal_helps_whom_it_brings_enough_and_nobody_else() -> None:
    desk = renewed()
    assert renews(desk) is not None
    assert [renews(desk), None] == [waits(desk, 10), waits(desk, 11)]
    # Either way more comes by itself.
    assert renews(desk) == refused(desk.ask(Draw(amount=D(11)), START)).refills_at


def test_what_expires_until_then_is_not_counted_and_what_rolls_over_is() -> None:
    desk = Desk()
    desk.recur("10", renewal=MONTH, rollover=Rollover(percent=D(50)))
    desk.grant("3", expires_at=START + DAY)
    assert [None, renews(desk)] == [waits(desk, 16), waits(desk, 15)]


def test_the_first_of_several_times_that_does_is_said() -> None:
    desk = Desk()
    for days in (1, 2, 3):
        desk.grant("10", effective_at=START + days * DAY)
    found = [waits(desk, amount) for amount in (10, 11, 21, 31)]
    assert [START + 1 * DAY, START + 2 * DAY, START + 3 * DAY, None] == found


def test_a_rate_limit_never_holds_more_than_its_capacity() -> None:
    desk = Desk(Policy(refill=Refill(amount=D(1), seconds=60, capacity=D(10))))
    desk.ask(Draw(amount=D(10)), START)
    assert [START + timedelta(minutes=10), None] == [waits(desk, 10), waits(desk, 11)]


def test_of_a_rate_limit_that_is_held_as_much_may_be_used() -> None:
    desk = Desk(Policy(refill=Refill(amount=D(1), seconds=60, capacity=D(10))))
    desk.ask(Reserve(amount=D(10), seconds=HOUR.seconds), START)
    assert waits(desk, 5) is None


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (Policy(limit=Limit(mode=LimitMode.OVERAGE, units=D(5))), 15),
        (Policy(limit=Limit(mode=LimitMode.OVERAGE, price=D(2), spend_cap=D(8))), 14),
        (Policy(burst=Burst(units=D(3), price=D(1))), 13),
    ],
)
def test_what_counts_anew_in_the_next_period_counts(policy: Policy, most: int) -> None:
    desk = Desk(policy)
    desk.recur("10", renewal=MONTH)
    desk.ask(Draw(amount=D(most)), START)
    ends = desk.book.pool.counters.period_end
    assert [ends, None] == [waits(desk, most), waits(desk, most + 1)]


def test_what_is_held_counts_in_the_next_period_too() -> None:
    desk = Desk(Policy(limit=Limit(mode=LimitMode.OVERAGE, units=D(5))))
    desk.ask(Reserve(amount=D(3), seconds=60), START)
    desk.ask(Draw(amount=D(2)), START)
    ends = desk.book.pool.counters.period_end
    assert [ends, None] == [waits(desk, 2), waits(desk, 3)]


def test_the_cap_of_a_share_is_never_passed_by_waiting() -> None:
    desk = Desk(shares=[Allotment(key="ann", cap=D(4))])
    desk.recur("10", renewal=MONTH)
    desk.ask(Draw(amount=D(3), subject="ann"), START)
    ends = desk.book.pool.counters.period_end
    assert [ends, None] == [waits(desk, 4, "ann"), waits(desk, 5, "ann")]


def test_what_is_owed_is_repaid_first() -> None:
    desk = Desk(Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=D(5))))
    desk.recur("10", renewal=MONTH)
    desk.ask(Draw(amount=D(14)), START)
    assert [renews(desk), None] == [waits(desk, 11), waits(desk, 12)]


@pytest.mark.parametrize("payment", Payment)
def test_what_the_pool_may_buy_again_counts_unless_it_is_paid_first(payment: Payment) -> None:
    terms: dict[str, Any] = {"payment": payment, "cool_off_seconds": 3600, "times": 3}
    desk = Desk(Policy(top_up=TopUp(below=D(1), amount=D(10), cost=D(1), **terms)))
    desk.grant("10")
    desk.ask(Draw(amount=D(10)), START)
    desk.ask(Draw(amount=D(10)), START)
    helps = START + HOUR if payment is Payment.INVOICE else None
    assert [helps, None] == [waits(desk, 10), waits(desk, 11)]


def test_a_license_that_has_not_begun_helps_whom_there_is_enough_for() -> None:
    desk = Desk()
    desk.grant("10")
    desk.book.pool.license = LicenseTerm("L-1", START + DAY)
    outcomes = [check(desk.book, Draw(amount=D(amount)), START) for amount in (10, 11)]
    assert [START + DAY, None] == [refused(one).enough_at for one in outcomes]


def test_more_in_a_hold_and_a_move_say_it_as_well() -> None:
    desk, other = renewed(), Desk(key="other")
    held = desk.ask(Reserve(amount=D(1), seconds=60), START)
    number = next(iter(desk.holds))
    assert not isinstance(held, Refusal)
    for amount, helps in ((9, True), (11, False)):
        extended = desk.ask(Extend(hold=number, amount=D(amount)), START)
        moved = move_units(desk.book, other.book, D(amount), START, Cause(START))
        expected = renews(desk) if helps else None
        assert [expected] * 2 == [refused(one).enough_at for one in (extended, moved)]


def test_a_move_out_of_a_license_that_is_over_waits_for_what_comes() -> None:
    desk, other = renewed(), Desk(key="other")
    desk.book.pool.license = LicenseTerm("L-1", START - DAY, START - HOUR)
    found = [
        refused(move_units(desk.book, other.book, D(amount), START, Cause(START))).enough_at
        for amount in (10, 11)
    ]
    assert [renews(desk), None] == found


def test_a_move_does_not_wait_for_a_purchase_since_nothing_is_bought_for_it() -> None:
    policy = TopUp(below=D(1), amount=D(10), cost=D(1), cool_off_seconds=3600, times=3)
    desk, other = Desk(Policy(top_up=policy)), Desk(key="other")
    desk.ask(Draw(amount=D(10)), START)
    assert START + HOUR == waits(desk, 10)
    moved = move_units(desk.book, other.book, D(10), START, Cause(START))
    assert refused(moved).enough_at is None
    assert refused(move_units(desk.book, other.book, D(10), START + HOUR, Cause(START)))


def test_a_scheduled_grant_that_was_taken_back_does_not_come() -> None:
    desk = Desk()
    first, second, _ = [desk.grant("1", effective_at=START + days * DAY) for days in (1, 2, 3)]
    desk.do(void_grant, second, START)
    assert [START + DAY, START + 3 * DAY, None] == [waits(desk, amount) for amount in (1, 2, 3)]
    desk.do(void_grant, first, START)
    assert START + 3 * DAY == waits(desk, 1)


def test_an_idle_share_keeps_its_part_anew_from_each_period_on() -> None:
    idle = Allotment(key="ann", guarantee=D(10), lend_after_seconds=36 * HOUR.seconds)
    desk = Desk(Policy(renewal=Renewal(unit=Unit.DAY)), shares=[idle])
    desk.grant("10")
    desk.grant("1", effective_at=START + 2 * DAY + 13 * HOUR)
    # Idle for a day and a half it never is, for every day it begins anew; so one unit is free.
    assert [START + 2 * DAY + 13 * HOUR, None] == [waits(desk, amount) for amount in (1, 2)]


def test_terms_in_another_currency_count_what_is_spent_anew() -> None:
    limit = Limit(mode=LimitMode.OVERAGE, price=D(1), spend_cap=D(5))
    desk = Desk(Policy(limit=limit, currency="USD"))
    terms = {"at": START + DAY, "limit": limit, "renewal": Renewal()}
    desk.do(set_terms, Terms(currency="EUR", **terms))
    desk.ask(Draw(amount=D(5)), START)
    assert [START + DAY, None] == [waits(desk, amount) for amount in (5, 6)]


@pytest.mark.parametrize(("renewal", "anew"), [(Renewal(unit=Unit.WEEK), False), (Renewal(), True)])
def test_terms_with_other_periods_or_of_another_plan_begin_one_at_once(
    renewal: Renewal, anew: bool
) -> None:
    limit = Limit(mode=LimitMode.OVERAGE, units=D(5))
    desk = Desk(Policy(limit=limit))
    terms = {"limit": limit, "currency": None, "anew": anew}
    desk.do(set_terms, Terms(at=START + DAY, renewal=renewal, **terms))
    desk.ask(Draw(amount=D(5)), START)
    assert [START + DAY, None] == [waits(desk, amount) for amount in (5, 6)]


def test_of_a_first_period_that_is_short_nothing_is_told_but_of_the_next() -> None:
    desk = Desk()
    short = Renewal(unit=Unit.MONTH, anchor_day=15)
    desk.recur("10", renewal=short, prorated=True, starts_at=START + DAY)
    desk.grant("1", effective_at=START + 30 * DAY)
    ends = desk.book.pool.counters.period_end  # by then the next one has begun
    found = [waits(desk, amount) for amount in (1, 10, 11, 12)]
    assert [ends, ends, START + 30 * DAY, None] == found


def test_of_what_comes_the_rest_rolls_over_as_well() -> None:
    desk = Desk(Policy(renewal=Renewal(unit=Unit.QUARTER)))
    desk.recur("10", renewal=MONTH, rollover=Rollover(percent=D(50)))
    desk.ask(Draw(amount=D(4)), START)
    # Of the six that are left three are kept, of ten that nobody takes five.
    ends = desk.book.pool.counters.period_end
    assert [renews(desk), ends, None] == [waits(desk, amount) for amount in (13, 15, 16)]


def test_what_rolls_over_ends_with_what_recurs() -> None:
    desk = Desk()
    ends = START + 40 * DAY
    rollover = Rollover(percent=D(100), seconds=60 * DAY // timedelta(seconds=1))
    desk.recur("10", renewal=MONTH, rollover=rollover, ends_at=ends)
    desk.grant("15", effective_at=ends)
    assert [renews(desk), None] == [waits(desk, 20), waits(desk, 21)]


def test_nothing_has_changed_where_to_look_ahead_fails() -> None:
    price, shares = D("0.12345"), [Allotment(key="ann", guarantee=D(1))]
    limit = Limit(mode=LimitMode.HARD, spend_cap=D(1))
    desk = Desk(Policy(limit=limit, burst=Burst(units=D(1), price=D(1))), shares=shares)
    desk.recur("10", renewal=MONTH)
    assert not isinstance(desk.ask(Draw(amount=D(11), subject="ann"), START), Refusal)
    desk.book.pool.policy = Policy(limit=limit, burst=Burst(units=D(12345), price=price))
    before = deepcopy((desk.book.pool, desk.book.shares.by_key))
    refusal = Refusal(RefusalCode.INSUFFICIENT_BALANCE, "", refills_at=renews(desk))
    with localcontext(prec=6), pytest.raises(Inexact):
        say_when(desk.book, refusal, D(12345), Cause(START))
    assert before == (desk.book.pool, desk.book.shares.by_key)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whoever_waits_is_given_it(data: st.DataObject) -> None:
    """Asked again of a copy of the book at every time at which something comes."""
    with exact():
        _ask_and_wait(data)


def _ask_and_wait(data: st.DataObject) -> None:
    desk = Desk(
        data.draw(policies),
        shares=data.draw(trees()),
        opened_at=START - DAY,
        timezone=data.draw(zones),
    )
    now = START
    for number in range(data.draw(st.integers(0, 2))):
        kept = data.draw(st.none() | rollovers)
        asked = NewRecurrence(key=f"r{number}", amount=data.draw(few), rollover=kept)
        desk.do(add_recurrence, asked, now)
    for _ in range(data.draw(st.integers(0, 3))):
        begins = now + data.draw(st.sampled_from([timedelta(0), HOUR, 3 * DAY]))
        ends = data.draw(st.sampled_from([None, begins + 5 * DAY, begins + 40 * DAY]))
        desk.grant(data.draw(few), now, effective_at=begins, expires_at=ends)
    for _ in range(data.draw(st.integers(0, 5))):
        now += data.draw(steps)
        subject = data.draw(st.sampled_from([None, "ann", "carl"]))
        amount = data.draw(few)
        outcome = desk.ask(Draw(amount=amount, subject=subject), now)
        if isinstance(outcome, Refusal):
            _compare(desk, outcome, Draw(amount=amount, subject=subject))


def _compare(desk: Desk, refusal: Refusal, asked: Draw) -> None:
    counters = desk.book.pool.counters
    times = {one.next_at for one in desk.recurrences.values()}
    times |= {one.effective_at for one in desk.grants.values() if one.status is SCHEDULED}
    times |= {counters.period_end, refusal.refills_at}
    given = [
        time
        for time in sorted(one for one in times if one is not None and one > desk.pool.as_of)
        if not isinstance(check(deepcopy(desk.book), asked, time), Refusal)
    ]
    if desk.pool.policy.limit.mode is LimitMode.OVERDRAFT:
        # What may be borrowed on what comes, and what that repays by turns, is not worked out.
        assert refusal.enough_at is None or refusal.enough_at in given
    elif refusal.refills_at is not None:
        assert (given or [None])[0] == refusal.enough_at
