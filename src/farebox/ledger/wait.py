"""When waiting lets a refused request through: what is known to come is tried on the balances."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import nsmallest
from itertools import accumulate

from msgspec.structs import replace

from farebox.ledger.account import ZERO, Account
from farebox.ledger.allotment import Allotment
from farebox.ledger.book import Book
from farebox.ledger.due import begins_period, count_anew, flowed_by, kept_of
from farebox.ledger.grant import Grant, GrantStatus, Recurrence
from farebox.ledger.policy import LimitMode, Payment, Policy
from farebox.ledger.pool import Pool, cycle_of
from farebox.ledger.refills import buys_at, may_buy, most_at_once
from farebox.ledger.refusal import Refusal
from farebox.ledger.take import left, would_give
from farebox.ledger.transfer import Cause
from farebox.period.cycle import boundary, index_at

_TIMES_MAX = 20
"""So many instants are tried, the next ones."""

_STARTS_MAX = 100
"""So many scheduled grants are looked at, the next ones; no instant after them is tried."""

_WORK_MAX = 20_000
"""So many grants and holds are looked at for one answer: 3.6 ms where all of them expire."""

_DEAR = 15
"""A look at a share or a recurring grant counts for so many at grants."""


def say_when(
    book: Book, refusal: Refusal, amount: Decimal, cause: Cause, *, borrow: bool = True
) -> Refusal:
    """Return a refusal that says when `amount` would be given if nobody else took any, if ever.

    Known to come are grants that are scheduled or recur, what flows in, what counts anew within a
    period, other terms, and what the pool may buy by then without being paid first. What is held
    is not: it may be used. borrow: whether units beyond the grants would do; without, they are
    moved, for which nothing is bought either. Nothing moves. To refuse is to stay cheap: where to
    see it takes a look at too much, nothing is said.
    """
    if refusal.refills_at is None:
        return refusal
    ahead = _Ahead(book, amount, cause, borrow=borrow)
    try:
        return replace(refusal, enough_at=_enough_at(book, ahead, refusal.refills_at))
    finally:
        ahead.put_back()


def _enough_at(book: Book, ahead: "_Ahead", also: datetime) -> datetime | None:
    starts = book.next_starts(_STARTS_MAX)
    times = _times(book, (due.time for due in starts), also)
    if len(starts) == _STARTS_MAX:
        times = [time for time in times if time < starts[-1].time]
    if not times or not ahead.affords(_DEAR * len(book.recurrences)):
        return None
    numbers = dict.fromkeys(due.number for due in starts)
    scheduled = [book.grants[number] for number in numbers if number in book.grants]
    coming, ending = _Course(_come(book, scheduled, times[-1])), None
    for time in times:
        units = coming.by(time) + _flowing(book.pool, book, time)
        if not ahead.may_do(time, units):
            continue
        # To see what expires takes a look at all grants, so only where the rest might do.
        if ending is None:
            if not ahead.affords(len(book.grants)):
                return None
            ending = _Course(_end(book, times[-1]))
        units -= ending.by(time)
        if not ahead.may_do(time, units):
            continue
        if not ahead.stands_at(time):
            return None
        if ahead.does(time, units):
            return time
    return None


class _Ahead:
    """A book that counts and decides as it will, at one time after another, until it is put back.

    It is asked for `amount` by the balances of now and the units that come by then.
    """

    def __init__(self, book: Book, amount: Decimal, cause: Cause, *, borrow: bool) -> None:
        pool = book.pool
        self._book, self._amount, self._cause, self._borrow = book, amount, cause, borrow
        self._before = pool.as_of, pool.policy, pool.counters, pool.balances
        self._shares: list[tuple[Allotment, Allotment]] = []
        self._work = 0
        self._turns, self._terms_at, self._then = pool.counters.period_end, None, pool.policy
        terms = pool.terms
        if terms is not None and pool.as_of < terms.at:
            self._terms_at, self._then = terms.at, terms.over(pool.policy)
            if begins_period(pool, terms):
                self._turns = min(self._turns or terms.at, terms.at)

    def put_back(self) -> None:
        pool = self._book.pool
        pool.as_of, pool.policy, pool.counters, pool.balances = self._before
        for one, was in self._shares:
            one.used, one.beyond, one.lent = was.used, was.beyond, was.lent
            one.idle_since = was.idle_since

    def affords(self, work: int) -> bool:
        """Whether so much may be looked at besides what was; it counts then."""
        self._work += work
        return self._work <= _WORK_MAX

    def may_do(self, time: datetime, units: Decimal) -> bool:
        """Whether so many units more might do, whatever is kept for others and was taken."""
        most = _most_beyond(self._policy_at(time)) if self._borrow else ZERO
        return most is None or self._amount <= max(ZERO, self._available + units) + most

    def stands_at(self, time: datetime) -> bool:
        """Let the book stand at a time later than the last one, unless that is too much work."""
        book, pool = self._book, self._book.pool
        policy, turns = self._policy_at(time), self._turns
        anew = turns is not None and turns <= time and _counts_in_periods(book, policy)
        counted = pool.counters is not self._before[2]
        work = _work_of(book, policy)
        if anew and not counted:
            work += len(book.holds) + len(book.shares.by_key)
        if not self.affords(work):
            return False
        pool.as_of, pool.policy = time, policy
        if turns is not None and anew and (not counted or book.shares.lends):
            self._count_anew(turns, time)
        return True

    def _count_anew(self, turns: datetime, time: datetime) -> None:
        book, pool = self._book, self._book.pool
        if book.shares.lends:  # from when a share is idle counts from its last period
            cycle = cycle_of(pool.policy.renewal, pool.opened_at, pool.timezone)
            index = index_at(cycle, time)
            assert index is not None, "a pool counts from when it was opened"
            turns = max(turns, boundary(cycle, index))
        if pool.counters is not self._before[2]:
            for one in book.shares.by_key.values():
                one.idle_since = turns
            return
        self._shares = [(one, replace(one)) for one in book.shares.by_key.values()]
        pool.counters = replace(pool.counters)
        count_anew(book, turns)

    def does(self, time: datetime, units: Decimal) -> bool:
        """Whether it is given once so many units more are there, with what may be bought."""
        pool = self._book.pool
        pool.balances = dict(self._before[3])
        _bring(self._book, units)
        if self._gives(time):
            return True
        if not self._borrow or self._amount <= pool.available:
            return False
        bought = _buyable(self._book, time)
        if not bought or not self.affords(_work_of(self._book, pool.policy)):
            return False
        _bring(self._book, bought)
        return self._gives(time)

    def _gives(self, time: datetime) -> bool:
        then = Cause(time, self._cause.subject, self._cause.allotment)
        if self._borrow:
            return would_give(self._book, then, self._amount)
        return self._amount <= left(self._book, then, term=False)

    @property
    def _available(self) -> Decimal:
        return self._before[3][Account.GRANT]

    def _policy_at(self, time: datetime) -> Policy:
        return self._before[1] if self._terms_at is None or time < self._terms_at else self._then


def _most_beyond(policy: Policy) -> Decimal | None:
    """Return how many units at most are bought and given beyond the grants; none: without bound."""
    limit = policy.limit
    bounds = [one for one in (limit.units, limit.customer_units) if one is not None]
    if limit.mode is LimitMode.HARD:
        bounds = [ZERO]
    if limit.mode is LimitMode.UNLIMITED or not bounds:
        return None
    most = min(bounds)
    if policy.burst is not None:
        most += policy.burst.units
    if policy.top_up is not None and policy.top_up.payment is not Payment.PREPAID:
        most += policy.top_up.amount * policy.top_up.times
    return most


def _work_of(book: Book, policy: Policy) -> int:
    """Return how much is looked at to decide once."""
    work = _DEAR * len(book.shares.by_key)
    if policy.limit.percent is not None or policy.top_up is not None:
        work += len(book.grants)
    return work + (len(book.holds) if book.pool.balances[Account.OVERDRAFT] else 0)


def _times(book: Book, starts: Iterable[datetime], also: datetime) -> list[datetime]:
    pool = book.pool
    times: set[datetime | None] = {also, pool.counters.period_end, buys_at(pool), *starts}
    times |= {one.next_at for one in book.recurrences.values()}
    times.add(None if pool.terms is None else pool.terms.at)
    return nsmallest(_TIMES_MAX, (one for one in times if one is not None and one > pool.as_of))


def _counts_in_periods(book: Book, policy: Policy) -> bool:
    """Whether a new period lets more through; to count anew takes a look at all holds."""
    return (
        bool(book.shares)
        or policy.burst is not None
        or policy.top_up is not None
        or policy.limit.mode in (LimitMode.SOFT, LimitMode.OVERAGE)
    )


class _Course:
    """Units that come and go, each at a time: how many there are by then."""

    def __init__(self, changes: Iterable[tuple[datetime, Decimal]]) -> None:
        ordered = sorted(changes)
        self._times = [time for time, _ in ordered]
        self._sums = list(accumulate((units for _, units in ordered), initial=ZERO))

    def by(self, time: datetime) -> Decimal:
        return self._sums[bisect_right(self._times, time)]


def _bring(book: Book, units: Decimal) -> None:
    """Let so many units come (below zero: expire); they repay first what is owed."""
    balances = book.pool.balances
    available, owed = max(ZERO, book.pool.available + units), -balances[Account.OVERDRAFT]
    repaid = min(available, owed - book.held_from(Account.OVERDRAFT)) if owed else ZERO
    balances[Account.GRANT], balances[Account.OVERDRAFT] = available - repaid, repaid - owed


def _come(
    book: Book, scheduled: Iterable[Grant], until: datetime
) -> Iterator[tuple[datetime, Decimal]]:
    """Yield the units that grants bring, below zero where they expire again."""
    for grant in scheduled:
        if grant.status is GrantStatus.SCHEDULED:
            yield grant.effective_at, grant.amount
            if grant.expires_at is not None:
                yield grant.expires_at, -grant.amount
    for one in book.recurrences.values():
        if one.next_at is None or one.next_at > until:
            continue
        if one.ends_at is None or one.ends_at > one.next_at:
            yield from _recur(book, one, one.next_at, until)


def _end(book: Book, until: datetime) -> Iterator[tuple[datetime, Decimal]]:
    """Yield the units of those there are now that expire."""
    for one in book.grants.values() if book.pool.available else ():
        if (ends := one.expires_at) is not None and ends <= until and one.available:
            yield ends, one.available


def _recur(
    book: Book, one: Recurrence, renews: datetime, until: datetime
) -> Iterator[tuple[datetime, Decimal]]:
    """Yield the units that a recurring grant brings anew; those before are gone by then."""
    begins = renews
    if one.prorated and not one.index:  # a part of it, which is not worked out here
        begins = boundary(cycle_of(one.renewal, one.starts_at, one.timezone), 1)
    if one.ends_at is None or begins < one.ends_at:
        yield begins, one.amount
        if one.ends_at is not None:
            yield one.ends_at, -one.amount
    if one.rollover is not None:
        yield from _roll_over(book, one, renews, begins, until)


def _roll_over(
    book: Book, one: Recurrence, time: datetime, begins: datetime, until: datetime
) -> Iterator[tuple[datetime, Decimal]]:
    """Yield what rolls over at each renewal if nobody takes of it, below zero where it expires."""
    assert one.rollover is not None
    running = None if one.grant is None else book.grants.get(one.grant)
    rest, lasts = ZERO if running is None else running.available, one.rollover.seconds
    cycle = cycle_of(one.renewal, one.starts_at, one.timezone)
    for index in range(one.index + 1, one.index + 1 + _TIMES_MAX):
        if time > until or (one.ends_at is not None and one.ends_at <= time):
            return
        after = boundary(cycle, index)
        ends = after if lasts is None else time + timedelta(seconds=lasts)
        kept = kept_of(one, rest)
        yield time, kept
        yield ends if one.ends_at is None else min(ends, one.ends_at), -kept
        rest = one.amount if begins <= time else ZERO
        time = after


def _flowing(pool: Pool, book: Book, time: datetime) -> Decimal:
    """Return what flows into a rate limit until a time."""
    refill, counters = pool.policy.refill, pool.counters
    grant = book.grants.get(counters.refill_grant or 0)
    if refill is None or grant is None or counters.refilled_at is None:
        return ZERO
    flowed = flowed_by(refill, time - counters.refilled_at) - counters.refilled
    return max(ZERO, min(flowed, refill.capacity - grant.available - grant.held))


def _buyable(book: Book, time: datetime) -> Decimal:
    """Return how many units the pool may buy at once, for which nobody has to pay first."""
    policy = book.pool.policy.top_up
    if policy is None or policy.payment is Payment.PREPAID or not may_buy(book, policy, time):
        return ZERO
    return policy.amount * most_at_once(book, policy)
