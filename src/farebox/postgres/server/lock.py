"""File locks between processes: the kernel drops them with their process, so none is ever stale."""

import fcntl
import os
import time
from pathlib import Path

_POLL_SECONDS = 0.02


class FileLock:
    """One flock of this process on one file; a second instance counts as another process.

    The file descriptor is not passed on to programs started from here, so a server that outlives
    its starter holds no lock. A forked child shares the lock until both have gone.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, timeout_seconds: int) -> bool:
        """Wait for the lock alone; False when it did not come in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.take_alone_now():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def take_alone_now(self) -> bool:
        """Take the lock alone if nobody else holds it; a shared one of our own is exchanged."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Take or go back to a shared lock."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go; harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
