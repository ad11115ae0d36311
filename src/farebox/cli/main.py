"""The farebox command: one subcommand a verb, each in a file of its own."""

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from farebox import __version__
from farebox.cli.settings import Settings, read_settings
from farebox.postgres.server.account import default_data_directory

app = App(
    name="farebox",
    version=__version__,
    help="Meter what customers use, gate it live, bill it to the cent.",
)

Port = Annotated[int | None, Parameter(help="Port to listen on; else FAREBOX_PORT, else 8377.")]
Host = Annotated[str | None, Parameter(help="Address to listen on; else FAREBOX_HOST.")]
Data = Annotated[
    Path | None, Parameter(help="Data directory of the embedded PostgreSQL; else FAREBOX_DATA.")
]
Workers = Annotated[
    int, Parameter(help="Server processes; each has one beside it for background work.")
]
Detach = Annotated[bool, Parameter(help="Print and stop, instead of serving until stopped.")]
QuoteFile = Annotated[
    Path, Parameter(help="A price and quantities in JSON; docs/pricing.md has the format.")
]


CatalogFile = Annotated[Path, Parameter(help="YAML or JSON; docs/catalog.md has the format.")]
Organization = Annotated[str, Parameter(help="Key of the organization.")]
OneOrganization = Annotated[
    str | None, Parameter(help="Key of the one organization to look at; else all.")
]
DryRun = Annotated[bool, Parameter(help="Show what would change, and change nothing.")]
AsOf = Annotated[
    datetime | None, Parameter(help="Invoice what ended by this instant (UTC); else now.")
]
Draft = Annotated[bool, Parameter(help="Write drafts without a number, to look at.")]
Models = Annotated[str, Parameter(help="Names of models, as gpt-4o or azure/gpt-4o.")]
Since = Annotated[
    datetime | None, Parameter(help="Price usage from this instant (UTC) on; else from now.")
]
CardKey = Annotated[str, Parameter(help="Key of the rate card.")]
ImportFile = Annotated[Path | None, Parameter(help="CSV, JSONL or Parquet, gzipped or not.")]
Mapping = Annotated[
    Path | None, Parameter(help="How columns become events; docs/import.md has the format.")
]
ImportName = Annotated[str | None, Parameter(help="Name of the import; else the file's.")]
Rejected = Annotated[Path | None, Parameter(help="Where to list the rows that were not taken.")]
Undo = Annotated[str | None, Parameter(help="Name of an import whose events shall not count.")]
MeterKey = Annotated[str, Parameter(help="Key of the meter.")]
MeterVersion = Annotated[int | None, Parameter(help="Its version; else the newest.")]
Preview = Annotated[bool, Parameter(help="Show what it would come to, and change nothing.")]
DEFAULT = "default"


@app.command
def serve(*, host: Host = None, port: Port = None, data: Data = None, workers: Workers = 1) -> None:
    """Serve the API and the console."""
    from farebox.cli.serve import serve as run

    run(_settings(host, port, data), workers)


@app.command
def demo(
    *, host: Host = None, port: Port = None, data: Data = None, detach: Detach = False
) -> None:
    """Bill real LLM traffic, print what was found, and serve the console."""
    from farebox.cli.demo import demo as run

    settings = _settings(host, port, data)
    if settings.data_directory == default_data_directory():
        # The demo's data stay apart from an installation's own.
        settings = msgspec.structs.replace(settings, data_directory=default_data_directory("demo"))
    sys.exit(run(settings, detach))


@app.command
def apply(
    file: CatalogFile,
    *,
    organization: Organization = DEFAULT,
    dry_run: DryRun = False,
    data: Data = None,
) -> None:
    """Let the catalog stand as a file says: meters, prices, plans, customers, subscriptions."""
    from farebox.cli.apply import apply as run

    sys.exit(run(_settings(data=data), file, organization, dry_run))


