"""`farebox doctor`: is this installation as it should be? Each finding says what would help."""

from collections.abc import Iterator

import psycopg

from farebox import __version__
from farebox.cli.runtime import Runtime, open_runtime
from farebox.cli.settings import Settings
from farebox.postgres.server.refusal import ServerError
from farebox.postgres.session import UnsafeRole, unbound

POSTGRESQL_MIN = 150000
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


def doctor(settings: Settings) -> int:
    """Print what was looked at; returns 1 where something must be mended."""
    print(f"Farebox {__version__}")
    try:
        with open_runtime(settings) as runtime:
            kind = "its own PostgreSQL" if settings.database_url is None else "your PostgreSQL"
            print(
                f"ok    the database answers: {kind}, migrated, with a role that cannot bypass"
                " row-level security"
            )
            faults = list(_faults(runtime))
    except (ServerError, UnsafeRole, psycopg.Error) as error:
        faults = [str(error).strip()]
    for fault in faults:
        print(f"mend  {fault}")
    return 1 if faults else 0


def _faults(runtime: Runtime) -> Iterator[str]:
    with unbound(runtime.pool) as connection:
        version = connection.info.server_version
        if version < POSTGRESQL_MIN:
            yield f"PostgreSQL {version // 10000} is too old: Farebox needs 15 or newer"
        for setting in _DURABLE:
            row = connection.execute("select current_setting(%s)", (setting,)).fetchone()
            if row == ("off",):
                yield f"{setting} is off: acknowledged events could be lost; set it to on"
        behind = connection.execute("select count(*) from organizations_to_fold()").fetchone()
        if behind and behind[0]:
            print(f"note  {behind[0]} organizations have events that no rollup holds yet")
