"""Corners of the ledger that were wrong once, or that only shares taken away can reach."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_ledger_desk import START, Desk
from msgspec.structs import replace as but

from farebox.ledger.account import Account
from farebox.ledger.administer import (
    NewGrant,
    add_grant,
    change_policy,
    expire_grant,
    move_units,
    pay_grant,
)
from farebox.ledger.allotment import Allotment, Shares
from farebox.ledger.book import Book
from farebox.ledger.command import Answer, Draw, Extend, Release, Reserve, Settle
from farebox.ledger.decide import SKEW
from farebox.ledger.policy import Burst, Limit, LimitMode, Policy, Renewal, TopUp
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import left
from farebox.ledger.transfer import Cause, Transfer
from farebox.period.cycle import Unit

pytestmark = pytest.mark.usefixtures("exactly")
D = Decimal
HOUR = timedelta(hours=1)
OVERDRAFT = Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=D(10)))


def granted(outcome: Answer | Refusal) -> Answer:
    assert isinstance(outcome, Answer), outcome
    return outcome


def refused(outcome: object) -> Refusal:
    assert isinstance(outcome, Refusal), outcome
    return outcome


def share_anew(desk: Desk, shares: Sequence[Allotment]) -> None:
    """Let a pool have other shares, as `farebox.flows.share_pool` does."""
    desk.book.shares = Shares(shares)
    desk.shares = {one.key: one for one in shares}


# Grants ------------------------------------------------------------------------------------------


def test_a_grant_that_is_not_the_next_to_be_taken_can_be_expired() -> None:
    desk = Desk()
    desk.grant("1", expires_at=START + HOUR)
    desk.grant("2", expires_at=START + 2 * HOUR)
    last = desk.grant("4")
    desk.do(expire_grant, last, START)
    assert D(3) == desk.balance
    desk.reload()
    assert D(3) == granted(desk.ask(Draw(amount=D(3)), START)).covered


def test_a_grant_that_had_to_be_paid_before_it_was_made_is_refused() -> None:
    asked = NewGrant(amount=D(1), pending=True, pay_by=START)
    assert RefusalCode.GRANT_TIMES_INVALID == refused(Desk().do(add_grant, asked, START)).code


def test_the_first_period_of_a_recurrence_may_be_too_short_for_any_unit() -> None:
    dust = D("0.000000000000000001")
    desk = Desk()  # opened five minutes before the 31st
    desk.recur(dust, renewal=Renewal(anchor_day=31), prorated=True)
    assert D(0) == desk.balance
    desk.look(START + 2 * HOUR)
    assert dust == desk.balance


def test_rolled_over_and_moved_units_take_their_part_of_the_cost_along() -> None:
    giving, taking = Desk(), Desk(key="other")
    number = giving.grant("3", cost=D("10"), priority=4, expires_at=START + HOUR)
    assert move_units(giving.book, taking.book, D(1), START, Cause(START)) is None
    (moved,) = taking.book.grants.values()
    old = giving.book.grants[number]
    assert (D("3.333333333333333333"), 4, old.expires_at) == (
        moved.cost,
        moved.priority,
        moved.expires_at,
    )
    balances = giving.book.pool.balances, taking.book.pool.balances
    assert D(0) == sum(one[Account.TRANSIT] for one in balances)


# Taking back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [False, True])
def test_units_that_return_to_a_closed_grant_can_be_taken_again(written: bool) -> None:
    desk = Desk()
    number = desk.grant("5", expires_at=START + HOUR)
    drawn = granted(desk.ask(Draw(amount=D(5)), START))
    desk.reload()
    assert {} == desk.book.grants
    granted(desk.reverse(drawn.operation, START, D(2)))
    if written:
        desk.reload()
    assert D(2) == desk.available(number)
    granted(desk.ask(Draw(amount=D(1)), START))
    desk.look(START + HOUR)
    assert D(0) == desk.balance
    assert D(1) == desk.book.pool.balances[Account.EXPIRED]


def test_units_can_be_taken_back_in_the_very_step_in_which_their_grant_ends() -> None:
    desk = Desk()
    desk.grant("5", expires_at=START + HOUR)
    drawn = granted(desk.ask(Draw(amount=D(4)), START))
    desk.reload()
    granted(desk.reverse(drawn.operation, START + HOUR))
    assert (D(0), D(5)) == (desk.balance, desk.book.pool.balances[Account.EXPIRED])


def test_a_refused_reversal_leaves_closed_grants_closed() -> None:
    desk = Desk()
    desk.grant("5")
    drawn = granted(desk.ask(Draw(amount=D(5)), START))
    assert isinstance(desk.reverse(drawn.operation, START, D(6)), Refusal)
    assert {} == desk.book.grants


def test_what_was_held_twice_of_one_grant_is_taken_back_when_it_is_over() -> None:
    desk = Desk()
    desk.grant("5", expires_at=START + HOUR)
    hold = granted(desk.ask(Reserve(amount=D(3)), START)).operation
    granted(desk.ask(Extend(hold=hold, amount=D(2)), START))
    settled = granted(desk.ask(Settle(hold=hold, amount=D(5)), START))
    back = granted(desk.reverse(settled.operation, START + 2 * HOUR))
    assert D(5) == back.amount
    assert D(5) == desk.book.pool.balances[Account.EXPIRED]
    assert {} == desk.book.grants


def test_a_purchase_waits_for_the_last_one_to_cool_off() -> None:
    bought = TopUp(below=D(5), amount=D(1), cost=D(1), times=9, cool_off_seconds=60)
    desk = Desk(Policy(top_up=bought, currency="USD"))
    desk.grant("5")
    for seconds, balance in ((0, 5), (1, 4), (59, 3), (60, 3)):
        granted(desk.ask(Draw(amount=D(1)), START + timedelta(seconds=seconds)))
        assert D(balance) == desk.balance


def test_a_closed_pool_buys_nothing() -> None:
    bought = TopUp(below=D(5), amount=D(10), cost=D(1))
    desk = Desk(Policy(top_up=bought, currency="USD"))
    desk.grant("9")
    hold = granted(desk.ask(Reserve(amount=D(3)), START)).operation
    desk.close()
    granted(desk.ask(Settle(hold=hold, amount=D(8)), START))
    assert D(1) == desk.balance  # what it has is used up first
    desk.close(closed=False)
    granted(desk.ask(Draw(amount=D(2)), START))
    assert D(9) == desk.balance


# Overdraft ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["released", "expired", "settled for nothing"])
def test_units_that_come_back_repay_what_was_borrowed(way: str) -> None:
    desk = Desk(OVERDRAFT)
    desk.grant("10")
    hold = granted(desk.ask(Reserve(amount=D(10), seconds=60), START)).operation
    granted(desk.ask(Draw(amount=D(4)), START))
    if way == "released":
        granted(desk.ask(Release(hold=hold), START))
    elif way == "expired":
        desk.look(START + HOUR)
    else:
        granted(desk.ask(Settle(hold=hold, amount=D(0)), START))
    assert (D(6), D(0)) == (desk.balance, desk.book.pool.balances[Account.OVERDRAFT])
    assert Reason.OVERDRAFT_REPAID == desk.transfers[-1].reason


def test_a_grant_repays_when_it_begins_not_when_it_is_made_or_paid() -> None:
    desk = Desk(OVERDRAFT)
    granted(desk.ask(Draw(amount=D(4)), START))
    number = desk.grant("10", pending=True, effective_at=START + HOUR)
    desk.do(pay_grant, number, START)
    assert (D(0), D(-4)) == (desk.balance, desk.book.pool.balances[Account.OVERDRAFT])
    desk.look(START + HOUR)
    assert (D(6), D(0)) == (desk.balance, desk.book.pool.balances[Account.OVERDRAFT])


def test_borrowed_units_that_were_repaid_come_back_as_a_grant() -> None:
    desk = Desk(OVERDRAFT)
    drawn = granted(desk.ask(Draw(amount=D(8)), START))
    desk.grant("5", expires_at=START + HOUR)
    granted(desk.reverse(drawn.operation, START))
    assert (D(5), D(0)) == (desk.balance, desk.book.pool.balances[Account.OVERDRAFT])


def test_a_cap_on_what_may_be_spent_counts_what_was_spent_and_what_is_held() -> None:
    limit = Limit(mode=LimitMode.OVERAGE, price=D(2), spend_cap=D(10))
    desk = Desk(Policy(limit=limit, currency="USD"))
    drawn = granted(desk.ask(Draw(amount=D(2)), START))
    granted(desk.ask(Reserve(amount=D(2)), START))
    refusal = refused(desk.ask(Draw(amount=D(2)), START))
    assert (RefusalCode.SPEND_CAP_EXCEEDED, D(1)) == (refusal.code, refusal.left)
    granted(desk.reverse(drawn.operation, START, D(1)))
    granted(desk.ask(Draw(amount=D(2)), START))


def test_what_was_spent_in_another_currency_is_not_counted() -> None:
    limit = Limit(mode=LimitMode.OVERAGE, price=D(300), spend_cap=D(1000))
    desk = Desk(Policy(limit=limit, currency="JPY"))
    drawn = granted(desk.ask(Draw(amount=D(3)), START))
    dollars = Policy(limit=Limit(mode=LimitMode.OVERAGE, price=D(2), spend_cap=D(20)))
    desk.do(change_policy, but(dollars, currency="USD"), START)
    granted(desk.ask(Draw(amount=D(10)), START))
    granted(desk.reverse(drawn.operation, START))
    assert D(20) == desk.book.pool.counters.spend
    assert RefusalCode.SPEND_CAP_EXCEEDED == refused(desk.ask(Draw(amount=D(1)), START)).code


def test_beyond_a_cap_that_usage_went_past_even_what_costs_nothing_is_refused() -> None:
    limit = Limit(mode=LimitMode.OVERAGE, customer_units=D(9), spend_cap=D(8))
    desk = Desk(Policy(limit=limit, burst=Burst(units=D(29), price=D("0.3")), currency="USD"))
    granted(desk.ask(Draw(amount=D(36), forced=True), START))
    refusal = refused(desk.ask(Draw(amount=D("0.1")), START))
    assert (RefusalCode.SPEND_CAP_EXCEEDED, D(0)) == (refusal.code, refusal.left)


def test_a_percentage_is_of_grants_in_force_not_of_one_that_is_over_but_held() -> None:
    limit = Limit(mode=LimitMode.OVERDRAFT, percent=D(50))
    desk = Desk(Policy(limit=limit, hold_seconds=7200))
    desk.grant("10", expires_at=START + HOUR)
    granted(desk.ask(Reserve(amount=D(10)), START))
    desk.grant("2")
    refusal = refused(desk.ask(Draw(amount=D(8)), START + HOUR))
    assert (RefusalCode.OVERDRAFT_EXCEEDED, D(3)) == (refusal.code, refusal.left)


# Shares ------------------------------------------------------------------------------------------


def test_what_is_left_by_a_cap_is_no_more_than_any_other_bound_leaves() -> None:
    shares = [
        Allotment(key="team", cap=D(9)),
        Allotment(key="ann", parent="team", cap=D(3)),
        Allotment(key="others", guarantee=D(8)),
    ]
    desk = Desk(shares=shares)
    desk.grant("10")
    refusal = refused(desk.ask(Draw(amount=D(20), subject="ann"), START))
    assert (RefusalCode.ALLOTMENT_CAP_EXCEEDED, D(2)) == (refusal.code, refusal.left)


def test_what_an_idle_share_has_lent_is_kept_for_it_no_more() -> None:
    share = Allotment(key="ann", guarantee=D(6), lend_after_seconds=60)
    desk = Desk(Policy(renewal=Renewal(anchor_day=1)), shares=[share])
    desk.grant("10")
    later = START + HOUR
    granted(desk.ask(Draw(amount=D(8)), later))
    granted(desk.ask(Draw(amount=D(1), subject="ann"), later))
    desk.grant("10", later)
    assert D(10) == left(desk.book, Cause(later))
    desk.reload()
    new_month = START + timedelta(days=1, minutes=5, seconds=30)
    desk.look(new_month)
    assert D(5) == left(desk.book, Cause(new_month))


def test_units_are_reserved_only_if_the_grants_have_as_many_at_all() -> None:
    desk = Desk(shares=[Allotment(key="others", guarantee=D(6))])
    desk.grant("10")
    enough, too_many = (desk.ask(Draw(amount=D(units)), START) for units in (10, 11))
    assert RefusalCode.GUARANTEE_RESERVED == refused(enough).code
    assert RefusalCode.INSUFFICIENT_BALANCE == refused(too_many).code


def test_what_was_used_by_a_share_that_is_gone_is_settled_like_any_other() -> None:
    desk = Desk(shares=[Allotment(key="gone"), Allotment(key="here")])
    desk.grant("10")
    hold = granted(desk.ask(Reserve(amount=D(2), subject="gone"), START)).operation
    share_anew(desk, [Allotment(key="here")])
    assert D(5) == granted(desk.ask(Settle(hold=hold, amount=D(5)), START)).covered
    metered = Draw(amount=D(6), allotment="gone", forced=True)
    answer = granted(desk.ask(metered, START))
    assert (D(5), D(1)) == (answer.covered, answer.beyond[Account.OVERAGE])
    unknown = refused(desk.ask(Draw(amount=D(1), allotment="gone"), START))
    assert RefusalCode.ALLOTMENT_UNKNOWN == unknown.code


def test_a_hold_beyond_the_grants_counts_for_its_share_in_the_next_period_too() -> None:
    policy = Policy(
        limit=Limit(mode=LimitMode.OVERAGE), renewal=Renewal(unit=Unit.DAY), hold_seconds=86_400
    )
    desk = Desk(policy, shares=[Allotment(key="ann", overdraft=D(5))])
    granted(desk.ask(Reserve(amount=D(4), subject="ann"), START))
    later = START + 2 * HOUR
    refusal = refused(desk.ask(Draw(amount=D(2), subject="ann"), later))
    assert (RefusalCode.OVERAGE_LIMIT_EXCEEDED, D(1)) == (refusal.code, refusal.left)


def test_nothing_is_left_for_somebody_who_may_not_take() -> None:
    ended = Allotment(key="ended", ends_at=START)
    desk = Desk(Policy(unallotted=False), shares=[ended, Allotment(key="ann")], subject="ann")
    desk.grant("10")

    def left_for(subject: str, allotment: str | None = None) -> Decimal:
        return left(desk.book, Cause(START, subject, allotment))

    assert [D(10), D(0), D(0), D(0)] == [
        left_for("ann"),
        left_for("bob"),
        left_for("ann", "ended"),
        left_for("ann", "unknown"),
    ]
    desk.close()
    assert D(0) == left_for("ann")


# Periods and clocks ------------------------------------------------------------------------------


def test_a_period_of_a_new_policy_counts_from_when_the_old_one_ended() -> None:
    desk = Desk(Policy(renewal=Renewal(unit=Unit.DAY, count=4)))
    desk.grant("10")
    desk.do(change_policy, Policy(renewal=Renewal(unit=Unit.WEEK)), START)
    last_period = START + timedelta(days=3)
    drawn = granted(desk.ask(Draw(amount=D(1)), last_period))
    now = START + timedelta(days=4)
    granted(desk.ask(Draw(amount=D(2)), now))
    granted(desk.reverse(drawn.operation, now))
    assert D(2) == desk.book.pool.counters.used


def test_what_is_held_when_a_period_turns_counts_in_the_new_one() -> None:
    daily = Renewal(unit=Unit.DAY)
    overage = Limit(mode=LimitMode.OVERAGE, units=D(5), price=D(2), spend_cap=D(9))
    desk = Desk(Policy(limit=overage, currency="USD", renewal=daily))
    granted(desk.ask(Reserve(amount=D(4)), START))
    turned = START + timedelta(minutes=6)
    refusal = refused(desk.ask(Draw(amount=D(2)), turned))
    assert (RefusalCode.OVERAGE_LIMIT_EXCEEDED, D("0.5")) == (refusal.code, refusal.left)
    desk = Desk(Policy(renewal=daily))
    desk.grant("10")
    granted(desk.ask(Reserve(amount=D(6)), START))
    share_anew(desk, [Allotment(key="ann", weight=1), Allotment(key="bob", weight=1)])
    granted(desk.ask(Reserve(amount=D(2), subject="ann"), START - SKEW))
    desk.look(turned)
    assert (D(8), D(2)) == (desk.book.pool.counters.used, desk.book.shares.by_key["ann"].used)
    # Of ten, six are nobody's and ann has two; so the last two are what bob gets.
    assert D(0) == left(desk.book, Cause(turned, "ann"))
    assert D(2) == left(desk.book, Cause(turned, "bob"))


def test_a_period_begins_with_new_bounds() -> None:
    overage = Limit(mode=LimitMode.OVERAGE, units=D(5))
    shares = [Allotment(key="ann", cap=D(5))]
    desk = Desk(Policy(limit=overage, renewal=Renewal(unit=Unit.DAY)), shares=shares)
    granted(desk.ask(Draw(amount=D(5), subject="ann"), START))
    refused(desk.ask(Draw(amount=D(1), subject="ann"), START))
    granted(desk.ask(Draw(amount=D(5), subject="ann"), START + timedelta(minutes=5)))


def test_a_move_between_pools_happens_in_both_at_the_later_of_their_times() -> None:
    giving, taking = Desk(), Desk(key="other")
    giving.grant("5", expires_at=START + SKEW)
    taking.look(START + SKEW)
    cause = Cause(START)
    outcome = move_units(giving.book, taking.book, D(5), START, cause)
    assert RefusalCode.INSUFFICIENT_BALANCE == refused(outcome).code
    assert START + SKEW == giving.book.pool.as_of == taking.book.pool.as_of
    giving.grant("5", START + SKEW)
    assert move_units(giving.book, taking.book, D(5), START, cause) is None
    assert {START + SKEW} == {last(one).time for one in (giving.book, taking.book)}


def last(book: Book) -> Transfer:
    return book.transfers[-1]


def test_units_that_are_not_there_cannot_be_moved_on_credit() -> None:
    giving, taking = Desk(OVERDRAFT), Desk(key="other")
    giving.grant("5")
    for units in (D(6), D(16)):
        refusal = refused(move_units(giving.book, taking.book, units, START, Cause(START)))
        assert (RefusalCode.INSUFFICIENT_BALANCE, D(5)) == (refusal.code, refusal.left)
