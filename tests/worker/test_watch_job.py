"""The job that looks at all pools each minute, and the follower that looks at those that moved."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from farebox.flows.watch_pools import watch_pools
from farebox.postgres.session import Pool
from farebox.worker import jobs
from farebox.worker.follow_pools import FOLLOWERS

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_one_organization_that_fails_keeps_no_other_waiting(
    pool: Pool, new_organization: Callable[[], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_organization(), new_organization()
    looked: list[UUID] = []

    def look(_: Any, organization_id: UUID, now: datetime) -> None:
        looked.append(organization_id)
        assert NOW == now
        if organization_id == first:
            raise AssertionError("a book is broken")

    found = [(first, "first"), (second, "second")]
    monkeypatch.setattr(jobs, "organizations_with_pools", lambda _: found)
    monkeypatch.setattr(jobs, "watch_all", look)
    jobs.watch_every_pool(pool, lambda: NOW)
    assert [first, second] == looked


def test_pools_that_moved_are_looked_at_by_the_follower() -> None:
    assert watch_pools in FOLLOWERS
