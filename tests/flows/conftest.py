"""The world of flow tests: see `world.py` beside this file."""

import importlib.util
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from farebox.postgres.session import Pool

# Tests are no package, so the module is loaded by its place and known by a name of its own.
_spec = importlib.util.spec_from_file_location(
    "farebox_world", Path(__file__).with_name("world.py")
)
assert _spec is not None
assert _spec.loader is not None
if "farebox_world" not in sys.modules:
    sys.modules["farebox_world"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_world"])

from farebox_world import World  # noqa: E402

for _name in (
    "pools",
    "pool_lines",
    "alerts",
    "late_shop",
    "burned_shop",
    "entitled_shop",
    "plan_turns",
):
    if f"farebox_{_name}" not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            f"farebox_{_name}", Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[f"farebox_{_name}"] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[f"farebox_{_name}"])

from farebox_alerts import Watched  # noqa: E402
from farebox_pools import Pools  # noqa: E402


@pytest.fixture
def new_world(pool: Pool, new_organization: Callable[[], UUID]) -> Callable[[], World]:
    """Return a function that makes an organization whose clock shows 2 October 2026, noon."""
    return lambda: World(pool, new_organization(), datetime(2026, 10, 2, 12, tzinfo=UTC))


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()


@pytest.fixture
def new_watched(pool: Pool, new_organization: Callable[[], UUID]) -> Callable[[], Watched]:
    """Return a function that makes an organization whose pools a test looks at."""
    start = datetime(2026, 10, 2, 12, tzinfo=UTC)
    return lambda: Watched(Pools(pool, new_organization(), start))


@pytest.fixture
def watched(new_watched: Callable[[], Watched]) -> Watched:
    return new_watched()
