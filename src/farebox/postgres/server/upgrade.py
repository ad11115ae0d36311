"""Moving a cluster of an older major version to the present one, restartable at every step.

pg_upgrade copies, so the old cluster stays as it was. The finished copy is named
`cluster.upgraded` before anything else is renamed; whoever finds that name completes the swap.
"""

import time
from pathlib import Path

from farebox.postgres.server.account import Account
from farebox.postgres.server.binaries import Binaries, find
from farebox.postgres.server.cluster import (
    SUPERUSER,
    initialize,
    major_version,
    make_work,
    take_place,
)
from farebox.postgres.server.layout import PORT, SYNC_OPTIONS, Layout, remove, rename_durably
from farebox.postgres.server.process import (
    forget_dead_locks,
    leave_running,
    lives,
    run,
    running,
    stop,
)
from farebox.postgres.server.refusal import ServerCode, ServerError, failure

_POLL_SECONDS = 0.02


def complete_swap(layout: Layout) -> None:
    """Finish an upgrade that was cut off between its renames; refuse if the data is missing."""
    if layout.upgraded.exists():
        if layout.cluster.exists():
            rename_durably(layout.cluster, _aside(layout))
        rename_durably(layout.upgraded, layout.cluster)
    old = sorted(layout.root.glob("cluster.*.old*"))
    if old and not layout.cluster.exists():
        raise ServerError(
            ServerCode.CLUSTER_MISSING,
            f"{layout.cluster} is gone, but data from before an upgrade is in {old[-1]}. Farebox "
            f"does not start empty beside it: restore the cluster, or move {old[-1]} away.",
        )


def upgrade(layout: Layout, binaries: Binaries, account: Account, password: str) -> None:
    """Move the cluster to the version of `binaries`; the old one is kept as `cluster.N.old`."""
    major = major_version(layout.cluster)
    old = find(layout, major)
    if old is None:
        raise ServerError(
            ServerCode.UPGRADE_BINARIES_MISSING,
            f"the data was written by PostgreSQL {major}, whose programs are needed once more to "
            f"move it to {binaries.major}, and are neither in {layout.binaries} nor in "
            f"/usr/lib/postgresql/{major}/bin. Install PostgreSQL {major} and start again.",
        )
    _end_cleanly(layout, old, account)
    work = make_work(layout, account)
    initialize(work, binaries, account, password)
    done = run(
        [
            binaries.program("pg_upgrade"),
            f"--old-bindir={old.directory}",
            f"--new-bindir={binaries.directory}",
            f"--old-datadir={layout.cluster}",
            f"--new-datadir={work / 'cluster'}",
            f"--socketdir={layout.socket}",
            f"--username={SUPERUSER}",
            *SYNC_OPTIONS,
        ],
        account,
        work,
        password,
    )
    if done.returncode != 0:
        raise failure(
            ServerCode.UPGRADE_FAILED,
            f"pg_upgrade from {old.version} to {binaries.version} failed; the data is untouched "
            f"and works with PostgreSQL {major}",
            done.stdout[-4000:],
        )
    take_place(work / "cluster", layout.upgraded)
    remove(work)
    complete_swap(layout)


def _end_cleanly(layout: Layout, old: Binaries, account: Account) -> None:
    """Let the old server replay what a crash left behind; pg_upgrade wants a clean end."""
    pid = running(layout.cluster)
    if pid is None and _state(layout.cluster, old, account) == "shut down":
        return
    if pid is None:
        forget_dead_locks(layout.cluster, layout.socket)
        options = ["-c", "listen_addresses=", "-c", f"port={PORT}"]
        options += ["-c", f"unix_socket_directories={layout.socket}", "-c", "fsync=on"]
        pid = leave_running(old, layout.cluster, options, account, layout.start_log)
        while lives(pid) and not _ready(layout.cluster):
            time.sleep(_POLL_SECONDS)
    stop(pid, layout.cluster)
    state = _state(layout.cluster, old, account)
    if state != "shut down":
        raise failure(
            ServerCode.UPGRADE_FAILED,
            f"the old server, PostgreSQL {old.version}, did not end cleanly ({state})",
            layout.start_log.read_text(errors="replace")[-2000:],
        )


def _ready(cluster: Path) -> bool:
    try:
        lines = (cluster / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"


def _state(cluster: Path, old: Binaries, account: Account) -> str:
    told = run([old.program("pg_controldata"), str(cluster)], account, cluster.parent).stdout
    for line in told.splitlines():
        if line.startswith("Database cluster state:"):
            return line.partition(":")[2].strip()
    return told.strip()


def _aside(layout: Layout) -> Path:
    name = f"cluster.{major_version(layout.cluster)}.old"
    taken = len(list(layout.root.glob(f"{name}*")))
    return layout.root / (f"{name}.{taken + 1}" if taken else name)
