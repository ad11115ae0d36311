"""Bring an organization's rollups up to its stream, a bounded step at a time."""

from datetime import datetime
from uuid import UUID

from farebox.postgres import rollup, stream
from farebox.postgres.session import Pool, transaction

EVENTS_A_STEP = 100_000


def fold_rollups(
    pool: Pool, organization_id: UUID, now: datetime, *, up_to: int | None = None
) -> int:
    """Fold one step and return how many events it took.

    Zero where there is nothing to do, or another process is at it. Memory and the time a lock is
    held are bounded by the step, not by the backlog.
    """
    with transaction(pool, organization_id) as connection:
        after = rollup.lock_watermark(connection, organization_id)
        if after is None:
            return 0
        last = stream.read_head(connection, organization_id).last_sequence
        to = min(last if up_to is None else min(last, up_to), after + EVENTS_A_STEP)
        if to <= after:
            return 0
        rollup.fold(connection, organization_id, after, to, now)
        return to - after
