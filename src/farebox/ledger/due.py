"""What happens by itself, made true before anything is decided: no sweep has to come first."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from farebox.ledger.account import BEYOND, ZERO, Account
from farebox.ledger.agenda import (
    GRANT_EXPIRES,
    GRANT_RENEWS,
    HOLD_ENDS,
    PAYMENT_LAPSES,
    PERIOD_TURNS,
    TERMS_CHANGE,
    Due,
)
from farebox.ledger.book import Book
from farebox.ledger.grant import Basis, Grant, GrantStatus, Recurrence, cost_of_part
from farebox.ledger.hold import Hold, HoldStatus
from farebox.ledger.issue import activate, close_if_empty, issue, repay
from farebox.ledger.policy import Policy, Refill
from farebox.ledger.pool import Pool, PoolStatus, Terms, cycle_of
from farebox.ledger.reason import Reason
from farebox.ledger.release import give_back
from farebox.ledger.transfer import Cause
from farebox.money.rounding import QUANTITY_DECIMALS, RoundingMode, round_to
from farebox.period.cycle import boundary, index_at, period_at, whole_period_at


def settle_due(book: Book, now: datetime) -> None:
    """Post all that is due at `now`, each at its own time, in the order of those times."""
    while (due := book.take_due(now)) is not None:
        _happen(book, due)
    if book.pool.policy.refill is not None and book.pool.status is PoolStatus.OPEN:
        _flow_in(book, now)
    book.pool.as_of = max(book.pool.as_of, now)


def _happen(book: Book, due: Due) -> None:
    match due.rank:
        case _ if due.rank == TERMS_CHANGE:
            _change_terms(book, due.time)
        case _ if due.rank == HOLD_ENDS:
            _end_hold(book, book.holds[due.number], due.time)
        case _ if due.rank == PERIOD_TURNS:
            turn(book, due.time)
        case _ if due.rank == GRANT_RENEWS:
            _renew(book, book.recurrences[due.number], due.time)
        case _:
            _happen_to_grant(book, book.grants[due.number], due)


def _happen_to_grant(book: Book, grant: Grant, due: Due) -> None:
    cause = Cause(due.time)
    if due.rank == PAYMENT_LAPSES:
        cancel(book, cause, grant, Reason.GRANT_UNPAID)
    elif due.rank == GRANT_EXPIRES:
        expire(book, cause, grant)
    else:
        activate(book, cause, grant, Reason.GRANT_EFFECTIVE)


def _change_terms(book: Book, time: datetime) -> None:
    """Let the next terms decide; periods of another length or currency begin at once."""
    pool = book.pool
    assert pool.terms is not None, "they are due"
    turns = begins_period(pool, pool.terms)
    pool.policy = pool.terms.over(pool.policy)
    book.pool_changed = True
    if turns:
        turn(book, time)


def _end_hold(book: Book, hold: Hold, time: datetime) -> None:
    cause = Cause(time, hold.subject, hold.allotment, undoes=hold.number)
    give_back(book, cause, hold, hold.amount, Reason.HOLD_EXPIRED)
    book.end_hold(hold, HoldStatus.EXPIRED, time)
    repay(book, cause)


def cancel(book: Book, cause: Cause, grant: Grant, reason: Reason) -> None:
    """Let what of a grant is not available yet fall back."""
    book.post(cause, reason, Account.PENDING, Account.SOURCE, grant.amount, grant)
    book.close(grant)


def expire(book: Book, cause: Cause, grant: Grant) -> None:
    """Let what is left of a grant expire; what is held of it does when it comes back."""
    if grant.status is GrantStatus.PENDING:
        cancel(book, cause, grant, Reason.GRANT_UNPAID)
        return
    if grant.status is GrantStatus.SCHEDULED:
        cancel(book, cause, grant, Reason.GRANT_EXPIRED)
        return
    if grant.available:
        amount = grant.available
        book.post(cause, Reason.GRANT_EXPIRED, Account.GRANT, Account.EXPIRED, amount, grant)
    close_if_empty(book, grant)


def begins_period(pool: Pool, terms: Terms) -> bool:
    """Whether a period begins with these terms, which are not in force yet."""
    after = terms.over(pool.policy)
    longer = after.renewal.length != pool.policy.renewal.length
    return terms.anew or longer or is_converted(pool, after)


def is_converted(pool: Pool, other: Policy) -> bool:
    """Whether something was spent in the period, and the pool's currency is not that of `other`."""
    return bool(pool.counters.spend) and pool.policy.currency != other.currency


def turn_now(book: Book) -> None:
    """End the period that is under way right after what it counted; it counts anew from then on."""
    book.pool.as_of += timedelta(microseconds=1)
    turn(book, book.pool.as_of)


def turn(book: Book, time: datetime) -> None:
    """Begin a period: what is counted within one starts anew, lent shares come back.

    It begins now, also where another policy's periods would have begun it earlier.
    """
    pool, counters = book.pool, book.pool.counters
    cycle = cycle_of(pool.policy.renewal, pool.opened_at, pool.timezone)
    index = index_at(cycle, time)
    assert index is not None, "a pool counts from when it was opened"
    period = period_at(cycle, index)
    counters.period, counters.period_start, counters.period_end = index, time, period.end
    count_anew(book, time)
    for allotment in book.shares.by_key.values():
        book.touch(allotment)
    book.pool_changed = True
    book.plan(period.end, PERIOD_TURNS)


