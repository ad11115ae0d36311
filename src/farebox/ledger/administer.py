"""What is done to a pool by those who run it: grants, payments, recurrences, moves, its policy."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from farebox.ledger.account import Account
from farebox.ledger.agenda import GRANT_EXPIRES, GRANT_RENEWS, PERIOD_TURNS, TERMS_CHANGE
from farebox.ledger.book import Book
from farebox.ledger.decide import prepare
from farebox.ledger.due import cancel, expire, is_converted, turn_now
from farebox.ledger.grant import (
    Basis,
    Grant,
    GrantStatus,
    Recurrence,
    Rollover,
    cost_of_part,
)
from farebox.ledger.issue import activate, close_if_empty, is_over, issue
from farebox.ledger.policy import Policy, Renewal
from farebox.ledger.pool import PoolStatus, Terms, cycle_of
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import decide
from farebox.ledger.transfer import Cause
from farebox.ledger.wait import say_when
from farebox.period.cycle import index_at

Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
"""Of grants; what PostgreSQL keeps as an integer."""


class NewGrant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grant that is asked for.

    key: the caller's own, unique in the pool. effective_at: none takes now. pending: it waits until
    it is paid, at most until `pay_by`, which no other has. cost: what all of it costs, in the
    pool's currency; on_invoice: whether that stands on the customer's next invoice.
    """

    key: str | None = None
    amount: Decimal
    basis: Basis = Basis.PROMOTIONAL
    priority: Priority = 0
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    cost: Decimal | None = None
    on_invoice: bool = False
    pending: bool = False
    pay_by: datetime | None = None
    metadata: dict[str, str] = {}


