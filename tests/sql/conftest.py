"""The world of pools of SQL tests: see `flows/pools.py`."""

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from farebox.postgres.session import Pool

_POOLS = Path(__file__).parent.parent / "flows" / "pools.py"
# Tests are no package, so the module is loaded by its place and known by a name of its own.
_spec = importlib.util.spec_from_file_location("farebox_pools", _POOLS)
assert _spec is not None
assert _spec.loader is not None
if "farebox_pools" not in sys.modules:
    sys.modules["farebox_pools"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_pools"])

from farebox_pools import Pools  # noqa: E402


@pytest.fixture
def pools(pool: Pool, organization_id: UUID) -> Pools:
    """Return an organization without pools whose clock shows 2 October 2026, noon."""
    return Pools(pool, organization_id, datetime(2026, 10, 2, 12, tzinfo=UTC))


@pytest.fixture
def two(pools: Pools) -> Pools:
    for key in ("one", "two"):
        pools.put(key)
        pools.grant(key, 100)
    return pools
