"""docs/alerts.md has a row for every kind of rule and way to clear, and its limits are true."""

import re
from pathlib import Path

import pytest

from farebox.alerts.judge import CROSSINGS_MAX
from farebox.alerts.rule import AlertKind
from farebox.alerts.rule_check import HOURS_MAX, RULES_MAX, WINDOW_MINUTES_MAX
from farebox.flows.tell_pools import _HAPPENED, LIMIT_NEAR_PERCENT
from farebox.http.reference import problems_text
from farebox.notices.type import NoticeType
from farebox.postgres.alert import ClearedBy

PAGE = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
TOLD = {
    NoticeType.POOL_LIMIT_NEAR,
    NoticeType.POOL_EXHAUSTED,
    NoticeType.POOL_OVERAGE_STARTED,
    NoticeType.POOL_BURST_STARTED,
    NoticeType.POOL_BURST_ENDED,
    *_HAPPENED.values(),
}


def rows(heading: str) -> list[str]:
    text = next(one for one in re.split(r"^## ", PAGE, flags=re.M) if one.startswith(heading))
    return re.findall(r"^\| `([\w.]+)` \|", text, re.M)


@pytest.mark.parametrize(
    ("heading", "members"), [("Kinds", AlertKind), ("Firing and clearing", ClearedBy)]
)
def test_every_member_has_its_row(heading: str, members: type) -> None:
    assert [member.value for member in members] == rows(heading)  # type: ignore[attr-defined]


def test_every_notice_without_a_rule_has_its_row() -> None:
    assert {one.value for one in TOLD} == set(rows("Told without a rule"))


def test_the_limits_are_those_of_the_code() -> None:
    text = problems_text()
    assert f"{WINDOW_MINUTES_MAX:,}" in text
    assert f"{HOURS_MAX:,}" in text
    assert f"{RULES_MAX:,}" in PAGE
    assert f"at most {CROSSINGS_MAX} crossings" in PAGE
    assert f"{LIMIT_NEAR_PERCENT} percent" in PAGE
