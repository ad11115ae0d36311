"""Which database Farebox uses: a server of yours, by its URL, or one of its own."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from msgspec import Struct
from psycopg import sql

from farebox.postgres.migrate import admit_runtime_role, ensure_runtime_role, migrate
from farebox.postgres.server.supervisor import open_server

OWNER, RUNTIME = "farebox_owner", "farebox_app"


class DatabaseUrls(Struct, frozen=True):
    """How to connect: `runtime` to serve, `owner` (none: not known here) to migrate."""

    runtime: str
    owner: str | None


@contextmanager
def open_database(
    runtime_url: str | None, owner_url: str | None, data_directory: Path
) -> Iterator[DatabaseUrls]:
    """Yield a migrated database.

    With `runtime_url` that server is used, and migrated where `owner_url` is given. Without, the
    embedded server of `data_directory` is started, or joined where another process started it.
    Raises ServerError, psycopg.OperationalError, MigrationChanged.
    """
    if runtime_url is not None:
        if owner_url is not None:
            migrate(owner_url)
            admit_runtime_role(owner_url, runtime_url)
        yield DatabaseUrls(runtime_url, owner_url)
        return
    with open_server(data_directory) as server:
        passwords = _passwords(data_directory / "roles.json")
        with psycopg.connect(server.superuser_url, autocommit=True) as connection:
            _ensure_owner(connection, passwords[OWNER])
        owner = server.url(OWNER, passwords[OWNER])
        migrate(owner)
        ensure_runtime_role(owner, RUNTIME, passwords[RUNTIME])
        yield DatabaseUrls(server.url(RUNTIME, passwords[RUNTIME]), owner)


def _passwords(path: Path) -> dict[str, str]:
    """Return the roles' passwords, made once; processes that start together agree on them."""
    fresh = {OWNER: secrets.token_urlsafe(32), RUNTIME: secrets.token_urlsafe(32)}
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(fresh))
    try:
        # A link either appears whole or is refused because another process was first.
        os.link(draft, path)
    except FileExistsError:
        found: dict[str, str] = json.loads(path.read_text())
        return found
    finally:
        draft.unlink()
    return fresh


def _ensure_owner(connection: psycopg.Connection, password: str) -> None:
    # Two processes may start at the same moment; one of them makes the role.
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (0x66617265,))
        known = connection.execute("select 1 from pg_roles where rolname = %s", (OWNER,)).fetchone()
        verb = "alter role {} login password {}" if known else _CREATE_OWNER
        connection.execute(sql.SQL(verb).format(sql.Identifier(OWNER), sql.Literal(password)))
        database = connection.info.dbname
        connection.execute(
            sql.SQL("alter database {} owner to {}").format(
                sql.Identifier(database), sql.Identifier(OWNER)
            )
        )


_CREATE_OWNER = "create role {} login nosuperuser createrole password {}"
