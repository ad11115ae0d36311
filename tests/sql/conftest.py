"""What SQL tests share: the world of pools (`flows/pools.py`), and `ledgers.py` beside this."""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from farebox.postgres.session import Pool

_HERE = Path(__file__).parent
_numbers = count()
# Tests are no package, so the modules are loaded by their places and known by names of their own.
for _known_as, _place in (
    ("farebox_pools", _HERE.parent / "flows" / "pools.py"),
    ("farebox_ledgers", _HERE / "ledgers.py"),
):
    if _known_as not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_known_as, _place)
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_known_as] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_known_as])

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


@pytest.fixture
def empty_url(superuser_url: str, owner_url: str) -> Iterator[str]:
    """Return the owner's URL of an empty database."""
    name = f"migrate_{next(_numbers)}"
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"create database {name} owner farebox_owner".encode())
    yield make_conninfo(owner_url, dbname=name)
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())
