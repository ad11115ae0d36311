"""The world of intake tests: see `flows/world.py`."""

import importlib.util
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from farebox.postgres.session import Pool

_WORLD = Path(__file__).parent.parent / "flows" / "world.py"
# Tests are no package, so the module is loaded by its place and known by a name of its own.
_spec = importlib.util.spec_from_file_location("farebox_world", _WORLD)
assert _spec is not None
assert _spec.loader is not None
if "farebox_world" not in sys.modules:
    sys.modules["farebox_world"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_world"])

from farebox_world import World  # noqa: E402


@pytest.fixture
def new_world(pool: Pool, new_organization: Callable[[], UUID]) -> Callable[[], World]:
    """Return a function that makes an organization whose clock shows 2 October 2026, noon."""
    return lambda: World(pool, new_organization(), datetime(2026, 10, 2, 12, tzinfo=UTC))


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()
