"""Many processes on the same pools at once: units are conserved, bounds hold, keys count once."""

import importlib.util
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from farebox.flows.share_pool import Share
from farebox.ledger.account import Account
from farebox.ledger.policy import BurnBy, Limit, LimitMode, Policy, TopUp
from farebox.postgres.session import Pool

_spec = importlib.util.spec_from_file_location(
    "farebox_pools", Path(__file__).with_name("pools.py")
)
assert _spec is not None
assert _spec.loader is not None
if "farebox_pools" not in sys.modules:
    sys.modules["farebox_pools"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_pools"])

from farebox_pools import HARD, Pools  # noqa: E402

RACER = Path(__file__).with_name("pool_racer.py")
Told = dict[str, Any]


@pytest.fixture
def pools(pool: Pool, organization_id: UUID) -> Pools:
    return Pools(pool, organization_id, datetime.now(UTC))


@pytest.fixture
def race(pools: Pools, runtime_url: str, tmp_path: Path) -> Callable[..., list[list[Told]]]:
    """Return a function that lets a process of each kind race, and returns what each was told.

    The ledger is proved meanwhile and afterwards.
    """

    def run(*kinds: str, **options: Any) -> list[list[Told]]:
        fixed = {
            "url": runtime_url,
            "organization": str(pools.organization_id),
            "pools": {key: str(pool_id) for key, pool_id in pools.ids.items()},
            "seed": 1,
            "policies": {},
        }
        racers, paths = [], []
        for place, kind in enumerate(kinds):
            path = tmp_path / f"told-{place}"
            own = {"kind": kind, "name": place, "told": str(path)}
            command = [sys.executable, str(RACER), json.dumps({**fixed, **options, **own})]
            racers.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            paths.append(path)
        try:
            watch(pools, racers)
        finally:
            for racer in racers:
                racer.kill()
                racer.communicate()
        return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]

    return run


def watch(pools: Pools, racers: "list[subprocess.Popen[str]]") -> None:
    """Let all begin, and prove the ledger until the last one is through."""
    for racer in racers:
        assert racer.stdout is not None
        assert "ready\n" == racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    while any(racer.poll() is None for racer in racers):
        assert [] == pools.verify(), "in the midst of it"
        time.sleep(0.3)
    assert [0] * len(racers) == [racer.returncode for racer in racers]
    assert [] == pools.verify()


def open_all(pools: Pools) -> dict[str, list[str]]:
    """Open pools with bounds of every kind; return the policies that operators change them to."""
    for key, (first, *_) in POLICIES.items():
        pools.put(key, first)
        for amount in (5, 4, 3):
            pools.grant(key, amount)
    shares = (
        Share(key="team", cap=SHARE_CAP, subjects=("ann",)),
        Share(key="bob", parent="team", cap=SHARE_CAP / 2),
    )
    pools.share("shared", *shares)
    return {
        key: [msgspec.json.encode(one).decode() for one in policies]
        for key, policies in POLICIES.items()
    }


OVERDRAFT, OVERAGE, SHARE_CAP = Decimal(25), Decimal(20), Decimal(12)
POLICIES = {
    "hot": [HARD, Policy(burn_order=(BurnBy.AGE,)), Policy(hold_seconds=5)],
    "owed": [
        Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=units)) for units in (OVERDRAFT, 20)
    ],
    "priced": [
        Policy(
            currency="EUR",
            limit=Limit(mode=LimitMode.OVERAGE, units=units, price=Decimal("0.5"), spend_cap=cap),
        )
        for units, cap in ((OVERAGE, None), (10, Decimal(9)))
    ],
    "shared": [HARD],
}


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_that_race_for_pools_keep_what_they_say(
    pools: Pools, race: Callable[..., list[list[Told]]], seed: int
) -> None:
    policies = open_all(pools)
    kinds = ("intake", "intake", "sync", "sync", "operator", "operator")
    everything = race(*kinds, seed=seed, numbers=150, policies=policies)
    audit_keys(pools, everything)
    audit_bounds(pools)


