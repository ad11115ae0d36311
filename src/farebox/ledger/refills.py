"""When more units come by themselves, for whoever was refused."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.grant import GrantStatus
from farebox.ledger.license import not_in_force
from farebox.ledger.policy import LimitMode, Payment, TopUp
from farebox.ledger.pool import Pool, PoolStatus
from farebox.ledger.refusal import RefusalCode


def refills_at(book: Book, amount: Decimal, code: RefusalCode, *, anew: bool) -> datetime | None:
    """Return the next time: of the rate's flow, a recurrence, a grant, when the pool may buy again.

    Or of other terms, by which more may be taken than grants give. anew: or of a new period.
    """
    pool = book.pool
    refill = pool.policy.refill
    if code is RefusalCode.RATE_LIMITED and refill is not None:
        if amount > refill.capacity:
            return None
        missing = Fraction(amount - pool.balances[Account.GRANT])
        exact = missing * refill.seconds * 1_000_000 / Fraction(refill.amount)
        since = pool.counters.refilled_at or pool.as_of
        flowed = Fraction(pool.counters.refilled) * refill.seconds * 1_000_000
        elapsed = flowed / Fraction(refill.amount) + exact
        return since + timedelta(microseconds=-(-elapsed.numerator // elapsed.denominator))
    times = [
        one.next_at
        for one in book.recurrences.values()
        if one.next_at is not None and (one.ends_at is None or one.next_at < one.ends_at)
    ]
    terms = pool.terms
    if terms is not None and terms.at > pool.as_of and terms.limit.mode is not LimitMode.HARD:
        times.append(terms.at)
    if (start := book.next_start) is not None:
        times.append(start)
    if anew and pool.counters.period_end is not None:
        times.append(pool.counters.period_end)
    if (buys := buys_at(pool)) is not None:
        times.append(buys)
    return min(times, default=None)


def buys_at(pool: Pool) -> datetime | None:
    """Return when a top-up that is paid with the invoice may be bought again; none: now, or never.

    Then it is, for whoever asks for more than there is.
    """
    policy, counters = pool.policy.top_up, pool.counters
    if policy is None or policy.payment is Payment.PREPAID:
        return None
    if counters.top_ups >= policy.times:
        return counters.period_end
    if counters.topped_up_at is None:
        return None
    cooled = counters.topped_up_at + timedelta(seconds=policy.cool_off_seconds)
    return cooled if cooled > pool.as_of else None


def most_at_once(book: Book, policy: TopUp) -> int:
    """Return how often the pool may buy for one request, if it may at all."""
    if policy.cool_off_seconds or policy.payment is Payment.PREPAID:
        return 1
    return policy.times - book.pool.counters.top_ups


def may_buy(book: Book, policy: TopUp, now: datetime) -> bool:
    """Whether no bound forbids a purchase now, and somebody could take what it brings."""
    pool, counters = book.pool, book.pool.counters
    last = counters.topped_up_at
    return (
        counters.top_ups < policy.times
        and pool.status is PoolStatus.OPEN
        and pool.policy.limit.mode is not LimitMode.UNLIMITED
        and (pool.license is None or not_in_force(pool.license, now) is None)
        and (last is None or now >= last + timedelta(seconds=policy.cool_off_seconds))
        and all(one.status is not GrantStatus.PENDING for one in book.grants.values())
    )
