"""Purchases that a pool makes by itself when little is left, decided under the pool's own lock."""

from datetime import datetime, timedelta

from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.grant import Basis, Grant, GrantStatus
from farebox.ledger.issue import issue
from farebox.ledger.policy import Payment
from farebox.ledger.pool import PoolStatus
from farebox.ledger.reason import Reason
from farebox.ledger.transfer import Cause


def top_up(book: Book, now: datetime, *, wanted: bool = False) -> Grant | None:
    """Buy the agreed amount if too little is left and no bound forbids it; return the purchase.

    wanted: whether a request lacks units and goes through with these, however much is left.
    """
    policy, counters = book.pool.policy.top_up, book.pool.counters
    assert policy is not None
    if book.pool.status is PoolStatus.CLOSED:
        return None
    if not wanted and book.pool.balances[Account.GRANT] >= policy.below:
        return None
    if counters.top_ups >= policy.times:
        return None
    last = counters.topped_up_at
    if last is not None and now < last + timedelta(seconds=policy.cool_off_seconds):
        return None
    if any(one.status is GrantStatus.PENDING for one in book.grants.values()):
        return None
    prepaid = policy.payment is Payment.PREPAID
    lasts = policy.expires_after_seconds
    grant = Grant(
        number=0,
        amount=policy.amount,
        status=GrantStatus.PENDING if prepaid else GrantStatus.ACTIVE,
        basis=Basis.PURCHASED,
        issued_at=now,
        effective_at=now,
        expires_at=None if lasts is None else now + timedelta(seconds=lasts),
        cost=policy.cost,
        on_invoice=not prepaid,
        pay_by=now + timedelta(seconds=policy.pay_within_seconds) if prepaid else None,
    )
    counters.top_ups += 1
    counters.topped_up_at = now
    issue(book, Cause(now), grant, Reason.TOPPED_UP)
    return grant
