"""Alert rules: what they measure, when they fire and clear, and what is wrong with one."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.alerts.judge import (
    CROSSINGS_MAX,
    Firing,
    Point,
    Verdict,
    is_of_old_period,
    judge,
    walk,
)
from farebox.alerts.measure import Expiring, Seen, measure, shown
from farebox.alerts.rule import FALLING, AlertKind, AlertRule, concerns
from farebox.alerts.rule_check import AlertCode, check_rule

NOW = datetime(2026, 10, 2, 12, tzinfo=UTC)
FIRE, CLEAR, NOTHING = Verdict.FIRE, Verdict.CLEAR, Verdict.NOTHING


def rule(kind: AlertKind, threshold: object = 10, **fields: Any) -> AlertRule:
    window = {"window_minutes": 60} if kind in (*BURN, AlertKind.REFUSALS_ABOVE) else {}
    return AlertRule(key="r", kind=kind, threshold=Decimal(str(threshold)), **{**window, **fields})


BURN = (AlertKind.BURN_RATE_ABOVE, AlertKind.RUNS_OUT_BEFORE)


def seen(**fields: Any) -> Seen:
    return Seen(now=NOW, **fields)


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


D = Decimal
MEASURED: list[tuple[AlertRule, Seen, Fraction | None]] = [
    (rule(AlertKind.BALANCE_BELOW), seen(available=D("9.5")), Fraction(19, 2)),
    (rule(AlertKind.SHARE_USED_ABOVE), seen(available=D(1), used=D(2)), Fraction(200, 3)),
    (rule(AlertKind.SHARE_USED_ABOVE), seen(used=D(130), beyond=D(30)), Fraction(130)),
    (rule(AlertKind.SHARE_USED_ABOVE), seen(used=D(30), beyond=D(30)), None),
    (rule(AlertKind.SHARE_USED_ABOVE), seen(), None),
    (rule(AlertKind.BALANCE_BELOW), seen(unlimited=True), None),
    (rule(AlertKind.SHARE_USED_ABOVE), seen(unlimited=True, used=D(2)), None),
    (rule(AlertKind.RUNS_OUT_BEFORE), seen(unlimited=True, burned={60: D(3)}), None),
    (rule(AlertKind.BURN_RATE_ABOVE), seen(unlimited=True, burned={60: D(3)}), Fraction(3)),
    (rule(AlertKind.SPEND_ABOVE), seen(spend=D("1.25")), Fraction(5, 4)),
    (rule(AlertKind.OVERAGE_ABOVE), seen(overage=D(7)), Fraction(7)),
    (rule(AlertKind.BURN_RATE_ABOVE), seen(burned={60: D(5)}), Fraction(5)),
    (rule(AlertKind.BURN_RATE_ABOVE, window_minutes=7), seen(burned={7: D(1)}), Fraction(60, 7)),
    (rule(AlertKind.BURN_RATE_ABOVE), seen(), Fraction(0)),
    (rule(AlertKind.RUNS_OUT_BEFORE), seen(available=D(9), burned={60: D(3)}), Fraction(3)),
    (rule(AlertKind.RUNS_OUT_BEFORE), seen(available=D(9)), None),
    (rule(AlertKind.RUNS_OUT_BEFORE), seen(available=D(9), burned={60: D(-3)}), None),
    (rule(AlertKind.RUNS_OUT_BEFORE), seen(burned={60: D(3)}), Fraction(0)),
    (rule(AlertKind.REFUSALS_ABOVE), seen(refusals={60: 3, 5: 1}), Fraction(3)),
    (
        rule(AlertKind.GRANT_EXPIRES_WITHIN),
        seen(expiring=(Expiring(at(3), D(1)), Expiring(at(1.5), D(2)))),
        Fraction(3, 2),
    ),
    (
        rule(AlertKind.GRANT_EXPIRES_WITHIN, units=D(2)),
        seen(expiring=(Expiring(at(3), D(1)), Expiring(at(5), D(2)))),
        Fraction(5),
    ),
    (rule(AlertKind.GRANT_EXPIRES_WITHIN), seen(expiring=(Expiring(at(3), D(0)),)), None),
]


@pytest.mark.parametrize(("one", "state", "expected"), MEASURED)
def test_a_rule_measures_exactly(one: AlertRule, state: Seen, expected: Fraction | None) -> None:
    assert expected == measure(one, state)


def test_every_kind_is_measured_in_a_case() -> None:
    assert set(AlertKind) == {one.kind for one, _, _ in MEASURED}


@pytest.mark.parametrize("kind", AlertKind)
def test_a_rule_fires_at_its_threshold_and_clears_beyond_the_other(kind: AlertKind) -> None:
    falling = kind in FALLING
    one = rule(kind, 10, clear_at=Decimal(15 if falling else 5))
    values = [20, 15, 14, 10, 9, 10, 14, 15] if falling else [1, 5, 9, 10, 9, 5, 4]
    verdicts, firing = [], False
    for value in values:
        verdict = judge(one, Fraction(value), firing=firing)
        verdicts.append(verdict)
        firing = verdict is FIRE or (firing and verdict is NOTHING)
    n = NOTHING
    expected = [n, n, n, n, FIRE, n, n, CLEAR] if falling else [n, n, n, FIRE, n, n, CLEAR]
    assert expected == verdicts


@pytest.mark.parametrize("kind", AlertKind)
def test_where_there_is_no_number_nothing_fires_and_what_fires_clears(kind: AlertKind) -> None:
    assert [NOTHING, CLEAR] == [judge(rule(kind), None, firing=one) for one in (False, True)]


@pytest.mark.parametrize("kind", AlertKind)
def test_only_what_counts_within_a_period_ends_with_it(kind: AlertKind) -> None:
    of_period = kind in (
        AlertKind.SHARE_USED_ABOVE,
        AlertKind.SPEND_ABOVE,
        AlertKind.OVERAGE_ABOVE,
    )
    assert of_period is is_of_old_period(rule(kind), Firing(3), 4)
    assert not is_of_old_period(rule(kind), Firing(4), 4)
    assert not is_of_old_period(rule(kind), None, 4)


def points(*balances: int) -> list[Point]:
    return [Point(n, at(n), Decimal(one)) for n, one in enumerate(balances, 1)]


@given(st.lists(st.integers(0, 20), max_size=40), st.booleans())
def test_a_walk_in_parts_tells_what_the_whole_walk_tells(balances: list[int], firing: bool) -> None:
    whole = walk(points(*balances), Decimal(8), Decimal(12), firing=firing)
    parts, state = [], firing
    for point in points(*balances):
        for one in walk([point], Decimal(8), Decimal(12), firing=state):
            parts.append(one)
            state = one.verdict is FIRE
    assert whole == parts
    turns = [CLEAR, FIRE] if firing else [FIRE, CLEAR]
    assert [turns[n % 2] for n in range(len(whole))] == [one.verdict for one in whole]


@pytest.mark.parametrize("crossings", [CROSSINGS_MAX - 1, CROSSINGS_MAX, 201, 202])
def test_a_walk_of_very_many_crossings_ends_as_it_did(crossings: int) -> None:
    found = walk(
        points(*[0 if n % 2 == 0 else 9 for n in range(crossings)]),
        Decimal(5),
        Decimal(5),
        firing=False,
    )
    assert len(found) <= CROSSINGS_MAX + 1
    assert (FIRE if crossings % 2 else CLEAR) == found[-1].verdict


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(19, 2), "9.5"),
        (Fraction(200, 3), "66.6666"),
        (Fraction(100), "100"),
        (Fraction(0), "0"),
        (Fraction(-1, 3), "-0.3334"),
        (Fraction(1, 10**18), "0.000000000000000001"),
    ],
)
def test_a_number_is_told_exactly_or_cut(value: Fraction, expected: str) -> None:
    assert expected == format(shown(value), "f")


def test_a_rule_concerns_the_pools_of_its_scope() -> None:
    kind = AlertKind.SPEND_ABOVE
    assert concerns(rule(kind), "p", None, None)
    assert concerns(rule(kind, pool="p"), "p", "acme", None)
    assert not concerns(rule(kind, pool="q"), "p", "acme", None)
    assert concerns(rule(kind, customer="acme"), "p", "acme", None)
    assert not concerns(rule(kind, customer="acme"), "p", None, None)
    assert not concerns(rule(kind, currency="EUR"), "p", None, "USD")
    assert not concerns(rule(kind, enabled=False), "p", None, None)


REFUSED: list[tuple[AlertRule, AlertCode]] = [
    (
        rule(AlertKind.BALANCE_BELOW, pool="p", customer="c"),
        AlertCode.ALERT_SCOPE_CONTRADICTORY,
    ),
    (rule(AlertKind.BALANCE_BELOW, 0), AlertCode.THRESHOLD_OUT_OF_RANGE),
    (rule(AlertKind.GRANT_EXPIRES_WITHIN, 10**6), AlertCode.THRESHOLD_OUT_OF_RANGE),
    (rule(AlertKind.GRANT_EXPIRES_WITHIN, units=D(0)), AlertCode.THRESHOLD_OUT_OF_RANGE),
    (rule(AlertKind.BALANCE_BELOW, clear_at=D(9)), AlertCode.CLEAR_AT_WRONG_SIDE),
    (rule(AlertKind.SPEND_ABOVE, clear_at=D(11)), AlertCode.CLEAR_AT_WRONG_SIDE),
    (rule(AlertKind.SPEND_ABOVE, clear_at=D(0)), AlertCode.CLEAR_AT_WRONG_SIDE),
    (rule(AlertKind.BURN_RATE_ABOVE, window_minutes=None), AlertCode.WINDOW_OUT_OF_RANGE),
    (rule(AlertKind.REFUSALS_ABOVE, window_minutes=10**6), AlertCode.WINDOW_OUT_OF_RANGE),
    (rule(AlertKind.SPEND_ABOVE, window_minutes=5), AlertCode.FIELD_NOT_OF_KIND),
    (rule(AlertKind.SPEND_ABOVE, units=D(5)), AlertCode.FIELD_NOT_OF_KIND),
    (rule(AlertKind.BALANCE_BELOW, currency="EUR"), AlertCode.FIELD_NOT_OF_KIND),
]
OUTSIDE = {AlertCode.UNKNOWN_POOL, AlertCode.TOO_MANY_ALERT_RULES}
"""What only shows beside other rows: see the tests of the routes."""


@pytest.mark.parametrize(("one", "code"), REFUSED)
def test_a_rule_is_refused_by_name(one: AlertRule, code: AlertCode) -> None:
    assert [code] == [problem.code for problem in check_rule(one)]


def test_every_code_has_its_case() -> None:
    assert set(AlertCode) - OUTSIDE == {code for _, code in REFUSED}


@pytest.mark.parametrize("kind", AlertKind)
def test_a_plain_rule_of_each_kind_is_right(kind: AlertKind) -> None:
    assert [] == check_rule(rule(kind))
