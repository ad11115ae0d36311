"""A clock that leaps ahead is not believed before it has gone evenly for a while."""

from datetime import UTC, datetime, timedelta

import pytest

from farebox.period.clock import ClockJumped, SteadyClock

START = datetime(2026, 11, 21, tzinfo=UTC)
DAY = 86_400.0


class Machine:
    """A machine whose clock can be set, and the clock that a process has of it."""

    def __init__(self) -> None:
        self.wall, self.steady = START.timestamp(), 1000.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.steady)

    def run(self, seconds: float, gain: float = 0) -> datetime:
        """Let time go by, the clock gaining so much on it, and return what the clock says."""
        self.wall += seconds + gain
        self.steady += seconds
        return self.clock()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_time_goes_by(machine: Machine) -> None:
    assert START == machine.clock()
    assert START + timedelta(days=3) == machine.run(3 * DAY)


def test_a_leap_ahead_is_refused_and_says_how_far(machine: Machine) -> None:
    with pytest.raises(ClockJumped, match="leapt ahead by 10 days, 0:00:00") as raised:
        machine.run(1, gain=10 * DAY)
    assert timedelta(days=10) == raised.value.ahead


def test_a_clock_that_is_set_right_again_is_believed_at_once(machine: Machine) -> None:
    with pytest.raises(ClockJumped):
        machine.run(1, gain=DAY)
    assert START + timedelta(seconds=2) == machine.run(1, gain=-DAY)
    with pytest.raises(ClockJumped):
        machine.run(1, gain=DAY)


def test_a_clock_that_goes_evenly_after_its_leap_is_believed(machine: Machine) -> None:
    with pytest.raises(ClockJumped):
        machine.run(1, gain=DAY)
    with pytest.raises(ClockJumped):
        machine.run(59)
    assert START + timedelta(days=1, seconds=61) == machine.run(1)
    assert START + timedelta(days=1, seconds=62) == machine.run(1)
    with pytest.raises(ClockJumped):
        machine.run(1, gain=400)


def test_a_clock_that_leaps_on_is_not_believed(machine: Machine) -> None:
    for _ in range(10):
        with pytest.raises(ClockJumped):
            machine.run(59, gain=DAY)


@pytest.mark.parametrize("gain", [299.0, 1.0, -1.0, -DAY])
def test_small_steps_and_steps_back_are_let_through(machine: Machine, gain: float) -> None:
    """A pool refuses by itself a time before its last; others may go on."""
    assert START + timedelta(seconds=1 + gain) == machine.run(1, gain)


def test_a_clock_that_was_set_back_may_return(machine: Machine) -> None:
    machine.run(1, gain=-DAY)
    assert START + timedelta(seconds=2) == machine.run(1, gain=DAY)


def test_a_clock_that_runs_a_little_fast_is_never_a_leap(machine: Machine) -> None:
    for _ in range(100):
        machine.run(60, gain=200)
