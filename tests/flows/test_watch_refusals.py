"""Refusals are kept by the minute of the clock, and counted over windows that begin within one."""

from decimal import Decimal

from farebox_alerts import Watched
from farebox_pools import refused

from farebox.alerts.rule import AlertKind
from farebox.ledger.command import Draw

FIRED, CLEARED = "alert.fired", "alert.cleared"


def live(watched: Watched, *steps: tuple[int, int]) -> list[list[str]]:
    """Let seconds pass, be refused so many times, look; return what was told by each look."""
    told = []
    for seconds, refusals in steps:
        watched.pools.later(seconds=seconds)
        for _ in range(refusals):
            assert refused(watched.pools.ask("nothing", Draw(amount=Decimal(1))))
        told.append(watched.look_at_all())
    return told


def test_those_of_a_minute_count_while_the_last_of_them_lies_in_the_window(
    watched: Watched,
) -> None:
    watched.pools.put("nothing")
    watched.pools.now = watched.pools.now.replace(second=25, microsecond=0)
    watched.rule("refused", AlertKind.REFUSALS_ABOVE, 3, window_minutes=1)
    watched.rule("long", AlertKind.REFUSALS_ABOVE, 99, window_minutes=5)
    told = live(watched, (0, 1), (2, 3), (29, 0), (30, 0), (1, 0))
    assert [[], [FIRED], [], [], [CLEARED]] == told
    cleared = [(one.value, one.cleared_value) for one in watched.alerts()]
    assert [(Decimal(4), Decimal(0))] == cleared


def test_a_look_in_the_next_minute_sees_those_of_the_last(watched: Watched) -> None:
    watched.pools.put("nothing")
    watched.rule("refused", AlertKind.REFUSALS_ABOVE, 3, window_minutes=1)
    watched.pools.now = watched.pools.now.replace(second=27, microsecond=0)
    for _ in range(4):
        assert refused(watched.pools.ask("nothing", Draw(amount=Decimal(1))))
    assert [[FIRED], [], [CLEARED]] == live(watched, (33, 0), (26, 0), (1, 0))
