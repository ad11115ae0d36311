"""The books of one pool: its state, kept in step with the transfers that are made.

A book is a working copy of what the database has. Commands change it and collect what is to be
written; when that cannot be committed the book is thrown away and read anew.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TypeVar

from msgspec import Struct

from farebox.ledger.account import ZERO, Account
from farebox.ledger.agenda import (
    GRANT_RENEWS,
    GRANT_STARTS,
    HOLD_ENDS,
    PERIOD_TURNS,
    TERMS_CHANGE,
    Due,
    grant_due,
)
from farebox.ledger.allotment import Allotment, Shares
from farebox.ledger.grant import BurnKey, Grant, GrantStatus, Recurrence, burn_key
from farebox.ledger.hold import Hold, HoldStatus, Slice
from farebox.ledger.pool import Pool
from farebox.ledger.reason import Reason
from farebox.ledger.transfer import Cause, Transfer

Name = TypeVar("Name", int, str)
Thing = TypeVar("Thing")


_PASSED_OVER = 1000
"""So much that no longer holds may stand in an agenda, besides twice what does."""


class Changes(Struct):
    """What is to be written, in one commit, for a pool that stood at `version`."""

    pool: Pool
    transfers: list[Transfer]
    grants: list[Grant]
    holds: list[Hold]
    allotments: list[Allotment]
    recurrences: list[Recurrence]


class Book:
    """One pool with its open grants and holds, its shares and what it counts."""

    __slots__ = (
        "_agenda",
        "_allotments_changed",
        "_closed",
        "_grants_changed",
        "_holds_changed",
        "_keys",
        "_order",
        "_recurrences_changed",
        "_starts",
        "_transfers",
        "ended",
        "grants",
        "holds",
        "pool",
        "pool_changed",
        "recurrences",
        "shares",
    )

    def __init__(
        self,
        pool: Pool,
        grants: Iterable[Grant] = (),
        holds: Iterable[Hold] = (),
        allotments: Iterable[Allotment] = (),
        recurrences: Iterable[Recurrence] = (),
    ) -> None:
        self.pool = pool
        self.grants = {grant.number: grant for grant in grants}
        self.holds = {hold.number: hold for hold in holds}
        self.ended: dict[int, Hold] = {}
        self._closed: dict[int, Grant] = {}
        self.shares = Shares(allotments)
        self.recurrences = {one.number: one for one in recurrences}
        self.pool_changed = False
        self._transfers: list[Transfer] = []
        self._grants_changed: dict[int, Grant] = {}
        self._holds_changed: dict[int, Hold] = {}
        self._allotments_changed: dict[str, Allotment] = {}
        self._recurrences_changed: dict[int, Recurrence] = {}
        self._order: list[tuple[BurnKey, Grant]] = []
        self.sort()
        self._agenda = list(self._all_due())
        heapify(self._agenda)
        self._starts = sorted(due for due in self._agenda if due.rank == GRANT_STARTS)

    # What is to be written -----------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return self.pool_changed or bool(self._transfers)

    def changes(self) -> Changes:
        """Return what is to be written since the last call, and begin anew."""
        changes = Changes(
            self.pool,
            self._transfers,
            _emptied(self._grants_changed),
            _emptied(self._holds_changed),
            _emptied(self._allotments_changed),
            _emptied(self._recurrences_changed),
        )
        self._transfers, self.pool_changed = [], False
        self.ended.clear()
        self._closed.clear()
        return changes

    @property
    def transfers(self) -> list[Transfer]:
        """The transfers made since the last call of `changes`."""
        return self._transfers

    def touch(self, one: Grant | Hold | Allotment | Recurrence) -> None:
        """Mark what was changed to be written."""
        self.pool_changed = True
        match one:
            case Grant():
                self._grants_changed[one.number] = one
            case Hold():
                self._holds_changed[one.number] = one
            case Allotment():
                self._allotments_changed[one.key] = one
            case Recurrence():
                self._recurrences_changed[one.number] = one

    # The one way for units to move ---------------------------------------------------------------

    def post(
        self,
        cause: Cause,
        reason: Reason,
        source: Account,
        target: Account,
        amount: Decimal,
        grant: Grant | None = None,
        *,
        price: Decimal | None = None,
        origin: Account | None = None,
    ) -> None:
        """Move `amount` units; `grant` is the one whose account is source or target."""
        assert amount > 0, amount
        pool, balances = self.pool, self.pool.balances
        source_after = balances[source] = balances[source] - amount
        target_after = balances[target] = balances[target] + amount
        if grant is not None:
            source_after, target_after = self._move_grant(
                grant, source, target, amount, source_after, target_after
            )
        pool.sequence = sequence = pool.sequence + 1
        first = not cause.number
        if first:
            cause.number = sequence
        self._transfers.append(
            Transfer(
                sequence,
                cause.number,
                reason,
                source,
                target,
                amount,
                source_after,
                target_after,
                balances[Account.GRANT],
                cause.time,
                None if grant is None else grant.number,
                origin,
                cause.subject,
                cause.allotment,
                price,
                cause.key if first else None,
                cause.digest if first else None,
                cause.undoes,
                cause.used_at,
                cause.note if first else None,
            )
        )

    def _move_grant(
        self,
        grant: Grant,
        source: Account,
        target: Account,
        amount: Decimal,
        source_after: Decimal,
        target_after: Decimal,
    ) -> tuple[Decimal, Decimal]:
        if source is Account.GRANT:
            source_after = grant.available = grant.available - amount
            assert source_after >= 0, "no grant gives more than it has"
            if not source_after:
                self._drop(grant)
        elif source is Account.HELD:
            grant.held -= amount
        if target is Account.GRANT:
            if not grant.available:
                insort(self._order, (self._key(grant), grant), key=lambda item: item[0])
            target_after = grant.available = grant.available + amount
        elif target is Account.HELD:
            grant.held += amount
        self._grants_changed[grant.number] = grant
        return source_after, target_after

    # Grants in the order in which they are taken -------------------------------------------------

    def sort(self) -> None:
        """Bring the grants into the order of the policy, when it or they were changed."""
        usable = [
            one
            for one in self.grants.values()
            if one.status is GrantStatus.ACTIVE and one.available
        ]
        self._order = sorted(((self._key(one), one) for one in usable), key=lambda item: item[0])

    def _key(self, grant: Grant) -> BurnKey:
        return burn_key(grant, self.pool.policy.burn_order)

    def _drop(self, grant: Grant) -> None:
        order = self._order
        place = 0
        if order[0][1] is not grant:
            place = bisect_left(order, self._key(grant), key=lambda item: item[0])
        assert order[place][1] is grant, "a grant with units is in its place"
        del order[place]

    def slices(self, amount: Decimal) -> list[Slice]:
        """Return from which grants `amount` units come; there are as many available."""
        if not amount:
            return []
        first = self._order[0][1]
        if amount <= first.available:
            return [Slice(Account.GRANT, amount, first.number)]
        found: list[Slice] = []
        for _, grant in self._order:
            part = min(amount, grant.available)
            found.append(Slice(Account.GRANT, part, grant.number))
            amount -= part
            if not amount:
                break
        assert not amount, "the grants have what the pool's balance says"
        return found

    def first_grants(self, count: int) -> list[Grant]:
        """Return the next `count` grants to be taken from."""
        return [grant for _, grant in islice(self._order, count)]

    def close(self, grant: Grant) -> None:
        """Close a grant; it stays at hand until the next call of `changes`."""
        if grant.status is not GrantStatus.VOIDED:
            grant.status = GrantStatus.CLOSED
        self.touch(grant)
        self.grants.pop(grant.number, None)
        self._closed[grant.number] = grant

    def adopt(self, grant: Grant) -> None:
        """Have a grant that was closed earlier at hand, for units that may return to it."""
        if grant.number not in self.grants:
            self._closed[grant.number] = grant

    def grant_of(self, number: int | None) -> Grant:
        """Return the grant that units came from, a closed one that is at hand too."""
        assert number is not None, "units of a grant name it"
        grant = self.grants.get(number)
        return self._closed[number] if grant is None else grant

    def reopen(self, grant: Grant) -> None:
        """Let a closed grant be taken from again; its expiry is planned anew."""
        grant.status = GrantStatus.ACTIVE
        self.grants[grant.number] = self._closed.pop(grant.number)
        for due in grant_due(grant):
            self.plan(*due)

    # What happens by itself ----------------------------------------------------------------------

    def plan(self, time: datetime | None, rank: int, number: int = 0) -> None:
        """Remember that something is due."""
        if time is None:
            return
        heappush(self._agenda, Due(time, rank, number))
        if rank == GRANT_STARTS:
            self._pass_over_starts()
            insort(self._starts, Due(time, rank, number))
        if len(self._agenda) > _PASSED_OVER + 2 * (len(self.grants) + len(self.holds)):
            self._agenda = list(self._all_due())
            heapify(self._agenda)

    @property
    def next_due(self) -> datetime | None:
        """When the next thing happens by itself; what no longer holds is forgotten on the way."""
        while self._agenda and not self._holds(self._agenda[0]):
            heappop(self._agenda)
        return self._agenda[0].time if self._agenda else None

    def _holds(self, due: Due) -> bool:
        if due.rank == TERMS_CHANGE:
            return self.pool.terms is not None and self.pool.terms.at == due.time
        if due.rank == HOLD_ENDS:
            hold = self.holds.get(due.number)
            return hold is not None and hold.expires_at <= due.time
        if due.rank == PERIOD_TURNS:
            return due.time == (self.pool.counters.period_end or self.pool.opened_at)
        if due.rank == GRANT_RENEWS:
            one = self.recurrences.get(due.number)
            return one is not None and one.next_at == due.time
        grant = self.grants.get(due.number)
        return grant is not None and due in grant_due(grant)

    @property
    def next_start(self) -> datetime | None:
        """When the next grant that is not in force yet will be."""
        self._pass_over_starts()
        return self._starts[0].time if self._starts else None

    def next_starts(self, count: int) -> list[Due]:
        """Return the next starts of grants, by time; some may not wait for theirs any more."""
        self._pass_over_starts()
        return self._starts[:count]

    def _pass_over_starts(self) -> None:
        """Forget the first starts as far as their grants do not wait for them any more."""
        while self._starts:
            grant = self.grants.get(self._starts[0].number)
            if grant is not None and grant.status is GrantStatus.SCHEDULED:
                return
            del self._starts[0]

    def take_due(self, now: datetime) -> Due | None:
        """Return the next thing that is due at `now`; what no longer holds is passed over."""
        while self._agenda and self._agenda[0].time <= now:
            due = heappop(self._agenda)
            if self._holds(due):
                return due
        return None

    def _all_due(self) -> Iterable[Due]:
        for grant in self.grants.values():
            yield from grant_due(grant)
        for hold in self.holds.values():
            yield Due(hold.expires_at, HOLD_ENDS, hold.number)
        for one in self.recurrences.values():
            if one.next_at is not None:
                yield Due(one.next_at, GRANT_RENEWS, one.number)
        counters, terms = self.pool.counters, self.pool.terms
        yield Due(counters.period_end or self.pool.opened_at, PERIOD_TURNS, 0)
        if terms is not None and terms.at > self.pool.as_of:
            yield Due(terms.at, TERMS_CHANGE, 0)

    # Holds ----------------------------------------------------------------------------------------

    def find_hold(self, number: int) -> Hold | None:
        """Return a hold that is open, or ended since the last call of `changes`."""
        return self.holds.get(number) or self.ended.get(number)

    def end_hold(self, hold: Hold, status: HoldStatus, time: datetime) -> None:
        hold.status, hold.closed_at = status, time
        self.touch(hold)
        self.ended[hold.number] = self.holds.pop(hold.number)

    # What is beyond the grants -------------------------------------------------------------------

    def held_from(self, account: Account) -> Decimal:
        """Return how much of what is held came out of an account that has no grants."""
        assert account is not Account.GRANT
        return sum(
            (
                one.amount
                for hold in self.holds.values()
                for one in hold.slices
                if one.account is account
            ),
            ZERO,
        )


def _emptied(changed: dict[Name, Thing]) -> list[Thing]:
    """Return what was changed, and forget it."""
    if not changed:  # as nearly always
        return []
    things = list(changed.values())
    changed.clear()
    return things
