"""A glance passes over pools of which there is nothing to tell, and misses nothing later."""

from typing import Any

import psycopg
import pytest
from farebox_alerts import Watched
from structlog.testing import capture_logs

from farebox.alerts.rule import AlertKind
from farebox.flows import watch_pools
from farebox.postgres import pool_watch

FIRED, CLEARED = "alert.fired", "alert.cleared"


@pytest.fixture
def tokens(watched: Watched) -> Watched:
    """Return a pool with a thousand tokens that was looked at."""
    watched.pools.put("tokens")
    watched.pools.grant("tokens", 1000)
    assert ["pool.topped_up"] == watched.look()
    return watched


def mark(watched: Watched) -> int:
    (row,) = watched.pools.rows("select sequence from pool_watch")
    return int(row[0])


def test_the_mark_stays_where_there_is_nothing_to_tell(tokens: Watched) -> None:
    assert mark(tokens) == 1
    for _ in range(3):
        tokens.pools.draw("tokens", 10)
        assert [] == tokens.look()
    assert mark(tokens) == 1
    assert [] == tokens.look_at_all()
    assert mark(tokens) == 1
    tokens.pools.draw("tokens", 770)
    assert ["pool.limit_near"] == tokens.look()
    assert mark(tokens) == 5


def test_what_follows_quiet_draws_is_told_once_and_with_its_time(tokens: Watched) -> None:
    tokens.rule("low", AlertKind.BALANCE_BELOW, 500)
    told = []
    for draw in (200, 200, 200, 50, 50):
        tokens.pools.later(minutes=1)
        tokens.pools.draw("tokens", draw)
        told.append(tokens.look())
    assert [[], [], [FIRED], [], []] == told
    (alert,) = tokens.alerts()
    (crossed,) = tokens.pools.rows("select time from transfer where available_after = 400")
    assert crossed[0] == alert.fired_at
    assert mark(tokens) == 4, "as far as the crossing"
    tokens.pools.grant("tokens", 500)
    assert ["pool.topped_up", CLEARED] == tokens.look()
    assert mark(tokens) == 7


def test_a_rule_made_after_quiet_draws_does_not_judge_them(tokens: Watched) -> None:
    tokens.pools.draw("tokens", 950)
    tokens.pools.grant("tokens", 950)
    tokens.look()
    tokens.pools.draw("tokens", 100)
    assert [] == tokens.look()
    tokens.rule("low", AlertKind.BALANCE_BELOW, 901)
    tokens.pools.grant("tokens", 50)
    assert ["pool.topped_up"] == tokens.look()
    tokens.pools.draw("tokens", 50)
    assert [FIRED] == tokens.look()


def test_a_mark_far_behind_moves_all_the_same(
    tokens: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_pools, "ENTRIES_A_GLANCE", 3)
    for draws in (3, 1, 1):
        for _ in range(draws):
            tokens.pools.draw("tokens", 1)
        assert [] == tokens.look()
    assert mark(tokens) == 5


def test_where_a_glance_fails_the_pools_are_looked_at(
    tokens: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pool_watch.read_watches

    def read(*args: Any, lock: bool = False) -> Any:
        if not lock:
            raise ValueError("cannot be read")
        return real(*args, lock=lock)

    monkeypatch.setattr(pool_watch, "read_watches", read)
    tokens.pools.draw("tokens", 1000)
    with capture_logs() as logs:
        assert ["pool.exhausted", "pool.limit_near"] == tokens.look()
    assert ["glance_failed"] == [one["event"] for one in logs]


def test_a_glance_without_a_database_raises(
    tokens: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError("no connection")

    monkeypatch.setattr(pool_watch, "calm_pools", read)
    with pytest.raises(psycopg.OperationalError):
        tokens.look()
