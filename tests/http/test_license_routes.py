"""Licenses over HTTP: put, asked, bought, prolonged, taken back, revoked."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from farebox.access.key import Scope
from farebox.http.cover_memory import REMEMBERED_SECONDS

DAY = 86_400


@pytest.fixture
def ahead(clock: Any) -> Iterator[Callable[..., None]]:
    """Return a function that puts the server's clock forward, until the test ends."""
    before = clock.ahead

    def move(**step: float) -> None:
        clock.ahead += timedelta(**step)

    yield move
    clock.ahead = before


@pytest.fixture
def sold(api: Any, clock: Any) -> Any:
    """Return the API of a vendor whose customer has a license for a day, with 100 tokens."""
    for feature in ("sso", "region"):
        api.ok("PUT", f"/v1/features/{feature}?publish=true", {})
    api.ok("PUT", "/v1/customers/acme", {"timezone": "Asia/Tokyo"})
    license_put(api, clock)
    api.ok("PUT", "/v1/pools/l-tokens", {"unit": "token", "license": "L-1"})
    api.ok("POST", "/v1/pools/l-tokens/grants", {"amount": 100})
    return api


def license_put(api: Any, clock: Any, **fields: Any) -> Any:
    now = clock()
    body = {
        "customer": "acme",
        "features": ["sso"],
        "entitlements": [{"feature": "region", "value": "eu"}],
        "starts_at": now.isoformat(),
        "ends_at": (now + timedelta(days=1)).isoformat(),
    }
    return api.ok("PUT", "/v1/licenses/L-1", {**body, **fields})


def asked(api: Any, **fields: Any) -> tuple[int, str]:
    """Return what is answered to who asks a unit: the pool that gave it, or the code of the no."""
    response = api("POST", "/v1/authorize", {"license": "L-1", "amount": 1, **fields})
    answer = response.json()
    return response.status_code, answer["pool"] if response.status_code == 200 else answer["code"]


def test_a_license_is_put_shown_and_listed(sold: Any) -> None:
    shown = sold.ok("GET", "/v1/licenses/L-1")
    assert ("in_force", "acme", ["sso"]) == (shown["status"], shown["customer"], shown["features"])
    assert [shown] == sold.ok("GET", "/v1/licenses?customer=acme")["items"]
    assert [] == sold.ok("GET", "/v1/licenses?customer=globex")["items"]
    again = {name: shown[name] for name in shown if name not in ("key", "status", "revoked_at")}
    assert not sold.ok("PUT", "/v1/licenses/L-1", again)["changed"]
    del again["starts_at"]  # one that has begun stays so
    assert not sold.ok("PUT", "/v1/licenses/L-1", again)["changed"]
    assert (404, "license_unknown") == sold.code("GET", "/v1/licenses/L-2")


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"customer": "globex"}, (422, "unknown_customer")),
        ({"features": ["teleport"]}, (422, "unknown_feature")),
        ({"features": ["sso", "sso"]}, (422, "entitlement_duplicate")),
        ({"features": ["region"]}, (422, "entitlement_duplicate")),
        ({"entitlements": [{"feature": "sso", "limit": 5}]}, (422, "entitlement_contradictory")),
        ({"subject": "\u0007"}, (422, "subject_invalid")),
        ({"ends_at": "2020-01-01T00:00:00Z"}, (422, "license_ends_before_start")),
    ],
)
def test_what_is_no_license_is_refused_by_name(
    sold: Any, fields: dict[str, Any], refused: tuple[int, str]
) -> None:
    body = {"customer": "acme", "entitlements": [{"feature": "region", "value": "eu"}], **fields}
    assert refused == sold.code("PUT", "/v1/licenses/L-2", body)
    assert (404, "license_unknown") == sold.code("GET", "/v1/licenses/L-2")


def test_a_license_stays_with_its_customer(sold: Any) -> None:
    sold.ok("PUT", "/v1/customers/globex", {})
    assert (409, "license_fixed") == sold.code("PUT", "/v1/licenses/L-1", {"customer": "globex"})


