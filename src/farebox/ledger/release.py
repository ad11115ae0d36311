"""Units go back: out of a hold or a draw, to where each of them came from."""

from decimal import Decimal

from farebox.ledger.account import ZERO, Account
from farebox.ledger.book import Book
from farebox.ledger.grant import Basis, Grant, GrantStatus
from farebox.ledger.hold import Hold, Slice
from farebox.ledger.issue import close_if_empty, is_over
from farebox.ledger.reason import Reason
from farebox.ledger.transfer import Cause


def give_back(book: Book, cause: Cause, hold: Hold, amount: Decimal, reason: Reason) -> None:
    """Give back `amount` of the units held: those that were taken last go first.

    So what is owed shrinks before a grant grows. Units of a grant that is over expire, those of one
    that was voided are taken back as the rest of it was.
    """
    kept, returned = split_last(hold.slices, amount)
    for one in returned:
        give_back_slice(book, cause, one, Account.HELD, reason)
    uncount(book, hold.allotment, returned)
    hold.slices = kept
    hold.amount -= amount
    book.touch(hold)


def give_back_slice(
    book: Book, cause: Cause, one: Slice, taken_to: Account, reason: Reason
) -> None:
    """Return units that were taken to `taken_to` to the account that gave them."""
    if one.account is Account.OVERDRAFT:
        _give_back_borrowed(book, cause, one, taken_to, reason)
        return
    if one.account is not Account.GRANT:
        book.post(
            cause, reason, taken_to, one.account, one.amount, price=one.price, origin=one.account
        )
        return
    grant, origin, target = book.grant_of(one.grant), Account.GRANT, Account.GRANT
    if grant.status is GrantStatus.VOIDED:
        reason, target = Reason.GRANT_VOIDED, Account.SOURCE
    elif is_over(grant, cause.time):
        reason, target = Reason.GRANT_EXPIRED, Account.EXPIRED
    elif grant.status is GrantStatus.CLOSED:
        book.reopen(grant)
    book.post(cause, reason, taken_to, target, one.amount, grant, origin=origin)
    if target is not Account.GRANT:
        close_if_empty(book, grant)


def _give_back_borrowed(
    book: Book, cause: Cause, one: Slice, taken_to: Account, reason: Reason
) -> None:
    """Return borrowed units; those that a later grant has repaid become a grant of their own."""
    origin = Account.OVERDRAFT
    book.post(cause, reason, taken_to, origin, one.amount, origin=origin)
    repaid = book.pool.balances[origin]
    if repaid <= 0:
        return
    grant = Grant(
        number=book.pool.sequence + 1,
        amount=repaid,
        basis=Basis.RETURNED,
        issued_at=cause.time,
        effective_at=cause.time,
    )
    book.grants[grant.number] = grant
    book.post(cause, reason, origin, Account.GRANT, repaid, grant)
    book.touch(grant)


def split_last(
    slices: tuple[Slice, ...], amount: Decimal
) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    """Return what stays of the slices, and what makes up `amount` from their end, last first."""
    kept, returned = list(slices), []
    while amount:
        last = kept.pop()
        part = min(amount, last.amount)
        returned.append(Slice(last.account, part, last.grant, last.price))
        if part < last.amount:
            kept.append(Slice(last.account, last.amount - part, last.grant, last.price))
        amount -= part
    return tuple(kept), tuple(returned)


def uncount(book: Book, allotment: str | None, returned: tuple[Slice, ...]) -> None:
    """Take units that went back out of what the pool and its shares count in this period."""
    counters = book.pool.counters
    total = beyond = ZERO
    for one in returned:
        total += one.amount
        if one.account is Account.GRANT:
            continue
        if one.account is Account.SOURCE:
            counters.unlimited = max(ZERO, counters.unlimited - one.amount)
            continue
        beyond += one.amount
        if one.account is Account.OVERAGE:
            counters.overage = max(ZERO, counters.overage - one.amount)
        elif one.account is Account.BURST:
            counters.burst = max(ZERO, counters.burst - one.amount)
        if one.price is not None:
            counters.spend = max(ZERO, counters.spend - one.amount * one.price)
    counters.used = max(ZERO, counters.used - total)
    if allotment is not None:
        for share in book.shares.path(allotment):
            share.used = max(ZERO, share.used - total)
            share.beyond = max(ZERO, share.beyond - beyond)
            book.touch(share)
