"""Whatever is asked about a pool is answered as of the instant of asking, by every route alike."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from farebox.access.key import Scope
from farebox.postgres.session import transaction

ROUTES = ["grants", "statement", "draw"]


@pytest.fixture(autouse=True)
def time(clock: Any) -> Iterator[None]:
    """Put the server's clock back where a test moved it."""
    before = clock.ahead
    yield
    clock.ahead = before


def at(clock: Any, **ahead: float) -> str:
    return str((clock() + timedelta(**ahead)).isoformat())


@pytest.fixture
def hold(api: Any, clock: Any) -> str:
    """Open a pool in which a lot will be due two hours from now, and return the id of its hold."""
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    api.ok("PUT", "/v1/pools/tokens", {"unit": "token", "customer": "acme"})
    daily = {"amount": "40", "priority": -1, "renewal": {"unit": "day"}, "ends_at": None}
    api.ok("PUT", "/v1/pools/tokens/recurring_grants/daily", daily)
    for grant in (
        {"key": "stays", "amount": "1000", "priority": 5},
        {"key": "ends", "amount": "100", "expires_at": at(clock, hours=1)},
        {"key": "unpaid", "amount": "500", "pending": True, "pay_by": at(clock, hours=1)},
        {"key": "later", "amount": "7", "effective_at": at(clock, hours=1)},
    ):
        api.ok("POST", "/v1/pools/tokens/grants", grant)
    asked = {"pool": "tokens", "amount": "1100", "hold": {"seconds": 60}}
    granted = api.ok("POST", "/v1/authorize", asked)
    clock.ahead += timedelta(days=1, hours=2)
    return str(granted["id"])


@pytest.mark.parametrize("route", ROUTES)
def test_a_list_has_what_fell_due_since_anybody_asked(
    api: Any, new_key: Any, hold: str, route: str
) -> None:
    """Each route is the first that is asked, by a key that may only read."""
    reader = new_key(api, Scope.READ, customer="acme")
    if route == "grants":
        found = reader.ok("GET", "/v1/pools/tokens/grants")["items"]
        stands = {one["key"]: (one["status"], one["available"], one["held"]) for one in found[1:]}
        assert {
            "stays": ("active", "1000", "0"),
            "ends": ("closed", "0", "0"),
            "unpaid": ("closed", "0", "0"),
            "later": ("active", "7", "0"),
            None: ("closed", "0", "0"),
        } == stands
        assert ("active", "40") == (found[0]["status"], found[0]["available"])
        assert Decimal(1047) == sum(Decimal(one["available"]) for one in found)
    elif route == "statement":
        found = reader.ok("GET", "/v1/pools/tokens/statement?limit=20")["items"]
        assert {"hold_expired", "grant_expired", "grant_unpaid", "grant_effective"} <= {
            one["reason"] for one in found
        }
        assert "1047" == found[0]["available_after"]
    else:
        later = reader.ok("GET", f"/v1/draws/{hold}")["later"]
        assert {"hold_expired"} == {one["reason"] for one in later}
        assert Decimal(1100) == sum(Decimal(one["amount"]) for one in later)
    assert "1047" == reader.ok("GET", "/v1/pools/tokens")["available"]


def test_a_closed_pool_is_told_as_it_stands_too(api: Any, clock: Any, hold: str) -> None:
    clock.ahead -= timedelta(days=1, hours=2)
    closed = {"unit": "token", "customer": "acme", "closed": True}
    api.ok("PUT", "/v1/pools/tokens", closed)
    clock.ahead += timedelta(days=1, hours=2)
    grants = api.ok("GET", "/v1/pools/tokens/grants")["items"]
    pool = api.ok("GET", "/v1/pools/tokens")
    assert "0" == pool["held"]
    assert Decimal(pool["available"]) == sum(Decimal(one["available"]) for one in grants)


