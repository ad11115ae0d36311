"""Keep entitlements in step with what begins and ends by its date: a loop beside every server.

A pool of a feature goes over from one subscription to the next about a second after the instant.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from farebox.flows.entitle import sync_entitlements
from farebox.postgres.draft import lock_organization
from farebox.postgres.entitlement import customers_to_sync
from farebox.postgres.session import Pool, transaction, unbound
from farebox.worker.loop import going_on, keep

SYNC_SPAN = timedelta(hours=1)
"""How far the first pass looks back, and how long what failed is tried again each minute."""
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


def sync_due(pool: Pool, now: datetime, span: timedelta, new_id: Callable[[], UUID]) -> int:
    """Sync every customer for whom a subscription or an override began or ended within `span`.

    Syncing twice changes nothing, so spans may overlap. Returns how many customers that were.
    """
    with unbound(pool) as connection:
        found = customers_to_sync(connection, now - span, now)
    for organization_id, customer_key in found:
        with (
            going_on("sync_failed", organization_id=organization_id, customer=customer_key),
            transaction(pool, organization_id) as connection,
        ):
            lock_organization(connection, organization_id)
            sync_entitlements(connection, organization_id, customer_key, now, new_id)
    return len(found)
