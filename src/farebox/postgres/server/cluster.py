"""A cluster, PostgreSQL's word for one server's data: made whole or not at all, and identified."""

import secrets
from pathlib import Path
from uuid import uuid4

from farebox.postgres.server.account import Account
from farebox.postgres.server.binaries import Binaries
from farebox.postgres.server.layout import (
    SYNC_OPTIONS,
    Layout,
    make_owned,
    remove,
    rename_durably,
    sync_directory,
    write_whole,
)
from farebox.postgres.server.process import run, running, stop
from farebox.postgres.server.refusal import ServerCode, ServerError, failure

SUPERUSER = "postgres"


def major_version(cluster: Path) -> int:
    return int((cluster / "PG_VERSION").read_text())


def system_identifier(cluster: Path) -> bytes:
    """Return the number drawn when the cluster was made: the first eight bytes of pg_control."""
    with (cluster / "global" / "pg_control").open("rb") as file:
        return file.read(8)


def read_password(layout: Layout) -> str:
    """Return the superuser's password, or refuse if the file that held it is gone."""
    try:
        return layout.password.read_text().strip()
    except FileNotFoundError:
        raise ServerError(
            ServerCode.PASSWORD_MISSING,
            f"{layout.password} is gone while the data is there. Restore it from a backup, or set "
            "a new password as docs/embedded-postgresql.md describes.",
        ) from None


def make_cluster(layout: Layout, binaries: Binaries, account: Account) -> None:
    """Make a new, empty cluster with a new password."""
    if not layout.password.exists():
        write_whole(layout.password, secrets.token_urlsafe(32) + "\n", mode=0o600)
    work = make_work(layout, account)
    initialize(work, binaries, account, read_password(layout))
    take_place(work / "cluster", layout.cluster)
    remove(work)


def make_work(layout: Layout, account: Account) -> Path:
    """Make a directory to build a cluster in; its name is new, an orphan may still fill another."""
    work = layout.root / f"work-{uuid4().hex[:12]}"
    make_owned(work, account)
    return work


def clear_work(layout: Layout) -> None:
    """Remove what was being built when a process was killed, and end the servers in it."""
    for work in layout.root.glob("work-*"):
        cluster = work / "cluster"
        if (pid := running(cluster)) is not None:
            stop(pid, cluster)
        remove(work)


def initialize(work: Path, binaries: Binaries, account: Account, password: str) -> None:
    """Run initdb for `work`/cluster; it returns when every byte is on disk."""
    make_owned(work / "cluster", account)
    password_file = work / "password"
    write_whole(password_file, password + "\n", mode=0o644)  # `work` itself is closed to others
    done = run(
        [
            binaries.program("initdb"),
            f"--pgdata={work / 'cluster'}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--encoding=UTF8",
            "--data-checksums",
            *SYNC_OPTIONS,
        ],
        account,
        work,
    )
    password_file.unlink()
    if done.returncode != 0:
        raise failure(ServerCode.INIT_FAILED, "initdb could not make the cluster", done.stdout)


def take_place(built: Path, place: Path) -> None:
    """Give a finished cluster its name, durably."""
    rename_durably(built, place)
    sync_directory(place)
