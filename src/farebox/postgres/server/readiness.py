"""From a started process to a server that answers, and proof that it is the right one."""

import time
from collections.abc import Sequence
from enum import StrEnum

import psycopg
from psycopg import errors, sql

from farebox.postgres.server.account import Account
from farebox.postgres.server.binaries import Binaries
from farebox.postgres.server.cluster import SUPERUSER, system_identifier
from farebox.postgres.server.layout import PORT, Layout
from farebox.postgres.server.process import (
    forget_dead_locks,
    leave_running,
    lives,
    running,
    stop,
)
from farebox.postgres.server.refusal import ServerCode, ServerError, failure

# Recovery after a crash reads up to max_wal_size of log, on a slow disk a matter of minutes.
STARTUP_SECONDS = 300
# A living server without its socket cannot be reached ever again; it is stopped and replaced.
SILENT_SECONDS = 20
# Backends of a killed server notice within moments, unless they are deep in a computation.
ORPHAN_SECONDS = 30
_POLL_SECONDS = 0.01
_CONNECT_SECONDS = 5


class Answer(StrEnum):
    """What a server says at its socket."""

    READY = "ready"
    NO_DATABASE = "no_database"
    NOT_YET = "not_yet"
    SILENT = "silent"


def join(layout: Layout, password: str, database: str) -> bool:
    """Wait for a server that is there already; False when there is none, or none any more."""
    begun = time.monotonic()
    silent_since = begun
    while True:
        answer = _ask(layout, password, database)
        now = time.monotonic()
        if answer is Answer.READY:
            return True
        if answer is Answer.NO_DATABASE:
            _make_database(layout, password, database)
        if answer is Answer.SILENT:
            pid = running(layout.cluster)
            if pid is None:
                return False
            if now - silent_since > SILENT_SECONDS:
                stop(pid, layout.cluster)
        else:
            silent_since = now
        if now - begun > STARTUP_SECONDS:
            raise _too_slow(layout)
        time.sleep(_POLL_SECONDS)


def start(
    layout: Layout,
    binaries: Binaries,
    options: Sequence[str],
    account: Account,
    password: str,
    database: str,
) -> None:
    """Start the server and wait until the database answers; recovery is part of the wait."""
    begun = time.monotonic()
    while True:
        forget_dead_locks(layout.cluster, layout.socket)
        told_before = _told_bytes(layout)
        pid = leave_running(binaries, layout.cluster, options, account, layout.start_log)
        if _wait(layout, pid, password, database):
            return
        told = _told_since(layout, told_before)
        orphan = "pre-existing shared memory block" in told
        if not orphan or time.monotonic() - begun > ORPHAN_SECONDS:
            raise failure(ServerCode.START_FAILED, "the server did not start", told)
        time.sleep(_POLL_SECONDS * 20)


def _wait(layout: Layout, pid: int, password: str, database: str) -> bool:
    """Wait for the server just started; False when it ended instead."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while True:
        alive = lives(pid)
        answer = _ask(layout, password, database)
        if answer is Answer.READY:
            return True
        if answer is Answer.NO_DATABASE:
            _make_database(layout, password, database)
        if not alive:
            return False
        if time.monotonic() > deadline:
            raise _too_slow(layout)
        time.sleep(_POLL_SECONDS)


def _ask(layout: Layout, password: str, database: str) -> Answer:
    try:
        with _connect(layout, password, database) as connection:
            _verify(layout, connection)
    except psycopg.OperationalError as error:
        return _understand(str(error), database)
    return Answer.READY


def _understand(message: str, database: str) -> Answer:
    """Read libpq's text: a refused connection carries no SQLSTATE; lc_messages fixes the words."""
    if "password authentication failed" in message:
        raise ServerError(
            ServerCode.PASSWORD_REFUSED,
            "the server does not accept the password in the data directory. Restore the file "
            "`password`, or set a new one as docs/embedded-postgresql.md describes.",
        )
    if f'database "{database}" does not exist' in message:
        return Answer.NO_DATABASE
    if "FATAL:" in message or "timeout expired" in message:
        return Answer.NOT_YET
    return Answer.SILENT


def _connect(layout: Layout, password: str, database: str) -> psycopg.Connection[tuple[object]]:
    return psycopg.connect(
        host=str(layout.socket),
        port=PORT,
        user=SUPERUSER,
        password=password,
        dbname=database,
        connect_timeout=_CONNECT_SECONDS,
        application_name="farebox supervisor",
        autocommit=True,
    )


def _verify(layout: Layout, connection: psycopg.Connection[tuple[object]]) -> None:
    # A relative path is read where the server was started, even if that directory was moved since;
    # pg_control_system() would read what lies at the old path now.
    row = connection.execute("SELECT pg_read_binary_file('global/pg_control', 0, 8)").fetchone()
    if row is None or row[0] != system_identifier(layout.cluster):
        raise ServerError(
            ServerCode.WRONG_SERVER,
            f"the server at {layout.socket} serves other data than {layout.cluster}, which was "
            "replaced under it. Stop that server, then start again.",
        )


def _make_database(layout: Layout, password: str, database: str) -> None:
    """Make the database, unless the statement of a killed process is still at it."""
    try:
        with _connect(layout, password, "postgres") as connection:
            _verify(layout, connection)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    except (errors.DuplicateDatabase, errors.UniqueViolation, errors.ObjectInUse):
        return  # the next look at the server finds it, or tries again
    except psycopg.Error as error:
        raise failure(
            ServerCode.START_FAILED, f"database {database} could not be made", str(error)
        ) from error


def _told_bytes(layout: Layout) -> int:
    return layout.start_log.stat().st_size if layout.start_log.exists() else 0


def _told_since(layout: Layout, told_bytes: int) -> str:
    if not layout.start_log.exists():
        return f"{layout.start_log} could not be written"
    with layout.start_log.open("rb") as file:
        file.seek(told_bytes)
        told = file.read().decode(errors="replace")
    collected = sorted(layout.log.glob("postgresql-*.log"), key=lambda path: path.stat().st_mtime)
    if "log output to logging collector" in told and collected:
        told += collected[-1].read_text(errors="replace")[-2000:]
    return told[-4000:]


def _too_slow(layout: Layout) -> ServerError:
    return ServerError(
        ServerCode.START_TIMEOUT,
        f"the server has not answered within {STARTUP_SECONDS} seconds. It may still recover from "
        f"a crash: it is left running, look at {layout.log} and start again.",
    )
