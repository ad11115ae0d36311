"""What was decided for pools is committed in one call: transfers, and what they changed."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.ledger.account import Account
from farebox.ledger.allotment import Allotment
from farebox.ledger.book import Changes
from farebox.ledger.grant import Grant, Recurrence
from farebox.ledger.hold import Hold

SEPARATOR = "\x1f"
"""Stands between the values of a column; no key, subject or JSON text contains it."""

COLUMN_OF = {
    Account.SOURCE: "source",
    Account.PENDING: "pending",
    Account.GRANT: "granted",
    Account.HELD: "held",
    Account.USED: "used",
    Account.OVERDRAFT: "overdraft",
    Account.OVERAGE: "overage",
    Account.BURST: "burst",
    Account.EXPIRED: "expired",
    Account.TRANSIT: "transit",
}
_COLUMNS = 21
_POST = (
    "select * from post_transfers(%s, %s::uuid[], %s::bigint[], "
    f"{', '.join(['%s'] * (_COLUMNS + 16))}, %s::uuid[], %s, %s, %s)"
)
_JSON = msgspec.json.Encoder()


Thing = TypeVar("Thing")
Numbered = TypeVar("Numbered", Grant, Hold)


class Refused(Struct, frozen=True):
    """Refusals of one code to one subject of a pool in one minute.

    resolved_at: when the last of them was followed by a grant, in the same commit.
    """

    pool_id: UUID
    subject: str
    code: str
    minute: datetime
    count: int
    first_at: datetime
    last_at: datetime
    asked: Decimal
    available: Decimal | None
    refills_at: datetime | None
    resolved_at: datetime | None = None


class Posting(Struct, frozen=True):
    """What is to be committed for one pool, which must stand at `version`."""

    pool_id: UUID
    version: int
    changes: Changes
    next_due: datetime | None
    first_sequence: int


class Posted(Struct, frozen=True):
    """What came of a commit: nothing was written where a pool is stale or a key is known."""

    stale: bool
    known: set[tuple[UUID, str]]

    def __bool__(self) -> bool:
        return not self.stale and not self.known


def post_call(
    organization_id: UUID,
    postings: Sequence[Posting],
    *,
    asked: Sequence[tuple[UUID, str]] = (),
    refused: Sequence[Refused] = (),
    resolved: Sequence[tuple[UUID, str, datetime]] = (),
) -> tuple[str, tuple[object, ...]]:
    """Return the statement and its parameters that commit what was decided.

    It is a transaction by itself, or part of one. asked: pools and keys of requests that were
    refused, to be looked for. resolved: whose earlier refusals are settled by what is granted now.
    `posted` reads the answer. Every pool that is named must be among the postings.
    """
    postings = sorted(postings, key=lambda one: one.pool_id.int)
    columns = _transfer_columns(postings)
    parameters = (
        organization_id,
        _array([one.pool_id.hex for one in postings]),
        _array([str(one.version) for one in postings]),
        *_pool_columns(postings),
        *_grant_columns(postings),
        _rows(postings, lambda one: _new(one, one.changes.grants), _grant_row),
        _rows(postings, lambda one: one.changes.recurrences, _recurrence_row),
        _rows(postings, lambda one: _old(one, one.changes.holds), _hold_row),
        _rows(postings, lambda one: _new(one, one.changes.holds), _hold_row),
        _rows(postings, lambda one: one.changes.allotments, _allotment_row),
        *columns,
        _array([pool_id.hex for pool_id, _ in asked]) if asked else None,
        [key for _, key in asked] or None,
        *_refusal_rows(postings, refused, resolved),
    )
    return _POST, parameters


def posted(answer: tuple[Any, ...] | None) -> Posted:
    """Read what the statement of `post_call` answered."""
    assert answer is not None, "the function answers one row"
    stale, pools, keys = answer
    return Posted(stale is True, set(zip(pools or (), keys or (), strict=True)))


def _transfer_columns(postings: Sequence[Posting]) -> list[str | None]:
    rows = [
        (str(place), one)
        for place, posting in enumerate(postings, 1)
        for one in posting.changes.transfers
    ]
    if not rows:
        return [None] * _COLUMNS
    transfers = [one for _, one in rows]
    texts: list[list[str]] = [
        [place for place, _ in rows],
        [str(one.sequence) for one in transfers],
        [str(one.operation) for one in transfers],
        [one.reason for one in transfers],
        [one.source for one in transfers],
        [one.target for one in transfers],
        [str(one.amount) for one in transfers],
        [str(one.source_after) for one in transfers],
        [str(one.target_after) for one in transfers],
        [str(one.available_after) for one in transfers],
    ]
    optional: list[list[str]] = [
        ["" if one.grant is None else str(one.grant) for one in transfers],
        [one.origin or "" for one in transfers],
        [one.subject or "" for one in transfers],
        [one.allotment or "" for one in transfers],
        ["" if one.price is None else str(one.price) for one in transfers],
        [one.key or "" for one in transfers],
        [one.digest or "" for one in transfers],
        ["" if one.undoes is None else str(one.undoes) for one in transfers],
        ["" if one.used_at is None else one.used_at.isoformat() for one in transfers],
        [one.note or "" for one in transfers],
    ]
    return [
        *[SEPARATOR.join(column) for column in texts],
        _times([one.time for one in transfers]),
        *[SEPARATOR.join(column) if any(column) else None for column in optional],
    ]


def _pool_columns(postings: Sequence[Posting]) -> list[object]:
    pools = [one.changes.pool for one in postings]
    dues = [one.next_due for one in postings]
    moved = {
        account
        for posting in postings
        for one in posting.changes.transfers
        for account in (one.source, one.target)
    }
    balances = [
        SEPARATOR.join([str(pool.balances[account]) for pool in pools])
        if account in moved
        else None
        for account in COLUMN_OF
    ]
    return [
        SEPARATOR.join([str(pool.sequence) for pool in pools]),
        _times([pool.as_of for pool in pools]),
        balances,
        SEPARATOR.join([_JSON.encode(pool.counters).decode() for pool in pools]),
        SEPARATOR.join(["" if due is None else due.isoformat() for due in dues]),
    ]


def _array(values: Sequence[str]) -> str:
    """Return an array of values without special characters, faster than the driver writes it."""
    return f"{{{','.join(values)}}}"


def _times(times: Sequence[datetime]) -> str:
    # The encoder prints an array of times far faster than isoformat prints each.
    return _JSON.encode(times)[2:-2].replace(b'","', SEPARATOR.encode()).decode()


def _rows(
    postings: Sequence[Posting],
    of: Callable[[Posting], Sequence[Thing]],
    row: Callable[[Thing, int], dict[str, object]],
) -> str | None:
    rows = [row(one, place) for place, posting in enumerate(postings, 1) for one in of(posting)]
    return _JSON.encode(rows).decode() if rows else None


def _new(posting: Posting, things: Sequence[Numbered]) -> list[Numbered]:
    return [one for one in things if one.number >= posting.first_sequence]


def _old(posting: Posting, things: Sequence[Numbered]) -> list[Numbered]:
    return [one for one in things if one.number < posting.first_sequence]


def _grant_columns(postings: Sequence[Posting]) -> list[str | None]:
    """Return what changed of the grants that were there before."""
    rows = [
        (place, grant)
        for place, posting in enumerate(postings, 1)
        for grant in posting.changes.grants
        if grant.number < posting.first_sequence
    ]
    if not rows:
        return [None] * 6
    grants = [grant for _, grant in rows]
    columns: list[list[str]] = [
        [str(place) for place, _ in rows],
        [str(grant.number) for grant in grants],
        [grant.status for grant in grants],
        [str(grant.available) for grant in grants],
        [str(grant.held) for grant in grants],
        ["" if one.expires_at is None else one.expires_at.isoformat() for one in grants],
    ]
    return [SEPARATOR.join(column) for column in columns]


def _grant_row(grant: Grant, place: int) -> dict[str, object]:
    return {
        "pool": place,
        "number": grant.number,
        "key": grant.key,
        "status": grant.status,
        "amount": grant.amount,
        "available": grant.available,
        "held": grant.held,
        "basis": grant.basis,
        "priority": grant.priority,
        "issued_at": grant.issued_at,
        "effective_at": grant.effective_at,
        "expires_at": grant.expires_at,
        "cost": grant.cost,
        "on_invoice": grant.on_invoice,
        "pay_by": grant.pay_by,
        "recurrence": grant.recurrence,
        "metadata": grant.metadata,
    }


def _recurrence_row(one: Recurrence, place: int) -> dict[str, object]:
    return {
        "pool": place,
        "number": one.number,
        "key": one.key,
        "definition": one,
        "next_at": one.next_at,
    }


def _hold_row(hold: Hold, place: int) -> dict[str, object]:
    return {
        "pool": place,
        "number": hold.number,
        "status": hold.status,
        "amount": hold.amount,
        "slices": hold.slices,
        "subject": hold.subject,
        "allotment": hold.allotment,
        "held_at": hold.held_at,
        "expires_at": hold.expires_at,
        "settled": hold.settled,
        "closed_at": hold.closed_at,
    }


def _allotment_row(one: Allotment, place: int) -> dict[str, object]:
    return {
        "pool": place,
        "key": one.key,
        "used": one.used,
        "beyond": one.beyond,
        "lent": one.lent,
        "used_at": one.used_at,
        "idle_since": one.idle_since,
    }


def _refusal_rows(
    postings: Sequence[Posting],
    refused: Sequence[Refused],
    resolved: Sequence[tuple[UUID, str, datetime]],
) -> tuple[str | None, str | None]:
    if not refused and not resolved:
        return None, None
    places = {one.pool_id: place for place, one in enumerate(postings, 1)}
    rows = [
        msgspec.structs.asdict(one) | {"pool": places[one.pool_id], "pool_id": None}
        for one in refused
    ]
    ends = [
        {"pool": places[pool_id], "subject": subject, "at": at} for pool_id, subject, at in resolved
    ]
    return (
        _JSON.encode(rows).decode() if rows else None,
        _JSON.encode(ends).decode() if ends else None,
    )
