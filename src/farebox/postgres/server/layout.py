"""Where everything lies in a data directory, and the directories that are made for it.

Names that end in a suffix are steps on the way: a directory called `cluster` is always whole,
because it got that name by a rename after everything in it was on disk.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from msgspec import Struct

from farebox.postgres.server.account import Account
from farebox.postgres.server.refusal import ServerCode, ServerError

PORT = 5432
# sun_path holds 108 bytes with the final zero on Linux, 104 on macOS.
SOCKET_PATH_BYTES_MAX = 103

# One system call that writes out the file system, in place of a thousand that write out a file
# each: as durable, and half as long on a busy disk.
SYNC_OPTIONS = ("--sync-method=syncfs",) if sys.platform == "linux" else ()


class Layout(Struct, frozen=True):
    """The paths of one data directory; `root` is absolute and free of symbolic links."""

    root: Path

    @property
    def gate(self) -> Path:
        """Locked by whoever starts, upgrades or stops the server."""
        return self.root / "gate.lock"

    @property
    def users(self) -> Path:
        """Share-locked by each process that uses the server."""
        return self.root / "users.lock"

    @property
    def password(self) -> Path:
        return self.root / "password"

    @property
    def configuration(self) -> Path:
        return self.root / "postgresql.conf"

    @property
    def authentication(self) -> Path:
        return self.root / "pg_hba.conf"

    @property
    def binaries(self) -> Path:
        return self.root / "postgresql"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def start_log(self) -> Path:
        """What the server says before its own log collector takes over."""
        return self.log / "start.log"

    @property
    def cluster(self) -> Path:
        return self.root / "cluster"

    @property
    def upgraded(self) -> Path:
        """A cluster that an upgrade finished, about to take the place of the old one."""
        return self.root / "cluster.upgraded"

    @property
    def socket(self) -> Path:
        """Short enough for a socket: beside the data, or else in /tmp under a name of its own.

        Every process must come to the same answer, so neither TMPDIR nor XDG_RUNTIME_DIR, which
        differ between a login and a service, has a say.
        """
        beside = self.root / "socket"
        if len(os.fsencode(beside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX:
            return beside
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:20]
        return Path("/tmp") / f"farebox-{digest}"  # noqa: S108 -- owner and mode are verified


def make_owned(path: Path, account: Account) -> None:
    """Make a directory that only the server's account can open; an existing one must be its own."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        if account.switch:
            os.chown(path, account.uid, account.gid)
    found = path.lstat()
    if not path.is_dir() or path.is_symlink() or found.st_uid != account.uid:
        raise ServerError(
            ServerCode.SOCKET_UNSAFE,
            f"{path} is not a directory of the account that runs the server "
            f"(uid {account.uid}). Move it away, or put the data elsewhere.",
        )


def rename_durably(source: Path, target: Path) -> None:
    """Rename, and be sure that the name outlives a power cut."""
    source.rename(target)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str, mode: int) -> None:
    """Write a file that is either absent (or as before) or complete, never half."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(aside, path)


def remove(path: Path) -> None:
    """Remove a tree, if it is there, even while an orphan still writes in it."""
    for _ in range(3):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
    shutil.rmtree(path)
