"""What a pool allows in words, and bars that stay in their boxes."""

from decimal import Decimal
from typing import Any

import pytest

from farebox.http.pages.pools_view import bar_of
from farebox.http.pages.pools_words import duration, policy_words
from farebox.ledger.policy import Burst, Limit, LimitMode, Payment, Policy, Refill, Renewal, TopUp
from farebox.period.cycle import Unit

FULL = Policy(
    currency="EUR",
    limit=Limit(
        mode=LimitMode.OVERDRAFT,
        units=Decimal(100),
        percent=Decimal(10),
        customer_units=Decimal(50),
        spend_cap=Decimal("9.50"),
    ),
    burst=Burst(units=Decimal(20), price=Decimal("0.08")),
    refill=Refill(amount=Decimal(10), seconds=60, capacity=Decimal(50)),
    top_up=TopUp(
        below=Decimal(10), amount=Decimal(1000), cost=Decimal(9), payment=Payment.PREPAID, times=2
    ),
    renewal=Renewal(unit=Unit.MONTH, count=3, anchor_day=15),
    unallotted=False,
    undo_seconds=0,
)


def test_a_policy_in_words() -> None:
    assert [
        (
            "Beyond the grants",
            "draws are borrowed from the next grant, at most 100 token and 10 % of what is granted",
        ),
        ("Customer's own limit", "at most 50 token beyond"),
        ("Spend cap", "overage and burst cost at most €9.50 in a period"),
        ("Burst", "up to 20 token in a period at €0.08 a token"),
        ("Refill", "10 token flow in over every 1 minute, up to 50 token"),
        (
            "Top-up",
            "below 10 token, 1,000 token are bought for €9.00, paid before use, at most 2 times"
            " in a period",
        ),
        ("Period", "3 months, from day 15"),
        ("Order of grants", "lowest priority number, then soonest expiry, then greatest age"),
        ("Holds", "last 10 minutes unless asked otherwise, at most 1 day"),
        ("Taking back", "a draw cannot be taken back"),
        ("Without a share", "a subject gets nothing"),
    ] == policy_words(FULL, "token")


def test_nothing_bounds_what_is_unlimited() -> None:
    policy = Policy(limit=Limit(mode=LimitMode.UNLIMITED))
    said = dict(policy_words(policy, "token"))
    assert "draws go through, nothing bounds them" in said.values()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "no time"), (1, "1 second"), (90, "90 seconds"), (7200, "2 hours"), (86_400, "1 day")],
)
def test_a_duration_in_its_greatest_whole_unit(seconds: int, said: str) -> None:
    assert said == duration(seconds)


@pytest.mark.parametrize(
    ("have", "whole", "held", "expected"),
    [
        (0, 0, 0, (0, 0)),
        (5, 10, 2, (50, 20)),
        (20, 10, 5, (100, 0)),
        (9, 10, 5, (90, 10)),
        (-3, 10, 0, (0, 0)),
        (1, 3, 0, ("33.3", 0)),
    ],
)
def test_a_bar_stays_within_its_box(
    have: int, whole: int, held: int, expected: tuple[Any, Any]
) -> None:
    bar = bar_of(Decimal(have), Decimal(whole), Decimal(held))
    assert tuple(Decimal(one) for one in expected) == (bar.have, bar.held)