def test_the_pool_of_a_license_is_its_customers(sold: Any) -> None:
    shown = sold.ok("GET", "/v1/pools/l-tokens")
    assert ("acme", "L-1", "Asia/Tokyo") == tuple(
        shown[name] for name in ("customer", "license", "timezone")
    )
    assert [shown["key"]] == [
        one["key"] for one in sold.ok("GET", "/v1/pools?license=L-1")["items"]
    ]
    assert [] == sold.ok("GET", "/v1/pools?license=L-2")["items"]
    body = {"unit": "token", "license": "L-1"}
    path = "/v1/pools/l-tokens"
    assert not sold.ok("PUT", path, body)["changed"]
    assert not sold.ok("PUT", path, {**body, "customer": "acme"})["changed"]
    own = {"unit": "token", "customer": "acme"}
    assert (422, "pool_fixed") == sold.code("PUT", path, own)
    sold.ok("PUT", "/v1/customers/globex", {})
    for other in ({**body, "license": "L-2"}, {**body, "customer": "globex"}):
        assert (404, "license_unknown") == sold.code("PUT", "/v1/pools/another", other)


def test_a_license_is_asked_for_its_pool(sold: Any) -> None:
    assert (200, "l-tokens") == asked(sold, subject="whoever")
    assert (404, "license_unknown") == asked(sold, license="L-2")
    assert (422, "unit_mismatch") == asked(sold, unit="seat")
    assert (400, "parameter_invalid") == asked(sold, pool="l-tokens")
    assert (403, "subject_not_served") == asked(sold, customer="globex")
    sold.ok("PUT", "/v1/licenses/L-2", {"customer": "acme"})
    assert (404, "pool_unknown") == asked(sold, license="L-2")
    requests = [{"license": "L-1", "amount": 2}, {"license": "L-3", "amount": 2}]
    answers = sold.ok("POST", "/v1/authorize/batch", {"requests": requests})["answers"]
    assert "l-tokens" == answers[0]["granted"]["pool"]
    assert "license_unknown" == answers[1]["refused"]["code"]
    assert "97" == sold.ok("GET", "/v1/pools/l-tokens")["available"]


def test_of_several_pools_the_unit_tells_which(sold: Any, ahead: Callable[..., None]) -> None:
    sold.ok("PUT", "/v1/pools/l-seats", {"unit": "seat", "license": "L-1"})
    sold.ok("POST", "/v1/pools/l-seats/grants", {"amount": 1})
    assert (422, "license_pool_ambiguous") == asked(sold)
    assert (200, "l-seats") == asked(sold, unit="seat")
    assert (200, "l-tokens") == asked(sold, unit="token")
    assert (404, "pool_unknown") == asked(sold, unit="hour")
    sold.ok("PUT", "/v1/pools/l-more", {"unit": "seat", "license": "L-1"})
    ahead(seconds=REMEMBERED_SECONDS)
    assert (422, "license_pool_ambiguous") == asked(sold, unit="seat")


def test_a_closed_pool_is_in_the_way_of_no_other(sold: Any, ahead: Callable[..., None]) -> None:
    body = {"unit": "token", "license": "L-1"}
    sold.ok("PUT", "/v1/pools/l-tokens", {**body, "closed": True})
    assert (409, "pool_closed") == asked(sold)
    sold.ok("PUT", "/v1/pools/l-more", body)
    sold.ok("POST", "/v1/pools/l-more/grants", {"amount": 100})
    ahead(seconds=REMEMBERED_SECONDS)
    assert (200, "l-more") == asked(sold)


def test_a_license_gives_from_its_beginning_until_its_end(
    sold: Any, clock: Any, ahead: Callable[..., None]
) -> None:
    begins = clock() + timedelta(hours=1)
    license_put(sold, clock, starts_at=begins.isoformat())
    for named in ({}, {"license": None, "pool": "l-tokens"}, {"feature": "sso"}):
        assert (409, "license_not_begun") == asked(sold, **named)
    checked = sold.ok("POST", "/v1/pools/l-tokens/check", {"license": "L-1", "amount": 1})
    assert "license_not_begun" == checked["refusal"]["code"]
    ahead(hours=1)
    for named in ({}, {"license": None, "pool": "l-tokens"}, {"feature": "sso"}):
        assert 200 == asked(sold, **named)[0]
    ahead(days=1)
    for named in ({}, {"license": None, "pool": "l-tokens"}, {"feature": "sso"}):
        assert (409, "license_over") == asked(sold, **named)
    assert "over" == sold.ok("GET", "/v1/licenses/L-1")["status"]
    assert "98" == sold.ok("GET", "/v1/pools/l-tokens")["available"]
    told = sold.ok("GET", "/v1/refusals?pool=l-tokens")
    assert {"license_not_begun", "license_over"} == {one["code"] for one in told}


def test_a_check_names_the_license_of_the_pool(sold: Any) -> None:
    body = {"license": "L-1", "amount": 1}
    assert sold.ok("POST", "/v1/pools/l-tokens/check", body)["granted"]
    other = sold.code("POST", "/v1/pools/l-tokens/check", {**body, "license": "L-2"})
    assert (400, "parameter_invalid") == other


