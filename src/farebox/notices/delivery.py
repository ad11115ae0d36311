"""What becomes of a delivery after an attempt: done, again later, or given up. Pure arithmetic."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

from msgspec import Struct

_SECONDS = (5, 30, 120, 900, 3_600, 10_800, 28_800, 43_200)
SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in _SECONDS)
"""How long to wait after the first failed attempt, the second, and so on; then it is given up."""
JITTER = 0.2
"""By which share a wait is longer or shorter, so that what failed together comes back apart."""
ASKED_MAX = SCHEDULE[-1]
REST_MAX = timedelta(minutes=1)
FAILING_MAX = timedelta(days=5)
EXCERPT_BYTES = 1000
_BUSY = (429, 502, 503, 504)
_GONE = 410
_DIGITS = re.compile(r"[0-9]{1,9}")


class DeliveryStatus(StrEnum):
    """How far a delivery is. What waits was not tried; what failed is tried again."""

    WAITING = "waiting"
    FAILED = "failed"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class SendFailure(StrEnum):
    """Why an attempt got no answer."""

    URL_REFUSED = "url_refused"
    NAME_UNKNOWN = "name_unknown"
    ADDRESS_REFUSED = "address_refused"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    ANSWER_UNREADABLE = "answer_unreadable"


class DisabledReason(StrEnum):
    """Why Farebox disabled an endpoint by itself."""

    GONE = "gone"
    FAILING = "failing"


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt ended: with an HTTP status, or with the failure that left none.

    excerpt: the first 1,000 bytes of the answer. retry_after: the header as it came.
    """

    status: int | None = None
    failure: SendFailure | None = None
    duration_ms: int = 0
    excerpt: str = ""
    retry_after: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Verdict(Struct, frozen=True, kw_only=True):
    """What follows from an outcome, for the delivery and for its endpoint.

    rests_until: before then nothing is sent to the endpoint. disabled: why it is, if it is now.
    """

    status: DeliveryStatus
    next_attempt_at: datetime | None = None
    rests_until: datetime | None = None
    disabled: DisabledReason | None = None


def judge(
    outcome: Outcome,
    *,
    tries: int,
    failures: int,
    failing_since: datetime | None,
    now: datetime,
    random: float,
) -> Verdict:
    """Return what follows from an attempt.

    tries: attempts so far, this one included. failures: how many of the endpoint's attempts failed
    in a row before this one, since failing_since. random: from 0 up to 1, without it.
    """
    if outcome.succeeded:
        return Verdict(status=DeliveryStatus.DELIVERED)
    if outcome.status == _GONE:
        return Verdict(status=DeliveryStatus.GIVEN_UP, disabled=DisabledReason.GONE)
    asked = read_retry_after(outcome.retry_after, now)
    wait = retry_delay(tries, random, asked)
    failing = failing_since is not None and now - failing_since >= FAILING_MAX
    busy = outcome.status is None or outcome.status in _BUSY
    return Verdict(
        status=DeliveryStatus.GIVEN_UP if wait is None else DeliveryStatus.FAILED,
        next_attempt_at=None if wait is None else now + wait,
        rests_until=now + rest(failures + 1, asked) if busy else None,
        disabled=DisabledReason.FAILING if failing else None,
    )


def retry_delay(tries: int, random: float, asked: timedelta | None = None) -> timedelta | None:
    """Return how long to wait after this many failed tries; none: no more.

    asked: what the receiver's Retry-After wants. It makes a wait longer, never above twelve hours.
    """
    assert tries >= 1, tries
    assert 0 <= random < 1, random
    if tries > len(SCHEDULE):
        return None
    wait = SCHEDULE[tries - 1] * (1 + JITTER * (2 * random - 1))
    return wait if asked is None else max(wait, min(asked, ASKED_MAX))


def rest(failures: int, asked: timedelta | None = None) -> timedelta:
    """Return how long an endpoint is left alone that gave no answer, or says that it is busy.

    It doubles with every failure in a row, up to a minute. So a dead receiver costs one attempt a
    minute, however many deliveries wait for it.
    """
    assert failures >= 1, failures
    wait = min(timedelta(seconds=1 << min(failures - 1, 10)), REST_MAX)
    return wait if asked is None else max(wait, min(asked, ASKED_MAX))


def read_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After header names, in seconds or by a date; else none."""
    if text is None:
        return None
    if _DIGITS.fullmatch(text.strip()):
        return timedelta(seconds=int(text))
    try:
        instant = parsedate_to_datetime(text)
    except ValueError:
        return None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return max(instant - now, timedelta(0))
