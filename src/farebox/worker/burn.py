"""Keep pools close behind the usage that burns them: a loop beside every server process."""

from collections.abc import Callable
from datetime import datetime

from farebox.flows.burn_usage import EVENTS_A_STEP, burn_usage
from farebox.postgres import burn
from farebox.postgres.session import Pool, unbound
from farebox.worker.loop import going_on, keep

PAUSE_SECONDS = 0.3


async def keep_burning(pool: Pool, clock: Callable[[], datetime]) -> None:
    """Burn until cancelled."""
    await keep("burn", lambda: burn_all(pool, clock), lambda *_: PAUSE_SECONDS)


def burn_all(pool: Pool, clock: Callable[[], datetime]) -> int:
    """Burn for every organization that is behind and return how many events that were.

    Where one cannot be done that is logged and the others go on; raises
    psycopg.OperationalError where the database is out of reach.
    """
    with unbound(pool) as connection:
        behind = burn.organizations_to_burn(connection)
    total = 0
    for organization_id in behind:
        with going_on("burn_failed", organization_id=organization_id):
            burned = EVENTS_A_STEP
            while burned >= EVENTS_A_STEP:
                burned = burn_usage(pool, organization_id, clock())
                total += burned
    return total
