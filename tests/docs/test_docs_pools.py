"""docs/pools.md has a row for every account, reason and limit there is."""

import re
from pathlib import Path

import pytest

from farebox.ledger.account import Account
from farebox.ledger.policy import LimitMode
from farebox.ledger.reason import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "pools.md").read_text()


@pytest.mark.parametrize(
    ("heading", "members"),
    [("The ledger", Account), ("Reasons", Reason), ("Limits", LimitMode)],
)
def test_every_member_has_its_row(heading: str, members: type) -> None:
    section = re.split(r"^## ", PAGE, flags=re.M)
    text = next(one for one in section if one.startswith(heading))
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert [member.value for member in members] == rows  # type: ignore[attr-defined]
