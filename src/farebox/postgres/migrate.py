"""Bring a database to the newest schema: SQL files, forward only, each in one transaction.

Runs as the owner role. The runtime role is a member of the group `farebox_runtime`, owns nothing
and cannot bypass row-level security; this is where both are made sure of.
"""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

import psycopg
from procrastinate.schema import SchemaManager
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

_LOCK = 0x66617265  # "fare": one migration at a time, whoever starts it


class MigrationChanged(RuntimeError):
    """A migration that ran has another text now; history must not be rewritten."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"this database was made by another text of migration {name} than this version has;"
            " run the version that made it, or start with a new data directory"
        )
        self.name = name


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file, named `NNNN_what.sql`."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return the shipped migrations in the order in which they run."""
    folder = files("farebox.postgres") / "migrations"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return [Migration(entry.name, entry.read_text()) for entry in sorted(found, key=_name)]


def _name(entry: object) -> str:
    return str(getattr(entry, "name", ""))


def migrate(owner_url: str, steps: list[Migration] | None = None) -> list[str]:
    """Apply what is missing and return its names. Raises MigrationChanged."""
    applied: list[str] = []
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        _ensure_group(connection)
        connection.execute(
            "create table if not exists schema_migration"
            " (name text primary key, digest text not null, applied_at timestamptz not null)"
        )
        done: dict[str, str] = dict(
            connection.execute("select name, digest from schema_migration").fetchall()
        )
        for step in migrations() if steps is None else steps:
            if step.name in done:
                if done[step.name] != step.digest:
                    raise MigrationChanged(step.name)
                continue
            with connection.transaction():
                connection.execute(step.text.encode())
                connection.execute(
                    "insert into schema_migration values (%s, %s, clock_timestamp())",
                    (step.name, step.digest),
                )
            applied.append(step.name)
        _ensure_jobs(connection)
    return applied


def _ensure_jobs(connection: psycopg.Connection) -> None:
    """Give the job library its tables, in a schema of their own: they belong to no organization."""
    if connection.execute("select to_regnamespace('jobs')").fetchone() != (None,):
        return
    with connection.transaction():
        connection.execute("create schema jobs; set local search_path = jobs")
        connection.execute(SchemaManager.get_schema().encode())
        connection.execute(
            "grant usage on schema jobs to farebox_runtime;"
            "grant select, insert, update, delete on all tables in schema jobs to farebox_runtime;"
            "grant usage on all sequences in schema jobs to farebox_runtime"
        )


def ensure_runtime_role(owner_url: str, role: str, password: str) -> None:
    """Make `role` able to log in with `password` as a member of the runtime group, no more."""
    with psycopg.connect(owner_url) as connection:
        # Processes that start together would meet on the role's row, which PostgreSQL refuses.
        connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
        known = connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone()
        verb = sql.SQL("alter role {} login password {}" if known else _CREATE_ROLE)
        connection.execute(verb.format(sql.Identifier(role), sql.Literal(password)))
        connection.execute(sql.SQL("grant farebox_runtime to {}").format(sql.Identifier(role)))


def admit_runtime_role(owner_url: str, runtime_url: str) -> None:
    """Make the role of `runtime_url`, which is there already, a member of the runtime group."""
    role = conninfo_to_dict(runtime_url).get("user")
    if not role:
        return
    with psycopg.connect(owner_url) as connection:
        connection.execute(sql.SQL("grant farebox_runtime to {}").format(sql.Identifier(str(role))))


_CREATE_ROLE = "create role {} login nosuperuser nobypassrls nocreatedb nocreaterole password {}"


def _ensure_group(connection: psycopg.Connection) -> None:
    group = connection.execute("select 1 from pg_roles where rolname = 'farebox_runtime'")
    if group.fetchone() is None:
        connection.execute("create role farebox_runtime nologin nosuperuser nobypassrls")
    connection.execute("grant usage on schema public to farebox_runtime")
