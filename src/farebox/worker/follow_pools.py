"""Follow the ledgers of pools: a loop beside every server process.

What it keeps is asked for often and could be worked out from the ledger each time: an answer is
right however far behind it is. Who else wants to hear of pools whose ledger grew joins FOLLOWERS.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from farebox.flows.follow_pools import LEFT_ALONE, Follower, follow_pools, settle_pool
from farebox.flows.watch_pools import watch_pools
from farebox.postgres.pool_due import due_pools, touched_organizations
from farebox.postgres.session import Pool, unbound
from farebox.worker.loop import going_on, keep

PAUSE_SECONDS = 0.25
PAUSE_SHARE = 3
PAUSE_MAX_SECONDS = 2.0
"""The pause is so much longer than the pass before it, up to this: requests come first."""
IDLE_SECONDS = 1.0
"""The pause after a pass that found nothing to do."""
DUE_A_PASS = 200

FOLLOWERS: Sequence[Follower] = (watch_pools,)
"""Told of pools whose ledger grew, at least once, in transactions of their own."""


async def keep_following(pool: Pool, clock: Callable[[], datetime]) -> None:
    """Follow until cancelled."""
    await keep("follow", lambda: follow_all(pool, clock), pause_after)


def pause_after(found: int, seconds: float) -> float:
    """Return how long to pause after a pass that found so much and took so long."""
    if not found:
        return IDLE_SECONDS
    return min(max(PAUSE_SECONDS, PAUSE_SHARE * seconds), PAUSE_MAX_SECONDS)


def follow_all(pool: Pool, clock: Callable[[], datetime]) -> int:
    """Post what is due, follow what was touched, and return how many pools that were.

    Where one fails that is logged and the others go on; raises psycopg.OperationalError where the
    database is out of reach.
    """
    with unbound(pool) as connection:
        due = due_pools(connection, clock() - LEFT_ALONE, DUE_A_PASS)
    found = sum(_settle_one(pool, *one, clock()) for one in due)
    with unbound(pool) as connection:
        touched = touched_organizations(connection)
    return found + sum(_follow_one(pool, one, clock()) for one in touched)


def _settle_one(pool: Pool, organization_id: UUID, pool_id: UUID, now: datetime) -> int:
    with going_on("settle_failed", pool_id=pool_id):
        return int(settle_pool(pool, organization_id, pool_id, now))
    return 0


def _follow_one(pool: Pool, organization_id: UUID, now: datetime) -> int:
    with going_on("follow_failed", organization_id=organization_id):
        return follow_pools(pool, organization_id, now, FOLLOWERS)
    return 0
