"""Jobs run on the real job library: what is deferred is done, what was interrupted is completed."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from farebox.postgres import billing_run
from farebox.postgres.response import StoredResponse, add_response, find_response
from farebox.postgres.session import Pool, transaction
from farebox.worker.jobs import INTERRUPTED_AFTER, RESPONSES_KEPT, job_app, resume_billing

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def run_job(url: str, pool: Pool, name: str) -> None:
    """Defer a job as the time would, and work until there is nothing left to do."""
    app = job_app(url, pool, lambda: NOW, lambda: UUID(int=1))

    async def work() -> None:
        async with app.open_async():
            # Some versions look for due periodic jobs first; a timestamp makes ours one of them.
            await app.configure_task(name).defer_async(timestamp=int(time.time()))
            await app.run_worker_async(
                wait=False, install_signal_handlers=False, listen_notify=False
            )

    asyncio.run(work())


def test_old_answers_are_forgotten_and_young_ones_kept(
    runtime_url: str, pool: Pool, organization_id: UUID
) -> None:
    answer = StoredResponse(b"digest", 200, b"{}")
    with transaction(pool, organization_id) as connection:
        add_response(connection, organization_id, "old", answer, NOW - RESPONSES_KEPT * 2)
        add_response(connection, organization_id, "young", answer, NOW)
    run_job(runtime_url, pool, "drop_responses")
    with transaction(pool, organization_id) as connection:
        found = [find_response(connection, organization_id, key) for key in ("old", "young")]
    assert [None, answer] == found


def test_what_was_told_long_ago_is_forgotten_with_its_log(
    runtime_url: str, pool: Pool, desk: Any
) -> None:
    """Attempts after 30 days, notices with their deliveries after 90."""
    desk.put("ours")
    for age in (91, 31, 1):
        desk.clock.ahead = NOW - timedelta(days=age) - datetime.now(UTC)
        desk.tell()
        desk.deliver()
    run_job(runtime_url, pool, "drop_notices")
    assert [0, 1] == [len(desk.attempts(row)) for row in desk.deliveries()]


def test_partitions_are_made_ahead(runtime_url: str, pool: Pool) -> None:
    run_job(runtime_url, pool, "ensure_partitions")
    with pool.connection() as connection:
        names = connection.execute(
            "select to_regclass('event_202611'), to_regclass('event_202701')"
        ).fetchone()
    assert ("event_202611", "event_202701") == names


@pytest.mark.parametrize(("age", "expected"), [(2, "finished"), (0.5, "running")])
def test_a_billing_run_whose_process_died_is_completed(
    pool: Pool, organization_id: UUID, age: float, expected: str
) -> None:
    run_id = UUID(int=organization_id.int ^ 1)
    began = NOW - timedelta(seconds=INTERRUPTED_AFTER.total_seconds() * age)
    with transaction(pool, organization_id) as connection:
        billing_run.add_run(connection, organization_id, run_id, NOW, began, finalize=True)
    # Runs of other tests may be taken up with it.
    resume_billing(pool, lambda: NOW, uuid4)
    with transaction(pool, organization_id) as connection:
        row = billing_run.find_run(connection, organization_id, run_id)
    assert row is not None
    assert expected == row.status
