"""Programs of PostgreSQL as processes: run to the end, left running, recognised, stopped.

A pid in a file proves nothing: after a reboot it may be anybody's. A process counts as the server
of a cluster only while its own command line says so, and only such a process is ever signalled.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from farebox.postgres.server.account import Account
from farebox.postgres.server.binaries import Binaries
from farebox.postgres.server.refusal import ServerCode, ServerError

FAST_STOP_SECONDS = 90
IMMEDIATE_STOP_SECONDS = 15
_POLL_SECONDS = 0.01

# The shell leaves the server to the system, so that it outlives the process that started it, and
# tells its pid. A session of its own keeps Ctrl-C in a terminal away from it.
_LEAVE_RUNNING = '"$@" </dev/null >>"$0" 2>&1 & echo $!'


def run(
    arguments: Sequence[str], account: Account, directory: Path, password: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in `directory`; its exit code is for the caller to judge."""
    return subprocess.run(  # noqa: S603 -- programs by their full path, no shell
        arguments,
        cwd=directory,
        env=_environment(password),
        user=account.uid if account.switch else None,
        group=account.gid if account.switch else None,
        extra_groups=[] if account.switch else None,
        umask=0o077,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def leave_running(
    binaries: Binaries, cluster: Path, options: Sequence[str], account: Account, log: Path
) -> int:
    """Start a server that outlives this process, and return its pid without waiting for it."""
    command = [binaries.program("postgres"), "-D", str(cluster), *options]
    started = subprocess.run(  # noqa: S603 -- the script is a constant, the rest its arguments
        ["/bin/sh", "-c", _LEAVE_RUNNING, str(log), *command],
        cwd=cluster.parent,
        env=_environment(""),
        user=account.uid if account.switch else None,
        group=account.gid if account.switch else None,
        extra_groups=[] if account.switch else None,
        umask=0o077,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(started.stdout)


def running(cluster: Path) -> int | None:
    """Return the pid of the living server of `cluster`; a stale or foreign pid is None."""
    try:
        pid = int((cluster / "postmaster.pid").read_text().partition("\n")[0])
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return pid if pid > 0 and serves(pid, cluster) else None


def serves(pid: int, cluster: Path) -> bool:
    """Tell whether `pid` is, at this moment, a server started on `cluster`."""
    return _is_server(_command_line(pid), cluster)


def lives(pid: int) -> bool:
    """Tell whether a process that was just started still runs; a zombie does not.

    The command line is no evidence here: in the middle of an exec it is empty.
    """
    if sys.platform == "linux":
        try:
            told = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return told.rpartition(")")[2].split()[0] not in {"Z", "X"}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_dead_locks(cluster: Path, socket: Path) -> None:
    """Remove lock files whose pid is no server of `cluster`: PostgreSQL would refuse to start.

    The pid may be a stranger's by now, or a zombie where nobody collects them. A backend that
    outlived its killed server is still found without the file: the shared memory it holds is
    keyed by the cluster's directory, and the start fails upon it.
    """
    if running(cluster) is None:
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        for lock in socket.glob(".s.PGSQL.*.lock"):
            lock.unlink(missing_ok=True)


def stop(pid: int, cluster: Path) -> None:
    """Stop the server: first cleanly, and if it does not end, at once (the next start recovers)."""
    for sign, seconds in (
        (signal.SIGINT, FAST_STOP_SECONDS),
        (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS),
    ):
        deadline = time.monotonic() + seconds
        if serves(pid, cluster):
            os.kill(pid, sign)
        while serves(pid, cluster) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    if serves(pid, cluster):
        raise ServerError(
            ServerCode.STOP_TIMEOUT,
            f"the server, process {pid}, does not end. It may wait for a disk; look at the log, "
            f"and end it by hand: kill -QUIT {pid}",
        )


def _environment(password: str) -> dict[str, str]:
    # None of the caller's PG* variables may reach the programs; messages are in English.
    path = os.environ.get("PATH", "/usr/bin:/bin")
    kept = {"PATH": path, "LC_ALL": "C", "TZ": "UTC"}
    return {**kept, "PGPASSWORD": password} if password else kept


def _command_line(pid: int) -> list[str]:
    """Return the words a process was started with; of one that ended, or a zombie, none."""
    if sys.platform == "linux":
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return []
        return os.fsdecode(raw).split("\0")
    told = subprocess.run(  # noqa: S603 -- a fixed program
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip().split(" ")


def _is_server(words: list[str], cluster: Path) -> bool:
    if not words or Path(words[0]).name != "postgres":
        return False
    if sys.platform == "linux":
        return ("-D", str(cluster)) in pairwise(words)
    return f" -D {cluster} " in " ".join([*words, ""])
