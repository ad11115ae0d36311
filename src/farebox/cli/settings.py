"""What the environment says: where the database is, where data lives, where to listen."""

import os
from pathlib import Path

from msgspec import Struct

from farebox.postgres.server.account import default_data_directory

PORT = 8377


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of one process.

    database_url: of the runtime role; none starts the embedded PostgreSQL in `data_directory`.
    owner_database_url: of the role that owns the tables; with it, `serve` migrates at its start.
    webhook_private_addresses: webhooks may be sent to this machine's own network, and over HTTP.
    """

    database_url: str | None
    owner_database_url: str | None
    data_directory: Path
    host: str
    port: int
    webhook_private_addresses: bool = False


def read_settings(environment: "os._Environ[str] | dict[str, str]" = os.environ) -> Settings:
    """Read the variables that docs/run.md lists.

    What cannot be meant ends the command and names the variable.
    """
    return Settings(
        database_url=environment.get("FAREBOX_DATABASE_URL") or None,
        owner_database_url=environment.get("FAREBOX_OWNER_DATABASE_URL") or None,
        data_directory=_data_directory(environment.get("FAREBOX_DATA")),
        host=environment.get("FAREBOX_HOST") or "127.0.0.1",
        port=_port(environment.get("FAREBOX_PORT") or str(PORT)),
        webhook_private_addresses=_yes_or_no(
            environment, "FAREBOX_WEBHOOK_PRIVATE_ADDRESSES", default=False
        ),
    )


def _data_directory(chosen: str | None) -> Path:
    return Path(chosen).expanduser().absolute() if chosen else default_data_directory()


def _yes_or_no(
    environment: "os._Environ[str] | dict[str, str]", name: str, *, default: bool
) -> bool:
    text = environment.get(name) or str(default).lower()
    if text not in ("true", "false"):
        raise SystemExit(f"farebox: {name} must be true or false, not {text!r}")
    return text == "true"


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= port <= 65535:
        raise SystemExit(f"farebox: FAREBOX_PORT must be a port from 1 to 65535, not {text!r}")
    return port
