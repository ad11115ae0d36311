"""Each kind of rule fires and clears, and what every pool tells without a rule is told once."""

from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_alerts import Watched
from farebox_pools import OVERAGE, TOPPED_UP, WasRefused, refused

from farebox.alerts.rule import AlertKind
from farebox.flows.grant_units import change_grant
from farebox.ledger.command import Draw
from farebox.ledger.grant import Grant, Rollover
from farebox.ledger.policy import Limit, LimitMode, Policy, Refill, Renewal
from farebox.period.cycle import Unit
from farebox.postgres.session import transaction

FIRED, CLEARED = "alert.fired", "alert.cleared"
D = Decimal


@pytest.fixture
def tokens(watched: Watched) -> Watched:
    """Return a pool with a thousand tokens that was looked at."""
    watched.pools.put("tokens")
    watched.pools.grant("tokens", 1000)
    assert ["pool.topped_up"] == watched.look()
    return watched


def values(watched: Watched) -> list[tuple[str, str | None]]:
    """Return value and cleared value of every alert."""
    return [
        (f"{one.value:f}", None if one.cleared_value is None else f"{one.cleared_value:f}")
        for one in watched.alerts()
    ]


def test_a_balance_fires_below_its_threshold_and_clears_at_the_other(tokens: Watched) -> None:
    tokens.rule("low", AlertKind.BALANCE_BELOW, 100, clear_at=D(200))
    told = []
    for draw, grant in ((900, 0), (1, 0), (1, 0), (0, 100), (0, 2), (150, 0)):
        if draw:
            tokens.pools.draw("tokens", draw)
        if grant:
            tokens.pools.grant("tokens", grant)
        told.append([one for one in tokens.look() if one.startswith("alert")])
    assert [[], [FIRED], [], [], [CLEARED], [FIRED]] == told
    assert [("99", "200"), ("50", None)] == values(tokens)


def test_a_dip_between_two_looks_is_told_with_its_times(tokens: Watched) -> None:
    tokens.rule("low", AlertKind.BALANCE_BELOW, 100, clear_at=D(1000))
    tokens.look()
    for _ in range(2):
        tokens.pools.later(minutes=1)
        tokens.pools.draw("tokens", "900.5")
        tokens.pools.later(minutes=1)
        tokens.pools.grant("tokens", "900.5")
    told = tokens.look()
    assert [FIRED, CLEARED] * 2 == [one for one in told if one.startswith("alert")]
    first = tokens.alerts()[0]
    assert timedelta(minutes=1) == (first.cleared_at or first.fired_at) - first.fired_at
    assert 2 == first.sequence


def test_what_was_below_when_the_rule_came_fires_at_the_next_look(tokens: Watched) -> None:
    tokens.pools.draw("tokens", 950)
    tokens.look()
    tokens.rule("low", AlertKind.BALANCE_BELOW, 100)
    assert [FIRED] == tokens.look_at_all()
    assert [] == tokens.look_at_all()


def test_what_dipped_before_the_rule_came_is_not_judged_by_it(tokens: Watched) -> None:
    tokens.pools.draw("tokens", 950)
    tokens.pools.grant("tokens", 950)
    tokens.rule("low", AlertKind.BALANCE_BELOW, 100)
    assert FIRED not in tokens.look()


def test_what_dips_between_the_rule_and_the_first_look_is_told(tokens: Watched) -> None:
    for _ in range(2):
        tokens.pools.draw("tokens", 950)
        tokens.pools.grant("tokens", 950)
        tokens.rule("low", AlertKind.BALANCE_BELOW, 100)  # the second time nothing changes
    told = tokens.look()
    assert [FIRED, CLEARED] == [one for one in told if one.startswith("alert")]


def test_a_new_pool_is_not_low_before_anything_is_in_it(watched: Watched) -> None:
    watched.rule("low", AlertKind.BALANCE_BELOW, 100)
    watched.pools.put("tokens")
    watched.pools.later(seconds=1)
    assert [] == watched.look_at_all()
    watched.pools.grant("tokens", 1000)
    watched.pools.later(seconds=1)
    watched.pools.draw("tokens", 950)
    assert [FIRED] == [one for one in watched.look() if one == FIRED]


