"""docs/pools.md has a row for every limit there is, docs/ledger.md for every account and reason."""

import re
from pathlib import Path

import pytest

from farebox.ledger.account import Account
from farebox.ledger.policy import LimitMode
from farebox.ledger.reason import Reason

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "heading", "members"),
    [
        ("ledger.md", "Accounts", Account),
        ("ledger.md", "Reasons", Reason),
        ("pools.md", "Limits", LimitMode),
    ],
)
def test_every_member_has_its_row(page: str, heading: str, members: type) -> None:
    section = re.split(r"^## ", (DOCS / page).read_text(), flags=re.M)
    text = next(one for one in section if one.startswith(heading))
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert [member.value for member in members] == rows  # type: ignore[attr-defined]
