"""A pool whose look fails keeps none of the others from being looked at."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from farebox_alerts import Watched
from structlog.testing import capture_logs

from farebox.alerts.rule import AlertKind
from farebox.flows import watch_pools

Break = Callable[[Exception | None], None]


@pytest.fixture
def watched(watched: Watched) -> Watched:
    """Return five pools that are low."""
    for number in range(5):
        watched.pools.put(f"pool-{number}")
        watched.pools.grant(f"pool-{number}", 10)
    watched.rule("low", AlertKind.BALANCE_BELOW, 100)
    return watched


@pytest.fixture
def third_fails(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Return a function that lets every look at one pool raise, or lets it succeed again."""
    real, failing = watch_pools.tell_pool, watched.pools.ids["pool-2"]
    standing: list[Exception] = []

    def tell(look: Any) -> Any:
        if standing and look.row.pool_id == failing:
            raise standing[0]
        return real(look)

    def set_to(error: Exception | None) -> None:
        standing[:] = [] if error is None else [error]

    monkeypatch.setattr(watch_pools, "tell_pool", tell)
    return set_to


def low(watched: Watched) -> list[str]:
    return sorted(one.pool_key for one in watched.alerts())


def test_the_others_of_its_page_go_on_and_it_is_logged(
    watched: Watched, third_fails: Break
) -> None:
    third_fails(ValueError("cannot be read"))
    with capture_logs() as logs:
        told = watched.look_at_all()
    assert 4 == told.count("alert.fired")
    assert 4 == told.count("pool.topped_up")
    assert [f"pool-{number}" for number in (0, 1, 3, 4)] == low(watched)
    failed = str(watched.pools.ids["pool-2"])
    assert [("watch_failed", "error", failed, "cannot be read")] == [
        (one["event"], one["log_level"], one["pool_id"], one["error"]) for one in logs
    ]


def test_it_is_taken_again_later_and_nothing_is_told_twice(
    watched: Watched, third_fails: Break
) -> None:
    third_fails(ValueError("cannot be read"))
    watched.look()
    watched.look_at_all()
    third_fails(None)
    watched.look_at_all()
    assert [f"pool-{number}" for number in range(5)] == low(watched)
    kinds = [kind for kind, _ in watched.notices()]
    assert (5, 5) == (kinds.count("alert.fired"), kinds.count("pool.topped_up"))


def test_where_the_database_is_out_of_reach_nothing_is_tried_pool_by_pool(
    watched: Watched, third_fails: Break
) -> None:
    third_fails(psycopg.OperationalError("the connection is lost"))
    with capture_logs() as logs, pytest.raises(psycopg.OperationalError):
        watched.look_at_all()
    assert ([], []) == (logs, watched.told())


def test_what_cannot_be_posted_on_one_pool_holds_up_no_other(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = watched.pools
    for number in range(5):
        ends = pools.now.replace(hour=23)
        pools.grant(f"pool-{number}", 7, expires_at=ends)
    watched.look()
    pools.later(days=1)
    real, failing = watch_pools.settle_pool, pools.ids["pool-2"]

    def settle(*arguments: Any) -> Any:
        if failing in arguments:
            raise ValueError("cannot be posted")
        return real(*arguments)

    monkeypatch.setattr(watch_pools, "settle_pool", settle)
    with capture_logs() as logs:
        told = watched.look_at_all()
    assert 4 == told.count("grant.expired")
    assert [("settle_failed", str(failing))] == [(one["event"], one["pool_id"]) for one in logs]
    assert Decimal(17) == pools.book("pool-2").pool.available