def test_a_share_counts_what_is_used_and_held_and_a_new_period_clears_it(
    watched: Watched,
) -> None:
    pools = watched.pools
    pools.put("tokens", Policy(renewal=Renewal(anchor_day=1)))
    renewal = Renewal(anchor_day=1)
    pools.recur("tokens", "monthly", 100, renewal=renewal, rollover=Rollover(percent=D(50)))
    watched.rule("near", AlertKind.SHARE_USED_ABOVE, 80)
    watched.rule("all", AlertKind.SHARE_USED_ABOVE, 100)
    watched.look()
    pools.draw("tokens", 50)
    hold = pools.hold("tokens", 30)
    assert [FIRED, "pool.limit_near"] == sorted(watched.look())
    pools.release("tokens", hold)
    assert [CLEARED] == watched.look()
    pools.draw("tokens", 50)
    assert [FIRED, FIRED, "pool.exhausted", "pool.limit_near"] == sorted(watched.look())
    pools.later(days=31)
    assert [CLEARED, CLEARED] == watched.look_at_all()
    assert ["value", "period", "period"] == [one.cleared_by for one in watched.alerts()]
    pools.draw("tokens", 85)
    assert [FIRED, "pool.limit_near"] == sorted(watched.look())


def test_a_period_that_turned_unseen_clears_and_may_fire_anew(watched: Watched) -> None:
    pools = watched.pools
    pools.put("tokens")
    pools.recur("tokens", "monthly", 100)
    watched.rule("near", AlertKind.SHARE_USED_ABOVE, 80)
    watched.look()
    for _ in range(2):
        pools.draw("tokens", 90)
        told = watched.look()
        pools.later(days=31)
    assert [CLEARED, FIRED, "pool.limit_near"] == sorted(
        one for one in told if one not in ("grant.expired",)
    )


def test_spend_and_overage_count_within_a_period(watched: Watched) -> None:
    pools = watched.pools
    pools.put("calls", OVERAGE)  # bursts of 20 at 0.08, then 0.05 each
    watched.rule("spend", AlertKind.SPEND_ABOVE, "2.6", currency="EUR")
    watched.rule("dollars", AlertKind.SPEND_ABOVE, "0.01", currency="USD")
    watched.rule("over", AlertKind.OVERAGE_ABOVE, 20)
    pools.grant("calls", 10)
    watched.look()
    pools.draw("calls", 20)
    assert ["pool.burst_started", "pool.exhausted", "pool.limit_near"] == sorted(watched.look())
    pools.draw("calls", 30)  # 20 of burst and 20 of overage
    assert [FIRED, FIRED, "pool.overage_started"] == sorted(watched.look())
    assert {("20", None), ("2.6", None)} == set(values(watched))
    pools.draw("calls", 1)
    assert [] == watched.look()
    pools.later(days=31)
    assert [CLEARED, CLEARED] == watched.look_at_all()
    pools.grant("calls", 10)
    pools.draw("calls", 3)
    assert ["pool.burst_ended", "pool.topped_up"] == sorted(watched.look())


def test_a_burn_rate_is_of_its_window(tokens: Watched) -> None:
    tokens.rule("fast", AlertKind.BURN_RATE_ABOVE, 120, window_minutes=10)
    tokens.pools.draw("tokens", 10)
    taken = tokens.pools.draw("tokens", 9)
    assert [] == tokens.look_at_all()
    tokens.pools.draw("tokens", 1)
    assert [] == tokens.look()  # only the look at all pools takes time into account
    assert [FIRED] == tokens.look_at_all()
    assert [("120", None)] == values(tokens)
    tokens.pools.reverse("tokens", taken.operation, 4)
    assert [CLEARED] == tokens.look_at_all()
    tokens.pools.draw("tokens", 4)
    assert [FIRED] == tokens.look_at_all()
    tokens.pools.later(minutes=9, seconds=59)
    assert [] == tokens.look_at_all()
    tokens.pools.later(seconds=2)
    assert [CLEARED] == tokens.look_at_all()


def test_a_pool_that_burns_is_told_hours_before_it_is_empty(tokens: Watched) -> None:
    tokens.rule("empty-soon", AlertKind.RUNS_OUT_BEFORE, 5, window_minutes=60)
    assert [] == tokens.look_at_all()
    tokens.pools.draw("tokens", 160)
    assert [] == tokens.look_at_all()  # 840 left last 5.25 hours
    tokens.pools.draw("tokens", 10)
    assert [FIRED] == tokens.look_at_all()
    assert [("4.8823", None)] == values(tokens)
    tokens.pools.grant("tokens", 1000)
    assert [CLEARED, "pool.topped_up"] == sorted(tokens.look_at_all())
    tokens.pools.later(hours=2)
    assert [] == tokens.look_at_all()


