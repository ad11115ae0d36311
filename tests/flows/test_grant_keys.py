"""A grant asked for again under its key is the one that is there, whatever became of it since."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from farebox_alerts import Watched
from farebox_pools import Pools, WasRefused

from farebox.ledger.grant import Basis, Grant, GrantStatus, Recurrence, Rollover
from farebox.ledger.policy import Renewal
from farebox.period.cycle import Unit

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


def test_an_expired_grant_of_which_units_are_held_does_not_expire_again(pools: Pools) -> None:
    grant = pools.grant("tokens", 100, expires_at=pools.now + timedelta(hours=1))
    pools.hold("tokens", 30, seconds=7200)
    pools.later(hours=1, minutes=1)
    with pytest.raises(WasRefused, match="grant_closed"):
        pools.change("tokens", grant, "expire")
    assert grant.expires_at == pools.book("tokens").grants[grant.number].expires_at


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


def recurring(pools: Pools, **other: Any) -> Recurrence:
    """Ask for the monthly grant, but for what is other in it."""
    fields: dict[str, Any] = {
        "amount": "100",
        "renewal": Renewal(anchor_day=1),
        "rollover": Rollover(percent=D(50)),
        "ends_at": datetime.fromisoformat("2027-11-01T00:00:00+00:00"),
        **other,
    }
    return pools.recur("tokens", "monthly", fields.pop("amount"), **fields)


def test_so_is_a_recurring_grant(pools: Pools) -> None:
    first = recurring(pools)
    india = timezone(timedelta(hours=5, minutes=30))
    pools.later(days=40)
    again = recurring(
        pools,
        amount="100.00",
        rollover=Rollover(percent=D("50.0")),
        ends_at=datetime(2027, 11, 1, 5, 30, tzinfo=india),
    )
    assert first.number == again.number
    pools.stop_recurring("tokens", "monthly")
    ended = recurring(pools)
    assert (first.number, None, pools.now) == (ended.number, ended.next_at, ended.ends_at)


@pytest.mark.parametrize(
    "other",
    [
        {"amount": "100.000000000000000001"},
        {"priority": 1},
        {"basis": Basis.PURCHASED},
        {"cost": D(1)},
        {"renewal": Renewal(anchor_day=2)},
        {"renewal": Renewal(unit=Unit.WEEK, anchor_day=1)},
        {"timezone": "UTC"},
        {"starts_at": datetime.fromisoformat("2026-10-02T12:00:00+00:00")},
        {"ends_at": None},
        {"ends_at": datetime.fromisoformat("2027-11-02T00:00:00+00:00")},
        {"rollover": None},
        {"rollover": Rollover(percent=D(50), units=D(9))},
        {"prorated": True},
    ],
)
def test_another_recurring_grant_under_its_key_is_refused(
    pools: Pools, other: dict[str, Any]
) -> None:
    recurring(pools)
    with pytest.raises(WasRefused, match="grant_key_reused"):
        recurring(pools, **other)
    assert D(100) == pools.book("tokens").pool.available


@pytest.mark.parametrize("prorated", [False, True])
def test_one_whose_periods_began_before_it_was_asked_for_is_proved_too(
    pools: Pools, prorated: bool
) -> None:
    week = Renewal(unit=Unit.WEEK)
    recurring(pools, renewal=week, prorated=prorated, starts_at=pools.now - timedelta(days=100))
    assert [] == pools.verify()
    pools.later(days=10)
    pools.draw("tokens", 1)
    assert [] == pools.verify()


def test_one_of_a_version_that_kept_no_digests_is_known_by_what_it_is(
    pools: Pools, superuser_url: str
) -> None:
    first = recurring(pools)
    with psycopg.connect(superuser_url, dbname="farebox_test") as connection:
        forgotten = connection.execute(
            "update pool_recurrence set digest = null where pool_id = %s", (pools.ids["tokens"],)
        )
        assert 1 == forgotten.rowcount
    later = datetime.fromisoformat("2028-11-01T00:00:00+00:00")
    for other in (
        {"amount": "101"},
        {"rollover": None},
        {"timezone": "Asia/Tokyo"},
        {"ends_at": later},
    ):
        with pytest.raises(WasRefused, match="grant_key_reused"):
            recurring(pools, **other)
        assert first.number == recurring(pools, amount="100.0").number
    assert D(100) == pools.book("tokens").pool.available
