"""Usage of a pool over HTTP: by whom, in windows of the pool's zone, page by page."""

from collections.abc import Callable
from typing import Any

import pytest

from farebox.access.key import Scope

USAGE = "/v1/pools/tokens/usage"


@pytest.fixture
def drawn(api: Any) -> Any:
    """Return the API of a vendor with a pool in Kolkata from which four subjects took."""
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    pool = {"unit": "token", "customer": "acme", "timezone": "Asia/Kolkata"}
    api.ok("PUT", "/v1/pools/tokens", pool)
    api.ok("POST", "/v1/pools/tokens/grants", {"key": "a", "amount": "1000"})
    for subject, amount in (
        ("ann", "5.50"),
        ("bob", "2"),
        ("cid", "7"),
        ("ann", "1"),
        ("dan", "2"),
    ):
        body = {"pool": "tokens", "amount": amount, "subject": subject}
        api.ok("POST", "/v1/authorize", body)
    return api


def test_by_subject_in_pages_with_the_greatest_use_first(drawn: Any) -> None:
    found: list[tuple[str, str]] = []
    cursor = ""
    while True:
        page = drawn.ok("GET", f"{USAGE}?by=subject&limit=2{cursor}")
        found += [(one["subject"], one["used"]) for one in page["items"]]
        assert {"used": "17.5", "covered": "17.5", "beyond": "0", "operations": 5} == page["total"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [("cid", "7"), ("ann", "6.5"), ("bob", "2"), ("dan", "2")] == found


def test_a_subject_by_day_from_this_period_on(drawn: Any) -> None:
    answer = drawn.ok("GET", f"{USAGE}?by=day&subject=ann")
    (day,) = answer["items"]
    assert ("6.5", 2, None) == (day["used"], day["operations"], day["subject"])
    assert ("tokens", "token", "Asia/Kolkata", "day") == tuple(
        answer[name] for name in ("pool", "unit", "timezone", "by")
    )
    assert answer["since"][14:19] == "30:00"  # a full hour of a zone that is half an hour off


def test_a_span_without_use_is_empty(drawn: Any) -> None:
    span = "since=2020-01-01T00:00:00Z&until=2020-02-01T00:00:00Z"
    for by in ("subject", "allotment", "hour", "day", "month"):
        answer = drawn.ok("GET", f"{USAGE}?by={by}&{span}")
        assert ([], "0") == (answer["items"], answer["total"]["used"])


def test_what_is_asked_to_begin_after_now_is_empty_and_not_refused(drawn: Any) -> None:
    """Whoever asks has a clock of its own, and said no end."""
    assert [] == drawn.ok("GET", f"{USAGE}?by=day&since=2100-01-01T00:00:00Z")["items"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("since=soon", 400, "parameter_invalid"),
        ("since=2020-02-01T00:00:00Z&until=2020-01-01T00:00:00Z", 422, "range_empty"),
        ("since=2020-02-01T00:00:00Z&until=2020-02-01T00:00:00Z", 422, "range_empty"),
        ("by=week", 400, "parameter_invalid"),
        ("by=hour&since=2020-01-01T00:00:00Z", 400, "parameter_invalid"),
        ("by=day&since=0001-01-01T00:00:00Z&until=9999-12-31T00:00:00Z", 400, "parameter_invalid"),
        ("cursor=nonsense", 400, "cursor_invalid"),
        ("cursor=WyJhIiwiYiJd", 400, "cursor_invalid"),
        ("cursor=WyJOYU4iLCJiIl0", 400, "cursor_invalid"),
        ("whose=ann", 400, "parameter_invalid"),
    ],
)
def test_what_cannot_be_asked_is_refused(drawn: Any, query: str, status: int, code: str) -> None:
    assert (status, code) == drawn.code("GET", f"{USAGE}?{query}")


def test_a_customers_key_sees_its_own_pools_only(drawn: Any, new_key: Callable[..., Any]) -> None:
    drawn.ok("PUT", "/v1/customers/globex", {"name": "Globex"})
    own, other = (new_key(drawn, Scope.READ, customer=key) for key in ("acme", "globex"))
    assert "17.5" == own.ok("GET", USAGE)["total"]["used"]
    assert (404, "pool_unknown") == other.code("GET", USAGE)
    assert (404, "pool_unknown") == other.code("GET", "/v1/pools/tokens/live")
    sender = new_key(drawn, Scope.INGEST)
    assert (403, "scope_missing") == sender.code("GET", USAGE)
    assert (403, "scope_missing") == sender.code("GET", "/v1/pools/tokens/live")
