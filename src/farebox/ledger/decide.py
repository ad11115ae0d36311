"""Apply a command to the books of a pool: a named refusal and nothing moved, or an answer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import assert_never

from farebox.catalog.number import plain_text
from farebox.ledger.account import BEYOND, COVERED, ZERO, Account
from farebox.ledger.agenda import HOLD_ENDS
from farebox.ledger.book import Book
from farebox.ledger.command import (
    Answer,
    Command,
    Draw,
    Extend,
    Release,
    Request,
    Reserve,
    Reverse,
    Settle,
)
from farebox.ledger.due import settle_due
from farebox.ledger.hold import Hold, HoldStatus, Slice
from farebox.ledger.issue import close_if_empty, repay
from farebox.ledger.policy import LimitMode
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.release import give_back, give_back_slice, split_last, uncount
from farebox.ledger.take import Taking, barred, decide, is_past_limit, take
from farebox.ledger.top_up import buy_for_use, decide_buying, top_up
from farebox.ledger.transfer import Cause

SKEW = timedelta(seconds=5)
"""How far the clocks of two processes may differ; a decision is never made before the last one."""

_ENDED = {
    HoldStatus.SETTLED: RefusalCode.HOLD_SETTLED,
    HoldStatus.RELEASED: RefusalCode.HOLD_RELEASED,
    HoldStatus.EXPIRED: RefusalCode.HOLD_EXPIRED,
}


def prepare(book: Book, now: datetime) -> datetime | Refusal:
    """Settle what is due and return the time of the decision; refuse a clock that went back."""
    as_of = book.pool.as_of
    if now < as_of:
        if now < as_of - SKEW:
            detail = (
                f"the clock shows {now.isoformat()}, the pool was decided on at {as_of.isoformat()}"
            )
            return Refusal(RefusalCode.CLOCK_WENT_BACK, detail)
        now = as_of
    due = book.next_due
    if (due is not None and due <= now) or book.pool.policy.refill is not None:
        settle_due(book, now)
    else:
        book.pool.as_of = now
    return now


def apply(book: Book, command: Command, now: datetime) -> Answer | Refusal:
    """Decide one command and post what it moves.

    The key of the command must be known to be new. Holds that it names must be in the book, ended
    ones too. Raises nothing; a refusal has moved nothing but what was due anyhow, and what the pool
    bought because it was empty (`farebox.ledger.top_up`).
    """
    wrong = _wrong_unit(book, command)
    if wrong is not None:
        return wrong
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    answer = _apply(book, command, time)
    if isinstance(answer, Answer):
        top_up(book, time)
    return answer


def _apply(book: Book, command: Command, time: datetime) -> Answer | Refusal:
    match command:
        case Draw():
            return _draw(book, command, time)
        case Reserve():
            return _reserve(book, command, time)
        case Settle():
            return _settle(book, command, time)
        case Extend():
            return _extend(book, command, time)
        case Release():
            return _release(book, command, time)
        case Reverse():
            return _reverse(book, command, time)
        case _:
            assert_never(command)


def check(book: Book, command: Draw | Reserve, now: datetime) -> Taking | Refusal:
    """Say whether a command would be granted, and from where, by a book that is thrown away.

    What is due moves in it, and what the command would buy is bought.
    """
    wrong = _wrong_unit(book, command)
    if wrong is not None:
        return wrong
    time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    cause = _cause(command, time)
    if isinstance(command, Reserve):
        refusal = _too_long(book, command.seconds)
        if refusal is not None:
            return barred(book, cause) or refusal
    return decide_buying(book, command.amount, cause)


def _cause(request: Request, time: datetime, undoes: int | None = None) -> Cause:
    return Cause(
        time,
        request.subject,
        request.allotment,
        request.key,
        request.digest,
        undoes,
        request.used_at,
        request.note,
    )


def _wrong_unit(book: Book, command: Command) -> Refusal | None:
    if not isinstance(command, (Draw, Reserve)) or command.unit in (None, book.pool.unit):
        return None
    detail = f"pool {book.pool.key!r} holds {book.pool.unit}, not {command.unit}"
    return Refusal(RefusalCode.UNIT_MISMATCH, detail)


def _draw(book: Book, command: Draw, time: datetime) -> Answer | Refusal:
    cause = _cause(command, time)
    if command.forced:
        buy_for_use(book, command.amount, time)
        taking = decide(book, command.amount, cause, floor=False)
    else:
        taking = decide_buying(book, command.amount, cause)
    if isinstance(taking, Refusal):
        return taking
    take(book, cause, taking, Account.USED, Reason.METERED if command.forced else Reason.DRAWN)
    return _answer(book, cause, command.amount, taking)


def _reserve(book: Book, command: Reserve, time: datetime) -> Answer | Refusal:
    cause = _cause(command, time)
    refusal = _too_long(book, command.seconds)
    if refusal is not None:
        return barred(book, cause) or refusal
    taking = decide_buying(book, command.amount, cause)
    if isinstance(taking, Refusal):
        return taking
    take(book, cause, taking, Account.HELD, Reason.HELD)
    seconds = command.seconds or book.pool.policy.hold_seconds
    hold = Hold(
        number=cause.number,
        amount=command.amount,
        slices=taking,
        subject=command.subject,
        allotment=cause.allotment,
        held_at=time,
        expires_at=time + timedelta(seconds=seconds),
    )
    book.holds[hold.number] = hold
    book.touch(hold)
    book.plan(hold.expires_at, HOLD_ENDS, hold.number)
    return _answer(book, cause, command.amount, taking, hold)


def _too_long(book: Book, seconds: int | None) -> Refusal | None:
    most = book.pool.policy.hold_seconds_max
    if seconds is None or seconds <= most:
        return None
    detail = f"a hold of pool {book.pool.key!r} lasts at most {most} seconds, not {seconds}"
    return Refusal(RefusalCode.HOLD_TOO_LONG, detail)


def _open_hold(book: Book, number: int) -> Hold | Refusal:
    hold = book.find_hold(number)
    if hold is None:
        detail = f"pool {book.pool.key!r} has no hold of this id"
        return Refusal(RefusalCode.HOLD_UNKNOWN, detail)
    if hold.status is not HoldStatus.OPEN:
        ended = "" if hold.closed_at is None else f" at {hold.closed_at.isoformat()}"
        return Refusal(_ENDED[hold.status], f"the hold was {hold.status.value}{ended}")
    return hold


def _settle(book: Book, command: Settle, time: datetime) -> Answer | Refusal:
    """Settle for the real quantity; what was used beyond the hold is never lost."""
    hold = _open_hold(book, command.hold)
    if isinstance(hold, Refusal):
        return hold
    cause = _cause_of(hold, command, time)
    over = command.amount - hold.amount
    buy_for_use(book, over, time)  # before its first entry: those of an operation are a row
    if over < 0:
        give_back(book, cause, hold, -over, Reason.RELEASED)
    used = hold.slices
    for one in used:
        grant = None if one.grant is None else book.grants[one.grant]
        book.post(
            cause,
            Reason.SETTLED,
            Account.HELD,
            Account.USED,
            one.amount,
            grant,
            price=one.price,
            origin=one.account,
        )
        if grant is not None:
            close_if_empty(book, grant)
    beyond: Taking = ()
    past = False
    if over > 0:
        taking = decide(book, over, cause, floor=False)
        assert not isinstance(taking, Refusal) or taking.code is RefusalCode.POOL_CLOSED
        if isinstance(taking, Refusal):
            given = min(over, book.pool.available)
            price = book.pool.policy.limit.price
            beyond = () if given == over else (Slice(Account.OVERAGE, over - given, None, price),)
            taking = (*book.slices(given), *beyond)
        beyond, past = taking, is_past_limit(book, cause, taking)
        reason = Reason.SETTLED_PAST_LIMIT if past else Reason.SETTLED_BEYOND
        take(book, cause, beyond, Account.USED, reason)
    hold.slices, hold.amount, hold.settled = (), ZERO, command.amount
    book.end_hold(hold, HoldStatus.SETTLED, time)
    repay(book, cause)
    return _answer(book, cause, command.amount, (*used, *beyond), hold, past=past)


def _cause_of(hold: Hold, command: Request, time: datetime) -> Cause:
    """Return a cause in the name of whoever holds."""
    cause = _cause(command, time, hold.number)
    cause.subject, cause.allotment = hold.subject, hold.allotment
    return cause


def _extend(book: Book, command: Extend, time: datetime) -> Answer | Refusal:
    hold = _open_hold(book, command.hold)
    refusal = hold if isinstance(hold, Refusal) else _too_long(book, command.seconds)
    if refusal is not None:
        return (barred(book, _cause(command, time)) if command.amount else None) or refusal
    assert isinstance(hold, Hold)
    cause = _cause_of(hold, command, time)
    taking: Taking = ()
    if command.amount:
        decided = decide_buying(book, command.amount, cause)
        if isinstance(decided, Refusal):
            return decided
        taking = decided
        take(book, cause, taking, Account.HELD, Reason.HOLD_EXTENDED)
        hold.slices = (*hold.slices, *taking)
        hold.amount += command.amount
        book.touch(hold)
    if command.seconds is not None:
        expires_at = time + timedelta(seconds=command.seconds)
        if expires_at > hold.expires_at:
            hold.expires_at = expires_at
            book.touch(hold)
            book.plan(expires_at, HOLD_ENDS, hold.number)
    return _answer(book, cause, command.amount, taking, hold)


def _release(book: Book, command: Release, time: datetime) -> Answer | Refusal:
    hold = _open_hold(book, command.hold)
    if isinstance(hold, Refusal):
        return hold
    cause = _cause_of(hold, command, time)
    amount = hold.amount
    give_back(book, cause, hold, amount, Reason.RELEASED)
    book.end_hold(hold, HoldStatus.RELEASED, time)
    repay(book, cause)
    return _answer(book, cause, amount, (), hold)


def _reverse(book: Book, command: Reverse, time: datetime) -> Answer | Refusal:
    """Take back what was drawn last first, so that what is owed shrinks before a grant grows."""
    rest = sum((one.amount for one in command.taken), ZERO)
    if not rest:
        return Refusal(RefusalCode.DRAW_REVERSED, "nothing of this draw is left to take back")
    latest = command.taken_at + timedelta(seconds=book.pool.policy.undo_seconds)
    if time > latest and not command.forced:
        detail = f"a draw may be reversed for {book.pool.policy.undo_seconds} seconds"
        return Refusal(RefusalCode.REVERSAL_TOO_LATE, detail)
    amount = rest if command.amount is None else command.amount
    if amount > rest:
        asked, left = plain_text(amount), plain_text(rest)
        detail = f"{asked} {book.pool.unit} asked back, {left} are left of the draw"
        return Refusal(RefusalCode.REVERSAL_EXCEEDS_DRAW, detail, rest)
    cause = _cause(command, time, command.operation)
    cause.subject, cause.allotment = command.taken_subject, command.taken_allotment
    _, returned = split_last(command.taken, amount)
    reason = Reason.VOIDED if command.forced else Reason.REVERSED
    for one in returned:
        give_back_slice(book, cause, one, Account.USED, reason)
    start = book.pool.counters.period_start
    if start is None or command.taken_at >= start:
        uncount(book, cause.allotment, returned)
    repay(book, cause)
    return _answer(book, cause, amount, returned)


def _answer(
    book: Book,
    cause: Cause,
    amount: Decimal,
    slices: Sequence[Slice],
    hold: Hold | None = None,
    *,
    past: bool = False,
) -> Answer:
    covered, beyond = ZERO, dict[Account, Decimal]()
    for one in slices:
        if one.account in COVERED:
            covered += one.amount
        else:
            assert one.account in BEYOND
            beyond[one.account] = beyond.get(one.account, ZERO) + one.amount
    flagged = Account.OVERAGE in beyond and book.pool.policy.limit.mode is not LimitMode.OVERAGE
    return Answer(
        operation=cause.number,
        time=cause.time,
        amount=amount,
        covered=covered,
        beyond=beyond,
        available=book.pool.balances[Account.GRANT],
        over_limit=past or flagged,
        hold=None if hold is None else hold.number,
        expires_at=None if hold is None else hold.expires_at,
    )
