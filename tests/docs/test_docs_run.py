"""The page for who runs it: its statements make roles that work, its dump comes back."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from farebox.cli.runtime import clock, new_id, open_runtime, organization_of
from farebox.cli.settings import read_settings
from farebox.flows.create_organization import create_organization
from farebox.postgres.server.temporary import temporary_server

PAGE = (Path(__file__).parents[2] / "docs" / "run.md").read_text()
PASSWORDS = {"farebox_owner": "change-me-1", "farebox_app": "change-me-2"}
COMMANDS = Path(sys.executable).parent


def section(heading: str) -> str:
    return re.split(r"\n## ", PAGE.split(f"\n## {heading}\n", 1)[1])[0]


def blocks(heading: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(heading), re.DOTALL)


def run(script: str, **environment: str) -> str:
    path = os.pathsep.join([str(COMMANDS), environment.pop("PATH", ""), os.environ["PATH"]])
    inherited = {name: value for name, value in os.environ.items() if "FAREBOX" not in name}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**inherited, **environment, "PATH": path},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def own_server() -> Iterator[dict[str, str]]:
    """Return the URL of each role on a server where nothing but the page's SQL was run."""
    with temporary_server() as server:
        url = make_conninfo(server.superuser_url, dbname="postgres")
        with psycopg.connect(url, autocommit=True) as connection:
            # The embedded server brings this database; one of your own does not.
            connection.execute("drop database farebox")
            (statements,) = blocks("On your own PostgreSQL", "sql")
            for statement in filter(str.strip, statements.split(";")):
                connection.execute(statement.encode())
        yield {
            role: make_conninfo(url, user=role, password=password, dbname="farebox")
            for role, password in PASSWORDS.items()
        }


@pytest.fixture
def data() -> Iterator[Path]:
    """Return a place for an embedded server that the server's own account can pass through."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-"))
    directory.chmod(0o711)
    yield directory / "data"
    shutil.rmtree(directory, ignore_errors=True)


def at_server(script: str, urls: dict[str, str]) -> str:
    """Put a test's URLs in the place of those that the page shows."""
    for role, password in PASSWORDS.items():
        shown = f"postgresql://{role}:{password}@localhost/farebox"
        script = script.replace(shown, f"'{urls[role]}'")
    assert "localhost" not in script
    return script


def test_roles_of_your_own_server_migrate_and_serve(own_server: dict[str, str]) -> None:
    migrating, serving = blocks("On your own PostgreSQL", "sh")
    assert "0001_foundation.sql" in run(at_server(migrating, own_server))
    looking = serving.replace("farebox serve", "farebox doctor")
    told = run(at_server(looking, own_server))
    assert "ok    the database answers: your PostgreSQL" in told


def test_a_dump_of_the_embedded_server_moves_to_your_own(
    own_server: dict[str, str], data: Path, tmp_path: Path
) -> None:
    dumping, restoring = (
        script.replace("/tmp/farebox.dump", f"{tmp_path}/farebox.dump")
        for script in blocks("Backup", "sh")
    )
    with open_runtime(read_settings({"FAREBOX_DATA": str(data)})) as runtime:
        create_organization(runtime.pool, "acme", "Acme", clock(), new_id, os.urandom)
        run(dumping, FAREBOX_DATA=str(data))
    (programs,) = data.glob("postgresql/*/*/*/bin")
    run(
        restoring,
        PATH=str(programs),
        FAREBOX_OWNER_DATABASE_URL=own_server["farebox_owner"],
        FAREBOX_DATABASE_URL=own_server["farebox_app"],
    )
    settings = read_settings({"FAREBOX_DATABASE_URL": own_server["farebox_app"]})
    with open_runtime(settings) as runtime:
        assert organization_of(runtime, "acme")
