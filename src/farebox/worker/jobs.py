"""Background jobs on PostgreSQL: what takes longer than a request, and what comes with the day."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from procrastinate import App, PsycopgConnector

from farebox.flows.bill import bill
from farebox.flows.watch_pools import watch_all
from farebox.postgres.billing_run import interrupted_runs
from farebox.postgres.notice import drop_notices
from farebox.postgres.response import drop_responses
from farebox.postgres.session import Pool, unbound
from farebox.postgres.stream import ensure_partitions
from farebox.postgres.verify import organizations_with_pools
from farebox.postgres.webhook_delivery import drop_attempts
from farebox.worker.loop import going_on
from farebox.worker.sync import SYNC_SPAN, sync_due

MONTHS_AHEAD = 3
INTERRUPTED_AFTER = timedelta(minutes=10)
RESPONSES_KEPT = timedelta(days=30)
ATTEMPTS_KEPT = timedelta(days=30)
NOTICES_KEPT = timedelta(days=90)


def job_app(url: str, pool: Pool, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> App:
    """Return the jobs of this installation; a job is deferred and worked on by any process."""
    app = App(
        connector=PsycopgConnector(
            conninfo=url, kwargs={"options": "-c search_path=jobs"}, min_size=1, max_size=3
        )
    )

    @app.periodic(cron="*/5 * * * *")
    @app.task(name="resume_billing", queueing_lock="resume_billing")
    def run_resume_billing(timestamp: int) -> None:
        """Complete the billing runs whose process died; one that lives bills nothing twice."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        resume_billing(pool, clock, new_id)

    @app.periodic(cron="* * * * *")
    @app.task(name="sync_entitlements", queueing_lock="sync_entitlements")
    def run_sync_entitlements(timestamp: int) -> None:
        """Try again, for an hour, where a pass of `farebox.worker.sync` failed."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        sync_due(pool, clock(), SYNC_SPAN, new_id)

    @app.periodic(cron="* * * * *")
    @app.task(name="watch_pools", queueing_lock="watch_pools")
    def run_watch_pools(timestamp: int) -> None:
        """Look at the pools on which time alone may have changed something."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        watch_every_pool(pool, clock)

    @app.periodic(cron="*/2 * * * *")
    @app.task(name="retry_stalled", queueing_lock="retry_stalled")
    async def run_retry_stalled(timestamp: int) -> None:
        """Take up the jobs whose worker died; every job here may be done twice."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        for job in await app.job_manager.get_stalled_jobs():
            await app.job_manager.retry_job(job)

    @app.periodic(cron="17 3 * * *")
    @app.task(name="ensure_partitions", queueing_lock="ensure_partitions")
    def run_ensure_partitions(timestamp: int) -> None:
        """Make next months' partitions of the event stream."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        make_partitions(pool, clock())

    @app.periodic(cron="37 3 * * *")
    @app.task(name="drop_responses", queueing_lock="drop_responses")
    def run_drop_responses(timestamp: int) -> None:
        """Forget the answers that no retry will ask for any more."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        with unbound(pool) as connection:
            drop_responses(connection, clock() - RESPONSES_KEPT)

    @app.periodic(cron="47 3 * * *")
    @app.task(name="drop_notices", queueing_lock="drop_notices")
    def run_drop_notices(timestamp: int) -> None:
        """Forget what was told long ago, with its deliveries, and the log of their attempts."""
        del timestamp  # the library passes when it was due; what is due now is what counts
        with unbound(pool) as connection:
            drop_attempts(connection, clock() - ATTEMPTS_KEPT)
            drop_notices(connection, clock() - NOTICES_KEPT)

    return app


def resume_billing(pool: Pool, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> int:
    """Run every interrupted billing run to its end and return how many there were."""
    with unbound(pool) as connection:
        found = interrupted_runs(connection, clock() - INTERRUPTED_AFTER)
    for run in found:
        bill(
            pool,
            run.organization_id,
            run.billing_run_id,
            run.as_of,
            clock,
            new_id,
            finalize=run.finalize,
        )
    return len(found)


def watch_every_pool(pool: Pool, clock: Callable[[], datetime]) -> None:
    """Let the rules of every organization judge what changes with time alone.

    Where one fails that is logged and the others go on; raises psycopg.OperationalError where the
    database is out of reach.
    """
    with unbound(pool) as connection:
        found = organizations_with_pools(connection)
    for organization_id, _ in found:
        with going_on("watch_failed", organization_id=organization_id):
            watch_all(pool, organization_id, clock())


def make_partitions(pool: Pool, now: datetime) -> None:
    """Make the partitions of this month and the next ones."""
    first = now.astimezone(UTC).date().replace(day=1)
    months = [first]
    while len(months) < MONTHS_AHEAD:
        months.append((months[-1] + timedelta(days=31)).replace(day=1))
    with unbound(pool) as connection:
        ensure_partitions(connection, months)
