"""When waiting lets a refused request through: what is known to come is tried on the balances."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from heapq import nsmallest

from msgspec.structs import replace

from farebox.ledger.account import ZERO, Account
from farebox.ledger.book import Book
from farebox.ledger.due import count_anew, kept_of
from farebox.ledger.grant import Grant, GrantStatus, Recurrence
from farebox.ledger.policy import LimitMode, Payment
from farebox.ledger.pool import Pool, cycle_of
from farebox.ledger.refills import buys_at, may_buy, most_at_once
from farebox.ledger.refusal import Refusal
from farebox.ledger.take import left, would_give
from farebox.ledger.transfer import Cause
from farebox.money.rounding import QUANTITY_DECIMALS, RoundingMode, round_to
from farebox.period.cycle import boundary, index_at

_TIMES_MAX = 20
"""So many instants are tried, the next ones."""


def say_when(
    book: Book, refusal: Refusal, amount: Decimal, cause: Cause, *, borrow: bool = True
) -> Refusal:
    """Return a refusal that says when `amount` would be given if nobody else took any, if ever.

    Known to come are grants that are scheduled or recur, what flows in, what counts anew within a
    period, other terms, and what the pool may buy by then without being paid first. What is held
    is not: it may be used. borrow: whether units beyond the grants would do. Nothing moves.
    """
    if refusal.refills_at is None:
        return refusal

    def gives(time: datetime) -> bool:
        then = Cause(time, cause.subject, cause.allotment)
        return would_give(book, then, amount) if borrow else amount <= left(book, then)

    return replace(refusal, enough_at=_enough_at(book, amount, gives, refusal.refills_at))


def _enough_at(
    book: Book, amount: Decimal, gives: Callable[[datetime], bool], also: datetime
) -> datetime | None:
    pool = book.pool
    waiting = [
        one
        for one in (book.grants.values() if pool.balances[Account.PENDING] else ())
        if one.status is GrantStatus.SCHEDULED
    ]
    for time in _times(book, waiting, also):
        with _standing_at(book, time):
            coming = _coming(book, waiting, time)
            # To see what expires takes a look at all grants, so only where the rest would do.
            if _does(book, amount, gives, time, coming):
                ending = _ending(book, time)
                if not ending or _does(book, amount, gives, time, coming - ending):
                    return time
    return None


def _does(
    book: Book, amount: Decimal, gives: Callable[[datetime], bool], time: datetime, units: Decimal
) -> bool:
    """Whether `amount` is given once so many units more are there, with what may be bought."""
    pool, before = book.pool, book.pool.balances
    pool.balances = dict(before)
    _bring(book, units)
    done = gives(time)
    if not done and amount > pool.available and (bought := _buyable(book, time)):
        _bring(book, bought)
        done = gives(time)
    pool.balances = before
    return done


def _times(book: Book, waiting: Iterable[Grant], also: datetime) -> list[datetime]:
    pool = book.pool
    times: set[datetime | None] = {also, pool.counters.period_end, buys_at(pool)}
    times |= {one.next_at for one in book.recurrences.values()}
    times |= {one.effective_at for one in waiting}
    times.add(None if pool.terms is None else pool.terms.at)
    return nsmallest(_TIMES_MAX, (one for one in times if one is not None and one > pool.as_of))


@contextmanager
def _standing_at(book: Book, time: datetime) -> Iterator[None]:
    """Let the book count and decide for a moment as it will at a time, by the balances of now."""
    pool = book.pool
    before = pool.as_of, pool.counters, pool.policy
    shares = [(one, replace(one)) for one in book.shares.by_key.values()]
    pool.counters = replace(pool.counters)
    try:
        turns = pool.counters.period_end
        if pool.terms is not None and pool.as_of < pool.terms.at <= time:
            changed = pool.terms.over(pool.policy)
            if changed.renewal.length != pool.policy.renewal.length:
                turns = min(turns or pool.terms.at, pool.terms.at)
            pool.policy = changed
        if turns is not None and turns <= time and _counts_in_periods(book):
            cycle = cycle_of(pool.policy.renewal, pool.opened_at, pool.timezone)
            index = index_at(cycle, time)
            assert index is not None, "a pool counts from when it was opened"
            count_anew(book, max(turns, boundary(cycle, index)))
        pool.as_of = time
        yield
    finally:
        pool.as_of, pool.counters, pool.policy = before
        for one, was in shares:
            one.used, one.beyond, one.lent = was.used, was.beyond, was.lent
            one.idle_since = was.idle_since


def _counts_in_periods(book: Book) -> bool:
    """Whether a new period lets more through; to count anew takes a look at all holds."""
    policy = book.pool.policy
    return (
        bool(book.shares)
        or policy.burst is not None
        or policy.top_up is not None
        or policy.limit.mode in (LimitMode.SOFT, LimitMode.OVERAGE)
    )


def _bring(book: Book, units: Decimal) -> None:
    """Let so many units come (below zero: expire); they repay first what is owed."""
    balances = book.pool.balances
    available, owed = max(ZERO, book.pool.available + units), -balances[Account.OVERDRAFT]
    repaid = min(available, owed - book.held_from(Account.OVERDRAFT)) if owed else ZERO
    balances[Account.GRANT], balances[Account.OVERDRAFT] = available - repaid, repaid - owed


def _coming(book: Book, waiting: Iterable[Grant], time: datetime) -> Decimal:
    """Return how many units come by a time and have not expired by then."""
    units = _flowing(book.pool, book, time)
    for grant in waiting:
        if grant.effective_at <= time and not _ends_by(grant, time):
            units += grant.amount
    for one in book.recurrences.values():
        units += _renewed(book, one, time)
    return units


def _ending(book: Book, time: datetime) -> Decimal:
    """Return how many of the units that there are now expire by a time."""
    grants = book.grants.values() if book.pool.available else ()
    return sum((one.available for one in grants if one.available and _ends_by(one, time)), ZERO)


def _ends_by(grant: Grant, time: datetime) -> bool:
    return grant.expires_at is not None and grant.expires_at <= time


def _renewed(book: Book, one: Recurrence, time: datetime) -> Decimal:
    """Return what a recurring grant brings by a time and has not let expire by then."""
    if one.next_at is None or one.next_at > time:
        return ZERO
    if one.ends_at is not None and one.ends_at <= one.next_at:
        return ZERO
    cycle = cycle_of(one.renewal, one.starts_at, one.timezone)
    latest = boundary(cycle, one.index + 1) > time
    units = ZERO
    running = None if one.grant is None else book.grants.get(one.grant)
    if latest and running is not None and one.rollover is not None:
        lasts = one.rollover.seconds
        if lasts is None or one.next_at + timedelta(seconds=lasts) > time:
            units += kept_of(one, running.available)
    if one.ends_at is not None and one.ends_at <= time:
        return units
    if latest and one.prorated and not one.index:  # a part of it, which is not worked out here
        return units
    return units + one.amount


def _flowing(pool: Pool, book: Book, time: datetime) -> Decimal:
    """Return what flows into a rate limit until a time."""
    refill, counters = pool.policy.refill, pool.counters
    grant = book.grants.get(counters.refill_grant or 0)
    if refill is None or grant is None or counters.refilled_at is None:
        return ZERO
    elapsed = (time - counters.refilled_at) // timedelta(microseconds=1)
    exact = Fraction(refill.amount) * elapsed / (refill.seconds * 1_000_000)
    flowed = round_to(exact, QUANTITY_DECIMALS, RoundingMode.DOWN) - counters.refilled
    return max(ZERO, min(flowed, refill.capacity - grant.available - grant.held))


def _buyable(book: Book, time: datetime) -> Decimal:
    """Return how many units the pool may buy at once, for which nobody has to pay first."""
    policy = book.pool.policy.top_up
    if policy is None or policy.payment is Payment.PREPAID or not may_buy(book, policy, time):
        return ZERO
    return policy.amount * most_at_once(book, policy)
