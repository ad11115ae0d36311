"""The demo's pools: the same numbers every time, whatever the day on which it is run."""

from datetime import UTC, datetime

import pytest

from farebox.cli.demo import prepare
from farebox.cli.demo_pools import OFFERS, pool_findings, prepare_pools
from farebox.cli.example import example_events, examples_directory
from farebox.cli.runtime import Runtime, new_id
from farebox.flows.verify_ledger import verify_ledger
from farebox.postgres.database import DatabaseUrls
from farebox.postgres.pool import find_pool, refusals
from farebox.postgres.session import Pool, transaction
from farebox.postgres.verify import Finding

MONTH = datetime(2034, 10, 1, tzinfo=UTC)
EVENTS = list(example_events(examples_directory() / "llm", MONTH))


EXPECTED = {
    "northwind": (70_000_000, 54_176_979, 0),
    "kestrel-games": (30_000_000, 26_732_048, 0),
    "papaya-travel": (10_000_000, 15_276_054, 5_276_054),
    "tamarind-labs": (9_000_000, 10_609_733, 1_609_733),
}
"""Tokens granted, used and beyond the grants; what is not refused is what the trace used."""


@pytest.mark.parametrize("day", [1, 23])
def test_last_months_numbers_do_not_depend_on_the_day(
    pool: Pool, runtime_url: str, day: int
) -> None:
    runtime = Runtime(DatabaseUrls(runtime_url, None), pool)
    # Each day has an organization of its own, which is known by its month.
    organization_id = prepare(runtime, MONTH.replace(year=2040 + day))
    now = datetime(2034, 11, day, 12, tzinfo=UTC)
    for _ in range(2):  # the second time it changes nothing
        prepare_pools(pool, organization_id, MONTH, EVENTS, now, new_id)
    found = {
        one.customer: (int(one.granted), int(one.use.total.used), int(one.use.total.beyond))
        for one in pool_findings(pool, organization_id, MONTH)
    }
    assert EXPECTED == found
    assert set(OFFERS) == set(found)
    problems: list[Finding] = []
    verify_ledger(pool, organization_id, problems.append)
    assert [] == problems
    with transaction(pool, organization_id) as connection:
        low = find_pool(connection, organization_id, key="kestrel-games-tokens")
        assert low is not None
        rows = refusals(
            connection, organization_id, pool_id=low.pool_id, since=MONTH, until=now, limit=1000
        )
    assert 100 < len(rows) < 1000
    assert {"insufficient_balance"} == {row.code for row in rows}
    assert any(row.resolved_at is not None for row in rows)
