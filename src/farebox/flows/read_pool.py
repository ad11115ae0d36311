"""Look at pools as they are now.

Books are brought to the instant of asking in memory, and nothing is written. Lists are read from
rows, so what is due is posted first; that is rare, and costs one look where nothing is.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace
from psycopg import Connection

from farebox.flows.post_due import post_due
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.command import Draw, Reserve
from farebox.ledger.decide import check, prepare
from farebox.ledger.grant import Grant
from farebox.ledger.hold import Slice
from farebox.ledger.refusal import Refusal
from farebox.money.rounding import EXACT, exact
from farebox.postgres.book import list_grants, read_books
from farebox.postgres.pool_balance import find_balance
from farebox.postgres.pool_list import PoolItem, pool_items
from farebox.postgres.session import Pool, transaction


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


def grants_now(
    pool: Pool,
    organization_id: UUID,
    pool_id: UUID,
    now: datetime,
    *,
    before: int | None = None,
    limit: int = 100,
) -> list[Grant]:
    """Return a page of a pool's grants as they stand at `now`, the latest first."""
    post_due(pool, organization_id, [pool_id], now)
    with transaction(pool, organization_id, snapshot=True) as connection:
        grants = list_grants(connection, organization_id, pool_id, before=before, limit=limit)
        row = find_balance(connection, organization_id, pool_id)
        if row is None or not row.is_behind(now):
            return grants
        # Units flow in all the time, so what of them nobody took yet is in no row.
        book = books_now(connection, organization_id, [pool_id], now)[pool_id]
    standing = {one.number: one for one in book.changes().grants}
    return [standing.get(one.number, one) for one in grants]


def pools_listed(
    pool: Pool,
    organization_id: UUID,
    now: datetime,
    *,
    customer: str | None = None,
    search: str = "",
    offset: int = 0,
    limit: int = 50,
) -> list[PoolItem]:
    """Return pools as they stand at `now`, those with the least left of what there was first."""

    def read(connection: Connection) -> list[PoolItem]:
        return pool_items(
            connection,
            organization_id,
            customer=customer,
            search=search,
            offset=offset,
            limit=limit,
        )

    with transaction(pool, organization_id) as connection:
        due = [one.pool_id for one in read(connection) if one.is_due(now)]
    if due:
        post_due(pool, organization_id, due, now)
    with transaction(pool, organization_id, snapshot=True) as connection:
        rows = read(connection)
        behind = [one.pool_id for one in rows if one.refill is not None or one.is_due(now)]
        books = books_now(connection, organization_id, behind, now) if behind else {}
    return [_standing(one, books.get(one.pool_id)) for one in rows]


def _standing(row: PoolItem, book: Book | None) -> PoolItem:
    if book is None:
        return row
    balances = book.pool.balances
    return replace(
        row,
        available=balances[Account.GRANT],
        held=balances[Account.HELD],
        overdraft=EXACT.minus(balances[Account.OVERDRAFT]),
        counters=book.pool.counters,
        next_due=book.next_due,
    )