def count_anew(book: Book, time: datetime) -> None:
    """Let all that is counted within a period be what is held of it."""
    pool, counters = book.pool, book.pool.counters
    counters.overage = book.held_from(Account.OVERAGE)
    counters.burst = book.held_from(Account.BURST)
    counters.unlimited = book.held_from(Account.SOURCE)
    counters.spend = sum(
        (
            one.amount * one.price
            for hold in book.holds.values()
            for one in hold.slices
            if one.price is not None
        ),
        ZERO,
    )
    counters.used = pool.balances[Account.HELD]
    counters.top_ups = 0
    for allotment in book.shares.by_key.values():
        allotment.used = allotment.beyond = allotment.lent = ZERO
        allotment.idle_since = time
    for hold in book.holds.values():
        if hold.allotment is not None:
            for one in book.shares.path(hold.allotment):
                one.used += hold.amount
                one.beyond += sum(
                    (each.amount for each in hold.slices if each.account in BEYOND), ZERO
                )


def _renew(book: Book, one: Recurrence, time: datetime) -> None:
    """End the running grant of a recurrence, keep what rolls over, issue the next one.

    Nothing rolls over into a period in which it does not recur any more.
    """
    if one.ends_at is not None and one.ends_at <= time:
        one.next_at = one.grant = None
        book.touch(one)
        return
    running = None if one.grant is None else book.grants.get(one.grant)
    kept = ZERO
    if running is not None and running.available and one.rollover is not None:
        kept = kept_of(one, running.available)
    cycle = cycle_of(one.renewal, one.starts_at, one.timezone)
    period, whole = period_at(cycle, one.index), whole_period_at(cycle, one.index)
    if kept and running is not None and one.rollover is not None:
        lasts = one.rollover.seconds
        until = period.end if lasts is None else time + timedelta(seconds=lasts)
        ends = until if one.ends_at is None else min(until, one.ends_at)
        number = _roll_over(book, running, kept, time, ends)
        open_still = tuple(rolled for rolled in one.rolled if rolled[0] in book.grants)
        one.rolled = (*open_still, (number, until))
    amount = one.amount
    if one.prorated:
        share = Fraction(
            (period.end - period.start) // timedelta(microseconds=1),
            (whole.end - whole.start) // timedelta(microseconds=1),
        )
        amount = round_to(Fraction(amount) * share, QUANTITY_DECIMALS, RoundingMode.HALF_UP)
    one.grant = None
    if amount:  # the share of a short period may be nothing
        grant = Grant(
            number=0,
            amount=amount,
            basis=one.basis,
            priority=one.priority,
            issued_at=time,
            effective_at=time,
            expires_at=period.end if one.ends_at is None else min(period.end, one.ends_at),
            cost=one.cost,
            recurrence=one.number,
        )
        issue(book, Cause(time), grant, Reason.GRANT_RENEWED)
        one.grant = grant.number
    one.index += 1
    one.next_at = boundary(cycle, one.index)
    book.touch(one)
    book.plan(one.next_at, GRANT_RENEWS, one.number)


def kept_of(one: Recurrence, rest: Decimal) -> Decimal:
    """Return how much of the rest of a recurring grant rolls over."""
    assert one.rollover is not None
    share = Fraction(rest) * Fraction(one.rollover.percent) / 100
    kept = round_to(share, QUANTITY_DECIMALS, RoundingMode.DOWN)
    return kept if one.rollover.units is None else min(kept, one.rollover.units)


def _roll_over(book: Book, old: Grant, kept: Decimal, time: datetime, ends: datetime) -> int:
    """Move units of an ending grant into one of their own, by way of the source."""
    cause = Cause(time)
    book.post(cause, Reason.ROLLED_OVER, Account.GRANT, Account.SOURCE, kept, old)
    share = None if old.cost is None else cost_of_part(old.cost, old.amount, kept)
    grant = Grant(
        number=0,
        amount=kept,
        basis=Basis.ROLLED_OVER,
        priority=old.priority,
        issued_at=time,
        effective_at=time,
        expires_at=ends,
        cost=share,
    )
    issue(book, cause, grant, Reason.ROLLED_OVER)
    close_if_empty(book, old)
    return grant.number


def _flow_in(book: Book, now: datetime) -> None:
    """Fill a rate-limited pool with what came since it was last looked at, never above its brim."""
    refill, counters = book.pool.policy.refill, book.pool.counters
    assert refill is not None
    grant = book.grants.get(counters.refill_grant or 0)
    if counters.refilled_at is None or grant is None:
        grant = Grant(
            number=0,
            amount=refill.capacity,
            basis=Basis.REFILL,
            issued_at=now,
            effective_at=now,
        )
        issue(book, Cause(now), grant, Reason.REFILLED)
        counters.refill_grant = grant.number
        counters.refilled_at, counters.refilled = now, ZERO
        return
    if now <= counters.refilled_at:
        return
    flowed = flowed_by(refill, now - counters.refilled_at)
    room = refill.capacity - grant.available - grant.held
    more = flowed - counters.refilled
    if more >= room:
        more = max(ZERO, room)
        counters.refilled_at, counters.refilled = now, ZERO
    else:
        counters.refilled = flowed
    if more:
        book.post(Cause(now), Reason.REFILLED, Account.SOURCE, Account.GRANT, more, grant)
    book.pool_changed = True


def flowed_by(refill: Refill, lasted: timedelta) -> Decimal:
    """Return what flows into a rate limit in so long, rounded down."""
    exact = Fraction(refill.amount) * (lasted // timedelta(microseconds=1))
    return round_to(exact / (refill.seconds * 1_000_000), QUANTITY_DECIMALS, RoundingMode.DOWN)
