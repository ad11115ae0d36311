"""A grant asked for again under its key is the one that is there, whatever became of it since."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from farebox_alerts import Watched
from farebox_pools import Pools, WasRefused

from farebox.ledger.grant import Basis, Grant, GrantStatus

D = Decimal


@pytest.fixture
def pools(watched: Watched) -> Pools:
    watched.pools.put("tokens")
    return watched.pools


def asked(pools: Pools, **other: Any) -> Grant:
    """Ask for the order, but for what is other in it."""
    fields: dict[str, Any] = {
        "amount": "100",
        "key": "order-1",
        "basis": Basis.PURCHASED,
        "expires_at": datetime.fromisoformat("2026-11-01T00:00:00+00:00"),
        "metadata": {"b": "2", "a": "1"},
        **other,
    }
    return pools.grant("tokens", fields.pop("amount"), **fields)


def code(pools: Pools, **other: Any) -> str:
    with pytest.raises(WasRefused) as refused:
        asked(pools, **other)
    return str(refused.value)


@pytest.mark.parametrize("verb", ["void", "expire"])
@pytest.mark.parametrize("held", [0, 30])
def test_taken_back_or_expired_by_hand_it_is_answered_as_it_stands(
    pools: Pools, verb: str, held: int
) -> None:
    first = asked(pools)
    if held:
        pools.hold("tokens", held)
    pools.later(minutes=1)
    pools.change("tokens", first, verb)
    again = asked(pools)
    assert (first.number, D(0), D(held), pools.now) == (
        again.number,
        again.available,
        again.held,
        again.expires_at,
    )
    assert "grant_key_reused" == code(pools, expires_at=pools.now)
    assert 0 == pools.book("tokens").pool.available


def test_paid_used_up_or_expired_by_itself_it_is_answered_as_it_stands(pools: Pools) -> None:
    pending = asked(pools, pending=True)
    assert GrantStatus.PENDING is pending.status
    pools.change("tokens", pending, "pay")
    pools.draw("tokens", 60)
    assert (GrantStatus.ACTIVE, D(40)) == _standing(asked(pools, pending=True))
    assert "grant_key_reused" == code(pools, pending=False)
    pools.later(days=31)  # nobody has looked since it expired
    assert (GrantStatus.CLOSED, D(0)) == _standing(asked(pools, pending=True))
    assert (GrantStatus.CLOSED, D(0)) == _standing(asked(pools, pending=True))


def _standing(grant: Grant) -> tuple[GrantStatus, Decimal]:
    return grant.status, grant.available


def test_the_same_written_in_another_way_is_the_same(pools: Pools) -> None:
    first = asked(pools)
    india = timezone(timedelta(hours=5, minutes=30))
    other = datetime(2026, 11, 1, 5, 30, tzinfo=india)
    metadata = {"a": "1", "b": "2"}
    again = asked(pools, amount="100.00", expires_at=other, metadata=metadata)
    assert first.number == again.number


@pytest.mark.parametrize(
    "other",
    [
        {"amount": "100.000000000000000001"},
        {"amount": "10000000000000000000.000000000000000001"},
        {"basis": Basis.PROMOTIONAL},
        {"priority": 1},
        {"effective_at": datetime.fromisoformat("2026-10-02T12:00:00+00:00")},
        {"expires_at": None},
        {"pending": True},
        {"metadata": {}},
    ],
)
def test_whatever_is_other_makes_it_another_request(pools: Pools, other: dict[str, Any]) -> None:
    asked(pools)
    assert "grant_key_reused" == code(pools, **other)
    assert D(100) == pools.book("tokens").pool.available


def test_grants_without_a_key_are_each_their_own(pools: Pools) -> None:
    assert asked(pools, key=None).number != asked(pools, key=None).number


def test_the_ledger_stays_provable(pools: Pools) -> None:
    pools.change("tokens", asked(pools), "void")
    asked(pools)
    assert [] == pools.verify()
