"""What happens by itself happens at its own time, whether anybody looks or not."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
from farebox_ledger_desk import START, Desk
from farebox_ledger_told import bounds
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.ledger.account import Account
from farebox.ledger.administer import (
    end_recurrence,
    end_recurrence_at,
    expire_grant,
    pay_grant,
    void_grant,
)
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Draw, Extend, Release, Reserve, Settle
from farebox.ledger.decide import apply
from farebox.ledger.grant import Rollover
from farebox.ledger.policy import Burst, Limit, LimitMode, Policy, Refill, Renewal
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import decide
from farebox.ledger.transfer import Cause
from farebox.money.rounding import exact
from farebox.period.cycle import Unit

D = Decimal
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


def fill(desk: Desk, zone: str, prorated: bool, rollover: Rollover | None) -> None:
    """Put into a pool all that changes by itself within a year."""
    desk.grant("5", effective_at=START + timedelta(days=40), expires_at=START + timedelta(days=50))
    desk.grant("7", pending=True, pay_by=START + timedelta(days=3, microseconds=1))
    waiting = desk.grant("11", pending=True, effective_at=START + timedelta(days=9))
    desk.do(pay_grant, waiting, START)
    desk.grant("200", expires_at=START + timedelta(days=200, hours=3))
    desk.ask(Reserve(amount=D(6), subject="ann", seconds=86_400), START)
    desk.recur("10", renewal=Renewal(anchor_day=31), timezone=zone, prorated=prorated)
    desk.recur("1", renewal=Renewal(unit=Unit.WEEK), timezone=zone, rollover=rollover)
    desk.recur("3", renewal=Renewal(unit=Unit.DAY, count=10), ends_at=START + timedelta(days=100))
    desk.ask(Draw(amount=D(230), subject="ann"), START)


def state_of(desk: Desk) -> tuple[object, ...]:
    moved = [
        (one.reason, one.source, one.target, one.amount, one.time, one.grant)
        for one in desk.transfers
    ]
    book = desk.book
    shares = [(one.used, one.beyond, one.idle_since) for one in book.shares.by_key.values()]
    return book.pool, book.grants, book.holds, book.recurrences, shares, moved


zones = st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
rollovers = st.sampled_from([None, Rollover(), Rollover(percent=D(30), seconds=86_400 * 3)])


@settings(max_examples=25, deadline=None)
@given(zones, st.booleans(), rollovers, st.integers(0, 10**6))
def test_a_pool_left_alone_for_a_year_is_as_one_that_was_looked_at_daily(
    zone: str, prorated: bool, rollover: Rollover | None, seed: int
) -> None:
    policy = Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=D(50)), hold_seconds_max=86_400 * 2)
    end = START + timedelta(days=365)
    states, random = [], Random(seed)
    with exact():
        for looked_at in (False, True):
            shares = [Allotment(key="team", subjects=("ann",), lend_after_seconds=60)]
            desk = Desk(policy, shares=shares, timezone=zone)
            fill(desk, zone, prorated, rollover)
            now = START
            while looked_at and (now := now + random.random() * 2 * DAY) < end:
                desk.look(now)
                if random.random() < 0.05:
                    desk.reload()
            desk.look(end)
            states.append(state_of(desk))
    alone, daily = states
    assert alone == daily
    reasons = {moved[0] for moved in alone[-1]}
    assert reasons > {Reason.GRANT_EFFECTIVE, Reason.GRANT_UNPAID, Reason.OVERDRAFT_REPAID}
    assert reasons > {Reason.HOLD_EXPIRED, Reason.GRANT_EXPIRED, Reason.GRANT_RENEWED}


@pytest.mark.usefixtures("exactly")
def test_a_grant_is_there_until_the_microsecond_at_which_it_expires() -> None:
    ends = START + timedelta(hours=1)
    for early, left in ((TICK, D(0)), (timedelta(0), D(10))):
        desk = Desk()
        number = desk.grant("10", expires_at=ends)
        outcome = desk.ask(Draw(amount=D(10)), ends - early)
        assert isinstance(outcome, Refusal) is not early
        if not early:
            assert isinstance(outcome, Refusal)
            assert RefusalCode.INSUFFICIENT_BALANCE == outcome.code
            last = desk.transfers[-1]
            assert (Reason.GRANT_EXPIRED, D(10), ends) == (last.reason, last.amount, last.time)
        assert D(0) == desk.available(number)
        assert left == desk.book.pool.balances[Account.EXPIRED]


@pytest.mark.usefixtures("exactly")
def test_a_grant_is_not_there_before_the_microsecond_at_which_it_begins() -> None:
    starts = START + timedelta(hours=1)
    desk = Desk()
    desk.grant("10", effective_at=starts)
    assert isinstance(desk.ask(Draw(amount=D(1)), starts - TICK), Refusal)
    assert not isinstance(desk.ask(Draw(amount=D(1)), starts), Refusal)
    began = next(one for one in desk.transfers if one.reason is Reason.GRANT_EFFECTIVE)
    assert starts == began.time


@pytest.mark.usefixtures("exactly")
def test_a_hold_can_be_settled_until_the_microsecond_at_which_it_ends() -> None:
    for early, code in ((TICK, None), (timedelta(0), RefusalCode.HOLD_EXPIRED)):
        desk = Desk()
        desk.grant("10")
        held = desk.ask(Reserve(amount=D(4), seconds=60), START)
        assert not isinstance(held, Refusal)
        ends = START + timedelta(seconds=60)
        outcome = desk.ask(Settle(hold=held.operation, amount=D(4)), ends - early)
        assert code == (outcome.code if isinstance(outcome, Refusal) else None)
        assert (D(10) if code else D(6)) == desk.balance


@pytest.mark.usefixtures("exactly")
def test_what_is_held_of_a_grant_outlives_it_and_expires_when_it_comes_back() -> None:
    desk = Desk()
    desk.grant("10", expires_at=START + timedelta(seconds=30))
    kept = desk.ask(Reserve(amount=D(4)), START)
    given_back = desk.ask(Reserve(amount=D(3)), START)
    assert not isinstance(kept, Refusal)
    assert not isinstance(given_back, Refusal)
    later = START + timedelta(seconds=31)
    assert not isinstance(desk.ask(Settle(hold=kept.operation, amount=D(4)), later), Refusal)
    assert not isinstance(desk.ask(Release(hold=given_back.operation), later), Refusal)
    balances = desk.book.pool.balances
    assert (D(4), D(6), D(0)) == (
        balances[Account.USED],
        balances[Account.EXPIRED],
        balances[Account.GRANT],
    )
    assert {} == desk.book.grants


RENEWED = [
    ("America/New_York", Unit.DAY, 1, None, "2026-03-07T12:00", "2026-03-10T12:00"),
    ("America/New_York", Unit.DAY, 1, None, "2026-10-31T12:00", "2026-11-03T12:00"),
    ("Africa/Cairo", Unit.DAY, 1, None, "2026-04-22T12:00", "2026-04-26T12:00"),
    ("Australia/Lord_Howe", Unit.WEEK, 1, None, "2026-03-20T12:00", "2026-04-20T12:00"),
    ("Europe/Berlin", Unit.MONTH, 1, 31, "2026-01-31T12:00", "2026-12-31T12:00"),
    ("Asia/Kathmandu", Unit.MONTH, 1, None, "2027-12-31T12:00", "2029-03-31T12:00"),
    ("America/Santiago", Unit.MONTH, 1, 6, "2026-08-20T12:00", "2026-10-20T12:00"),
    ("Pacific/Kiritimati", Unit.QUARTER, 1, 30, "2026-01-15T12:00", "2027-06-15T12:00"),
    ("Europe/Lisbon", Unit.YEAR, 1, 29, "2028-02-29T12:00", "2033-03-15T12:00"),
]


@pytest.mark.parametrize("case", RENEWED, ids=lambda case: f"{case[0]} {case[1].value}")
@pytest.mark.usefixtures("exactly")
def test_a_recurring_grant_comes_at_local_midnight(
    case: tuple[str, Unit, int, int | None, str, str],
) -> None:
    zone, unit, count, anchor, first, last = case
    start, end = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last))
    renewal = Renewal(unit=unit, count=count, anchor_day=anchor)
    desk = Desk(opened_at=start, timezone=zone)
    desk.recur("10", start, renewal=renewal)
    desk.look(end)
    came = [one.time for one in desk.transfers if one.reason is Reason.GRANT_RENEWED]
    expected = [start]
    for until, _ in bounds(renewal, start, zone):
        if until > end:
            break
        expected.append(until)
    assert expected == came
    assert {time.astimezone(ZoneInfo(zone)).hour for time in came[1:]} <= {0, 1}
    expired = [one.time for one in desk.transfers if one.reason is Reason.GRANT_EXPIRED]
    assert came[1:] == expired
    assert D(10) == desk.balance


@pytest.mark.usefixtures("exactly")
def test_the_31st_comes_back_after_shorter_months() -> None:
    start = datetime(2026, 1, 31, 9, tzinfo=UTC)
    desk = Desk(opened_at=start)
    desk.recur("10", start, renewal=Renewal(anchor_day=31))
    desk.look(datetime(2026, 6, 15, tzinfo=UTC))
    came = [one.time for one in desk.transfers if one.reason is Reason.GRANT_RENEWED]
    days = [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31)]
    assert days == [(time.month, time.day) for time in came]


@pytest.mark.usefixtures("exactly")
def test_a_day_of_23_hours_gets_its_whole_grant_and_a_part_of_it_its_exact_share() -> None:
    zone = "America/New_York"
    start = datetime(2026, 3, 8, 12, tzinfo=UTC)  # 08:00 in summer, seven hours into the day
    desk = Desk(opened_at=start, timezone=zone)
    desk.recur("23", start, renewal=Renewal(unit=Unit.DAY), prorated=True)
    assert D(16) == desk.balance
    desk.look(start + DAY)
    assert D(23) == desk.balance


INTERVALS = 50_000
"""A million give the same, in half a minute."""
REFILL = Refill(amount=D(7), seconds=3, capacity=D("1000.5"))


@pytest.mark.usefixtures("exactly")
def test_a_rate_limit_is_exact_over_very_many_odd_intervals() -> None:
    """The brim forgets, nothing else does: no interval loses a part of a unit."""
    desk = Desk(Policy(refill=REFILL))
    desk.look(START)
    book, random, now = desk.book, Random(20261121), START
    rate = Fraction(REFILL.amount) / REFILL.seconds / 1_000_000
    level, full = Fraction(REFILL.capacity), 0
    granted = refused = 0
    for step in range(INTERVALS):
        micros = random.choice((1, 3, 7, 333_333, random.randrange(1_000_000)))
        now += timedelta(microseconds=micros)
        level = min(Fraction(REFILL.capacity), level + micros * rate)
        full += level == REFILL.capacity
        amount = D(random.choice(("0.000000000000000001", "0.5", "1.123456789", "2.5")))
        if step % 10_000 == 0:
            amount = D(900)
        outcome = apply(book, Draw(amount=amount), now)
        if isinstance(outcome, Refusal):
            refused += 1
            assert level < Fraction(amount)
        else:
            granted += 1
            level -= Fraction(amount)
        gap = level - Fraction(book.pool.balances[Account.GRANT])
        assert 0 <= gap < Fraction(1, 10**18)
        if step % 1000 == 0:
            desk.commit()
            desk.transfers.clear()
    assert granted > INTERVALS / 10
    assert refused > INTERVALS / 1000
    assert full


@pytest.mark.usefixtures("exactly")
def test_a_refusal_says_when_the_next_grant_begins_whatever_becomes_of_others() -> None:
    """Granted in any order, one paid ahead of its time, the first ones taken back."""
    desk, days = Desk(Policy()), (5, 2, 9, 3)
    numbers = [desk.grant("10", effective_at=START + one * DAY) for one in days]
    late = desk.grant("10", effective_at=START + 1 * DAY, pending=True)

    def next_at(now: datetime) -> datetime | None:
        refusal = desk.ask(Draw(amount=D(50)), now)
        assert isinstance(refusal, Refusal)
        return refusal.refills_at

    assert START + 2 * DAY == next_at(START)
    desk.do(pay_grant, late, START)
    assert START + 1 * DAY == next_at(START)
    desk.do(void_grant, late, START)
    desk.do(void_grant, numbers[1], START)
    assert START + 3 * DAY == next_at(START)
    assert START + 9 * DAY == next_at(START + 5 * DAY)
    assert next_at(START + 9 * DAY) is None


BURST = Burst(units=D(5), price=D(1))
OWED = Limit(mode=LimitMode.OVERDRAFT, units=D(9))


@pytest.mark.usefixtures("exactly")
@pytest.mark.parametrize(
    ("policy", "overdraft", "before", "amount", "helps"),
    [
        (Policy(burst=BURST), None, 14, 2, True),  # 4 of the burst are taken
        (Policy(burst=BURST), None, 10, 6, False),  # it is whole, and too small
        (Policy(), None, 10, 1, False),
        (Policy(limit=OWED), None, 15, 5, False),  # what is owed stays owed
        (Policy(limit=OWED), D(5), 14, 2, True),  # what the share owes counts in its period
        (Policy(limit=OWED), D(5), 10, 6, False),
        (Policy(limit=OWED), D(20), 14, 6, False),
        (Policy(limit=OWED, burst=BURST), None, 14, 12, True),
    ],
)
def test_a_refusal_says_when_a_new_period_helps(
    policy: Policy, overdraft: Decimal | None, before: int, amount: int, helps: bool
) -> None:
    shares = [] if overdraft is None else [Allotment(key="ann", overdraft=overdraft)]
    desk = Desk(policy, shares=shares)
    desk.grant("10")
    assert not isinstance(desk.ask(Draw(amount=D(before), subject="ann"), START), Refusal)
    refusal = desk.ask(Draw(amount=D(amount), subject="ann"), START)
    assert isinstance(refusal, Refusal)
    ends = desk.book.pool.counters.period_end
    assert ends is not None
    assert (ends if helps else None) == refusal.refills_at
    answer = desk.ask(Draw(amount=D(amount), subject="ann"), ends)
    assert helps == (not isinstance(answer, Refusal))


@pytest.mark.usefixtures("exactly")
def test_a_burst_of_the_next_period_is_nothing_to_whoever_may_not_borrow() -> None:
    desk = Desk(Policy(burst=BURST))
    desk.grant("10")
    desk.ask(Draw(amount=D(14)), START)
    refusal = decide(desk.book, D(1), Cause(START), borrow=False)
    assert isinstance(refusal, Refusal)
    assert refusal.refills_at is None


@pytest.mark.usefixtures("exactly")
def test_a_refused_rate_limit_says_the_microsecond_at_which_it_will_do() -> None:
    desk = Desk(Policy(refill=REFILL))
    desk.ask(Draw(amount=D("1000.5")), START)
    refusal = desk.ask(Draw(amount=D(10)), START + timedelta(microseconds=5))
    assert isinstance(refusal, Refusal)
    assert refusal.refills_at is not None
    assert isinstance(desk.ask(Draw(amount=D(10)), refusal.refills_at - TICK), Refusal)
    assert not isinstance(desk.ask(Draw(amount=D(10)), refusal.refills_at), Refusal)


@pytest.mark.usefixtures("exactly")
def test_what_is_held_of_a_rate_limit_leaves_no_room_to_flow_into() -> None:
    desk = Desk(Policy(refill=REFILL))
    held = desk.ask(Reserve(amount=D(1000), seconds=3600), START)
    assert not isinstance(held, Refusal)
    desk.look(START + timedelta(minutes=30))
    assert D("0.5") == desk.balance
    desk.ask(Release(hold=held.operation), START + timedelta(minutes=31))
    assert D("1000.5") == desk.balance


@pytest.mark.usefixtures("exactly")
def test_the_times_of_transfers_never_go_back() -> None:
    desk = Desk()
    fill(desk, "America/New_York", False, Rollover())
    desk.look(START + timedelta(days=400))
    assert all(one.time <= two.time for one, two in pairwise(desk.transfers))


@pytest.mark.usefixtures("exactly")
def test_what_is_next_is_what_still_holds() -> None:
    desk = Desk()
    desk.look(START)
    turn = desk.book.next_due
    number = desk.grant("10", expires_at=START + DAY)
    held = desk.ask(Reserve(amount=D(1), seconds=60), START)
    assert not isinstance(held, Refusal)
    assert START + timedelta(seconds=60) == desk.book.next_due
    assert held.hold is not None
    desk.ask(Extend(hold=held.hold, seconds=120), START)
    assert START + timedelta(seconds=120) == desk.book.next_due
    desk.ask(Settle(hold=held.hold, amount=D(1)), START)
    assert START + DAY == desk.book.next_due
    desk.do(void_grant, number, START)
    assert turn == desk.book.next_due


def test_a_recurring_grant_that_ended_is_not_what_is_next() -> None:
    desk = Desk()
    desk.look(START)
    turn = desk.book.next_due
    number = desk.recur("1", renewal=Renewal(unit=Unit.DAY))
    assert START + timedelta(minutes=5) == desk.book.next_due
    desk.do(expire_grant, desk.book.recurrences[number].grant, START)
    assert START + timedelta(minutes=5) == desk.book.next_due
    desk.do(end_recurrence, number, START)
    assert turn == desk.book.next_due


@pytest.mark.parametrize("shortened", [False, True])
def test_what_rolled_over_ends_with_what_recurs(shortened: bool) -> None:
    desk, ends = Desk(), START + timedelta(days=3, hours=12)
    facts = {"renewal": Renewal(unit=Unit.DAY), "rollover": Rollover(seconds=86_400 * 30)}
    if not shortened:
        facts["ends_at"] = ends
    number = desk.recur("10", **facts)
    desk.look(START + 2 * DAY)
    if shortened:
        desk.do(end_recurrence_at, number, ends, START + 2 * DAY)
    desk.look(ends - TICK)
    assert D(50) == desk.balance
    desk.look(ends)
    assert D(0) == desk.balance