def test_refusals_are_counted_within_their_window_also_of_an_empty_pool(watched: Watched) -> None:
    watched.pools.put("nothing")
    watched.rule("refused", AlertKind.REFUSALS_ABOVE, 3, window_minutes=5)
    for _ in range(3):
        assert [] == watched.look_at_all()
        watched.pools.later(minutes=1)
        assert refused(watched.pools.ask("nothing", Draw(amount=D(1))))
    assert [FIRED] == watched.look_at_all()
    watched.pools.later(minutes=3)
    assert [CLEARED] == watched.look_at_all()


def test_a_grant_that_expires_with_much_left_is_told_ahead(tokens: Watched) -> None:
    tokens.rule("wasted", AlertKind.GRANT_EXPIRES_WITHIN, 24, units=D(50))
    for units in (49, 60):
        expires = tokens.pools.now + timedelta(hours=30)
        tokens.pools.grant("tokens", units, expires_at=expires)
    assert ["pool.topped_up"] * 2 == tokens.look_at_all()
    tokens.pools.later(hours=7)
    assert [FIRED] == tokens.look_at_all()
    assert [("23", None)] == values(tokens)
    tokens.pools.draw("tokens", 60)  # the soonest expiry goes first: 49, then 11 of 60
    assert [CLEARED] == tokens.look_at_all()
    tokens.pools.later(hours=24)
    assert ["grant.expired"] == tokens.look_at_all()


def test_a_rule_that_goes_or_is_switched_off_clears_what_it_fired(tokens: Watched) -> None:
    for key in ("a", "b", "c"):
        tokens.rule(key, AlertKind.BALANCE_BELOW, 10_000)
    assert [FIRED] * 3 == tokens.look_at_all()
    assert tokens.delete("a")
    assert [CLEARED] == tokens.told()
    assert not tokens.delete("a")
    tokens.rule("b", AlertKind.BALANCE_BELOW, 10_000, enabled=False)
    tokens.rule("c", AlertKind.BALANCE_BELOW, 900)
    assert [CLEARED] * 2 == tokens.look_at_all()
    assert ["rule", "rule", "value"] == [
        one.cleared_by for one in sorted(tokens.alerts(), key=lambda one: one.rule_key)
    ]


def test_grants_are_told_as_they_come_and_go(watched: Watched) -> None:
    pools = watched.pools
    pools.put("tokens")
    pending = pools.grant("tokens", 10, pending=True, key="order-1")
    assert ["grant.pending"] == watched.look()
    pools.change("tokens", pending, "pay")
    assert ["grant.paid"] == watched.look()
    void = pools.grant("tokens", 5)
    pools.change("tokens", void, "void")
    assert ["pool.topped_up", "grant.voided"] == watched.look()
    pools.grant("tokens", 7, expires_at=pools.now + timedelta(hours=1))
    pools.later(hours=2)
    assert ["pool.topped_up", "grant.expired"] == watched.look_at_all()
    kind, data = watched.notices()[1]
    assert ("grant.paid", "order-1", "10") == (kind, data["key"], data["units"])


def test_a_grant_that_is_paid_before_it_is_in_force_is_told_once(watched: Watched) -> None:
    pools = watched.pools
    pools.put("tokens")
    effective = pools.now + timedelta(days=1)
    pending = pools.grant("tokens", 10, pending=True, key="order-1", effective_at=effective)
    assert ["grant.pending"] == watched.look()
    pools.later(hours=1)
    assert "scheduled" == pools.change("tokens", pending, "pay").status
    assert ["grant.paid"] == watched.told()
    with pytest.raises(WasRefused):
        pools.change("tokens", pending, "pay")
    assert [] == watched.look_at_all()
    pools.later(days=1)
    assert [] == watched.look_at_all()  # it comes into force, and was told as paid already
    assert D(10) == pools.book("tokens").pool.available
    (_, before), (_, paid) = watched.notices()
    assert before.keys() == paid.keys()
    assert ("order-1", "10", "0", effective.isoformat().replace("+00:00", "Z")) == (
        paid["key"],
        paid["units"],
        paid["available"],
        paid["effective_at"],
    )


