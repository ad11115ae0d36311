"""Every transaction is bound to an organization, ends clean, and says when it kept nothing."""

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from farebox.postgres.session import (
    Pool,
    UnsafeRole,
    bound,
    open_pool,
    refuse_unsafe_role,
    transaction,
)


def change_and(then: Callable[[], object], connection: psycopg.Connection) -> None:
    connection.execute("update organization set name = 'changed'")
    then()


def swallow(connection: psycopg.Connection) -> None:
    with suppress(psycopg.errors.DivisionByZero):
        connection.execute("select 1 / 0")


def terminate(superuser_url: str, connection: psycopg.Connection) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as killer:
        killer.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
    connection.execute("select 1")


def test_an_error_rolls_back_and_returns_a_clean_connection(
    pool: Pool, organization_id: UUID
) -> None:
    with pool.connection() as connection:
        with pytest.raises(ZeroDivisionError), bound(connection, organization_id):
            change_and(lambda: 1 // 0, connection)
        assert TransactionStatus.IDLE is connection.info.transaction_status
        with bound(connection, organization_id):
            assert [("Test",)] == connection.execute("select name from organization").fetchall()


def test_an_error_of_the_database_rolls_back(pool: Pool, organization_id: UUID) -> None:
    with pool.connection() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), bound(connection, organization_id):
            change_and(lambda: connection.execute("select 1 / 0"), connection)
        with bound(connection, organization_id):
            assert [("Test",)] == connection.execute("select name from organization").fetchall()


def test_a_swallowed_error_is_not_taken_for_a_commit(pool: Pool, organization_id: UUID) -> None:
    """PostgreSQL answers COMMIT of a failed transaction with ROLLBACK; nobody may miss that."""
    with pool.connection() as connection:
        with (
            pytest.raises(psycopg.errors.InFailedSqlTransaction),
            bound(connection, organization_id),
        ):
            change_and(lambda: swallow(connection), connection)
        with bound(connection, organization_id):
            assert [("Test",)] == connection.execute("select name from organization").fetchall()


def test_a_lost_connection_is_replaced(
    superuser_url: str, runtime_url: str, organization_id: UUID
) -> None:
    pool = open_pool(runtime_url, size=1)
    try:
        with (
            pytest.raises(psycopg.OperationalError),
            transaction(pool, organization_id) as connection,
        ):
            terminate(superuser_url, connection)
        with transaction(pool, organization_id) as connection:
            assert (1,) == connection.execute("select count(*) from organization").fetchone()
    finally:
        pool.close()


def test_a_snapshot_sees_one_instant_and_writes_nothing(pool: Pool, organization_id: UUID) -> None:
    with transaction(pool, organization_id, snapshot=True) as reading:
        before = reading.execute("select name from organization").fetchone()
        with transaction(pool, organization_id) as writing:
            writing.execute("update organization set name = 'changed'")
        assert before == reading.execute("select name from organization").fetchone()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reading.execute("update organization set name = 'mine'")
        reading.execute("rollback; begin")


def test_the_organization_ends_with_its_transaction(
    pool: Pool, new_organization: Callable[[], UUID]
) -> None:
    one, two = new_organization(), new_organization()
    with pool.connection() as connection:
        for organization_id in (one, two):
            with bound(connection, organization_id):
                found = connection.execute("select organization_id from organization").fetchall()
                assert [(organization_id,)] == found
            assert [] == connection.execute("select from organization").fetchall()


def test_rows_of_another_organization_cannot_be_read_or_written(
    pool: Pool, new_organization: Callable[[], UUID]
) -> None:
    mine, other = new_organization(), new_organization()
    with transaction(pool, mine) as connection:
        for statement in (
            "select from watermark where organization_id = %s",
            "select from stream_head where organization_id = %s for update",
        ):
            assert [] == connection.execute(statement, (other,)).fetchall()
        for statement in (
            "update watermark set sequence = 9 where organization_id = %s",
            "update organization set name = 'stolen' where organization_id = %s",
        ):
            assert 0 == connection.execute(statement, (other,)).rowcount
    for statement in (
        "insert into number_sequence values (%s, 'default', 1)",
        "insert into event_key values (%s, gen_random_uuid(), gen_random_uuid(), 1)",
        "insert into event (organization_id, sequence, received_at, time, source, id, type,"
        " payload) values (%s, 1, now(), now(), 's', 'i', 't', '{}')",
        "update watermark set organization_id = %s",
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            transaction(pool, mine) as connection,
        ):
            connection.execute(statement, (other,))


def test_copy_into_a_protected_table_is_refused(pool: Pool, organization_id: UUID) -> None:
    with (
        pytest.raises(psycopg.errors.FeatureNotSupported),
        transaction(pool, organization_id) as connection,
        connection.cursor().copy("copy event_key from stdin") as copy,
    ):
        copy.write("")


@pytest.mark.parametrize(
    "table", ["event", "event_key", "catalog_version", "series", "void", "invoice_line"]
)
def test_what_is_written_once_cannot_be_updated(
    pool: Pool, organization_id: UUID, table: str
) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        transaction(pool, organization_id) as connection,
    ):
        connection.execute(
            sql.SQL("update {} set organization_id = organization_id").format(sql.Identifier(table))
        )


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ("alter role {role} bypassrls", "bypasses"),
        ("grant farebox_owner to {role}", "owns"),
        # Not inherited, but `set role` would do.
        ("alter role {role} noinherit; grant farebox_owner to {role}", "owns"),
        ("create role sly_{role} bypassrls; grant sly_{role} to {role}", "bypasses"),
    ],
)
def test_a_role_that_could_become_another_is_refused(
    superuser_url: str, owner_url: str, prepare: str, reason: str
) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute("create role sly login password 'sly'; grant farebox_runtime to sly")
    url = make_conninfo(owner_url, user="sly", password="sly")
    with psycopg.connect(url) as connection:
        refuse_unsafe_role(connection)
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(prepare.format(role="sly").encode())
    try:
        with psycopg.connect(url) as connection, pytest.raises(UnsafeRole, match=reason):
            refuse_unsafe_role(connection)
    finally:
        with psycopg.connect(superuser_url, autocommit=True) as connection:
            connection.execute("drop role sly; drop role if exists sly_sly")
