"""Look at pools as they are now: what is due is made true in memory, and nothing is written."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from farebox.ledger.book import Book
from farebox.ledger.command import Draw, Reserve
from farebox.ledger.decide import check, prepare
from farebox.ledger.hold import Slice
from farebox.ledger.refusal import Refusal
from farebox.money.rounding import exact
from farebox.postgres.book import read_books


def books_now(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime
) -> dict[UUID, Book]:
    """Return the books of pools as they stand at `now`; the connection is in a snapshot."""
    found = read_books(connection, organization_id, pool_ids)
    books = {pool_id: stated.book for pool_id, stated in found.items()}
    with exact():
        for book in books.values():
            prepare(book, now)  # where the clock went back they are shown as they were left
    return books


def check_pool_for(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    command: Draw | Reserve,
    now: datetime,
) -> tuple[Book, tuple[Slice, ...] | Refusal]:
    """Return whether a command would be granted now, and from where; nothing moves."""
    book = read_books(connection, organization_id, [pool_id])[pool_id].book
    with exact():
        return book, check(book, command, now)
