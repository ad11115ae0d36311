"""A server's background work: it comes back after a failure, and months never go missing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from farebox.cli import background
from farebox.cli.runtime import clock
from farebox.postgres.session import Pool
from farebox.worker import burn, fold, follow_pools, jobs


def test_jobs_are_worked_on_again_after_the_database_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []

    class Worker:
        @asynccontextmanager
        async def open_async(self) -> AsyncIterator[None]:
            started.append(len(started))
            if len(started) == 1:
                raise psycopg.OperationalError("no connection")
            yield

        async def run_worker_async(self, **_: Any) -> None:
            if len(started) == 2:
                raise psycopg.OperationalError("the connection was lost")
            await asyncio.sleep(60)

    monkeypatch.setattr(background, "job_app", lambda *_: Worker())
    monkeypatch.setattr(background, "RESTART_SECONDS", 0)

    async def run() -> None:
        task = asyncio.create_task(background.keep_working("", None, clock))  # type: ignore[arg-type]
        while len(started) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    ("module", "work", "keep"),
    [
        (fold, "fold_all", fold.keep_folding),
        (burn, "burn_all", burn.keep_burning),
        (follow_pools, "follow_all", follow_pools.keep_following),
    ],
)
def test_background_work_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, module: Any, work: str, keep: Any
) -> None:
    passes: list[int] = []

    def fail_first(*_: object) -> int:
        passes.append(len(passes))
        if len(passes) == 1:
            raise psycopg.OperationalError("no connection")
        return 0

    monkeypatch.setattr(module, work, fail_first)
    for pause in ("PAUSE_SECONDS", "IDLE_SECONDS"):
        monkeypatch.setattr(module, pause, 0, raising=False)

    async def run() -> None:
        task = asyncio.create_task(keep(None, None))
        while len(passes) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    ("found", "seconds", "pause"), [(0, 9, 1.0), (5, 0.01, 0.25), (5, 0.5, 1.5), (5, 9, 2.0)]
)
def test_who_follows_rests_longer_the_longer_a_pass_took(
    found: int, seconds: float, pause: float
) -> None:
    assert pause == follow_pools.pause_after(found, seconds)


@pytest.mark.parametrize("year", [2027, 2028])
def test_the_next_months_have_partitions_whatever_the_day(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    made: list[list[date]] = []
    monkeypatch.setattr(jobs, "ensure_partitions", lambda _, months: made.append(list(months)))
    now = datetime(year, 1, 1, 23, 59, tzinfo=UTC)
    while now.year == year:
        jobs.make_partitions(pool, now)
        first = now.year * 12 + now.month - 1
        assert [divmod(first + ahead, 12) for ahead in range(jobs.MONTHS_AHEAD)] == [
            (month.year, month.month - 1) for month in made[-1]
        ]
        assert {1} == {month.day for month in made[-1]}
        now += timedelta(days=1)
