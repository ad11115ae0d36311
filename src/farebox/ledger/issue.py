"""Units come in: a grant is issued, waits to be paid or to begin, and repays what was borrowed."""

from datetime import datetime

from farebox.ledger.account import Account
from farebox.ledger.agenda import grant_due
from farebox.ledger.book import Book
from farebox.ledger.grant import Basis, Grant, GrantStatus
from farebox.ledger.reason import Reason
from farebox.ledger.transfer import Cause


def issue(
    book: Book,
    cause: Cause,
    grant: Grant,
    reason: Reason,
    *,
    source: Account = Account.SOURCE,
) -> None:
    """Bring a grant into its pool; its number becomes that of the transfer made for it.

    One that is unpaid or not in force yet waits on the pending account.
    """
    waits = grant.status is GrantStatus.PENDING or grant.effective_at > cause.time
    grant.number = book.pool.sequence + 1
    book.grants[grant.number] = grant
    if waits:
        if grant.status is not GrantStatus.PENDING:
            grant.status = GrantStatus.SCHEDULED
        book.post(cause, reason, source, Account.PENDING, grant.amount, grant)
    else:
        grant.status = GrantStatus.ACTIVE
        book.post(cause, reason, source, Account.GRANT, grant.amount, grant)
        repay(book, cause)
    book.touch(grant)
    for due in grant_due(grant):
        book.plan(*due)


def activate(book: Book, cause: Cause, grant: Grant, reason: Reason) -> None:
    """Make the units of a grant that waited available; or let it wait for its time, once paid."""
    assert grant.status in (GrantStatus.PENDING, GrantStatus.SCHEDULED)
    if grant.effective_at > cause.time:
        grant.status = GrantStatus.SCHEDULED
    else:
        grant.status = GrantStatus.ACTIVE
        book.post(cause, reason, Account.PENDING, Account.GRANT, grant.amount, grant)
        repay(book, cause)
    book.touch(grant)
    for due in grant_due(grant):
        book.plan(*due)


def repay(book: Book, cause: Cause) -> None:
    """Repay with available units what was used on overdraft; what is held of it is not due yet."""
    balances = book.pool.balances
    owed = -balances[Account.OVERDRAFT]
    if not owed:
        return
    owed -= book.held_from(Account.OVERDRAFT)
    for one in book.slices(min(owed, balances[Account.GRANT])) if owed > 0 else ():
        grant = book.grants[one.grant or 0]
        book.post(
            cause, Reason.OVERDRAFT_REPAID, Account.GRANT, Account.OVERDRAFT, one.amount, grant
        )
        close_if_empty(book, grant)


def close_if_empty(book: Book, grant: Grant) -> None:
    """Close a grant of which nothing is left; one that flows in again stays open."""
    if grant.available or grant.held or grant.basis is Basis.REFILL:
        return
    book.close(grant)


def is_over(grant: Grant, now: datetime) -> bool:
    """Whether units that return to this grant expire at once."""
    return grant.expires_at is not None and grant.expires_at <= now
