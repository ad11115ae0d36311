"""The farebox command: one subcommand a verb, each in a file of its own."""

import sys
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
    int, Parameter(help="Server processes; each answers requests and folds rollups.")
]
Detach = Annotated[bool, Parameter(help="Print and stop, instead of serving until stopped.")]
QuoteFile = Annotated[
    Path, Parameter(help="A price and quantities in JSON; docs/pricing.md has the format.")
]


@app.command
def serve(*, host: Host = None, port: Port = None, data: Data = None, workers: Workers = 1) -> None:
    """Serve the API and the console."""
    from farebox.cli.serve import serve as run

    run(_settings(host, port, data), workers)


@app.command
def demo(
    *, host: Host = None, port: Port = None, data: Data = None, detach: Detach = False
) -> None:
    """Bill a real hour of LLM traffic, print what was found, and serve the console."""
    from farebox.cli.demo import demo as run

    sys.exit(run(_settings(host, port, data or default_data_directory("demo")), detach))


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


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
