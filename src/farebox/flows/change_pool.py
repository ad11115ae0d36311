"""Open a pool and change what is in it: grants, recurrences, shares, moves, its policy."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from psycopg import Connection

from farebox.ledger.book import Book
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import exact
from farebox.postgres.book import Stated, read_books
from farebox.postgres.posting import Posting, post_call, posted

Done = TypeVar("Done")


def change_pools(
    connection: Connection,
    organization_id: UUID,
    pool_ids: Sequence[UUID],
    change: Callable[[Sequence[Book]], Done | Refusal],
) -> Done | Refusal:
    """Let `change` work on the locked books of pools, in the order given, and write what it did.

    What is due is written even where it refuses. The caller's transaction commits.
    """
    found = read_books(connection, organization_id, sorted(set(pool_ids)), lock=True)
    if any(pool_id not in found for pool_id in pool_ids):
        return Refusal(RefusalCode.POOL_UNKNOWN, "there is no such pool")
    with exact():
        done = change([found[pool_id].book for pool_id in pool_ids])
    if isinstance(done, Refusal) and not any(one.book.changed for one in found.values()):
        return done
    # Also where no unit moved: what was due and no longer holds is due no more.
    write_books(connection, organization_id, list(found.values()))
    return done


def write_books(connection: Connection, organization_id: UUID, books: Sequence[Stated]) -> None:
    """Write what was changed in books whose pools are locked."""
    postings = [
        Posting(one.pool_id, one.version, one.book.changes(), one.book.next_due, one.sequence + 1)
        for one in books
    ]
    statement, parameters = post_call(organization_id, postings)
    done = posted(connection.execute(statement, parameters).fetchone())
    assert done, "nobody else changes a pool that is locked"
