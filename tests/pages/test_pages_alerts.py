"""The page of alerts: what fires, what did, the rules, and what who may manage can do there."""

import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from farebox.alerts.rule import AlertKind, AlertRule
from farebox.flows.grant_units import grant_units
from farebox.flows.put_alert_rule import put_alert_rule
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.watch_pools import watch_all
from farebox.http.pages.alerts_words import KINDS, condition, measured
from farebox.http.state import State
from farebox.ledger.administer import NewGrant
from farebox.ledger.pool import PoolDefinition
from farebox.postgres.session import transaction

HOSTILE = "</script><script>alert(1)</script>"


def words(text: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


class Desk:
    """A vendor of its own with a pool of five tokens, seen in the console."""

    def __init__(self, state: State, vendor: Any) -> None:
        self.state, self.vendor = state, vendor
        done = put_pool(
            state.pool,
            vendor.organization_id,
            PoolDefinition(key="tokens", unit="token"),
            state.clock(),
            state.new_id(),
        )
        assert isinstance(done, PutPool)
        self.pool_id = done.pool_id
        self.grant(5)

    def grant(self, units: int) -> None:
        asked, organization_id = NewGrant(amount=Decimal(units)), self.vendor.organization_id
        with transaction(self.state.pool, organization_id) as connection:
            grant_units(connection, organization_id, self.pool_id, asked, self.state.clock())

    def look(self, **later: float) -> None:
        now = self.state.clock() + timedelta(**later)
        watch_all(self.state.pool, self.vendor.organization_id, now)

    def page(self, query: str = "") -> str:
        return words(self.vendor.page(f"/console/alerts{query}"))


@pytest.fixture
def desk(console_state: State, new_vendor: Any) -> Desk:
    return Desk(console_state, new_vendor("Alerted"))


def add(desk: Desk, **fields: str) -> Any:
    form = {"key": "low", "kind": "balance_below", "threshold": "1,000", **fields}
    return desk.vendor.post("/console/alerts/rules", data=form)


def test_a_page_without_rules_says_how_to_begin(desk: Desk) -> None:
    shown = desk.page()
    assert "Nothing fires Add a rule below" in shown
    assert "No rule yet Add one here" in shown


def test_a_rule_is_added_fires_and_clears(desk: Desk) -> None:
    answer = add(desk, name="Nearly out", clear_at="2000")
    assert (303, "/console/alerts?said=added") == (answer.status_code, answer.headers["location"])
    desk.look(seconds=1)
    shown = desk.page("?said=added")
    assert "The rule watches from now on" in shown
    assert "Nearly out low · balance below tokens 5 token threshold 1,000 token" in shown
    assert "Fewer than 1,000 units are available; clears at 2,000 units fires at 1" in shown
    desk.grant(3000)
    desk.look(seconds=2)
    shown = desk.page()
    assert "Nothing fires Every value is on the quiet side" in shown
    assert "back at 3,005 token" in shown


def test_a_rule_is_switched_off_on_and_deleted(desk: Desk) -> None:
    add(desk)
    desk.look(seconds=1)
    for verb, says in (("disable", "off Switch on"), ("enable", "quiet Switch off")):
        answer = desk.vendor.post(f"/console/alerts/rules/low/{verb}")
        assert 303 == answer.status_code
        if verb == "disable":
            desk.look(seconds=2)
        assert says in desk.page()
    assert "the rule watches no more" in desk.page()
    assert 303 == desk.vendor.post("/console/alerts/rules/low/delete").status_code
    assert "No rule yet" in desk.page()
    assert 404 == desk.vendor.post("/console/alerts/rules/low/delete").status_code
    assert 404 == desk.vendor.post("/console/alerts/rules/low/explode").status_code


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"threshold": "plenty"}, "threshold : 'plenty' is not a number"),
        ({"threshold": ""}, "threshold : a threshold is above zero"),
        ({"kind": "refusals_above"}, "window_minutes : refusals_above looks back over"),
        ({"kind": "refusals_above", "window_minutes": "1.5"}, "window_minutes : refusals_above"),
        ({"pool": "nowhere"}, "pool : there is no pool 'nowhere'"),
        ({"key": "not a key"}, "key : 'not a key' is not a key"),
        ({"currency": "EUR"}, "currency : a rule of kind balance_below has no currency"),
    ],
)
def test_a_form_with_a_fault_comes_back_with_what_was_typed(
    desk: Desk, fields: dict[str, str], says: str
) -> None:
    answer = add(desk, name="Typed", **fields)
    assert 422 == answer.status_code
    assert says in words(answer.text)
    assert 'value="Typed"' in answer.text
    assert "No rule yet" in desk.page()


def test_hostile_names_stay_text(desk: Desk) -> None:
    add(desk, name=HOSTILE)
    desk.look(seconds=1)
    assert "<script>alert" not in desk.vendor.page("/console/alerts")


def test_the_history_has_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.http.pages.alerts.PAGE", 2)
    for key in ("a", "b", "c"):
        rule = AlertRule(key=key, kind=AlertKind.BALANCE_BELOW, threshold=Decimal(9))
        put_alert_rule(desk.state.pool, desk.vendor.organization_id, rule, desk.state.clock())
    desk.look(seconds=1)
    desk.grant(100)
    desk.look(seconds=2)
    text = desk.vendor.page("/console/alerts")
    (link,) = re.findall(r'href="(\?after=[^"]+)" rel="next"', text)
    pages = words(text), desk.page(unescape(link))
    shown = [re.findall(r"\b([abc]) balance below tokens", one) for one in pages]
    assert [2, 1] == [len(one) for one in shown]
    assert ["a", "b", "c"] == sorted(shown[0] + shown[1])
    assert 200 == desk.vendor.get("/console/alerts?after=nonsense").status_code


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_reads_as_a_sentence(kind: AlertKind) -> None:
    rule = AlertRule(key="r", kind=kind, threshold=Decimal(10), window_minutes=120)
    assert kind in KINDS
    assert "10" in condition(rule)
    assert "10" in measured(kind, Decimal(10), "token", None)
