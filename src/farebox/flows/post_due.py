"""Bring pools to the instant of asking, before their rows are read: what is due is posted."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from farebox.flows.change_pool import change_pools
from farebox.ledger.book import Book
from farebox.ledger.decide import prepare
from farebox.postgres.pool_due import lock_behind
from farebox.postgres.session import Pool, transaction


def post_due(pool: Pool, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime) -> None:
    """Post what is due in pools; where nothing is, as nearly always, that is one look.

    Who decides on such a pool at this moment is waited for, so rows that are read afterwards have
    all that was due at `now`. What flows into a rate limit is not due: it is posted by who takes.
    """
    with transaction(pool, organization_id) as connection:
        behind = lock_behind(connection, organization_id, pool_ids, now)
        if not behind:
            return

        def bring(books: Sequence[Book]) -> None:
            for book in books:
                prepare(book, now)

        change_pools(connection, organization_id, behind, bring)
