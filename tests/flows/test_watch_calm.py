"""Pools that are passed over because they are calm: all is told as if they were looked at.

Two organizations live through the same. In one no pool is ever calm.
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from farebox_alerts import Watched
from farebox_pools import HARD, OVERAGE, OVERDRAFT, REFILLED, SOFT, UNLIMITED
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from farebox.alerts.rule import AlertKind
from farebox.flows import watch_pools
from farebox.ledger.command import Draw, Release, Reserve, Settle
from farebox.ledger.policy import Policy, Renewal
from farebox.period.cycle import Unit
from farebox.postgres import pool_watch

NAMES = {"id", "grant"}
"""What the two do not have in common."""

AMOUNT = st.sampled_from(["0.000000000000000001", "1", "9.5", "50", "99.999999999999999999", "300"])
USES = ["draw", "draw", "draw", "draw", "hold", "settle", "grant", "expiring"]
RULES = st.sampled_from(
    [
        (AlertKind.BALANCE_BELOW, 400),
        (AlertKind.BALANCE_BELOW, "0.5"),
        (AlertKind.SHARE_USED_ABOVE, 50),
        (AlertKind.SHARE_USED_ABOVE, "33.333"),
        (AlertKind.SHARE_USED_ABOVE, 120),
        (AlertKind.OVERAGE_ABOVE, 10),
        (AlertKind.SPEND_ABOVE, 1),
    ]
)
STEP = st.one_of(
    st.tuples(st.sampled_from(USES), AMOUNT),
    st.tuples(st.sampled_from(USES), AMOUNT),
    st.tuples(st.sampled_from(["release", "look at all", "delete"]), st.none()),
    st.tuples(st.just("later"), st.sampled_from([1, 60, 60 * 24 * 9, 60 * 24 * 31])),
    st.tuples(st.just("rule"), RULES),
)
WEEKLY = Policy(renewal=Renewal(unit=Unit.WEEK))


class Life:
    """One of the two: a pool that is used, and what is told of it."""

    def __init__(self, watched: Watched, policy: Policy) -> None:
        self.watched, self.pools = watched, watched.pools
        self.pools.put("tokens", policy)
        self.holds: list[int] = []

    def go_on(self, step: str, value: Any) -> None:
        pools, watched = self.pools, self.watched
        match step:
            case "draw":
                pools.ask("tokens", Draw(amount=Decimal(value)))
            case "hold":
                held = pools.ask("tokens", Reserve(amount=Decimal(value), seconds=3600))
                self.holds += [held.hold] if getattr(held, "hold", None) else []
            case "settle" if self.holds:
                pools.ask("tokens", Settle(hold=self.holds.pop(), amount=Decimal(value)))
            case "release" if self.holds:
                pools.ask("tokens", Release(hold=self.holds.pop()))
            case "grant":
                pools.grant("tokens", value)
            case "expiring":
                pools.grant("tokens", value, expires_at=pools.now + timedelta(days=5))
            case "later":
                pools.later(minutes=value)
            case "rule":
                watched.rule("rule", *value)
            case "delete":
                watched.delete("rule")
            case "look":
                watched.look()
            case "look at all":
                watched.look_at_all()

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (kind, {name: value for name, value in data.items() if name not in NAMES})
            for kind, data in self.watched.notices()
        ]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    policy=st.sampled_from([HARD, WEEKLY, OVERAGE, OVERDRAFT, SOFT, REFILLED, UNLIMITED]),
    entries=st.sampled_from([2, 50]),
    steps=st.lists(st.tuples(STEP, st.booleans()), min_size=4, max_size=25),
)
def test_it_makes_no_difference_to_what_is_told(
    new_watched: Callable[[], Watched],
    policy: Policy,
    entries: int,
    steps: list[tuple[tuple[str, Any], bool]],
) -> None:
    passed_over, looked_at = Life(new_watched(), policy), Life(new_watched(), policy)
    found: list[int] = []

    def calm_above(look: Any, *rest: Any) -> Decimal | None:
        never = look.organization_id == looked_at.pools.organization_id
        return None if never else real_level(look, *rest)

    def calm_pools(*arguments: Any) -> Any:
        calm = real_pools(*arguments)
        found.append(len(calm))
        return calm

    real_level, real_pools = watch_pools.calm_above, pool_watch.calm_pools
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_pools, "ENTRIES_A_GLANCE", entries)
        patch.setattr(watch_pools, "calm_above", calm_above)
        patch.setattr(pool_watch, "calm_pools", calm_pools)
        for (step, value), looks in [(("grant", "1000"), True), *steps, (("draw", "1"), True)]:
            for one in (passed_over, looked_at):
                one.go_on(step, value)
                if looks:
                    one.watched.look()
            assert passed_over.told() == looked_at.told()
        event(f"passed over {sum(found) > 1}")


def test_a_calm_pool_is_looked_at_once_its_rules_change(watched: Watched) -> None:
    watched.pools.put("tokens")
    watched.pools.grant("tokens", 1000)
    watched.look()
    watched.pools.draw("tokens", 100)
    assert [] == watched.look()
    watched.rule("low", AlertKind.BALANCE_BELOW, 900)
    watched.pools.draw("tokens", 1)
    assert ["alert.fired"] == watched.look()
    watched.delete("low")
    watched.pools.draw("tokens", 1)
    assert ["alert.cleared"] == watched.look()


@pytest.mark.parametrize("drawn", ["799.999999999999999999", "800"])
def test_it_is_calm_to_the_last_unit_before_something_is_told(watched: Watched, drawn: str) -> None:
    watched.pools.put("tokens")
    watched.pools.grant("tokens", 1000)
    watched.look()
    watched.pools.draw("tokens", drawn)
    expected = ["pool.limit_near"] if drawn == "800" else []
    assert expected == watched.look()
    (mark,) = watched.pools.rows("select sequence, calm_above from pool_watch")
    assert ((2, None) if expected else (1, Decimal("200.000000000000000001"))) == mark


@pytest.mark.parametrize("ahead", [0, 3600])
def test_a_rule_that_a_look_did_not_see_yet_is_judged_at_the_next_use(
    watched: Watched, ahead: int
) -> None:
    """It was put with an earlier time than that look: by another clock, or a slow commit."""
    pools = watched.pools
    pools.put("tokens")
    pools.grant("tokens", 1000)
    put_at = pools.now
    pools.later(seconds=60 + ahead)
    pools.draw("tokens", 200)
    watched.look()
    pools.now, seen_at = put_at, pools.now
    watched.rule("low", AlertKind.BALANCE_BELOW, 900)
    pools.now = seen_at
    pools.later(seconds=1)
    pools.draw("tokens", 1)
    assert ["alert.fired"] == watched.look()


@pytest.mark.parametrize(("drawn", "told"), [(45, "pool.limit_near"), (50, "pool.exhausted")])
def test_a_pool_that_is_no_rate_limit_any_more_is_looked_at_again(
    watched: Watched, drawn: int, told: str
) -> None:
    watched.pools.put("tokens", REFILLED)
    watched.pools.draw("tokens", 1)
    watched.look()
    watched.pools.put("tokens", HARD)
    watched.pools.draw("tokens", drawn - 1)
    assert told in watched.look()


def test_an_unlimited_pool_is_passed_over_while_it_is_but_used(watched: Watched) -> None:
    watched.rule("low", AlertKind.BALANCE_BELOW, 400)
    watched.pools.put("tokens", UNLIMITED)
    watched.pools.grant("tokens", 1000)
    watched.pools.draw("tokens", 900)
    assert "pool.limit_near" not in watched.look()
    for _ in range(3):
        watched.pools.draw("tokens", 500)
        assert [] == watched.look()
    (mark,) = watched.pools.rows("select calm_above from pool_watch")
    assert (Decimal(0),) == mark
