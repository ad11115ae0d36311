"""The time of a machine whose clock somebody may set: a leap ahead is not believed at once.

What falls due is posted for good: a minute in the wrong year expires every grant there is. A clock
that goes back is refused by each pool that has seen a later time.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

LEAP = timedelta(minutes=5)
"""So far a clock may gain on the machine's steady one before it is held to have leapt."""
BELIEVED_AFTER = timedelta(minutes=1)
"""So long a clock has to go evenly after its leap: a machine may have been suspended."""


class ClockJumped(Exception):
    """The clock leapt ahead a moment ago; nothing is decided, dated or posted by it for now."""

    def __init__(self, ahead: timedelta) -> None:
        super().__init__(f"this machine's clock leapt ahead by {ahead}")
        self.ahead = ahead


class SteadyClock:
    """Returns the time now, in UTC; raises ClockJumped.

    `wall` is what may be set, in seconds since 1970; `steady` counts seconds from anywhere and
    cannot be set.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()
        self._leapt: tuple[float, float] | None = None  # the offset after it, and when

    def __call__(self) -> datetime:
        now, at = self._wall(), self._steady()
        ahead = now - at - self._offset
        if ahead > LEAP.total_seconds():
            self._wait_and_see(now - at, at, ahead)
        else:
            self._leapt = None
            # A clock that was set back may return to where it was; that is no leap.
            self._offset = max(self._offset, now - at)
        return datetime.fromtimestamp(now, UTC)

    def _wait_and_see(self, offset: float, at: float, ahead: float) -> None:
        """Believe a clock that has leapt once it has gone evenly since; raises ClockJumped."""
        leapt = self._leapt
        if leapt is None or abs(offset - leapt[0]) > LEAP.total_seconds():
            leapt = self._leapt = (offset, at)
        if at - leapt[1] < BELIEVED_AFTER.total_seconds():
            raise ClockJumped(timedelta(seconds=round(ahead)))
        self._offset, self._leapt = offset, None
