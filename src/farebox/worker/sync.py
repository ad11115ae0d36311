"""Keep entitlements in step with what begins and ends by its date: a loop beside every server.

A pool of a feature goes over from one subscription to the next about a second after the instant.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from farebox.flows.sync_due import sync_due
from farebox.postgres.session import Pool
from farebox.worker.jobs import SYNC_SPAN
from farebox.worker.loop import keep

PAUSE_SECONDS = 0.5
OVERLAP = timedelta(seconds=10)
"""What was committed after a pass may have begun before it; to sync twice changes nothing."""


class Syncing:
    """The passes of one process; the first looks further back, for no process may have run."""

    def __init__(
        self, pool: Pool, clock: Callable[[], datetime], new_id: Callable[[], UUID]
    ) -> None:
        self._pool, self._clock, self._new_id = pool, clock, new_id
        self._done: datetime | None = None

    def sync_all(self) -> int:
        """Sync whoever's subscriptions or overrides began or ended since the last pass."""
        now = self._clock()
        span = SYNC_SPAN if self._done is None else now - self._done + OVERLAP
        synced = sync_due(self._pool, now, span, self._new_id)
        self._done = now
        return synced


async def keep_syncing(
    pool: Pool, clock: Callable[[], datetime], new_id: Callable[[], UUID]
) -> None:
    """Sync until cancelled."""
    syncing = Syncing(pool, clock, new_id)
    await keep("sync", syncing.sync_all, lambda _, seconds: max(PAUSE_SECONDS, 3 * seconds))
