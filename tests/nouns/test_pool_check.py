"""What is wrong with a pool in itself is named, and where."""

from decimal import Decimal
from typing import Any

import pytest

from farebox.catalog.code import CatalogCode
from farebox.ledger.administer import NewRecurrence
from farebox.ledger.policy import Burst, Limit, LimitMode, Policy, Renewal, TopUp
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.pool_check import TIMES_MAX, PoolCode, check_pool, check_recurrence

D = Decimal
CAP = Limit(spend_cap=D(9))
BURST = Burst(units=D(5), price=D(1))


def wrong(**policy: Any) -> list[tuple[str, str]]:
    pool = PoolDefinition(key="p", unit="token", policy=Policy(currency="USD", **policy))
    return [(one.code, one.pointer) for one in check_pool(pool)]


def topped_up(times: int) -> TopUp:
    return TopUp(below=D(1), amount=D(10), cost=D(1), times=times)


@pytest.mark.parametrize(
    ("policy", "code", "pointer"),
    [
        ({"top_up": topped_up(0)}, PoolCode.TIMES_OUT_OF_RANGE, "/policy/top_up/times"),
        ({"top_up": topped_up(-1)}, PoolCode.TIMES_OUT_OF_RANGE, "/policy/top_up/times"),
        ({"top_up": topped_up(TIMES_MAX + 1)}, PoolCode.TIMES_OUT_OF_RANGE, "/policy/top_up/times"),
        (
            {"burst": Burst(units=D(0), price=D(1))},
            PoolCode.AMOUNT_NOT_POSITIVE,
            "/policy/burst/units",
        ),
        (
            {"burst": Burst(units=D(-1), price=D(1))},
            PoolCode.AMOUNT_NOT_POSITIVE,
            "/policy/burst/units",
        ),
        (
            {"limit": Limit(mode=LimitMode.UNLIMITED, units=D(9))},
            PoolCode.LIMIT_CONTRADICTORY,
            "/policy/limit",
        ),
        (
            {"limit": Limit(mode=LimitMode.UNLIMITED), "burst": Burst(units=D(1), price=D(1))},
            PoolCode.LIMIT_CONTRADICTORY,
            "/policy/limit",
        ),
        ({"limit": CAP}, PoolCode.LIMIT_CONTRADICTORY, "/policy/limit/spend_cap"),
        (
            {"limit": Limit(mode=LimitMode.SOFT, spend_cap=D(9))},
            PoolCode.LIMIT_CONTRADICTORY,
            "/policy/limit/spend_cap",
        ),
        (
            {"limit": Limit(mode=LimitMode.OVERDRAFT, units=D(5), spend_cap=D(9))},
            PoolCode.LIMIT_CONTRADICTORY,
            "/policy/limit/spend_cap",
        ),
        (
            {"limit": Limit(mode=LimitMode.OVERAGE, spend_cap=D(9))},
            PoolCode.LIMIT_CONTRADICTORY,
            "/policy/limit/spend_cap",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(
    policy: dict[str, Any], code: PoolCode, pointer: str
) -> None:
    assert [(code, pointer)] == wrong(**policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"top_up": topped_up(1)},
        {"top_up": topped_up(TIMES_MAX)},
        {"limit": CAP, "burst": BURST},
        {"limit": Limit(mode=LimitMode.OVERAGE, price=D(1), spend_cap=D(9))},
        {"limit": Limit(mode=LimitMode.OVERDRAFT, units=D(5), spend_cap=D(9)), "burst": BURST},
    ],
)
def test_what_has_one_is_not(policy: dict[str, Any]) -> None:
    assert [] == wrong(**policy)


def test_a_time_zone_is_pointed_at_once() -> None:
    pool = PoolDefinition(key="p", unit="token", timezone="Mars/Olympus")
    recurrence = NewRecurrence(
        key="monthly", amount=D(1), renewal=Renewal(), timezone="Mars/Olympus"
    )
    for problems in (check_pool(pool), check_recurrence(recurrence, None)):
        assert [(CatalogCode.UNKNOWN_TIMEZONE, "/timezone")] == [
            (one.code, one.pointer) for one in problems
        ]
