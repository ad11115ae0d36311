"""Bring units into a pool, and see a grant through: paid, not paid, taken back."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from farebox.flows.change_pool import change_pools
from farebox.flows.tell_pools import tell_paid_ahead
from farebox.ledger.administer import (
    NewGrant,
    NewRecurrence,
    add_grant,
    add_recurrence,
    digest_of,
    end_recurrence,
    expire_grant,
    fail_grant,
    is_asked_again,
    pay_grant,
    void_grant,
)
from farebox.ledger.book import Book
from farebox.ledger.decide import prepare
from farebox.ledger.grant import Grant, GrantStatus, Recurrence
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.book import find_grants, grant_by_key
from farebox.postgres.notice import Notice, add_notices
from farebox.postgres.recurrence import find_digest, put_digest
from farebox.postgres.transfer import operation

Change = Callable[[Book, int, datetime], Grant | Refusal]
CHANGES: dict[str, Change] = {
    "pay": pay_grant,
    "fail": fail_grant,
    "void": void_grant,
    "expire": expire_grant,
}


def grant_units(
    connection: Connection, organization_id: UUID, pool_id: UUID, asked: NewGrant, now: datetime
) -> Grant | Refusal:
    """Add a grant; asked again under its key it is returned as it stands now."""

    def change(books: Sequence[Book]) -> Grant | Refusal:
        if asked.key is not None:
            found = grant_by_key(connection, organization_id, pool_id, asked.key)
            if found is not None:
                first = operation(connection, organization_id, pool_id, found.number)[0]
                return _again(books[0], found, first.digest, asked, now)
        return add_grant(books[0], asked, now)

    return change_pools(connection, organization_id, [pool_id], change)


def _again(
    book: Book, found: Grant, digest: UUID | None, asked: NewGrant, now: datetime
) -> Grant | Refusal:
    """Return a grant that has the key of what is asked, if it is what was asked then."""
    if digest is None or digest.hex != digest_of(asked):
        detail = f"the pool has a grant {asked.key!r} that is not this one"
        return Refusal(RefusalCode.GRANT_KEY_REUSED, detail)
    book.adopt(found)
    prepare(book, now)  # it may have expired since; where the clock went back it is left as it was
    return book.grant_of(found.number)


def change_grant(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    number: int,
    verb: str,
    now: datetime,
) -> Grant | Refusal:
    """Pay, fail, void or expire a grant; it is returned as it stands then."""
    told: list[Notice] = []

    def change(books: Sequence[Book]) -> Grant | Refusal:
        found = find_grants(connection, organization_id, pool_id, [number])
        if not found:
            return Refusal(RefusalCode.GRANT_UNKNOWN, "there is no such grant in this pool")
        done = CHANGES[verb](books[0], number, now)
        if verb == "pay" and isinstance(done, Grant) and done.status is GrantStatus.SCHEDULED:
            told.append(tell_paid_ahead(pool_id, books[0], done))
        return done

    done = change_pools(connection, organization_id, [pool_id], change)
    add_notices(connection, organization_id, told)
    return done


def recur(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    asked: NewRecurrence,
    now: datetime,
) -> Recurrence | Refusal:
    """Let a grant come anew each period; asked again under its key nothing changes."""
    digest = digest_of(asked)
    made = False

    def change(books: Sequence[Book]) -> Recurrence | Refusal:
        nonlocal made
        for one in books[0].recurrences.values():
            if one.key == asked.key:
                known = find_digest(connection, organization_id, pool_id, one.number)
                if known == digest or (known is None and is_asked_again(one, asked)):
                    return one
                detail = f"the pool has a recurring grant {asked.key!r} that is not this one"
                return Refusal(RefusalCode.GRANT_KEY_REUSED, detail)
        made = True
        return add_recurrence(books[0], asked, now)

    done = change_pools(connection, organization_id, [pool_id], change)
    if made and isinstance(done, Recurrence):
        put_digest(connection, organization_id, pool_id, done.number, digest)
    return done


def stop_recurring(
    connection: Connection, organization_id: UUID, pool_id: UUID, key: str, now: datetime
) -> Recurrence | Refusal:
    """Let no further grant of a recurrence come."""

    def change(books: Sequence[Book]) -> Recurrence | Refusal:
        for one in books[0].recurrences.values():
            if one.key == key:
                return end_recurrence(books[0], one.number, now)
        return Refusal(RefusalCode.GRANT_UNKNOWN, f"there is no recurring grant {key[:150]!r}")

    return change_pools(connection, organization_id, [pool_id], change)
