"""The worlds of intake tests: see `flows/world.py`, `flows/pools.py` and `desk.py`."""

import importlib.util
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from farebox.postgres.session import Pool

_TESTS = Path(__file__).parents[1]
# Tests are no package, so each module is loaded by its place and known by a name of its own.
for _name, _path in (
    ("farebox_world", "flows/world.py"),
    ("farebox_pools", "flows/pools.py"),
    ("farebox_desk", "intake/desk.py"),
):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, _TESTS / _path)
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])

from farebox_desk import Desk  # noqa: E402
from farebox_pools import Pools  # noqa: E402
from farebox_world import World  # noqa: E402

from farebox.intake.authorize import Decider  # noqa: E402
from farebox.intake.intake import Intake  # noqa: E402


@pytest.fixture
def new_world(pool: Pool, new_organization: Callable[[], UUID]) -> Callable[[], World]:
    """Return a function that makes an organization whose clock shows 2 October 2026, noon."""
    return lambda: World(pool, new_organization(), datetime(2026, 10, 2, 12, tzinfo=UTC))


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()


@pytest.fixture
def pools(pool: Pool, organization_id: UUID) -> Pools:
    """Return an organization with a pool of 100 units, and one that is empty."""
    found = Pools(pool, organization_id, datetime(2026, 10, 2, 12, tzinfo=UTC))
    found.put("pool")
    found.put("empty")
    found.grant("pool", 100)
    return found


@pytest.fixture
def intake(pools: Pools, runtime_url: str) -> Intake:
    return Intake(pools.pool, runtime_url, pools.clock)


@pytest.fixture
def decider(pools: Pools, intake: Intake) -> Decider:
    return intake.decider(pools.organization_id)


@pytest.fixture
def desk(pools: Pools, decider: Decider) -> Desk:
    return Desk(pools, decider)
