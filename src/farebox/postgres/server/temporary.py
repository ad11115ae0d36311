"""A server in a directory that vanishes afterwards, for tests, benchmarks and trials."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from farebox.postgres.server.supervisor import Server, open_server


@contextmanager
def temporary_server(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server of its own, as durable as any other, and remove it with its data."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-"))
    try:
        # Made just now, by us: the server's account may pass through, nobody may list it.
        directory.chmod(0o711)
        with open_server(directory / "data", settings) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)