class NewRecurrence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recurring grant that is asked for; `starts_at`: none takes now."""

    key: str
    amount: Decimal
    priority: Priority = 0
    basis: Basis = Basis.INCLUDED
    cost: Decimal | None = None
    renewal: Renewal = Renewal()
    timezone: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    rollover: Rollover | None = None
    prorated: bool = False


def add_grant(book: Book, asked: NewGrant, now: datetime) -> Grant | Refusal:
    """Bring a grant into the pool; its key must be known to be new.

    The first transfer of a grant with a key carries the digest of what was asked.
    """
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    if book.pool.status is PoolStatus.CLOSED:
        return Refusal(RefusalCode.POOL_CLOSED, f"pool {book.pool.key!r} is closed")
    effective = asked.effective_at or time
    if asked.expires_at is not None and asked.expires_at <= effective:
        detail = "a grant expires after it comes into force"
        return Refusal(RefusalCode.GRANT_TIMES_INVALID, detail)
    if asked.pending and asked.pay_by is not None and asked.pay_by <= time:
        detail = f"the grant had to be paid by {asked.pay_by.isoformat()}, before it was made"
        return Refusal(RefusalCode.GRANT_TIMES_INVALID, detail)
    if asked.expires_at is not None and asked.expires_at <= time:
        detail = f"the grant expired at {asked.expires_at.isoformat()}, before it was made"
        return Refusal(RefusalCode.GRANT_ALREADY_EXPIRED, detail)
    grant = Grant(
        number=0,
        key=asked.key,
        amount=asked.amount,
        status=GrantStatus.PENDING if asked.pending else GrantStatus.ACTIVE,
        basis=asked.basis,
        priority=asked.priority,
        issued_at=time,
        effective_at=effective,
        expires_at=asked.expires_at,
        cost=asked.cost,
        on_invoice=asked.on_invoice,
        pay_by=asked.pay_by if asked.pending else None,
        metadata=asked.metadata,
    )
    reason = Reason.GRANT_PENDING if asked.pending else Reason.GRANT_ISSUED
    digest = None if asked.key is None else digest_of(asked)
    issue(book, Cause(time, digest=digest), grant, reason)
    return grant


def digest_of(asked: NewGrant | NewRecurrence) -> str:
    """Return what tells a grant from others under its key, however numbers and times are written.

    It is kept because the grant itself changes: what is voided or expired by hand expires earlier.
    """
    text = msgspec.json.encode(_written(asked), order="sorted")
    return blake2b(text, digest_size=16).hexdigest()


def _written(value: object) -> object:
    match value:
        case Struct():
            fields = msgspec.structs.fields(value)
            needed = {one.name: getattr(value, one.name) for one in fields if one.required}
            plain = type(value)(**needed)
            # What is as it is by default is left out, so that a further field changes no digest.
            return {
                one.name: _written(said)
                for one in fields
                if (said := getattr(value, one.name)) != getattr(plain, one.name) or one.required
            }
        case Decimal():
            return str(Fraction(value))
        case datetime():
            return value.astimezone(UTC)
        case _:
            return value


def pay_grant(book: Book, number: int, now: datetime) -> Grant | Refusal:
    """Make a grant that waited to be paid available, or let it wait for its time."""
    found = _pending(book, number, now)
    if not isinstance(found, Refusal):
        activate(book, Cause(book.pool.as_of), found, Reason.GRANT_PAID)
    return found


def fail_grant(book: Book, number: int, now: datetime) -> Grant | Refusal:
    """Let a grant that was not paid fall back."""
    found = _pending(book, number, now)
    if not isinstance(found, Refusal):
        cancel(book, Cause(book.pool.as_of), found, Reason.GRANT_UNPAID)
    return found


def _pending(book: Book, number: int, now: datetime) -> Grant | Refusal:
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    grant = book.grants.get(number)
    if grant is None or grant.status is not GrantStatus.PENDING:
        return Refusal(RefusalCode.GRANT_NOT_PENDING, "this grant does not wait to be paid")
    return grant


def _open(book: Book, number: int, now: datetime) -> Grant | Refusal:
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    grant = book.grants.get(number)
    if grant is None:
        return Refusal(RefusalCode.GRANT_CLOSED, "nothing of this grant is left")
    if grant.basis is Basis.REFILL:
        detail = "it is what flows into a rate limit; change the policy, or close the pool"
        return Refusal(RefusalCode.GRANT_REFILLS, detail)
    return grant


def void_grant(book: Book, number: int, now: datetime) -> Grant | Refusal:
    """Take back what is left of a grant; what is held or was used of it goes when it comes back."""
    grant = _open(book, number, now)
    if isinstance(grant, Refusal):
        return grant
    time = book.pool.as_of
    cause, waits = Cause(time), grant.status in (GrantStatus.PENDING, GrantStatus.SCHEDULED)
    grant.status = GrantStatus.VOIDED
    if waits:
        cancel(book, cause, grant, Reason.GRANT_VOIDED)
        return grant
    if grant.available:
        amount = grant.available
        book.post(cause, Reason.GRANT_VOIDED, Account.GRANT, Account.SOURCE, amount, grant)
    # Only now: while it has units, its place among the others is by expiry.
    grant.expires_at = time if grant.expires_at is None else min(grant.expires_at, time)
    book.touch(grant)
    close_if_empty(book, grant)
    return grant


def expire_grant(book: Book, number: int, now: datetime) -> Grant | Refusal:
    """Let a grant expire now, before its time."""
    grant = _open(book, number, now)
    if isinstance(grant, Refusal):
        return grant
    time = book.pool.as_of
    if grant.expires_at is not None and grant.expires_at <= time:
        over = "was taken back" if grant.status is GrantStatus.VOIDED else "has expired"
        return Refusal(RefusalCode.GRANT_CLOSED, f"it {over}; what is held of it has not ended")
    expire(book, Cause(time), grant)
    grant.expires_at = time  # only now: while it has units, its place among the others is by expiry
    book.touch(grant)
    return grant


def is_asked_again(one: Recurrence, asked: NewRecurrence) -> bool:
    """Whether a recurrence whose request was not kept may be what is asked for.

    Where the request leaves its zone or start to the pool, whatever it has will do; when it ends is
    not known any more of one that was stopped.
    """
    return (
        (one.amount, one.priority, one.basis, one.cost)
        == (asked.amount, asked.priority, asked.basis, asked.cost)
        and (one.renewal, one.rollover, one.prorated)
        == (asked.renewal, asked.rollover, asked.prorated)
        and asked.timezone in (None, one.timezone)
        and asked.starts_at in (None, one.starts_at)
        and (one.next_at is None or one.ends_at == asked.ends_at)
    )


def add_recurrence(book: Book, asked: NewRecurrence, now: datetime) -> Recurrence | Refusal:
    """Let a grant come anew each period; the first one comes at once if its time has come.

    Where the periods began earlier, the first grant is that of the period under way, whole.
    """
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    if book.pool.status is PoolStatus.CLOSED:
        return Refusal(RefusalCode.POOL_CLOSED, f"pool {book.pool.key!r} is closed")
    starts = asked.starts_at or time
    first = max(starts, time)
    if asked.ends_at is not None and asked.ends_at <= first:
        detail = "a recurring grant ends after it starts"
        return Refusal(RefusalCode.GRANT_TIMES_INVALID, detail)
    timezone = asked.timezone or book.pool.timezone
    # Its number is one that no other has: transfers count from 1, recurrences from -1 down.
    number = min(book.recurrences, default=0) - 1
    one = Recurrence(
        number=number,
        key=asked.key,
        amount=asked.amount,
        priority=asked.priority,
        basis=asked.basis,
        cost=asked.cost,
        renewal=asked.renewal,
        timezone=timezone,
        starts_at=starts,
        ends_at=asked.ends_at,
        rollover=asked.rollover,
        prorated=asked.prorated,
        index=index_at(cycle_of(asked.renewal, starts, timezone), first) or 0,
        next_at=first,
    )
    book.recurrences[number] = one
    book.touch(one)
    book.plan(first, GRANT_RENEWS, number)
    prepare(book, time)
    return one


def _recurrence(book: Book, number: int, now: datetime) -> Recurrence | Refusal:
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    one = book.recurrences.get(number)
    if one is None:
        return Refusal(RefusalCode.GRANT_UNKNOWN, "there is no such recurring grant")
    return one


def end_recurrence(book: Book, number: int, now: datetime) -> Recurrence | Refusal:
    """Let no further grant come; the running period's stays until its end."""
    one = _recurrence(book, number, now)
    if isinstance(one, Refusal):
        return one
    if one.next_at is None:
        return one  # it has ended already, when it says
    one.ends_at, one.next_at = book.pool.as_of, None
    book.touch(one)
    return one


