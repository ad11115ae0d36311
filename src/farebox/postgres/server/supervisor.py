"""One server per data directory, shared by the Farebox processes that use it.

The first process starts the server, the others join it, the last one to leave stops it. Two file
locks decide: `gate.lock` is held while somebody starts or stops the server, `users.lock` is shared
by everybody who uses it. The kernel drops both with their process, so a killed process blocks
nobody; the server it leaves behind is joined by the next one.
"""

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from farebox.postgres.server.account import Account, account_for, make_root, require_entry
from farebox.postgres.server.binaries import MAJOR, Binaries, installed, remove_superseded
from farebox.postgres.server.cluster import (
    SUPERUSER,
    clear_work,
    major_version,
    make_cluster,
    read_password,
)
from farebox.postgres.server.configuration import (
    check_settings,
    start_options,
    write_configuration,
)
from farebox.postgres.server.layout import PORT, Layout, make_owned
from farebox.postgres.server.lock import FileLock
from farebox.postgres.server.process import running, stop
from farebox.postgres.server.readiness import join, start
from farebox.postgres.server.refusal import ServerCode, ServerError
from farebox.postgres.server.upgrade import complete_swap, upgrade

DATABASE = "farebox"

# Somebody else's start may include an upgrade, which copies all data.
GATE_SECONDS = 600
_SPAWNED_SECONDS = 1
"""So long a server that was just spawned may take to say that it runs."""
_POLL_SECONDS = 0.05


class Server:
    """A running server, in use by this process until `close`."""

    def __init__(
        self, layout: Layout, account: Account, settings: Mapping[str, str], gate: FileLock
    ) -> None:
        """Use `open_server` instead; `gate` is held by the caller."""
        self._layout = layout
        self._account = account
        self._settings = dict(settings)
        self._users = FileLock(layout.users)
        try:
            self._users.share()
            self._password = self._serve()
        except BaseException as error:
            self._users.close()
            if isinstance(error, KeyboardInterrupt):
                # Told to end, it leaves no server behind that nobody uses. Other errors leave
                # it running: a person may have to look at it.
                self._end(even_if_used=False, seconds=_SPAWNED_SECONDS)
            gate.close()
            raise
        self._open = True

    @property
    def superuser_url(self) -> str:
        """URL of the database `farebox` as the cluster's superuser."""
        return self.url(SUPERUSER, self._password)

    @property
    def socket_directory(self) -> Path:
        return self._layout.socket

    @property
    def pid(self) -> int | None:
        """The server's process, or None when it has ended (or lives in another pid namespace)."""
        return running(self._layout.cluster)

    def url(self, role: str, password: str, database: str = DATABASE) -> str:
        """Return the URL by which another role reaches the server."""
        login = f"{quote(role, safe='')}:{quote(password, safe='')}"
        host = quote(str(self._layout.socket), safe="")
        return f"postgresql://{login}@/{quote(database, safe='')}?host={host}&port={PORT}"

    def ensure_running(self) -> None:
        """Start the server again if it died; existing connections are not brought back."""
        assert self._open, "the server was closed"
        gate = _pass_gate(self._layout)
        try:
            self._serve()
        finally:
            gate.close()

    def close(self) -> None:
        """Leave the server; the last one to leave stops it. A forked child is one more user."""
        self._leave(even_if_used=False)

    def stop(self) -> None:
        """Stop the server now, even if other processes still use it, and leave it."""
        self._leave(even_if_used=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({str(self._layout.root)!r}, pid={self.pid})"

    def _leave(self, *, even_if_used: bool) -> None:
        if not self._open:
            return
        self._open = False
        gate = _pass_gate(self._layout)
        self._users.close()
        try:
            self._end(even_if_used=even_if_used)
        finally:
            gate.close()

    def _end(self, *, even_if_used: bool, seconds: float = 0) -> None:
        """Stop the server where it runs and nobody uses it, behind the gate.

        seconds: how long to wait for one to say that it runs.
        """
        alone = FileLock(self._layout.users)
        ends = time.monotonic() + seconds
        try:
            while (pid := self.pid) is None and time.monotonic() < ends:
                time.sleep(_POLL_SECONDS)
            if pid is not None and (alone.take_alone_now() or even_if_used):
                stop(pid, self._layout.cluster)
        finally:
            alone.close()

    def _serve(self) -> str:
        """Bring the server up, behind the gate, and return the superuser's password."""
        layout, account = self._layout, self._account
        clear_work(layout)
        complete_swap(layout)
        major = major_version(layout.cluster) if layout.cluster.exists() else None
        if major is not None and major > MAJOR:
            raise ServerError(
                ServerCode.CLUSTER_NEWER,
                f"the data was written by PostgreSQL {major}; this Farebox has {MAJOR}. Install "
                "the newer Farebox again.",
            )
        if major == MAJOR:
            password = read_password(layout)
            if join(layout, password, DATABASE):
                return password
        binaries = installed(layout)
        make_owned(layout.log, account)
        make_owned(layout.socket, account)
        if major is None:
            make_cluster(layout, binaries, account)
        elif major < MAJOR:
            self._upgrade(binaries)
        password = read_password(layout)
        write_configuration(layout, self._settings)
        start(layout, binaries, start_options(layout), account, password, DATABASE)
        remove_superseded(layout, binaries)
        return password

    def _upgrade(self, binaries: Binaries) -> None:
        if not self._users.take_alone_now():
            raise ServerError(
                ServerCode.UPGRADE_IN_USE,
                "the data is to be moved to a newer PostgreSQL, but another Farebox process still "
                "uses it. Stop that one first.",
            )
        upgrade(self._layout, binaries, self._account, read_password(self._layout))
        self._users.share()


def open_server(data_directory: Path, settings: Mapping[str, str] | None = None) -> Server:
    """Start the server of `data_directory`, or join the one that runs there.

    The directory is made, initialized or upgraded as needed, and the database `farebox` is there
    afterwards. `settings` are PostgreSQL's own and count for the process that starts the server.
    Raises ServerError.
    """
    chosen = settings or {}
    check_settings(chosen)
    try:
        root = make_root(data_directory)
        layout = Layout(root=root)
        account = account_for(layout.cluster)
        require_entry(root, account)
        gate = _pass_gate(layout)
        try:
            # Another process may have made the cluster while we waited at the gate.
            return Server(layout, account_for(layout.cluster), chosen, gate)
        finally:
            gate.close()
    except PermissionError as error:
        raise ServerError(
            ServerCode.PATH_CLOSED,
            f"{error.filename} is closed to uid {os.geteuid()}. Choose a data directory that this "
            "user may write to.",
        ) from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ServerError(
            ServerCode.DISK_FULL, f"the disk of {data_directory} is full. Free space."
        ) from error


def _pass_gate(layout: Layout) -> FileLock:
    gate = FileLock(layout.gate)
    if not gate.take(GATE_SECONDS):
        gate.close()
        raise ServerError(
            ServerCode.BUSY,
            f"another process has been starting or stopping the server of {layout.root} for "
            f"{GATE_SECONDS} seconds. Look at what it does: {layout.log}",
        )
    return gate