def test_a_payment_that_does_not_commit_is_not_told(watched: Watched) -> None:
    pools = watched.pools
    pools.put("tokens")
    later = pools.now + timedelta(days=1)
    pending = pools.grant("tokens", 10, pending=True, effective_at=later)
    assert ["grant.pending"] == watched.look()
    for killed in (True, False):
        with (
            suppress(ZeroDivisionError),
            transaction(pools.pool, pools.organization_id) as connection,
        ):
            scope = connection, pools.organization_id, pools.ids["tokens"]
            done = change_grant(*scope, pending.number, "pay", pools.now)
            assert isinstance(done, Grant)
            assert not killed or 1 / 0
        assert ([] if killed else ["grant.paid"]) == watched.told()


def test_a_purchase_of_the_pool_itself_is_pending_then_paid(watched: Watched) -> None:
    pools = watched.pools
    pools.put("tokens", TOPPED_UP)
    pools.grant("tokens", 20)
    pools.draw("tokens", 15)
    assert ["pool.topped_up", "grant.pending"] == watched.look()
    assert watched.notices()[-1][1]["by_itself"] is True


def test_overage_is_told_once_a_period(watched: Watched) -> None:
    pools = watched.pools
    price = Limit(mode=LimitMode.OVERAGE, price=D("0.01"))
    pools.put("calls", Policy(currency="EUR", limit=price, renewal=Renewal(unit=Unit.DAY)))
    told = []
    for _ in range(3):
        pools.draw("calls", 1)
        pools.draw("calls", 1)
        told.append(watched.look())
        told.append(watched.look())
        pools.later(days=1)
    assert [["pool.overage_started"], []] * 3 == told
    pools.draw("calls", 1)
    pools.later(days=1)
    pools.draw("calls", 1)
    assert ["pool.overage_started"] * 2 == watched.look_at_all()
    assert [] == watched.look_at_all()


def test_a_rate_limit_does_not_tell_that_it_is_empty(watched: Watched) -> None:
    pools = watched.pools
    pools.put("rate", Policy(refill=Refill(amount=D(1), seconds=1, capacity=D(10))))
    for _ in range(3):
        pools.draw("rate", 10)
        assert [] == watched.look()
        pools.later(seconds=10)


@pytest.mark.parametrize("entries", [1, 2, 3, 20_000])
def test_a_rollover_at_the_end_of_a_period_is_no_dip(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    """Within one operation units pass through the source; only its end counts, in any steps."""
    monkeypatch.setattr("farebox.flows.watch_pools.ENTRIES_A_LOOK", entries)
    pools = watched.pools
    pools.put("tokens")
    pools.recur("tokens", "monthly", 100, rollover=Rollover())
    watched.rule("low", AlertKind.BALANCE_BELOW, 90)
    watched.look()
    pools.grant("tokens", 1)
    pools.later(days=31)
    assert ["pool.topped_up"] == watched.look_at_all()


def test_notices_name_the_pool_and_what_is_left(tokens: Watched) -> None:
    tokens.rule("low", AlertKind.BALANCE_BELOW, 100, name="Nearly empty", customer=None)
    tokens.pools.draw("tokens", 950)
    tokens.look()
    told = dict(tokens.notices())
    near = told["pool.limit_near"]
    assert ("tokens", "token", "50", "95") == (
        near["pool"],
        near["unit"],
        near["available"],
        near["percent_used"],
    )
    assert near["period_end"].startswith("2026-11-02")
    fired = told["alert.fired"]
    assert ("low", "Nearly empty", "tokens", "100", "50", "firing") == (
        fired["rule"],
        fired["name"],
        fired["pool"],
        fired["threshold"],
        fired["value"],
        fired["state"],
    )


def test_a_pool_far_behind_is_caught_up_in_steps(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox.flows.watch_pools.ENTRIES_A_LOOK", 3)
    pools = watched.pools
    pools.put("tokens")
    watched.rule("low", AlertKind.BALANCE_BELOW, 10)
    pools.grant("tokens", 15)
    watched.look()
    for _ in range(7):
        pools.later(seconds=1)
        pools.grant("tokens", 1)
        pools.grant("tokens", 1)
        pools.draw("tokens", 10)  # from several grants, so in several entries
        pools.later(seconds=1)
        pools.grant("tokens", 8)
    told = watched.look()
    assert [FIRED, CLEARED] * 7 == [one for one in told if one.startswith("alert")]
    assert 21 == told.count("pool.topped_up")
