"""What every command that touches data works with: the database, the time, fresh ids."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from msgspec import Struct

from farebox.access.id import uuidv7
from farebox.cli.settings import Settings
from farebox.period.clock import SteadyClock
from farebox.postgres import access
from farebox.postgres.database import DatabaseUrls, open_database
from farebox.postgres.session import Pool, open_pool, unbound
from farebox.worker.jobs import make_partitions


def clock() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


def steady_clock() -> SteadyClock:
    """Return a clock for a process that runs for long."""
    # The first also counts the time in which a machine is suspended; where there is none the
    # other does.
    counter = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return SteadyClock(time.time, lambda: time.clock_gettime(counter))


def new_id() -> UUID:
    """Return a fresh time-ordered id."""
    return uuidv7(time.time_ns() // 1_000_000, os.urandom(10))


class Runtime(Struct, frozen=True):
    """An open, migrated database."""

    urls: DatabaseUrls
    pool: Pool


@contextmanager
def open_runtime(settings: Settings) -> Iterator[Runtime]:
    """Open the database that the settings name, starting the embedded one where it is theirs."""
    if settings.owner_database_url is not None and settings.database_url is None:
        # Else the embedded database would be served, and the one that was meant stay empty.
        raise SystemExit(
            "farebox: FAREBOX_OWNER_DATABASE_URL is set and FAREBOX_DATABASE_URL is not;"
            " set both, or neither for the embedded database"
        )
    with open_database(
        settings.database_url, settings.owner_database_url, settings.data_directory
    ) as urls:
        # A pool would go on trying; a person wants to hear at once what is wrong.
        psycopg.connect(urls.runtime, connect_timeout=10).close()
        pool = open_pool(urls.runtime)
        try:
            make_partitions(pool, clock())
            yield Runtime(urls, pool)
        finally:
            pool.close()


def organization_of(runtime: Runtime, key: str) -> UUID:
    """Return the organization with this key; ends the command where there is none."""
    with unbound(runtime.pool) as connection:
        organization_id = access.find_organization(connection, key)
    if organization_id is None:
        raise SystemExit(f"farebox: there is no organization {key!r} on this installation")
    return organization_id
