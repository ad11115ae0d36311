"""What can keep the embedded PostgreSQL from serving, each by a stable code."""

from enum import StrEnum


class ServerCode(StrEnum):
    """In order of precedence: what is checked first comes first."""

    SETTING_REFUSED = "setting_refused"
    PATH_CLOSED = "path_closed"
    NOT_OWNER = "not_owner"
    BUSY = "busy"
    DISK_FULL = "disk_full"
    SOCKET_UNSAFE = "socket_unsafe"
    BINARIES_MISSING = "binaries_missing"
    PASSWORD_MISSING = "password_missing"  # noqa: S105 -- a code, not a secret
    CLUSTER_MISSING = "cluster_missing"
    CLUSTER_NEWER = "cluster_newer"
    UPGRADE_IN_USE = "upgrade_in_use"
    UPGRADE_BINARIES_MISSING = "upgrade_binaries_missing"
    UPGRADE_FAILED = "upgrade_failed"
    INIT_FAILED = "init_failed"
    START_FAILED = "start_failed"
    START_TIMEOUT = "start_timeout"
    PASSWORD_REFUSED = "password_refused"  # noqa: S105 -- a code, not a secret
    WRONG_SERVER = "wrong_server"
    STOP_TIMEOUT = "stop_timeout"


class ServerError(Exception):
    """The server cannot serve; `message` is for a person and says what would help."""

    def __init__(self, code: ServerCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def failure(code: ServerCode, what: str, output: str) -> ServerError:
    """Turn a program's output into an error; a full disk is named as such, whoever met it."""
    told = output.strip()
    if "No space left on device" in told or "Disk quota exceeded" in told:
        return ServerError(ServerCode.DISK_FULL, f"{what}: the disk is full. Free space.\n{told}")
    return ServerError(code, f"{what}:\n{told}" if told else what)
