"""What pools gave beyond their grants is found by the index of such entries, in any ledger."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from farebox.postgres import unpaid_beyond
from farebox.postgres.session import Pool, transaction

POOLS, DRAWS, BEYOND_EVERY = 300, 100, 50
START = datetime(2031, 9, 1, tzinfo=UTC)

# Each pool drew once a minute; every other pool, now and then, beyond its grants.
FILL = """
insert into pool (organization_id, pool_id, key, unit, status, definition, opened_at, timezone,
    version, sequence, as_of, source, pending, granted, held, used, overdraft, overage, burst,
    expired, transit, counters)
  select %(org)s, md5(%(org)s::text || n)::uuid, 'p' || lpad(n::text, 4, '0'), 'token', 'open',
    '{}', %(start)s, 'UTC', 1, %(draws)s, %(start)s, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}'
  from generate_series(1, %(pools)s) n;
insert into pool_subscription (organization_id, pool_id, first_sequence, priced_from)
  select %(org)s, md5(%(org)s::text || n)::uuid, 1, 1 from generate_series(1, %(pools)s) n;
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
    source_after, target_after, available_after, time)
  select %(org)s, md5(%(org)s::text || n)::uuid, d, d, 'drawn',
    case when n % 2 = 0 and d % %(every)s = 0 then 'overage' else 'grant' end, 'used', 1,
    0, 0, 0, %(start)s + d * interval '1 minute'
  from generate_series(1, %(pools)s) n, generate_series(1, %(draws)s) d
"""


@pytest.fixture(scope="module")
def filled(pool: Pool, owner_url: str) -> UUID:
    organization_id = UUID("01a1fde5-0000-7000-8000-000000000009")
    values = {
        "org": organization_id,
        "start": START,
        "pools": POOLS,
        "draws": DRAWS,
        "every": BEYOND_EVERY,
    }
    with psycopg.connect(owner_url) as connection:
        connection.execute(
            "select create_organization(%s, 'unbilled', 'Unbilled', now())", (organization_id,)
        )
        cursor = psycopg.ClientCursor(connection)
        for statement in FILL.replace(" % ", " %% ").split(";\n"):
            cursor.execute(statement.encode(), values)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("vacuum analyze pool, transfer, pool_subscription")
    return organization_id


class Explained:
    """Stands for a connection: notes which tables a statement reads through, and runs it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.read_through: set[str] = set()
        self.indexes: set[str] = set()

    def execute(self, statement: str, parameters: Any) -> Any:
        row = self._connection.execute(
            f"explain (format json) {statement}".encode(), parameters
        ).fetchone()
        assert row is not None
        self._walk(row[0][0]["Plan"])
        return self._connection.execute(statement.encode(), parameters)

    def _walk(self, node: dict[str, Any]) -> None:
        if node["Node Type"] == "Seq Scan":
            self.read_through.add(node["Relation Name"])
        self.indexes |= {node["Index Name"]} if "Index Name" in node else set()
        for child in node.get("Plans", ()):
            self._walk(child)


def test_pools_that_went_beyond_are_found_by_the_index_of_such_entries(
    pool: Pool, filled: UUID
) -> None:
    with transaction(pool, filled) as connection:
        explained: Any = Explained(connection)
        keys = unpaid_beyond.pools_costing(explained, filled, after="p0100", limit=20)
        found = unpaid_beyond.unpaid_beyond(
            explained, filled, keys, START, START + timedelta(minutes=60)
        )
    assert [f"p{number:04}" for number in range(102, 142, 2)] == keys
    assert [(key, Decimal(1), 1) for key in keys] == [
        (one.pool, one.units, one.operations) for one in found
    ]
    assert "transfer" not in explained.read_through
    assert "transfer_beyond" in explained.indexes
