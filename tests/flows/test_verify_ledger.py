"""The proof of the ledger: silent where all is well, and every kind of damage is found and named.

A world in which everything happened stands in a database of its own; each test damages a copy.
"""

import importlib.util
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from farebox.cli.settings import read_settings
from farebox.cli.verify import verify
from farebox.flows import verify_ledger as flow
from farebox.ledger.account import Account
from farebox.ledger.reason import Reason
from farebox.postgres import access
from farebox.postgres.migrate import migrate
from farebox.postgres.session import Pool, open_pool, transaction, unbound
from farebox.postgres.verify import FaultCode, Finding

for _name, _file in (("farebox_pools", "pools.py"), ("farebox_damage", "ledger_damage.py")):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(_file))
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])

from farebox_damage import DAMAGE, PLAIN  # noqa: E402
from farebox_pools import Pools, Share, live_through_two_months, new_id  # noqa: E402

MONTH = datetime(2026, 10, 2, 12, tzinfo=UTC)
KEY = "lived"


class Copy:
    """A database in which pools lived, and may be damaged."""

    def __init__(self, owner_url: str, runtime_url: str, pool: Pool, organization_id: UUID) -> None:
        self.owner_url, self.runtime_url = owner_url, runtime_url
        self.pool, self.organization_id = pool, organization_id

    def damage(self, *statements: str) -> None:
        """Write as the owner of the tables, whom no policy binds."""
        with psycopg.connect(self.owner_url) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def verify(self) -> list[Finding]:
        found: list[Finding] = []
        flow.verify_ledger(self.pool, self.organization_id, found.append)
        return found


@pytest.fixture(scope="module")
def lived(superuser_url: str, owner_url: str, runtime_url: str) -> Iterator[tuple[str, UUID]]:
    """Return the name of a database in which two months of everything passed."""
    name = f"farebox_lived_{new_id().hex}"
    with psycopg.connect(superuser_url, autocommit=True) as server:
        server.execute(f"create database {name} owner farebox_owner")
    migrate(make_conninfo(owner_url, dbname=name))
    organization_id = new_id()
    with open_pool(make_conninfo(runtime_url, dbname=name), size=2) as pool:
        with unbound(pool) as connection:
            access.create_organization(connection, organization_id, KEY, "Lived", MONTH)
        live_through_two_months(Pools(pool, organization_id, MONTH))
    yield name, organization_id
    with psycopg.connect(superuser_url, autocommit=True) as server:
        server.execute(f"drop database {name} with (force)")


@pytest.fixture
def copy(
    lived: tuple[str, UUID], superuser_url: str, owner_url: str, runtime_url: str
) -> Iterator[Copy]:
    name, organization_id = lived
    copied = f"{name}_copy"
    with psycopg.connect(superuser_url, autocommit=True) as server:
        server.execute(f"create database {copied} template {name} owner farebox_owner")
        urls = [make_conninfo(url, dbname=copied) for url in (owner_url, runtime_url)]
        with open_pool(urls[1], size=2) as pool:
            yield Copy(*urls, pool, organization_id)
        server.execute(f"drop database {copied} with (force)")


def test_a_world_with_everything_in_it_is_proved(copy: Copy) -> None:
    assert [] == copy.verify()
    with transaction(copy.pool, copy.organization_id) as connection:
        moved = connection.execute("select reason, source, target from transfer").fetchall()
    assert set(Reason) == {reason for reason, *_ in moved}
    assert set(Account) == {account for _, *accounts in moved for account in accounts}


def test_every_kind_of_finding_has_its_damage() -> None:
    named = {code for _, findings in DAMAGE.values() for _, code, _ in findings}
    assert set(FaultCode) == named


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(copy: Copy, kind: str) -> None:
    statements, named = DAMAGE[kind]
    copy.damage(*statements.split(";"))
    found = copy.verify()
    for pool, code, place in named:
        assert [one for one in found if (one.pool, one.code) == (pool, code) and place in one.place]
    assert {pool for pool, *_ in named} >= {one.pool for one in found}, "others are not blamed"


def test_a_finding_says_what_was_expected_and_what_is_there(copy: Copy) -> None:
    copy.damage(f"update transfer set available_after = 1 {PLAIN} and sequence = 1")
    place, code = "transfer 1, available_after", FaultCode.CHAIN_BROKEN
    assert [Finding("plain", code, place, expected="50", found="1")] == copy.verify()


