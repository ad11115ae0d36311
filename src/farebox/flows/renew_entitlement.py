"""Recurring grants of a feature's pool: which end, which begin, with what a period has left."""

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal

import msgspec

from farebox.ledger.account import ZERO
from farebox.ledger.administer import (
    NewRecurrence,
    add_recurrence,
    end_recurrence,
    end_recurrence_at,
    void_grant,
)
from farebox.ledger.book import Book
from farebox.ledger.grant import Recurrence
from farebox.ledger.policy import LimitMode
from farebox.ledger.pool import cycle_of
from farebox.period.calendar import day_at
from farebox.period.cycle import Period, period_containing
from farebox.period.instant import END

# Recurring grants of entitlements are called `whose/when`. No key of anybody's has a slash, so
# they are neither another's nor among those that people put into the pool by themselves.
OVERRIDE = "override"
SUBSCRIPTION = "subscription/"

Used = Callable[[Sequence[int], datetime], Decimal]
"""How much of the grants of recurrences, by number, was used since an instant."""


def renew_entitlement(
    book: Book,
    wanted: Mapping[str, NewRecurrence],
    upcoming: Mapping[str, NewRecurrence],
    mine: Set[str],
    used: Used,
    now: datetime,
) -> None:
    """End the recurring grants that are not wanted, begin those that are.

    Of what takes the place of others, or comes back, what was `used` in the period is gone. mine:
    whose grants may take each other's place; a subscription that starts brings its whole limit,
    an upcoming one when it does.
    """
    # Numbers count down, so of one name the newest is the last.
    ordered = sorted(book.recurrences.values(), key=lambda one: -one.number)
    owned = [one for one in ordered if "/" in one.key]
    standing = {_whose(one): one for one in owned}
    going, staying = [], set()
    for key, one in standing.items():
        if one.next_at is None:
            continue  # it has ended
        asked = wanted.get(key) or upcoming.get(key)
        if asked is None or asked.amount != one.amount or asked.rollover != one.rollover:
            going.append(one)
            continue
        staying.add(key)
        if asked.ends_at != one.ends_at:
            end_recurrence_at(book, one.number, asked.ends_at, now)
    replaced = [one.number for one in owned if _whose(one) in mine - staying]
    overridden = any(_whose(one) == OVERRIDE for one in going)
    taken = ZERO
    for key, asked in wanted.items():
        if key in staying:
            continue
        before = standing.get(key)
        if key == OVERRIDE or before is not None or overridden:
            following = _following(asked, before)
            taken += _begin(book, following, before, replaced, used, taken, now)
        else:
            add_recurrence(book, _named(book, asked, now), now)
    for key, asked in upcoming.items():
        if key not in staying:
            add_recurrence(book, _named(book, asked, now), now)
    # Only now, so that the pool is not told to be empty in between.
    for one in going:
        if _whose(one) in mine and one.grant in book.grants:
            void_grant(book, one.grant, now)
        end_recurrence(book, one.number, now)  # what was kept of it stays: that was had already


def _whose(one: Recurrence) -> str:
    return one.key.rpartition("/")[0]


def _named(book: Book, asked: NewRecurrence, now: datetime) -> NewRecurrence:
    # A key of a pool's recurrence is never used twice: what follows gets a number.
    number = 1 - min(book.recurrences, default=0)
    return msgspec.structs.replace(asked, key=f"{asked.key}/{now:%Y%m%dT%H%M%S%f}-{number}")


def _following(asked: NewRecurrence, before: Recurrence | None) -> NewRecurrence:
    """Let an override that no plan gives its months keep those of the last one."""
    if before is None or asked.timezone is not None:
        return asked
    renewal = msgspec.structs.replace(
        before.renewal,
        anchor_day=before.renewal.anchor_day or day_at(before.starts_at, before.timezone).day,
    )
    return msgspec.structs.replace(
        asked, renewal=renewal, timezone=before.timezone, starts_at=before.starts_at
    )


def _begin(
    book: Book,
    asked: NewRecurrence,
    before: Recurrence | None,
    replaced: Sequence[int],
    used: Used,
    taken: Decimal,
    now: datetime,
) -> Decimal:
    """Begin a recurring grant with what its period has left; return how much that is less.

    before: the last one of whose it is. taken: how much of what was used another one has less
    already.
    """
    period, named = _running_period(book, asked, now), _named(book, asked, now)
    spent, counters = used(replaced, period.start), book.pool.counters
    if counters.period_start is not None and counters.period_start >= period.start:
        spent += counters.overage + counters.unlimited
    less = min(asked.amount, max(ZERO, spent - taken))
    if less == asked.amount:  # it begins with the next period
        start = asked.starts_at or now
        anchor = asked.renewal.anchor_day
        if anchor is None:
            anchor = day_at(start, asked.timezone or book.pool.timezone).day
        renewal = msgspec.structs.replace(asked.renewal, anchor_day=anchor)
        later = msgspec.structs.replace(named, renewal=renewal, starts_at=period.end, ends_at=None)
        if asked.ends_at is None or period.end < asked.ends_at:
            add_recurrence(book, msgspec.structs.replace(later, ends_at=asked.ends_at), now)
        elif before is None:  # nothing of it will come, and it is known that it has begun
            added = add_recurrence(book, later, now)
            if isinstance(added, Recurrence):
                end_recurrence(book, added.number, now)
        return less
    first = msgspec.structs.replace(named, amount=asked.amount - less)
    added = add_recurrence(book, first, now)
    if isinstance(added, Recurrence):
        added.amount = asked.amount
        book.touch(added)
    return less


def _running_period(book: Book, asked: NewRecurrence, now: datetime) -> Period:
    """Return the period of a recurring grant that is under way."""
    start = asked.starts_at or now
    if start > now:  # what it follows had nothing left and waits for this
        return Period(book.pool.counters.period_start or now, start)
    found = period_containing(
        cycle_of(asked.renewal, start, asked.timezone or book.pool.timezone), now
    )
    assert found is not None, "it has begun"
    return found


def resets_at(book: Book) -> datetime | None:
    """Return when a limit comes anew, or goes; where there is none, when the pool counts anew."""
    pool = book.pool
    limits = [
        (one.next_at, one.ends_at or END)
        for one in book.recurrences.values()
        if "/" in one.key and one.next_at is not None and (one.ends_at or END) > pool.as_of
    ]
    times = [next_at for next_at, ends_at in limits if next_at < ends_at]
    if pool.terms is not None and pool.terms.at > pool.as_of:
        times += [pool.terms.at] * (pool.terms.limit.mode is not LimitMode.HARD)
    return min(times, default=None if limits else pool.counters.period_end)
