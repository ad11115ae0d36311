"""Follow the ledgers of pools: keep sums of what was used, post what fell due where nobody asks."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from farebox.flows.change_pool import change_pools
from farebox.ledger.decide import prepare
from farebox.postgres.pool_due import drop_touched, lock_due, lock_touched
from farebox.postgres.pool_usage import fold_use
from farebox.postgres.session import Pool, transaction

TOUCHES_A_STEP = 1_000
LEFT_ALONE = timedelta(seconds=1)
"""For so long a pool has time to post by itself what is due, as one that is in use does."""

Follower = Callable[[Pool, UUID, Sequence[UUID], datetime], object]
"""Hears of pools of an organization whose ledger grew, at least once, at a time."""


def follow_pools(
    pool: Pool, organization_id: UUID, now: datetime, followers: Sequence[Follower] = ()
) -> int:
    """Take a step of the pools that were touched and return how many those were.

    Their use is added up in one transaction with the marks, so each entry counts once, wherever it
    is broken off. Where a follower raises the sums are kept, the pools are taken again later and
    the exception goes on.
    """
    failed: Exception | None = None
    with transaction(pool, organization_id) as connection:
        touched = lock_touched(connection, organization_id, TOUCHES_A_STEP)
        if not touched.rows:
            return 0
        fold_use(connection, organization_id, touched.pool_ids)
        try:
            for follower in followers:
                follower(pool, organization_id, touched.pool_ids, now)
        except Exception as error:
            failed = error
        else:
            drop_touched(connection, organization_id, touched)
    if failed is not None:
        raise failed
    return len(touched.pool_ids)


def settle_pool(pool: Pool, organization_id: UUID, pool_id: UUID, now: datetime) -> bool:
    """Post what is due in a pool, and return whether there was anything left to post.

    A pool that somebody is deciding on at this moment is left to them.
    """
    with transaction(pool, organization_id) as connection:
        if not lock_due(connection, organization_id, pool_id, now):
            return False
        change_pools(connection, organization_id, [pool_id], lambda books: prepare(books[0], now))
    return True
