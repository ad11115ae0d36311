"""Decide requests on pools: on books at hand, or on pools that are locked for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import assert_never
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.ledger.account import BEYOND, COVERED, ZERO, Account
from farebox.ledger.command import (
    Answer,
    Command,
    Draw,
    Extend,
    Release,
    Reserve,
    Reverse,
    Settle,
)
from farebox.ledger.decide import apply
from farebox.ledger.hold import HoldStatus
from farebox.ledger.policy import LimitMode
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import exact
from farebox.postgres.book import Stated, find_holds, read_books
from farebox.postgres.posting import Posting, Refused, post_call, posted
from farebox.postgres.session import Pool, transaction
from farebox.postgres.transfer import Entry, operations_by_key

Outcome = Answer | Refusal


class Recorded(Struct, frozen=True):
    """An operation that is in the ledger already; expires_at: of its hold, also of one that ended.

    That is when it ends by now, or would have.
    """

    entries: Sequence[Entry]
    expires_at: datetime | None


Known = Mapping[tuple[UUID, str], Recorded]
"""Operations that are in the ledger already, by pool and key."""

_STORED = frozenset(RefusalCode) - {
    RefusalCode.POOL_UNKNOWN,
    RefusalCode.AMOUNT_INVALID,
    RefusalCode.UNIT_MISMATCH,
    RefusalCode.IDEMPOTENCY_KEY_REUSED,
    RefusalCode.CLOCK_WENT_BACK,
}
"""Refusals of what a pool holds, which somebody may want to do something about."""


class Asked(Struct, frozen=True):
    """A command for one pool."""

    pool_id: UUID
    command: Command


class Round:
    """Requests decided together on the books of their pools, in the order in which they came."""

    def __init__(
        self, books: Mapping[UUID, Stated], asked: Sequence[Asked], now: datetime, known: Known
    ) -> None:
        self._books = books
        self._known = known
        self._now = now
        self._fresh: dict[tuple[UUID, str], tuple[str | None, Answer]] = {}
        self._touched: dict[UUID, Stated] = {}
        self._refused: dict[tuple[UUID, str], dict[RefusalCode, Refused]] = {}
        self._resolved: dict[tuple[UUID, str], datetime] = {}
        self._asked_keys: list[tuple[UUID, str]] = []
        with exact():
            self.outcomes = [self._decide(one) for one in asked]
        self.postings = [
            Posting(
                stated.pool_id,
                stated.version,
                stated.book.changes(),
                stated.book.next_due,
                stated.sequence + 1,
            )
            for stated in self._touched.values()
        ]

    @property
    def pool_ids(self) -> list[UUID]:
        """The pools that are to be written."""
        return list(self._touched)

    def call(self, organization_id: UUID) -> tuple[str, tuple[object, ...]]:
        """Return the statement that commits the round."""
        return post_call(
            organization_id,
            self.postings,
            asked=self._asked_keys,
            refused=[one for by_code in self._refused.values() for one in by_code.values()],
            resolved=[(pool_id, subject, at) for (pool_id, subject), at in self._resolved.items()],
        )

    def committed(self) -> None:
        """Let the books stand at what was written."""
        for stated in self._touched.values():
            stated.version += 1
            stated.sequence = stated.book.pool.sequence

    def _decide(self, asked: Asked) -> Outcome:
        pool_id, command = asked.pool_id, asked.command
        stated = self._books.get(pool_id)
        if stated is None:
            return Refusal(RefusalCode.POOL_UNKNOWN, "there is no such pool")
        key = command.key
        if key is not None:
            repeated = self._repeated(command, key, stated)
            if repeated is not None:
                return repeated
        outcome = apply(stated.book, command, self._now)
        self._touched[pool_id] = stated
        if isinstance(outcome, Refusal):
            self._note_refusal(stated, command, outcome)
            return outcome
        if key is not None:
            self._fresh[pool_id, key] = command.digest, outcome
        subject = command.subject or ""
        if _is_request(command) and stated.take_unresolved(subject):
            self._resolve(pool_id, subject, outcome.time)
        return outcome

    def _repeated(self, command: Command, key: str, stated: Stated) -> Outcome | None:
        """Return what was answered under this key, or that it was another request."""
        pool_id, digest = stated.pool_id, command.digest
        fresh = self._fresh.get((pool_id, key))
        if fresh is not None:
            if fresh[0] != digest:
                return _reused(key)
            answer = fresh[1]
            return Answer(**{name: getattr(answer, name) for name in _FIELDS}, repeated=True)
        recorded = self._known.get((pool_id, key))
        if recorded is None:
            return None
        stored = recorded.entries[0].digest
        if (None if stored is None else stored.hex) != digest:
            return _reused(key)
        return answer_of(recorded, command, stated)

    def _resolve(self, pool_id: UUID, subject: str, time: datetime) -> None:
        """Note that what was refused before, in this round too, is settled by what was granted."""
        self._resolved[pool_id, subject] = time
        by_code = self._refused.get((pool_id, subject), {})
        for code, one in by_code.items():
            by_code[code] = msgspec.structs.replace(one, resolved_at=time)

    def _note_refusal(self, stated: Stated, command: Command, refusal: Refusal) -> None:
        pool_id = stated.pool_id
        if command.key is not None:
            self._asked_keys.append((pool_id, command.key))
        if refusal.code not in _STORED:
            return
        subject = command.subject or ""
        stated.note_refused(subject)
        asked = getattr(command, "amount", None) or ZERO
        by_code = self._refused.setdefault((pool_id, subject), {})
        earlier = by_code.get(refusal.code)
        count, total = (1, asked) if earlier is None else (earlier.count + 1, earlier.asked + asked)
        first = self._now if earlier is None else earlier.first_at
        by_code[refusal.code] = Refused(
            pool_id,
            subject,
            refusal.code,
            self._now.replace(second=0, microsecond=0),
            count,
            first,
            self._now,
            total,
            refusal.left,
            refusal.refills_at,
        )


def _is_request(command: Command) -> bool:
    """Whether this asked for units that it might not have been given."""
    return isinstance(command, (Reserve, Extend)) or (
        isinstance(command, Draw) and not command.forced
    )


_FIELDS = [name for name in Answer.__struct_fields__ if name != "repeated"]


def _reused(key: str) -> Refusal:
    detail = f"the key {key!r} was used for another request; take a new one"
    return Refusal(RefusalCode.IDEMPOTENCY_KEY_REUSED, detail)


def answer_of(recorded: Recorded, command: Command, stated: Stated) -> Answer:
    """Return what was answered when the command made this operation.

    When a hold ends is not kept with the operation: an extension since then shows where the command
    did not say it, and where it extended the hold itself, for a hold may have lasted longer before.
    """
    entries = recorded.entries
    covered, total, beyond = ZERO, ZERO, dict[Account, Decimal]()
    for entry in _moved(entries, command):
        total += entry.amount
        account = Account(entry.source if entry.origin is None else entry.origin)
        if isinstance(command, Release):
            continue
        if account in COVERED:
            covered += entry.amount
        elif account in BEYOND:
            beyond[account] = beyond.get(account, ZERO) + entry.amount
    first, last = entries[0], entries[-1]
    expires_at = recorded.expires_at
    if isinstance(command, Reserve) and command.seconds is not None:
        expires_at = first.time + timedelta(seconds=command.seconds)
    mode = stated.book.pool.policy.limit.mode
    past = any(entry.reason == Reason.SETTLED_PAST_LIMIT for entry in entries)
    return Answer(
        operation=first.operation,
        time=first.time,
        amount=total,
        covered=covered,
        beyond=beyond,
        available=last.available_after,
        over_limit=past or (Account.OVERAGE in beyond and mode is not LimitMode.OVERAGE),
        hold=_hold_of(entries),
        expires_at=expires_at,
        repeated=True,
    )


def _moved(entries: Sequence[Entry], command: Command) -> list[Entry]:
    """Return the entries of what was asked for: units used, held or given back."""
    match command:
        case Draw() | Settle():
            return [entry for entry in entries if entry.target == Account.USED]
        case Reserve() | Extend():
            return [entry for entry in entries if entry.target == Account.HELD]
        case Release():
            return [entry for entry in entries if entry.source == Account.HELD]
        case Reverse():
            return [entry for entry in entries if entry.source == Account.USED]
        case _:
            assert_never(command)


def _hold_of(entries: Sequence[Entry]) -> int | None:
    for entry in entries:
        if Account.HELD in (entry.source, entry.target):
            return entry.operation if entry.undoes is None else entry.undoes
    return None


def known_operations(
    connection: Connection, organization_id: UUID, wanted: Sequence[tuple[UUID, str]]
) -> dict[tuple[UUID, str], Recorded]:
    """Return the operations that were asked for under these keys before."""
    found: dict[tuple[UUID, int], list[Entry]] = {}
    once = list(dict.fromkeys(wanted))
    if once:
        for entry in operations_by_key(connection, organization_id, once):
            found.setdefault((entry.pool_id, entry.operation), []).append(entry)
    numbers = {place: _hold_of(entries) for place, entries in found.items()}
    named = [(place[0], number) for place, number in numbers.items() if number is not None]
    holds = find_holds(connection, organization_id, named) if named else {}
    known = {}
    for place, entries in found.items():
        hold, key = holds.get((place[0], numbers[place] or 0)), entries[0].key
        if key is not None:
            known[place[0], key] = Recorded(entries, None if hold is None else hold.expires_at)
    return known


def missing_holds(books: Mapping[UUID, Stated], asked: Sequence[Asked]) -> list[tuple[UUID, int]]:
    """Return the holds that are named and not open in the books."""
    return [
        (one.pool_id, one.command.hold)
        for one in asked
        if isinstance(one.command, (Settle, Extend, Release))
        and one.pool_id in books
        and books[one.pool_id].book.find_hold(one.command.hold) is None
    ]


def add_holds(
    connection: Connection,
    organization_id: UUID,
    books: Mapping[UUID, Stated],
    missing: Sequence[tuple[UUID, int]],
) -> set[UUID]:
    """Put ended holds into the books, so that a refusal can say how they ended.

    Returns the pools of which a hold is open that the book does not have: the book is an old one.
    """
    old: set[UUID] = set()
    found = find_holds(connection, organization_id, missing) if missing else {}
    for (pool_id, number), hold in found.items():
        if hold.status is HoldStatus.OPEN:
            old.add(pool_id)
        else:
            books[pool_id].book.ended[number] = hold
    return old


def decide_locked(
    connection: Connection, organization_id: UUID, asked: Sequence[Asked], now: datetime
) -> tuple[list[Outcome], dict[UUID, Stated]]:
    """Decide with the pools locked until the transaction ends; nobody can come in between.

    Returns the outcomes, and the books as they will stand once the transaction commits.
    """
    pool_ids = sorted({one.pool_id for one in asked})
    books = read_books(connection, organization_id, pool_ids, lock=True)
    keys = [(one.pool_id, one.command.key) for one in asked if one.command.key is not None]
    known = known_operations(connection, organization_id, keys)
    old = add_holds(connection, organization_id, books, missing_holds(books, asked))
    assert not old, "the books of pools that are locked are the newest"
    decided = Round(books, asked, now, known)
    if decided.postings:
        statement, parameters = decided.call(organization_id)
        done = posted(connection.execute(statement, parameters).fetchone())
        assert done, "nobody else changes a pool that is locked"
        decided.committed()
    return decided.outcomes, books


def decide_pools(
    pool: Pool, organization_id: UUID, asked: Sequence[Asked], now: datetime
) -> list[Outcome]:
    """As `decide_locked`, in a transaction of its own."""
    with transaction(pool, organization_id) as connection:
        outcomes, _ = decide_locked(connection, organization_id, asked, now)
    return outcomes