@app.command
def bill(
    *,
    organization: Organization = DEFAULT,
    as_of: AsOf = None,
    draft: Draft = False,
    data: Data = None,
) -> None:
    """Invoice every period that ended and has no invoice yet."""
    from farebox.cli.bill import run_billing

    sys.exit(run_billing(_settings(data=data), organization, _utc(as_of), draft))


@app.command(name="import")
def import_(
    file: ImportFile = None,
    *,
    mapping: Mapping = None,
    name: ImportName = None,
    rejected: Rejected = None,
    undo: Undo = None,
    organization: Organization = DEFAULT,
    data: Data = None,
) -> None:
    """Import events from CSV, JSONL or Parquet; run again it goes on, or changes nothing."""
    from farebox.cli.import_command import import_command, undo_command

    if undo is not None:
        sys.exit(undo_command(_settings(data=data), undo, organization))
    if file is None or mapping is None:
        sys.exit("farebox import: name a FILE and its --mapping, or an import to --undo")
    sys.exit(import_command(_settings(data=data), file, mapping, name, rejected, organization))


@app.command
def backfill(
    meter: MeterKey,
    *,
    version: MeterVersion = None,
    preview: Preview = False,
    organization: Organization = DEFAULT,
    data: Data = None,
) -> None:
    """Let a meter read the events that came before it was published."""
    from farebox.cli.backfill import backfill as run

    sys.exit(run(_settings(data=data), organization, meter, version, preview))


@app.command
def llm_prices(
    *models: Models,
    organization: Organization = DEFAULT,
    since: Since = None,
    card: CardKey = "llm",
    data: Data = None,
) -> None:
    """Publish prices of language models, from the genai-prices package, as a rate card version."""
    from farebox.cli.llm_prices import import_llm_prices

    sys.exit(import_llm_prices(_settings(data=data), organization, models, _utc(since), card))


@app.command
def doctor(*, data: Data = None) -> None:
    """Look whether this installation is as it should be."""
    from farebox.cli.doctor import doctor as run

    sys.exit(run(_settings(data=data)))


@app.command
def verify(*, organization: OneOrganization = None, data: Data = None) -> None:
    """Prove every pool from its transfers: balances, grants, holds, shares, counters."""
    from farebox.cli.verify import verify as run

    sys.exit(run(_settings(data=data), organization))


@app.command
def migrate() -> None:
    """Bring your own PostgreSQL to the newest schema, as FAREBOX_OWNER_DATABASE_URL."""
    from farebox.postgres.migrate import admit_runtime_role
    from farebox.postgres.migrate import migrate as run

    settings = read_settings()
    if settings.owner_database_url is None:
        sys.exit("farebox migrate: set FAREBOX_OWNER_DATABASE_URL to the role that owns the tables")
    print("\n".join(run(settings.owner_database_url)) or "The schema is the newest already.")
    if settings.database_url is not None:
        admit_runtime_role(settings.owner_database_url, settings.database_url)


@app.command
def quote(file: QuoteFile) -> None:
    """Rate the price and quantities of a JSON file and print the lines as JSON."""
    from farebox.cli.quote import quote_command

    sys.exit(quote_command(file))


def _settings(
    host: str | None = None, port: int | None = None, data: Path | None = None
) -> Settings:
    settings = read_settings()
    return msgspec.structs.replace(
        settings,
        host=host or settings.host,
        port=port or settings.port,
        data_directory=data.absolute() if data else settings.data_directory,
    )


def _utc(instant: datetime | None) -> datetime | None:
    return instant.replace(tzinfo=UTC) if instant and instant.tzinfo is None else instant


def main() -> None:
    """Run the command line; what a person can mend is one line, not a traceback."""
    import psycopg

    from farebox.postgres.migrate import MigrationChanged
    from farebox.postgres.server.refusal import ServerError
    from farebox.postgres.session import UnsafeRole

    # Told to end, a command does as after Ctrl-C: no database stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except (MigrationChanged, ServerError, UnsafeRole, psycopg.OperationalError) as error:
        sys.exit(f"farebox: {str(error).strip()}")


if __name__ == "__main__":
    main()
