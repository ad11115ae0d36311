"""Close a period in the pools of subscriptions: what moves from now on counts for the next one.

What is due until the period's end is posted, and the pool then stands at that end. A decision that
is under way was made on an earlier version, so it is made again, and gets a later time.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from farebox.flows.change_pool import write_books
from farebox.ledger.decide import prepare
from farebox.money.rounding import exact
from farebox.postgres.book import read_books
from farebox.postgres.pool_subscription import pools_of_subscriptions
from farebox.postgres.session import Pool, transaction


def close_pools(
    pool: Pool, organization_id: UUID, ends: Sequence[tuple[str, datetime]], now: datetime
) -> None:
    """Bring the pools of each subscription to the end of its period, where that is past."""
    until: dict[str, datetime] = {}
    for subscription, end in ends:
        if end <= now:
            until[subscription] = max(end, until.get(subscription, end))
    if not until:
        return
    with transaction(pool, organization_id) as connection:
        found = pools_of_subscriptions(connection, organization_id, list(until))
        behind = {
            pool_id: until[subscription]
            for subscription, pool_id, as_of in found
            if as_of < until[subscription]
        }
        if not behind:
            return
        books = read_books(connection, organization_id, sorted(behind), lock=True)
        with exact():
            for pool_id, stated in books.items():
                if stated.book.pool.as_of < behind[pool_id]:
                    prepare(stated.book, behind[pool_id])
        write_books(connection, organization_id, list(books.values()))