def test_small_pages_find_the_same(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is bounded by pools and by transfers; one pool may have more than a page."""
    copy.damage("update pool set transit = transit + 1", f"delete from transfer {PLAIN}")
    whole = copy.verify()
    monkeypatch.setattr(flow, "POOLS_A_PAGE", 4)
    monkeypatch.setattr(flow, "TRANSFERS_A_PAGE", 60)
    pages: list[tuple[int, int]] = []
    found: list[Finding] = []

    def note(done: flow.Verified) -> None:
        pages.append((done.pools, done.transfers))

    done = flow.verify_ledger(copy.pool, copy.organization_id, found.append, note)
    assert sorted(whole, key=repr) == sorted(found, key=repr)
    assert len(found) == done.findings
    assert (9, done.total) == pages[-1]
    assert 4 < len(pages)
    for (pools, transfers), (more_pools, more_transfers) in pairwise([(0, 0), *pages]):
        looked_at = more_pools - pools
        assert looked_at == 1 or (looked_at <= 4 and more_transfers - transfers <= 60)


def test_another_organization_is_not_looked_at(copy: Copy) -> None:
    other = new_id()
    with unbound(copy.pool) as connection:
        access.create_organization(connection, other, "other", "Other", MONTH)
    Pools(copy.pool, other, MONTH).put("empty")
    copy.damage(f"delete from transfer {PLAIN}")
    found: list[Finding] = []
    assert flow.Verified(pools=1) == flow.verify_ledger(copy.pool, other, found.append)


def test_the_command_prints_findings_and_a_summary(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read_settings({"FAREBOX_DATABASE_URL": copy.runtime_url})
    assert 0 == verify(settings, None)
    assert 0 == verify(settings, KEY)
    for line in capsys.readouterr().out.splitlines():
        assert re.fullmatch(r"9 pools, 2\d\d transfers, \d+\.\d seconds: nothing wrong", line)

    copy.damage(f"update transfer set available_after = 1 {PLAIN} and sequence = 1")
    assert 1 == verify(settings, None)
    finding, summary = capsys.readouterr().out.splitlines()
    place = "transfer 1, available_after"
    assert f"lived/plain: chain_broken: {place}: expected 50, there is 1" == finding
    assert summary.endswith("seconds: 1 finding")


def test_the_command_knows_its_organizations(copy: Copy) -> None:
    settings = read_settings({"FAREBOX_DATABASE_URL": copy.runtime_url})
    with pytest.raises(SystemExit, match="there is no organization 'nobody'"):
        verify(settings, "nobody")


@pytest.fixture
def pools(pool: Pool, organization_id: UUID) -> Pools:
    """Return a pool of which three shares were used: a, b, and c within a."""
    found = Pools(pool, organization_id, MONTH)
    found.put("pool")
    found.grant("pool", 100)
    found.share("pool", Share(key="a"), Share(key="b"), Share(key="c", parent="a"))
    for number, share in enumerate("abc", 1):
        found.draw("pool", number, subject=share)
        found.hold("pool", number * 10, subject=share)
    return found


@pytest.mark.parametrize(
    "puts",
    [
        [[Share(key="a"), Share(key="b"), Share(key="c", parent="b")]],
        [[Share(key="a"), Share(key="b"), Share(key="c")]],
        [[Share(key="a"), Share(key="b")]],
        [[Share(key="a")], [Share(key="a"), Share(key="b"), Share(key="c", parent="a")]],
    ],
    ids=["hung elsewhere", "taken out", "taken away", "away for a while"],
)
def test_shares_that_change_in_mid_period_count_what_is_below_them(
    pools: Pools, puts: list[list[Share]]
) -> None:
    for shares in puts:
        pools.share("pool", *shares)
    assert [] == pools.verify()


def test_shares_that_stay_where_they_are_keep_what_they_used(pools: Pools) -> None:
    before = pools.book("pool").shares.by_key
    pools.share(
        "pool", Share(key="c", parent="a"), Share(key="a", weight=1), Share(key="b"), Share(key="d")
    )
    after = pools.book("pool").shares.by_key
    assert {key: one.used for key, one in before.items()} | {"d": 0} == {
        key: one.used for key, one in after.items()
    }
    assert [] == pools.verify()
