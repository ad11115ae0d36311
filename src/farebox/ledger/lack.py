"""What a pool lacks for what it refused: how many units would have to come to it first."""

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from farebox.ledger.account import ZERO, Account
from farebox.ledger.allotment import Allotment
from farebox.ledger.book import Book
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import left
from farebox.ledger.transfer import Cause

WANTS_UNITS = frozenset(
    {
        RefusalCode.GUARANTEE_RESERVED,
        RefusalCode.INSUFFICIENT_BALANCE,
        RefusalCode.OVERDRAFT_EXCEEDED,
        RefusalCode.OVERAGE_LIMIT_EXCEEDED,
        RefusalCode.SPEND_CAP_EXCEEDED,
    }
)
"""Refusals that units from a grant would help against.

A spend cap and the bounds of overage are passed by what grants do not cover, so units help there
too. They do not help, and are left out: where a share has its cap (`allotment_cap_exceeded`) or may
take nothing at all (the other `allotment_` codes, `subject_not_served`); a rate limit, which never
holds more than its capacity (`rate_limited`); a closed pool, which takes no grants (`pool_closed`);
and whatever is wrong with the request, its hold, draw or grant.
"""


class Lack(Struct, frozen=True):
    """Units that would let a refused request through; none: no number of them surely would.

    missing: so many more in a grant, now. needed: so many in a grant for the whole period, what the
    period has used already and what is kept for others included.
    """

    missing: Decimal | None
    needed: Decimal | None


def lack_of(
    book: Book,
    refusal: Refusal,
    amount: Decimal,
    subject: str | None = None,
    allotment: str | None = None,
    *,
    borrow: bool = True,
) -> Lack | None:
    """Return what the pool lacks for `amount`, none where units do not help; nothing moves.

    borrow: whether units beyond the grants would have done as well.
    """
    if refusal.code not in WANTS_UNITS:
        return None
    pool = book.pool
    cause = Cause(pool.as_of, subject, allotment)
    given = left(book, cause)  # names the share in the cause
    path: Sequence[Allotment] = ()
    if cause.allotment is not None and cause.allotment in book.shares.by_key:
        path = book.shares.path(cause.allotment)
    owed = -pool.balances[Account.OVERDRAFT]
    from_grants = _to_come(book, path, amount - given)
    if owed and (book.shares or not borrow):
        # What comes repays what was borrowed first; of a share that makes no room for another, and
        # whoever may not borrow gets nothing of it.
        missing = None if from_grants is None else owed + from_grants
    else:
        # What may be taken beyond the grants is there already, and need not come.
        most = given if refusal.left is None else refusal.left
        missing = _to_come(book, path, amount - most)
    had = pool.counters.used + pool.available + owed
    return Lack(missing, None if from_grants is None else had + from_grants)


def _to_come(book: Book, path: Sequence[Allotment], units: Decimal) -> Decimal | None:
    """Return how many units must come so that whoever takes by this path gets `units` of them.

    Of what comes, shares by weight keep their part, and shares that gave way get theirs first.
    """
    if units <= 0 or not book.shares:
        return max(ZERO, units)
    available, time = book.pool.available, book.pool.as_of
    capacity = available + book.pool.counters.used

    def gained(come: Decimal) -> Decimal:
        now = book.shares.spendable(path, available, capacity, time)
        return book.shares.spendable(path, available + come, capacity + come, time) - now

    part = gained(units)
    if part >= units:
        return units
    if part <= 0:
        return None
    come = Decimal(math.ceil(Fraction(units) * Fraction(units) / Fraction(part)))
    return come if gained(come) >= units else None
