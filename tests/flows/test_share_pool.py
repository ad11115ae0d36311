"""Shares that are moved, taken away and put back: what they used is counted, once, for somebody."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from farebox_pools import Pools, Share, new_id, refused

from farebox.ledger.command import Draw, Release, Settle
from farebox.ledger.policy import Policy, Renewal
from farebox.period.cycle import Unit
from farebox.postgres.session import Pool

NOON = datetime(2026, 10, 2, 12, tzinfo=UTC)
TEAM = Share(key="team", cap=Decimal(100))
DAILY = Policy(renewal=Renewal(unit=Unit.DAY), hold_seconds_max=86_400 * 3)


@pytest.fixture
def pools(pool: Pool, new_organization: Callable[[], UUID]) -> Pools:
    pools = Pools(pool, new_organization(), NOON)
    pools.put("p", DAILY)
    pools.grant("p", 10_000)
    return pools


def person(name: str, parent: str | None = "team") -> Share:
    return Share(key=name, parent=parent)


def used(pools: Pools) -> dict[str, Decimal]:
    return {one.key: one.used for one in pools.book("p").shares.present()}


def draw(pools: Pools, amount: int, **whose: str) -> None:
    pools.draw("p", amount, key=str(new_id()), digest="0" * 32, **whose)


def test_a_team_keeps_the_use_of_a_share_that_was_taken_away(pools: Pools) -> None:
    pools.share("p", TEAM, person("ann"), person("bob"))
    draw(pools, 70, subject="ann")
    pools.share("p", TEAM, person("bob"))
    assert {"team": 70, "bob": 0} == used(pools)
    past = Draw(amount=Decimal(31), subject="bob", key="k", digest="0" * 32)
    assert "allotment_cap_exceeded" == refused(pools.ask("p", past))
    assert [] == pools.verify()


def test_a_share_that_comes_back_has_what_it_used(pools: Pools) -> None:
    pools.share("p", TEAM, person("ann"))
    draw(pools, 70, subject="ann")
    pools.share("p", TEAM)
    pools.share("p", TEAM, person("ann"))
    assert {"team": 70, "ann": 70} == used(pools)
    assert [] == pools.verify()


def test_a_share_that_is_moved_takes_its_use_along(pools: Pools) -> None:
    other = Share(key="other", cap=Decimal(100))
    pools.share("p", TEAM, other, person("ann"))
    draw(pools, 70, subject="ann")
    pools.share("p", TEAM, other, person("ann", "other"))
    assert {"team": 0, "other": 70, "ann": 70} == used(pools)
    assert [] == pools.verify()


def test_a_team_that_is_taken_away_with_its_shares_leaves_its_use_above(pools: Pools) -> None:
    whole = Share(key="whole", cap=Decimal(100))
    team = Share(key="team", parent="whole")
    pools.share("p", whole, team, person("ann"))
    draw(pools, 70, subject="ann")
    pools.share("p", whole)
    assert {"whole": 70} == used(pools)
    pools.later(days=1)
    draw(pools, 1, subject="ann")
    assert {"whole": 0} == used(pools)
    assert [] == pools.verify()


def test_what_a_share_that_is_gone_holds_is_settled_and_given_back(pools: Pools) -> None:
    pools.share("p", TEAM, person("ann"))
    first, second = (pools.hold("p", 20, subject="ann", seconds=86_400 * 2) for _ in range(2))
    pools.share("p", TEAM)
    pools.release("p", first)
    assert {"team": 20} == used(pools)
    pools.later(days=1)
    pools.settle("p", second, 25)
    assert {"team": 25} == used(pools)
    assert [] == pools.verify()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_becomes_of_shares_their_use_is_what_the_ledger_says(
    pools: Pools, seed: int
) -> None:
    random, holds, draws = Random(seed), list[int](), list[int]()
    names = ["a", "b", "c", "d", "e"]
    for _ in range(60):
        who, units = random.choice(names), random.randint(1, 9)
        match random.choice("ssddhhrgwww"):
            case "s":
                some = random.sample(names, random.randint(0, 5))
                parents = [None, *some]
                shares = [
                    Share(key=name, parent=random.choice(parents[: place + 1]))
                    for place, name in enumerate(some)
                ]
                pools.share("p", *shares)
            case "d":
                draws.append(pools.draw("p", units, subject=who).operation)
            case "h":
                seconds = random.choice([60, 86_400 * 2])
                holds.append(pools.hold("p", units, subject=who, seconds=seconds))
            case "r" if draws:
                pools.reverse("p", draws.pop(random.randrange(len(draws))))
            case "g" if holds:
                hold = holds.pop(random.randrange(len(holds)))
                pools.ask(
                    "p",
                    random.choice([Release(hold=hold), Settle(hold=hold, amount=Decimal(units))]),
                )
            case _:
                pools.later(seconds=random.choice([1, 3600, 40_000]))
        assert [] == pools.verify()
