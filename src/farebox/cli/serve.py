"""`farebox serve`: the HTTP server, on its own PostgreSQL or on yours."""

import os
import signal
import socket

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.log import LogLevels

from farebox.cli.background import DATABASE_URL
from farebox.cli.runtime import Runtime, clock, new_id, open_runtime
from farebox.cli.settings import Settings, read_settings
from farebox.flows.create_organization import create_organization
from farebox.postgres import access
from farebox.postgres.session import unbound


def serve(settings: Settings, workers: int = 1) -> None:
    """Serve until stopped by SIGINT or SIGTERM; what was acknowledged by then is committed."""
    refuse_taken_port(settings)
    with open_runtime(settings) as runtime:
        greet(runtime, settings)
        run_server(runtime.urls.runtime, settings, workers)


def run_server(database_url: str, settings: Settings, workers: int) -> None:
    """Run granian in this process until it is told to stop."""
    refuse_taken_port(settings)
    os.environ[DATABASE_URL] = database_url
    os.register_at_fork(after_in_child=_end_at_once_when_told)
    Granian(
        "farebox.cli.asgi:create",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=workers,
        respawn_failed_workers=True,
        log_access=False,
        log_level=LogLevels.warning,
    ).serve()


def _end_at_once_when_told() -> None:
    """Let SIGINT and SIGTERM end a process that was forked from this one.

    A worker that does not serve yet has a copy of its parent's handlers, which set a mark in a copy
    of its memory: it would live on, and its parent wait for it. It sets its own when it serves.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def refuse_taken_port(settings: Settings) -> None:
    """End the command where somebody listens already: the server would share the port unseen."""
    try:
        with socket.create_server((settings.host, settings.port)):
            return
    except OSError as error:
        raise SystemExit(
            f"farebox: cannot listen on {settings.host}:{settings.port}: {error.strerror};"
            " choose another with --port"
        ) from None


def greet(runtime: Runtime, settings: Settings) -> None:
    """Say where Farebox is; at the first start make an organization and show its owner key."""
    base = f"http://{settings.host}:{settings.port}"
    with unbound(runtime.pool) as connection:
        empty = access.count_organizations(connection) == 0
    print(f"Farebox serves {base} (console, API under /v1, reference at {base}/docs)")
    if not empty:
        return
    _, key = create_organization(
        runtime.pool, "default", "Default organization", clock(), new_id, os.urandom
    )
    print(
        f"""
This is the first start. Your owner key, shown only this once:

    {key}

Send a first event:

    curl {base}/v1/events -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/cloudevents+json' \\
      -d '{{"specversion":"1.0","id":"1","source":"readme","type":"api.request",
           "subject":"acme","data":{{"route":"/search","units":3}}}}'

Then meter it, price it and see the invoice: README.md, "Your own event".
""",
        flush=True,
    )


if __name__ == "__main__":  # as a child of the demo, on the database that its parent opened
    run_server(os.environ[DATABASE_URL], read_settings(), workers=1)