def test_looking_writes_once_where_something_is_due_and_never_otherwise(
    api: Any, farebox: Any, clock: Any, hold: str
) -> None:
    def version() -> int:
        with transaction(farebox.pool, api.organization_id) as connection:
            row = connection.execute("select version from pool").fetchone()
        assert row is not None
        return int(row[0])

    before = version()
    for _ in range(3):
        for path in ("pools/tokens/grants", "pools/tokens/statement", f"draws/{hold}"):
            api.ok("GET", f"/v1/{path}")
    assert before + 1 == version()
    clock.ahead += timedelta(seconds=30)
    api.ok("GET", "/v1/pools/tokens/statement")
    assert before + 1 == version()


def test_the_grants_of_a_rate_limit_have_what_flowed_in_and_nothing_is_written_for_a_look(
    api: Any, clock: Any
) -> None:
    policy = {"refill": {"amount": "60", "seconds": 60, "capacity": "1000"}}
    api.ok("PUT", "/v1/pools/rate", {"unit": "call", "policy": policy})
    (grant,) = api.ok("GET", "/v1/pools/rate/grants")["items"]
    assert ("1000", "1000") == (grant["available"], api.ok("GET", "/v1/pools/rate")["available"])
    api.ok("POST", "/v1/authorize", {"pool": "rate", "amount": "1000"})
    entries = len(api.ok("GET", "/v1/pools/rate/statement")["items"])
    for _ in range(2):
        clock.ahead += timedelta(seconds=100)
        (grant,) = api.ok("GET", "/v1/pools/rate/grants")["items"]
        shown = Decimal(grant["available"])
        stands = Decimal(api.ok("GET", "/v1/pools/rate")["available"])
        assert shown <= stands < shown + 5  # a few seconds may have passed in between
        assert shown >= 100
    assert entries == len(api.ok("GET", "/v1/pools/rate/statement")["items"])


def test_a_grant_is_named_by_its_id_or_by_its_key(api: Any) -> None:
    api.ok("PUT", "/v1/pools/tokens", {"unit": "token"})
    api.ok("PUT", "/v1/pools/other", {"unit": "token"})
    path = "/v1/pools/tokens/grants"
    for key in ("po-1", "po-2"):
        api.ok("POST", path, {"key": key, "amount": "10", "pending": True})
    paid = api.ok("POST", f"{path}/po-1/pay", {})
    assert ("po-1", "10") == (paid["key"], paid["available"])
    assert "closed" == api.ok("POST", f"{path}/po-2/fail", {})["status"]
    assert (409, "grant_not_pending") == api.code("POST", f"{path}/po-2/pay", {})
    voided = api.ok("POST", f"{path}/{paid['id']}/void", {})
    assert ("voided", "0") == (voided["status"], voided["available"])
    assert (409, "grant_closed") == api.code("POST", f"{path}/{voided['id']}/expire", {})
    for name in ("po-3", "a%20b", f"{voided['id']}9"):
        assert (404, "grant_unknown") == api.code("POST", f"{path}/{name}/void", {})
    for name in ("po-1", voided["id"]):
        other = f"/v1/pools/other/grants/{name}/void"
        assert (404, "grant_unknown") == api.code("POST", other, {})


def test_a_time_to_pay_by_without_pending_is_refused_with_its_place(api: Any, clock: Any) -> None:
    api.ok("PUT", "/v1/pools/tokens", {"unit": "token"})
    asked = {"amount": "10", "pay_by": at(clock, hours=1)}
    refused = api("POST", "/v1/pools/tokens/grants", asked)
    assert 422 == refused.status_code
    assert [("grant_times_invalid", "/pay_by")] == [
        (one["code"], one["pointer"]) for one in refused.json()["errors"]
    ]
    api.ok("POST", "/v1/pools/tokens/grants", {**asked, "pending": True})
    assert 1 == len(api.ok("GET", "/v1/pools/tokens/grants")["items"])


def test_a_statement_of_no_time_is_refused(api: Any) -> None:
    api.ok("PUT", "/v1/pools/p", {"unit": "token"})
    path = "/v1/pools/p/statement?since=2026-10-02T00:00:00Z&until=2026-10-0"
    assert (422, "range_empty") == api.code("GET", f"{path}2T00:00:00Z")
    api.ok("GET", f"{path}3T00:00:00Z")
