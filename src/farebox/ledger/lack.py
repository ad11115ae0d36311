"""What a pool lacks for what it refused: how many units would have to come to it first."""

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from msgspec import Struct

from farebox.ledger.account import ZERO, Account
from farebox.ledger.allotment import Allotment
from farebox.ledger.book import Book
from farebox.ledger.pool import capacity_of
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import left, would_give
from farebox.ledger.transfer import Cause
from farebox.money.rounding import QUANTITY_DECIMALS, RoundingMode, round_to

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

_DOUBLINGS, _HALVINGS = 40, 20


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
    given = left(book, cause, term=borrow)  # names the share in the cause
    path = () if cause.allotment is None else book.shares.path(cause.allotment)
    owed = -pool.balances[Account.OVERDRAFT]
    from_grants = _Wanted(book, path, amount - given).to_come()
    if owed and (book.shares or not borrow):
        # What comes repays what was borrowed first; of a share that makes no room for another, and
        # whoever may not borrow gets nothing of it.
        missing = None if from_grants is None else owed + from_grants
    else:
        # What may be taken beyond the grants is there already, and need not come.
        most = given if refusal.left is None else refusal.left
        missing = _Wanted(book, path, amount - most).to_come()
    had = pool.counters.used + pool.available + owed
    return Lack(missing, None if from_grants is None else had + from_grants)


def would_do(
    book: Book, amount: Decimal, subject: str | None, allotment: str | None, come: Decimal
) -> bool:
    """Whether `come` units in a grant now would let `amount` through, which was refused for want.

    What may be borrowed on such a grant itself is left out of account. Nothing moves.
    """
    balances, cause = book.pool.balances, Cause(book.pool.as_of, subject, allotment)
    available, owed = balances[Account.GRANT], -balances[Account.OVERDRAFT]
    repaid = min(available + come, owed - book.held_from(Account.OVERDRAFT))
    balances[Account.GRANT] = available + come - repaid
    balances[Account.OVERDRAFT] = repaid - owed
    try:
        return would_give(book, cause, amount)
    finally:
        balances[Account.GRANT], balances[Account.OVERDRAFT] = available, -owed


class _Wanted(NamedTuple):
    """Units that whoever takes by this path lacks.

    Of what comes, shares by weight keep their part, and shares that gave way get theirs first.
    """

    book: Book
    path: Sequence[Allotment]
    units: Decimal

    def to_come(self) -> Decimal | None:
        """Return how many units must come, to a millionth too many where it takes a search."""
        units = self.units
        if units <= 0 or not self.book.shares:
            return max(ZERO, units)
        part = self._gained(units)
        if part >= units:
            return units
        come = units
        if part > 0:  # in proportion, as long as no other share comes into it
            come = Decimal(math.ceil(Fraction(units) * Fraction(units) / Fraction(part)))
            if self._gained(come) >= units:
                return come
        for _ in range(_DOUBLINGS):
            come *= 2
            if self._gained(come) >= units:
                return self._least(come / 2, come)
        return None

    def _least(self, few: Decimal, enough: Decimal) -> Decimal:
        for _ in range(_HALVINGS):
            middle = round_to(Fraction(few + enough) / 2, QUANTITY_DECIMALS, RoundingMode.UP)
            if self._gained(middle) >= self.units:
                enough = middle
            else:
                few = middle
        return enough

    def _gained(self, come: Decimal) -> Decimal:
        """Return what this path gets of units that come once all that is owed is repaid."""
        pool, shares = self.book.pool, self.book.shares
        now = shares.spendable(self.path, pool.available, pool.capacity, pool.as_of)
        available = pool.available + come
        capacity = capacity_of(available, ZERO, pool.counters)
        return shares.spendable(self.path, available, capacity, pool.as_of) - now
