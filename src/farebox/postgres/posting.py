"""What was decided for pools is committed in one call: transfers, and what they changed."""

from collections.abc import Callable, Iterable, Sequence
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

LINE_END, VALUE_END = "\x1e", "\x1f"
"""Stand between lines and between their values; no key, subject or JSON text contains them."""

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
_GRANT_VALUES, _TRANSFER_VALUES = 6, 21
_POST = (
    "select * from post_transfers(%s, %s::uuid[], %s, %s, %s, %s, %s, %s, %s, %s,"
    " %s::uuid[], %s, %s, %s)"
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
    pool_ids = [one.pool_id.hex for one in postings]
    parameters = (
        organization_id,
        _array(pool_ids),
        LINE_END.join(map(_pool_line, pool_ids, postings)),
        _lines(postings, _grant_lines, _GRANT_VALUES),
        _lines(postings, _transfer_lines, _TRANSFER_VALUES),
        _rows(postings, lambda one: _new(one, one.changes.grants), _grant_row),
        _rows(postings, lambda one: one.changes.recurrences, _recurrence_row),
        _rows(postings, lambda one: _old(one, one.changes.holds), _hold_row),
        _rows(postings, lambda one: _new(one, one.changes.holds), _hold_row),
        _rows(postings, lambda one: one.changes.allotments, _allotment_row),
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


def _pool_line(pool_id: str, posting: Posting) -> str:
    """Return the line of a pool: ids, numbers, times and JSON, none of which hold a separator."""
    pool, due = posting.changes.pool, posting.next_due
    moved = set()
    for one in posting.changes.transfers:
        moved.add(one.source)
        moved.add(one.target)
    balances = pool.balances
    return VALUE_END.join(
        (
            pool_id,
            str(posting.version),
            str(pool.sequence),
            pool.as_of.isoformat(),
            *[str(balances[account]) if account in moved else "" for account in COLUMN_OF],
            _JSON.encode(pool.counters).decode(),
            "" if due is None else due.isoformat(),
        )
    )


def _lines(
    postings: Sequence[Posting], of: Callable[[str, Posting], Iterable[str]], values: int
) -> str | None:
    lines = [line for place, posting in enumerate(postings, 1) for line in of(str(place), posting)]
    if not lines:
        return None
    text = LINE_END.join(lines)
    # One that is in a value would move those after it to columns that are not theirs.
    assert text.count(VALUE_END) == len(lines) * (values - 1), "no value holds a separator"
    assert text.count(LINE_END) == len(lines) - 1, "no value holds a separator"
    return text


def _grant_lines(place: str, posting: Posting) -> Iterable[str]:
    """Return what changed of the grants that were there before."""
    return [
        VALUE_END.join(
            (
                place,
                str(one.number),
                one.status,
                str(one.available),
                str(one.held),
                "" if one.expires_at is None else one.expires_at.isoformat(),
            )
        )
        for one in _old(posting, posting.changes.grants)
    ]


def _transfer_lines(place: str, posting: Posting) -> Iterable[str]:
    time, stamp = None, ""
    for one in posting.changes.transfers:
        if one.time is not time:
            time = one.time
            stamp = time.isoformat()
        yield VALUE_END.join(
            (
                place,
                str(one.sequence),
                str(one.operation),
                one.reason,
                one.source,
                one.target,
                str(one.amount),
                str(one.source_after),
                str(one.target_after),
                str(one.available_after),
                stamp,
                "" if one.grant is None else str(one.grant),
                one.origin or "",
                one.subject or "",
                one.allotment or "",
                "" if one.price is None else str(one.price),
                one.key or "",
                one.digest or "",
                "" if one.undoes is None else str(one.undoes),
                "" if one.used_at is None else one.used_at.isoformat(),
                one.note or "",
            )
        )


def _array(values: Sequence[str]) -> str:
    """Return an array of values without special characters, faster than the driver writes it."""
    return f"{{{','.join(values)}}}"


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
