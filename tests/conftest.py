"""Real PostgreSQL for every test that asks: one embedded server a session, migrated once."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from farebox.access.id import uuidv7
from farebox.postgres import access, stream
from farebox.postgres.migrate import ensure_runtime_role, migrate
from farebox.postgres.server import cluster, process, supervisor
from farebox.postgres.server.binaries import Binaries, find
from farebox.postgres.server.layout import Layout
from farebox.postgres.server.temporary import temporary_server
from farebox.postgres.session import Pool, open_pool, unbound

OWNER, RUNTIME = "farebox_owner", "farebox_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults-long", action="store_true", help="kill ten times as often, by ten seeds"
    )
    parser.addoption(
        "--postgres", type=int, help="run on the system's PostgreSQL of this major version"
    )


def new_id() -> UUID:
    """Return a fresh time-ordered id."""
    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


@pytest.fixture(scope="session")
def superuser_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a server of this test session; `fsync` is on, as everywhere."""
    major = request.config.getoption("--postgres")
    with ExitStack() as stack:
        if major is not None:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(supervisor, "installed", lambda layout: system_binaries(layout, major))
            patch.setattr(cluster, "run", run_as_older)
        yield stack.enter_context(temporary_server()).superuser_url


def system_binaries(layout: Layout, major: int) -> Binaries:
    found = find(layout, major)
    if found is None:
        pytest.skip(f"this machine has no PostgreSQL {major}")
    return found


def run_as_older(command: list[str], *arguments: Any) -> Any:
    """Run a program without the options that PostgreSQL 17 brought."""
    unknown = ("--locale-provider=", "--sync-method=")
    given = [word for word in command if not word.startswith(unknown)]
    return process.run(
        [word.replace("--builtin-locale=", "--locale=") for word in given], *arguments
    )


@pytest.fixture(scope="session")
def owner_url(superuser_url: str) -> str:
    """Return the owner's URL of a migrated database named `farebox_test`."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"create role {OWNER} login createrole password 'owner'")
        connection.execute(f"create database farebox_test owner {OWNER}")
    url = make_conninfo(superuser_url, user=OWNER, password="owner", dbname="farebox_test")
    migrate(url)
    ensure_runtime_role(url, RUNTIME, "runtime")
    return url


@pytest.fixture(scope="session")
def runtime_url(owner_url: str) -> str:
    """Return the URL with which Farebox itself connects."""
    return make_conninfo(owner_url, user=RUNTIME, password="runtime")


@pytest.fixture(scope="session")
def pool(runtime_url: str) -> Iterator[Pool]:
    pool = open_pool(runtime_url)
    with unbound(pool) as connection:
        now = datetime.now(UTC)
        stream.ensure_partitions(connection, [now.date(), (now + timedelta(days=31)).date()])
    yield pool
    pool.close()


@pytest.fixture
def new_organization(pool: Pool) -> Callable[[], UUID]:
    """Return a function that makes an empty organization; row-level security keeps tests apart."""

    def make() -> UUID:
        organization_id = new_id()
        with unbound(pool) as connection:
            access.create_organization(
                connection, organization_id, str(organization_id), "Test", datetime.now(UTC)
            )
        return organization_id

    return make


@pytest.fixture
def organization_id(new_organization: Callable[[], UUID]) -> UUID:
    return new_organization()
