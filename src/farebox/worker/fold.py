"""Keep rollups close behind the stream: a loop beside every server process, one folder at a time.

A few passes a second, rather than one for each commit, let many events of a series meet in one
update. Until then they are read from the stream, so an answer is current all the same.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from farebox.flows.fold_rollups import EVENTS_A_STEP, fold_rollups
from farebox.postgres import rollup
from farebox.postgres.session import Pool, unbound
from farebox.worker.loop import going_on, keep

PAUSE_SECONDS = 0.25
IDLE_SECONDS = 1.0
"""The pause after a pass that found nothing to do."""


async def keep_folding(pool: Pool, clock: Callable[[], datetime]) -> None:
    """Fold until cancelled."""
    await keep(
        "fold",
        lambda: fold_all(pool, clock),
        lambda folded, _: PAUSE_SECONDS if folded else IDLE_SECONDS,
    )


def fold_all(pool: Pool, clock: Callable[[], datetime]) -> int:
    """Fold every organization that is behind and return how many events that were.

    Where one cannot be folded that is logged and the others go on; raises
    psycopg.OperationalError where the database is out of reach.
    """
    with unbound(pool) as connection:
        behind = rollup.organizations_to_fold(connection)
    total = 0
    for organization_id in behind:
        with going_on("fold_failed", organization_id=organization_id):
            total += _fold_one(pool, organization_id, clock)
    return total


def _fold_one(pool: Pool, organization_id: UUID, clock: Callable[[], datetime]) -> int:
    total = 0
    while True:
        folded = fold_rollups(pool, organization_id, clock())
        total += folded
        if folded < EVENTS_A_STEP:
            return total
