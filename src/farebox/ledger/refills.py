"""When more units come by themselves, for whoever was refused."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.refusal import RefusalCode


def refills_at(book: Book, amount: Decimal, code: RefusalCode, *, anew: bool) -> datetime | None:
    """Return the next time: of the rate's flow, a recurrence, a grant; anew: or of a new period."""
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
    times = [one.next_at for one in book.recurrences.values() if one.next_at is not None]
    if (start := book.next_start) is not None:
        times.append(start)
    if anew and pool.counters.period_end is not None:
        times.append(pool.counters.period_end)
    return min(times, default=None)
