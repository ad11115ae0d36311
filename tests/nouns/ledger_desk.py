"""A pool with its rows beside it, as a database keeps them: whatever was not written is lost."""

from collections.abc import Callable, Iterable
from copy import copy, deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from farebox.ledger.account import Account
from farebox.ledger.administer import NewGrant, NewRecurrence, add_grant, add_recurrence
from farebox.ledger.allotment import Allotment
from farebox.ledger.book import Book
from farebox.ledger.command import Answer, Command, Extend, Release, Reverse, Settle
from farebox.ledger.decide import apply, prepare
from farebox.ledger.grant import ENDED, Grant, Recurrence
from farebox.ledger.hold import Hold, HoldStatus, Slice
from farebox.ledger.policy import Policy
from farebox.ledger.pool import Pool, PoolStatus
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal
from farebox.ledger.release import split_last
from farebox.ledger.transfer import Transfer

Done = TypeVar("Done")
START = datetime(2026, 1, 30, 23, 55, tzinfo=UTC)
"""Five minutes before a day and, on the 31st, a month may begin."""
_WRITTEN = ("status", "available", "held", "effective_at", "expires_at", "on_invoice", "pay_by")
"""What is written of a grant that has its row already."""


def is_read(grant: Grant) -> bool:
    """Whether a grant stands in the books that are read from the rows."""
    return grant.status not in ENDED or grant.held > 0


class Desk:
    """A pool, its books, its rows and every transfer that was made.

    commit: whether each change is written at once; else `commit` is to be called.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        shares: Iterable[Allotment] = (),
        opened_at: datetime = START,
        timezone: str = "UTC",
        subject: str | None = None,
        key: str = "tokens",
        unit: str = "token",
    ) -> None:
        self.pool = Pool(
            key=key,
            unit=unit,
            subject=subject,
            policy=policy or Policy(),
            opened_at=opened_at,
            as_of=opened_at,
            timezone=timezone,
        )
        self.shares = {one.key: deepcopy(one) for one in shares}
        self.grants: dict[int, Grant] = {}
        self.holds: dict[int, Hold] = {}
        self.recurrences: dict[int, Recurrence] = {}
        self.transfers: list[Transfer] = []
        self.reload()

    def commit(self) -> None:
        """Write what was changed, and only that."""
        first, changes = self.pool.sequence + 1, self.book.changes()
        self.pool = deepcopy(changes.pool)
        self.transfers += changes.transfers
        for grant in changes.grants:
            if grant.number >= first:
                self.grants[grant.number] = copy(grant)
            for name in _WRITTEN:
                setattr(self.grants[grant.number], name, getattr(grant, name))
        self.holds |= {one.number: copy(one) for one in changes.holds}
        self.recurrences |= {one.number: copy(one) for one in changes.recurrences}
        self.shares |= {one.key: copy(one) for one in changes.allotments}

    def reload(self) -> None:
        """Forget the books and read them from the rows."""
        self.book = Book(
            deepcopy(self.pool),
            [copy(one) for one in self.grants.values() if is_read(one)],
            [copy(one) for one in self.holds.values() if one.status is HoldStatus.OPEN],
            [copy(one) for one in self.shares.values()],
            [copy(one) for one in self.recurrences.values()],
        )

    def ask(self, command: Command, now: datetime) -> Answer | Refusal:
        """Apply a command and commit."""
        if isinstance(command, (Settle, Extend, Release)):
            hold = self.holds.get(command.hold)
            if hold is not None and self.book.find_hold(command.hold) is None:
                self.book.ended[command.hold] = hold
        return self.do(apply, command, now)

    def reverse(
        self, operation: int, now: datetime, amount: Decimal | None = None
    ) -> Answer | Refusal:
        """Take back of an operation what nobody took back yet; `farebox.flows.reverse_draw`."""
        entries = [one for one in self.transfers if one.operation == operation]
        taken = tuple(
            Slice(one.origin or one.source, one.amount, one.grant, one.price)
            for one in entries
            if one.target is Account.USED and one.reason is not Reason.REVERSED
        )
        undone = [
            one.amount
            for one in self.transfers
            if one.undoes == operation and one.source is Account.USED
        ]
        left, _ = split_last(taken, sum(undone, Decimal(0)))
        for number in {one.grant for one in left if one.grant is not None}:
            self.book.adopt(copy(self.grants[number]))
        first = entries[0]
        command = Reverse(
            operation=operation,
            taken=left,
            taken_at=first.time,
            taken_subject=first.subject,
            taken_allotment=first.allotment,
            amount=amount,
        )
        return self.ask(command, now)

    def do(self, change: Callable[..., Done], *arguments: Any) -> Done:
        """Let a function of the ledger change the books, and commit."""
        done = change(self.book, *arguments)
        self.commit()
        return done

    def grant(self, amount: str | Decimal, now: datetime = START, **facts: Any) -> int:
        """Bring in a grant that cannot be refused; return its number."""
        grant = self.do(add_grant, NewGrant(amount=Decimal(amount), **facts), now)
        assert isinstance(grant, Grant), grant
        return grant.number

    def recur(self, amount: str | Decimal, now: datetime = START, **facts: Any) -> int:
        """Let a grant come anew each period; return the number of the recurrence."""
        one = self.do(add_recurrence, NewRecurrence(key="k", amount=Decimal(amount), **facts), now)
        assert isinstance(one, Recurrence), one
        return one.number

    def look(self, now: datetime) -> datetime | Refusal:
        """Settle what is due."""
        return self.do(prepare, now)

    def close(self, *, closed: bool = True) -> None:
        status = PoolStatus.CLOSED if closed else PoolStatus.OPEN
        self.book.pool.status = self.pool.status = status

    def available(self, number: int) -> Decimal:
        """Return what is left of a grant, nothing where it is closed."""
        return self.grants[number].available

    @property
    def balance(self) -> Decimal:
        return self.book.pool.balances[Account.GRANT]
