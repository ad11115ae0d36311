"""The one place that opens transactions: each is bound to one organization, reads included."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

Pool = ConnectionPool[psycopg.Connection]
AppendPool = AsyncConnectionPool[psycopg.AsyncConnection]


class UnsafeRole(RuntimeError):
    """The database role could bypass row-level security, so Farebox refuses to run with it."""


def open_pool(url: str, *, size: int = 12) -> Pool:
    """Open connections for the runtime role; raises UnsafeRole, psycopg.OperationalError."""
    pool: Pool = ConnectionPool(
        url,
        min_size=1,
        max_size=size,
        timeout=10,
        open=False,
        configure=_configure,
        check=ConnectionPool.check_connection,
    )
    pool.open(wait=True, timeout=15)
    with pool.connection() as connection:
        refuse_unsafe_role(connection)
    return pool


def _configure(connection: psycopg.Connection) -> None:
    connection.autocommit = True
    connection.prepare_threshold = 3
    connection.execute("set timezone = 'UTC'")


def append_pool(url: str, *, size: int = 4) -> AppendPool:
    """Return connections of the runtime role for an event loop, which has to open the pool.

    Each statement is a transaction by itself, and is one that names its organization.
    """
    return AsyncConnectionPool(
        url, min_size=1, max_size=size, timeout=10, open=False, configure=_configure_append
    )


async def _configure_append(connection: psycopg.AsyncConnection) -> None:
    await connection.set_autocommit(True)
    connection.prepare_threshold = 0
    await connection.execute("set timezone = 'UTC'")


def refuse_unsafe_role(connection: psycopg.Connection) -> None:
    """Raise UnsafeRole when the role is, or may become, one to which the policies do not apply.

    That is a superuser, one that bypasses row-level security, or the owner of a table.
    """
    # The role that logged in, and every role that it may set.
    row = connection.execute(
        "select bool_or(r.rolsuper), bool_or(r.rolbypassrls), exists (select from pg_class c"
        "   join pg_namespace n on n.oid = c.relnamespace"
        "   where n.nspname = 'public' and c.relkind in ('r', 'p')"
        "   and pg_has_role(session_user, c.relowner, 'member'))"
        " from pg_roles r where pg_has_role(session_user, r.oid, 'member')"
    ).fetchone()
    assert row is not None
    for unsafe, reason in zip(
        row, ("is a superuser", "bypasses row-level security", "owns tables"), strict=True
    ):
        if unsafe:
            raise UnsafeRole(
                f"the database role {reason}; connect as a member of farebox_runtime that does not"
            )


@contextmanager
def transaction(
    pool: Pool, organization_id: UUID, *, snapshot: bool = False
) -> Iterator[psycopg.Connection]:
    """Run the block in one transaction that sees and writes only `organization_id`.

    snapshot: every statement sees the same instant (repeatable read) and none may write.
    """
    with pool.connection() as connection, bound(connection, organization_id, snapshot=snapshot):
        yield connection


@contextmanager
def bound(
    connection: psycopg.Connection, organization_id: UUID, *, snapshot: bool = False
) -> Iterator[None]:
    """As `transaction`, on a connection at hand (autocommit, no transaction under way)."""
    mode = " isolation level repeatable read read only" if snapshot else ""
    # One round trip: the simple protocol takes several statements when none has parameters.
    connection.execute(f"begin{mode}; set local farebox.organization = '{organization_id}'")
    try:
        yield
    except BaseException:
        if not connection.closed:
            connection.execute("rollback")
        raise
    # PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, and no error.
    if connection.execute("commit").statusmessage != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("the transaction had failed; nothing was kept")


@contextmanager
def unbound(pool: Pool) -> Iterator[psycopg.Connection]:
    """A transaction of no organization: it sees no row, only the SECURITY DEFINER functions."""
    with pool.connection() as connection, connection.transaction():
        yield connection
