"""Move units from one pool to another: both sides in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from psycopg import Connection

from farebox.flows.change_pool import change_pools
from farebox.ledger.administer import move_units as move
from farebox.ledger.book import Book
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal
from farebox.ledger.transfer import Cause


def move_units(
    connection: Connection,
    organization_id: UUID,
    from_pool: UUID,
    to_pool: UUID,
    amount: Decimal,
    now: datetime,
    *,
    subject: str | None = None,
    note: str | None = None,
) -> Answer | Refusal:
    """Move available units; what was paid for them and their expiry go with them."""

    def change(books: Sequence[Book]) -> Answer | Refusal:
        giving, taking = books
        cause = Cause(now, subject=subject, note=note)
        refusal = move(giving, taking, amount, now, cause)
        if refusal is not None:
            return refusal
        available = giving.pool.available
        return Answer(
            operation=cause.number,
            time=cause.time,
            amount=amount,
            covered=amount,
            beyond={},
            available=available,
        )

    return change_pools(connection, organization_id, [from_pool, to_pool], change)
