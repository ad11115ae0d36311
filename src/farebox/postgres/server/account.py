"""Which account runs the server: PostgreSQL refuses root, so root lends it an unprivileged one."""

import os
import pwd
import subprocess
from pathlib import Path

from msgspec import Struct

from farebox.postgres.server.refusal import ServerCode, ServerError

# A system user `farebox` is preferred where somebody made one; nobody exists everywhere.
UNPRIVILEGED = ("farebox", "nobody")


class Account(Struct, frozen=True):
    """A uid and gid to run PostgreSQL with; `switch` when that takes leaving root."""

    uid: int
    gid: int
    switch: bool


def default_data_directory(name: str = "default") -> Path:
    """Return where an installation called `name` keeps its data when nobody says otherwise.

    As root that is below /var/lib, because the server's own account cannot enter /root.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/farebox") / name
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "share"
    return base / "farebox" / name


def account_for(cluster: Path) -> Account:
    """Return the account that owns `cluster`, or that shall own it when it is made."""
    uid = os.geteuid()
    owner = cluster.stat() if cluster.exists() else None
    if uid != 0:
        if owner is not None and owner.st_uid != uid:
            raise ServerError(
                ServerCode.NOT_OWNER,
                f"{cluster} belongs to uid {owner.st_uid} and this process runs as uid {uid}. "
                "Run Farebox as that user or as root, or give it another data directory.",
            )
        return Account(uid=uid, gid=os.getegid(), switch=False)
    if owner is not None:
        if owner.st_uid == 0:
            raise ServerError(
                ServerCode.NOT_OWNER,
                f"{cluster} belongs to root, and PostgreSQL refuses to run as root. "
                f"Give it away: chown -R nobody {cluster}",
            )
        return Account(uid=owner.st_uid, gid=owner.st_gid, switch=True)
    return _unprivileged()


def _unprivileged() -> Account:
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(uid=entry.pw_uid, gid=entry.pw_gid, switch=True)
    raise ServerError(
        ServerCode.NOT_OWNER,
        "PostgreSQL refuses to run as root, and this machine has no user `farebox` or `nobody`. "
        "Add one: useradd --system farebox",
    )


def make_root(path: Path) -> Path:
    """Make the data directory, with the parents it lacks, and return its real path.

    What root makes can be entered (not listed) by the server's account; whatever was there
    before is left as it is.
    """
    missing = []
    at = path.absolute()
    while not at.exists():
        missing.append(at)
        at = at.parent
    mode = 0o711 if os.geteuid() == 0 else 0o700
    for directory in reversed(missing):
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        directory.chmod(mode)
    return path.resolve(strict=True)


def require_entry(root: Path, account: Account) -> None:
    """Refuse a data directory that the server's account cannot reach; nothing is opened for it."""
    if not account.switch:
        return
    closed = [step for step in (*reversed(root.parents), root) if not _may_enter(step, account)]
    if closed and not _enters(root, account):
        raise ServerError(
            ServerCode.PATH_CLOSED,
            f"The server runs as uid {account.uid}, which cannot enter {closed[0]}. Put the data "
            f"elsewhere, for example in {default_data_directory()}, run Farebox as an ordinary "
            f"user, or open the way yourself: chmod o+x {closed[0]}",
        )


def _may_enter(directory: Path, account: Account) -> bool:
    found = directory.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & 0o100)
    if found.st_gid == account.gid:
        return bool(found.st_mode & 0o010)
    return bool(found.st_mode & 0o001)


def _enters(root: Path, account: Account) -> bool:
    # The mode bits do not know access control lists; the last word is an attempt.
    tried = subprocess.run(  # noqa: S603 -- a fixed program, the path is an argument of its own
        ["/bin/sh", "-c", 'cd -- "$0"', str(root)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0