def test_a_revoked_license_gives_nothing_more_and_stays_so(sold: Any, clock: Any) -> None:
    hold = {"license": "L-1", "amount": 5, "hold": {"seconds": 60}}
    held = sold.ok("POST", "/v1/authorize", hold)["hold"]
    answer = sold.ok("POST", "/v1/licenses/L-1/revoke")
    assert (True, "revoked") == (answer["changed"], answer["license"]["status"])
    assert (409, "license_revoked") == asked(sold)
    again = sold.ok("POST", "/v1/licenses/L-1/revoke")
    assert {"changed": False, "license": answer["license"]} == again
    settled = sold.ok("POST", f"/v1/holds/{held}/settle", {"amount": 8})
    assert ("8", "92") == (settled["amount"], settled["available"]), "what was used is not lost"
    later = {"customer": "acme", "ends_at": (clock() + timedelta(days=9)).isoformat()}
    assert (409, "license_revoked") == sold.code("PUT", "/v1/licenses/L-1", later)
    assert (404, "license_unknown") == sold.code("POST", "/v1/licenses/L-2/revoke")


def entitled(api: Any, path: str = "?license=L-1") -> dict[str, tuple[bool, str | None, list[str]]]:
    listed = api.ok("GET", f"/v1/customers/acme/entitlements{path}")
    return {
        one["feature"]: (one["enabled"], one["value"], [each["kind"] for each in one["origins"]])
        for one in listed
    }


def test_what_a_license_grants_counts_for_whoever_names_it(
    sold: Any, ahead: Callable[..., None]
) -> None:
    assert {} == entitled(sold, "")
    assert {
        "sso": (True, None, ["license"]),
        "region": (True, "eu", ["license"]),
    } == entitled(sold)
    one = sold.ok("GET", "/v1/customers/acme/entitlements/sso?license=L-1")
    assert ("L-1", True) == (one["origins"][0]["name"], one["enabled"])
    listed = sold.code("GET", "/v1/customers/acme/entitlements?license=L-2")
    assert (404, "license_unknown") == listed
    assert (200, "sso") == asked(sold, feature="sso")
    assert (403, "feature_not_entitled") == asked(
        sold, license=None, feature="sso", customer="acme"
    )
    sold.ok("PUT", "/v1/customers/globex", {})
    assert (400, "parameter_invalid") == asked(sold, feature="sso", customer="globex")
    assert (404, "license_unknown") == sold.code(
        "GET", "/v1/customers/globex/entitlements?license=L-1"
    )
    ahead(days=1)
    assert {} == entitled(sold)


def test_a_value_of_a_license_goes_before_the_plans_and_an_override_before_it(
    sold: Any, clock: Any
) -> None:
    plan = {"currency": "EUR", "entitlements": [{"feature": "region", "value": "us"}]}
    sold.ok("PUT", "/v1/plans/pro?publish=true", plan)
    body = {"customer": "acme", "plan": "pro", "start": clock().isoformat()}
    sold.ok("PUT", "/v1/subscriptions/acme-pro", body)
    assert (True, "us", ["plan"]) == entitled(sold, "")["region"]
    assert (True, "eu", ["plan", "license"]) == entitled(sold)["region"]
    sold.ok("PUT", "/v1/customers/acme/entitlements/region", {"value": "jp"})
    assert (True, "jp", ["override"]) == entitled(sold)["region"]


@pytest.fixture
def rich(sold: Any) -> Any:
    """Return the API of a vendor whose customer has 100 credits of its own besides."""
    sold.ok("PUT", "/v1/pools/credits", {"unit": "credit", "customer": "acme"})
    sold.ok("POST", "/v1/pools/credits/grants", {"amount": 100})
    return sold


def buy(key: str = "L-2", **fields: Any) -> dict[str, Any]:
    return {"license": {"key": key, **fields}, "amount": 30, "seconds": DAY}


def ends(api: Any, key: str = "L-2") -> str:
    return api.ok("GET", f"/v1/licenses/{key}")["ends_at"]


BUY = "/v1/pools/credits/access"


def test_units_buy_a_license_for_a_term(rich: Any, ahead: Callable[..., None]) -> None:
    bought = rich.ok("POST", BUY, buy(features=["sso"], name="Lab"))
    assert (None, "L-2") == (bought["feature"], bought["license"])
    shown = rich.ok("GET", "/v1/licenses/L-2")
    assert ("acme", "Lab", ["sso"]) == (shown["customer"], shown["name"], shown["features"])
    assert (bought["starts_at"], bought["ends_at"]) == (shown["starts_at"], shown["ends_at"])
    assert "70" == rich.ok("GET", "/v1/pools/credits")["available"]
    assert (200, "sso") == asked(rich, license="L-2", feature="sso")
    ahead(days=1)
    assert "over" == rich.ok("GET", "/v1/licenses/L-2")["status"]
    assert (409, "license_over") == asked(rich, license="L-2", feature="sso")


