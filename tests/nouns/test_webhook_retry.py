"""When a delivery is tried again, when it is given up, and when an endpoint is left alone."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.notices.delivery import (
    ASKED_MAX,
    FAILING_MAX,
    REST_MAX,
    SCHEDULE,
    DeliveryStatus,
    DisabledReason,
    Outcome,
    SendFailure,
    Verdict,
    judge,
    read_retry_after,
    rest,
    retry_delay,
)

NOW = datetime(2026, 10, 2, 12, tzinfo=UTC)
CHANCE = st.floats(0, 1, exclude_max=True)
MIDDLE = 0.5
TRIES = st.integers(1, len(SCHEDULE))


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def verdict(
    outcome: Outcome, *, tries: int = 1, failures: int = 0, since: int | None = None
) -> Verdict:
    """Judge an attempt of now; `since`: how many days ago the endpoint began to fail."""
    return judge(
        outcome,
        tries=tries,
        failures=failures,
        failing_since=None if since is None else NOW - timedelta(days=since),
        now=NOW,
        random=MIDDLE,
    )


def test_the_schedule_is_the_documented_one() -> None:
    waits = [retry_delay(tries, MIDDLE) for tries in range(1, 10)]
    hour = 3600
    expected = [5, 30, 120, 15 * 60, hour, 3 * hour, 8 * hour, 12 * hour]
    assert [*map(seconds, expected), None] == waits


def test_a_delivery_is_given_up_after_a_day() -> None:
    whole = sum(SCHEDULE, timedelta())
    assert timedelta(hours=24) < whole < timedelta(hours=25)


@given(TRIES, CHANCE)
def test_chance_moves_a_wait_by_a_fifth_at_most(tries: int, random: float) -> None:
    wait = retry_delay(tries, random)
    assert wait is not None
    assert SCHEDULE[tries - 1] * 0.799 <= wait <= SCHEDULE[tries - 1] * 1.201


@given(st.integers(1, len(SCHEDULE) - 1), CHANCE, CHANCE)
def test_waits_grow_whatever_chance_does(tries: int, first: float, second: float) -> None:
    earlier, later = retry_delay(tries, first), retry_delay(tries + 1, second)
    assert earlier is not None
    assert later is not None
    assert earlier < later


@given(TRIES, CHANCE, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_what_the_receiver_asks_for_makes_a_wait_longer_within_bounds(
    tries: int, random: float, asked: timedelta
) -> None:
    usual, wait = retry_delay(tries, random), retry_delay(tries, random, asked)
    assert usual is not None
    assert wait is not None
    assert max(usual, min(asked, ASKED_MAX)) == wait


def test_asking_does_not_bring_a_delivery_back_that_is_given_up() -> None:
    assert retry_delay(len(SCHEDULE) + 1, MIDDLE, seconds(1)) is None


def test_rests_double_up_to_a_minute() -> None:
    expected = [1, 2, 4, 8, 16, 32, 60, 60]
    assert expected == [rest(failures).total_seconds() for failures in range(1, 9)]
    assert REST_MAX == rest(1_000_000)
    assert seconds(90) == rest(1, seconds(90))
    assert ASKED_MAX == rest(1, timedelta(days=30))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(status: int) -> None:
    outcome = Outcome(status=status)
    assert outcome.succeeded
    assert Verdict(status=DeliveryStatus.DELIVERED) == verdict(outcome, since=400)


@pytest.mark.parametrize(
    "status", [100, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 500, 501]
)
def test_any_other_answer_is_tried_again_and_others_are_not_kept_waiting(status: int) -> None:
    expected = Verdict(status=DeliveryStatus.FAILED, next_attempt_at=NOW + seconds(5))
    assert expected == verdict(Outcome(status=status))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_receiver_that_says_it_is_busy_is_left_alone(status: int) -> None:
    found = verdict(Outcome(status=status, retry_after="40"), tries=2, failures=3)
    assert (NOW + seconds(40), NOW + seconds(40)) == (found.next_attempt_at, found.rests_until)


@pytest.mark.parametrize("failure", list(SendFailure))
def test_a_receiver_that_does_not_answer_is_left_alone(failure: SendFailure) -> None:
    found = verdict(Outcome(failure=failure), failures=3)
    expected = (DeliveryStatus.FAILED, NOW + seconds(5), NOW + seconds(8))
    assert expected == (found.status, found.next_attempt_at, found.rests_until)


def test_gone_ends_the_delivery_and_the_endpoint() -> None:
    expected = Verdict(status=DeliveryStatus.GIVEN_UP, disabled=DisabledReason.GONE)
    assert expected == verdict(Outcome(status=410))


def test_the_last_try_gives_up() -> None:
    last = len(SCHEDULE) + 1
    found = verdict(Outcome(status=500), tries=last)
    assert Verdict(status=DeliveryStatus.GIVEN_UP) == found
    assert verdict(Outcome(status=500), tries=last - 1).status is DeliveryStatus.FAILED


def test_five_days_without_success_disable_an_endpoint() -> None:
    days = FAILING_MAX.days
    assert 5 == days
    assert DisabledReason.FAILING is verdict(Outcome(status=500), since=days).disabled
    assert verdict(Outcome(status=500), since=days - 1).disabled is None
    assert verdict(Outcome(status=500)).disabled is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("999999999", 999_999_999),
        (format_datetime(NOW + seconds(90), usegmt=True), 90),
        (format_datetime(NOW - seconds(90), usegmt=True), 0),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(text: str | None, expected: int | None) -> None:
    assert (None if expected is None else seconds(expected)) == read_retry_after(text, NOW)


@given(
    st.text(alphabet=st.characters(max_codepoint=255), max_size=60)
    | st.from_regex(r"\w{3}, \d{1,4} \w{3} \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} (GMT|[+-]\d{4})?")
)
def test_no_header_of_a_receiver_makes_trouble(text: str) -> None:
    found = read_retry_after(text, NOW)
    assert found is None or found >= timedelta(0)