def audit_keys(pools: Pools, everything: list[list[Told]]) -> None:
    """Every key moved units once, and whoever was given an answer was given the same."""
    answers: dict[str, list[Told]] = defaultdict(list)
    grants: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for told in everything:
        granted: set[str] = set()
        for one in told:
            if "answer" in one:
                answers[one["key"]].append(one)
                granted.add(one["key"])
            elif "refused" in one:
                assert one["key"] not in granted, "what was granted is not refused later"
                assert "idempotency_key_reused" != one["refused"]
            elif "grant" in one:
                grants[one["key"]].add((one["grant"], one["amount"]))
    for key, told in answers.items():
        assert [told[0]["answer"]] * len(told) == [one["answer"] for one in told], key
        assert 1 == sum(one["fresh"] for one in told), key
    moved = pools.rows("select key, operation from transfer where key is not null")
    assert {key: told[0]["answer"]["operation"] for key, told in answers.items()} == dict(moved)
    assert len(moved) == len(answers)
    assert all(1 == len(one) for one in grants.values())
    stored = pools.rows("select key, number, amount from pool_grant where key is not null")
    assert {
        (key, number, Decimal(amount)) for key, of in grants.items() for number, amount in of
    } == {(key, number, amount) for key, number, amount in stored}


def audit_bounds(pools: Pools) -> None:
    """No pool went beyond its bound at any time, whatever came in between."""
    lowest = dict(
        pools.rows(
            "select p.key, min(least(available_after, case when t.source in"
            "  ('overdraft', 'overage', 'burst') then source_after else 0 end))"
            " from transfer t join pool p on p.pool_id = t.pool_id group by p.key"
        )
    )
    assert (0, 0) == (lowest["hot"], lowest["shared"])
    assert lowest["owed"] >= -OVERDRAFT
    assert lowest["priced"] >= -OVERAGE
    assert lowest["owed"] < 0, "it came so far"
    used = pools.rows("select key, used from allotment")
    assert {"team": True, "bob": True} == {
        key: amount <= (SHARE_CAP if key == "team" else SHARE_CAP / 2) for key, amount in used
    }
    given = {
        account: sum((book.balances[account] for book in all_pools(pools)), Decimal(0))
        for account in Account
    }
    assert 0 == sum(given.values())
    assert given[Account.USED] + given[Account.HELD] <= -given[Account.SOURCE] + OVERDRAFT + OVERAGE


def all_pools(pools: Pools) -> list[Any]:
    return [pools.book(key).pool for key in pools.ids]


def test_a_race_for_the_last_units_buys_once(
    pools: Pools, race: Callable[..., list[list[Told]]]
) -> None:
    """All see at once that little is left; whoever comes first tops up, and nobody else."""
    top_up = TopUp(below=Decimal(100), amount=Decimal(1000), cost=Decimal(7), times=1)
    pools.put("hot", Policy(currency="EUR", top_up=top_up))
    pools.grant("hot", 101)
    everything = race("intake", "intake", "sync", "sync", numbers=60)
    audit_keys(pools, everything)
    bought = [amount for reason, *_, amount in pools.transfers("hot") if reason == "topped_up"]
    assert [Decimal(1000)] == bought
    assert not any("refused" in one for told in everything for one in told if "first" in one["key"])


def test_two_processes_on_one_pool_both_keep_going(
    pools: Pools, race: Callable[..., list[list[Told]]], record_property: Callable[..., None]
) -> None:
    """Neither starves, and nobody waits long."""
    pools.put("hot")
    pools.grant("hot", 10_000_000)
    seconds = 2
    (alone,) = race("rate", seconds=seconds, clients=16)
    both = race("rate", "rate", seconds=seconds, clients=16)
    (one,), (other,) = both
    print(
        f"alone {alone[0]['draws'] / seconds:.0f} draws/s, two {one['draws'] / seconds:.0f}"
        f" and {other['draws'] / seconds:.0f}, longest wait {one['longest']:.3f} s"
        f" and {other['longest']:.3f} s"
    )
    fewest, most = sorted((one["draws"], other["draws"]))
    assert fewest > most / 10
    assert fewest > 50 * seconds
    assert max(one["longest"], other["longest"]) < 3
    total = alone[0]["draws"] + one["draws"] + other["draws"]
    assert total == pools.book("hot").pool.balances[Account.USED]