def test_a_license_is_prolonged_from_its_end_and_taking_back_shortens_it(
    rich: Any, ahead: Callable[..., None]
) -> None:
    first = rich.ok("POST", BUY, buy(features=["sso"]))
    second = rich.ok("POST", BUY, buy())
    assert first["ends_at"] == second["starts_at"]
    assert second["ends_at"] == ends(rich)
    assert ["sso"] == rich.ok("GET", "/v1/licenses/L-2")["features"]
    rich.ok("POST", f"/v1/draws/{first['draw']}/reverse")
    assert first["ends_at"] == ends(rich)
    rich.ok("POST", f"/v1/draws/{second['draw']}/reverse", {"amount": 10})
    assert first["ends_at"] == ends(rich), "a part was taken back, the license stays"
    rich.ok("POST", f"/v1/draws/{second['draw']}/reverse")
    assert "over" == rich.ok("GET", "/v1/licenses/L-2")["status"]
    assert "100" == rich.ok("GET", "/v1/pools/credits")["available"]
    ahead(hours=1)
    third = rich.ok("POST", BUY, buy())
    assert third["ends_at"] == ends(rich)
    assert "in_force" == rich.ok("GET", "/v1/licenses/L-2")["status"]
    assert first["ends_at"] < third["ends_at"]


def test_taking_back_stops_the_pools_of_the_license_at_once(rich: Any) -> None:
    draw = rich.ok("POST", BUY, buy())["draw"]
    rich.ok("PUT", "/v1/pools/lab", {"unit": "token", "license": "L-2"})
    rich.ok("POST", "/v1/pools/lab/grants", {"amount": 10})
    assert (200, "lab") == asked(rich, license="L-2")
    rich.ok("POST", f"/v1/draws/{draw}/reverse")
    assert (409, "license_over") == asked(rich, license="L-2")
    rich.ok("POST", BUY, buy())
    assert (200, "lab") == asked(rich, license="L-2")


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (buy("L-1", features=["region"]), (409, "license_fixed")),
        (buy("L-9"), (409, "license_revoked")),
        (buy("L-8"), (422, "license_endless")),
        (buy("L 2"), (422, "key_invalid")),
        (buy(features=["teleport"]), (422, "unknown_feature")),
        ({**buy(), "customer": "globex"}, (404, "not_found")),
        ({**buy(), "feature": "sso"}, (400, "parameter_invalid")),
        ({"amount": 1, "seconds": 60}, (400, "parameter_invalid")),
        ({**buy(), "amount": 101}, (402, "insufficient_balance")),
    ],
)
def test_what_is_not_bought_costs_nothing(
    rich: Any, body: dict[str, Any], refused: tuple[int, str]
) -> None:
    for key in ("L-8", "L-9"):
        rich.ok("PUT", f"/v1/licenses/{key}", {"customer": "acme"})
    rich.ok("POST", "/v1/licenses/L-9/revoke")
    before = rich.ok("GET", "/v1/licenses")
    assert refused == rich.code("POST", BUY, body)
    assert before == rich.ok("GET", "/v1/licenses")
    assert "100" == rich.ok("GET", "/v1/pools/credits")["available"]


def test_a_license_cannot_be_prolonged_beyond_all_times(rich: Any) -> None:
    rich.ok("PUT", "/v1/licenses/L-2", {"customer": "acme", "ends_at": "2199-12-31T23:00:00Z"})
    assert (422, "time_out_of_range") == rich.code("POST", BUY, buy())


def test_a_key_of_a_customer_asks_for_its_licenses_alone(sold: Any, new_key: Any) -> None:
    sold.ok("PUT", "/v1/customers/globex", {})
    own = new_key(sold, Scope.READ, Scope.DRAW, customer="acme")
    assert (200, "l-tokens") == asked(own)
    assert ["L-1"] == [one["key"] for one in own.ok("GET", "/v1/licenses")["items"]]
    other = new_key(sold, Scope.READ, Scope.DRAW, customer="globex")
    assert (404, "license_unknown") == asked(other)
    assert [] == other.ok("GET", "/v1/licenses")["items"]
    assert (404, "license_unknown") == other.code("GET", "/v1/licenses/L-1")
