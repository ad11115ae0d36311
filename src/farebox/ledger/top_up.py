"""Purchases that a pool makes by itself when little is left, decided under the pool's own lock."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil

from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.grant import Basis, Grant, GrantStatus
from farebox.ledger.issue import issue
from farebox.ledger.lack import WANTS_UNITS, would_do
from farebox.ledger.policy import Payment, TopUp
from farebox.ledger.reason import Reason
from farebox.ledger.refills import may_buy, most_at_once
from farebox.ledger.refusal import Refusal
from farebox.ledger.take import Taking, decide
from farebox.ledger.transfer import Cause
from farebox.ledger.wait import say_when


def top_up(book: Book, now: datetime) -> None:
    """Buy if fewer units are left than are to be, and no bound forbids it."""
    policy = book.pool.policy.top_up
    if policy is not None and book.pool.available < policy.below and may_buy(book, policy, now):
        _buy(book, policy, now)


def buy_for_use(book: Book, amount: Decimal, now: datetime) -> None:
    """Buy what is missing of units that were used already, as far as no bound forbids it."""
    policy = book.pool.policy.top_up
    while policy is not None and amount > book.pool.available and may_buy(book, policy, now):
        _buy(book, policy, now)


def decide_buying(book: Book, amount: Decimal, cause: Cause) -> Taking | Refusal:
    """Decide as `decide` does on a request, and buy first what is missing for it.

    Something is missing where more is asked for than the pool has; what is only kept for other
    shares is there. As many are bought as let it through, or none. But where too little is left for
    anybody, one is bought though it is not enough. A refusal says whether waiting helps.
    """
    taking = _decide_buying(book, amount, cause)
    return say_when(book, taking, amount, cause) if isinstance(taking, Refusal) else taking


def _decide_buying(book: Book, amount: Decimal, cause: Cause) -> Taking | Refusal:
    taking = decide(book, amount, cause)
    if not isinstance(taking, Refusal) and amount <= book.pool.available:  # as nearly always
        return taking
    policy = book.pool.policy.top_up
    if policy is None or not may_buy(book, policy, cause.time):
        return taking
    if isinstance(taking, Refusal):
        if taking.code not in WANTS_UNITS:
            return taking
        if not _lets_through(book, policy, amount, cause):
            if book.pool.available >= policy.below:
                return taking
            _buy(book, policy, cause.time)
            return decide(book, amount, cause)
        while isinstance(taking, Refusal) and may_buy(book, policy, cause.time):
            _buy(book, policy, cause.time)
            taking = decide(book, amount, cause)
    return _cover(book, policy, amount, cause, taking)


def _cover(
    book: Book, policy: TopUp, amount: Decimal, cause: Cause, taking: Taking | Refusal
) -> Taking | Refusal:
    """Buy what is missing of units that are granted, so that grants give them.

    Not where what others owe would take of it what this request has now.
    """
    owed = -book.pool.balances[Account.OVERDRAFT] - book.held_from(Account.OVERDRAFT)
    missing = amount + owed - book.pool.available
    times = min(most_at_once(book, policy), ceil(Fraction(missing) / Fraction(policy.amount)))
    if times <= 0 or not may_buy(book, policy, cause.time):
        return taking
    who = cause.subject, cause.allotment
    if policy.payment is not Payment.PREPAID and not would_do(
        book, amount, *who, policy.amount * times
    ):
        return taking
    for _ in range(times):
        _buy(book, policy, cause.time)
    return decide(book, amount, cause)


def _lets_through(book: Book, policy: TopUp, amount: Decimal, cause: Cause) -> bool:
    if amount <= book.pool.available:
        return False
    come = policy.amount * most_at_once(book, policy)
    return would_do(book, amount, cause.subject, cause.allotment, come)


def _buy(book: Book, policy: TopUp, now: datetime) -> None:
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
    book.pool.counters.top_ups += 1
    book.pool.counters.topped_up_at = now
    issue(book, Cause(now), grant, Reason.TOPPED_UP)