def end_recurrence_at(
    book: Book, number: int, ends_at: datetime | None, now: datetime
) -> Recurrence | Refusal:
    """Let a recurring grant end at an instant, the running period's with it; none: never.

    Where it was to end earlier, what has not expired lasts as long as it would have without that.
    """
    one = _recurrence(book, number, now)
    if isinstance(one, Refusal):
        return one
    time, turn = book.pool.as_of, one.next_at
    one.ends_at = ends_at
    if ends_at is not None and ends_at <= time:
        one.next_at = None
    lasting = () if turn is None else ((one.grant or 0, turn), *one.rolled)
    for of_grant, until in lasting:
        grant = book.grants.get(of_grant)
        if grant is None or grant.status is GrantStatus.VOIDED or is_over(grant, time):
            continue
        grant.expires_at = until if ends_at is None else min(until, max(ends_at, time))
        book.touch(grant)
        book.plan(grant.expires_at, GRANT_EXPIRES, grant.number)
    book.sort()
    book.touch(one)
    prepare(book, time)
    return one


def move_units(
    giving: Book, taking: Book, amount: Decimal, now: datetime, cause: Cause
) -> Refusal | None:
    """Move available units from one pool to another; both must be of the same unit.

    What was paid for them and when they expire goes with them, grant by grant. Nothing is bought
    for it, nor is a license asked: units that it does not give any more are not lost.
    """
    if giving.pool.unit != taking.pool.unit:
        detail = f"pool {giving.pool.key!r} holds {giving.pool.unit}, not {taking.pool.unit}"
        return Refusal(RefusalCode.UNIT_MISMATCH, detail)
    # Both at one time, the later one where their clocks differ; so each is prepared for it.
    for book in (giving, taking, giving):
        time = prepare(book, now)
        if isinstance(time, Refusal):
            return time
        now = time
    cause.time = now
    if taking.pool.status is PoolStatus.CLOSED:
        return Refusal(RefusalCode.POOL_CLOSED, f"pool {taking.pool.key!r} is closed")
    slices = decide(giving, amount, cause, borrow=False)
    if isinstance(slices, Refusal):
        return say_when(giving, slices, amount, cause, borrow=False)
    arrival = Cause(now, note=cause.note)
    for one in slices:
        old = giving.grants[one.grant or 0]
        giving.post(cause, Reason.MOVED_OUT, Account.GRANT, Account.TRANSIT, one.amount, old)
        close_if_empty(giving, old)
        _arrive(taking, arrival, old, one.amount)
    return None


def _arrive(book: Book, cause: Cause, old: Grant, amount: Decimal) -> None:
    cost = None if old.cost is None else cost_of_part(old.cost, old.amount, amount)
    grant = Grant(
        number=0,
        amount=amount,
        basis=Basis.MOVED,
        priority=old.priority,
        issued_at=old.issued_at,
        effective_at=cause.time,
        expires_at=old.expires_at,
        cost=cost,
    )
    issue(book, cause, grant, Reason.MOVED_IN, source=Account.TRANSIT)


def change_policy(book: Book, policy: Policy, now: datetime) -> Refusal | None:
    """Let another policy decide from now on; only another currency cuts a period short.

    Terms whose time has come stay as they are, until others are set.
    """
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    terms, before = book.pool.terms, book.pool.policy
    book.pool.policy = policy if terms is None or terms.at > time else terms.over(policy)
    if is_converted(book.pool, before):
        turn_now(book)
    book.pool_changed = True
    book.sort()
    book.plan(book.pool.counters.period_end, PERIOD_TURNS)
    return None


def set_terms(book: Book, terms: Terms | None) -> None:
    """Let these terms come next, at a time that has not come, or none."""
    book.pool.terms = terms
    book.pool_changed = True
    if terms is not None:
        book.plan(terms.at, TERMS_CHANGE)
