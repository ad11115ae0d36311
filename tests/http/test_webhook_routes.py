"""Webhooks over the API: what is wrong is named, secrets are shown once, keys keep to theirs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import Scope
from farebox.flows.deliver_webhook import begin_attempt, finish_attempt
from farebox.flows.dispatch_notices import dispatch_notices
from farebox.notices.delivery import Outcome
from farebox.notices.type import NoticeType
from farebox.postgres import notice
from farebox.postgres.notice import Notice
from farebox.postgres.session import transaction

PATH = "/v1/webhook_endpoints/ours"
BODY = {"url": "https://hooks.example.com/farebox"}


@pytest.fixture
def tell(farebox: Any, api: Any) -> Callable[..., list[str]]:
    """Return a function that tells what happened, and hands it to the endpoints."""

    def act(*customers: str | None, kind: NoticeType = NoticeType.ALERT_FIRED) -> list[str]:
        now = farebox.clock()
        told = [
            Notice(
                notice_id=farebox.new_id(), type=kind, time=now, customer=one, data={"n": number}
            )
            for number, one in enumerate(customers)
        ]
        with transaction(farebox.pool, api.organization_id) as connection:
            notice.add_notices(connection, api.organization_id, told)
        dispatch_notices(farebox.pool, api.organization_id, now, farebox.new_id)
        return [encode_id(Prefix.NOTICE, one.notice_id) for one in told]

    return act


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "missing_field", "/url"),
        ({"url": 5}, "wrong_type", "/url"),
        ({**BODY, "urls": []}, "unknown_field", "/urls"),
        ({**BODY, "key": "another"}, "key_mismatch", "/key"),
        ({**BODY, "description": "x" * 1001}, "wrong_type", "/description"),
        ({**BODY, "metadata": {"a": 1}}, "wrong_type", "/metadata"),
        ({**BODY, "types": "alert.fired"}, "wrong_type", "/types"),
        ({**BODY, "types": ["alert.fried"]}, "unknown_notice_type", "/types/0"),
        ({**BODY, "customer": "nobody"}, "unknown_customer", "/customer"),
        ({"url": ""}, "url_invalid", "/url"),
        ({"url": f"https://hooks.example.com/{'x' * 2000}"}, "url_invalid", "/url"),
        ({"url": "https://a:b@hooks.example.com/"}, "url_invalid", "/url"),
        ({"url": "http://hooks.example.com/"}, "url_not_https", "/url"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url_private", "/url"),
        ({"url": "https://localhost:8377/v1/meters"}, "url_private", "/url"),
    ],
)
def test_what_no_endpoint_can_be(api: Any, body: Any, code: str, pointer: str) -> None:
    response = api("PUT", PATH, body)
    assert (422, code) == (response.status_code, response.json()["code"])
    assert pointer in [one["pointer"] for one in response.json()["errors"]]
    assert [] == api.ok("GET", "/v1/webhook_endpoints")["items"]


def test_an_endpoint_is_put_read_listed_and_deleted(api: Any) -> None:
    for key in ("b", "a", "c"):
        made = api("PUT", f"/v1/webhook_endpoints/{key}", BODY)
        assert (201, True) == (made.status_code, made.json()["changed"])
    again = api("PUT", "/v1/webhook_endpoints/a", BODY)
    assert (200, False, None) == (
        again.status_code,
        again.json()["changed"],
        again.json()["secret"],
    )
    first = api.ok("GET", "/v1/webhook_endpoints?limit=2")
    second = api.ok("GET", f"/v1/webhook_endpoints?limit=2&cursor={first['next_cursor']}")
    assert ["a", "b", "c"] == [one["key"] for page in (first, second) for one in page["items"]]
    assert 204 == api("DELETE", "/v1/webhook_endpoints/a").status_code
    assert (404, "not_found") == api.code("DELETE", "/v1/webhook_endpoints/a")
    assert (404, "not_found") == api.code("GET", "/v1/webhook_endpoints/a")


def test_an_unknown_endpoint_is_not_found(api: Any) -> None:
    for method, path, body in (
        ("GET", PATH, None),
        ("DELETE", PATH, None),
        ("POST", f"{PATH}/test", {}),
        ("POST", f"{PATH}/rotate_secret", {}),
        ("POST", f"{PATH}/replay", {"since": "2026-01-01T00:00:00Z"}),
        ("GET", "/v1/webhook_deliveries/dlv_nonsense", None),
        ("POST", "/v1/webhook_deliveries/ntc_00000000000000000000000000/replay", {}),
    ):
        assert (404, "not_found") == api.code(method, path, body), path


def test_secrets_are_shown_once(api: Any) -> None:
    secret = api.ok("PUT", PATH, BODY)["secret"]
    once = {"Idempotency-Key": "k-1"}
    first = api.ok("POST", f"{PATH}/rotate_secret", {}, headers=once)
    again = api.ok("POST", f"{PATH}/rotate_secret", {}, headers=once)
    assert first["secret"].startswith("whsec_")
    assert secret != first["secret"]
    assert {**first, "secret": None} == again
    other = api.ok("POST", f"{PATH}/rotate_secret", {})
    assert first["secret"] != other["secret"]
    assert "whsec_" not in str(api.ok("GET", "/v1/webhook_endpoints"))
    assert "whsec_" not in str(api.ok("GET", PATH))


def test_a_test_that_is_asked_for_twice_under_a_key_is_one(api: Any) -> None:
    api.ok("PUT", PATH, BODY)
    once = {"Idempotency-Key": "t-1"}
    first = api.ok("POST", f"{PATH}/test", {}, headers=once)
    assert first == api.ok("POST", f"{PATH}/test", {}, headers=once)
    assert [first] == api.ok("GET", "/v1/webhook_deliveries")["items"]
    assert (422, "idempotency_key_reused") == api.code(
        "POST", f"{PATH}/rotate_secret", {}, headers=once
    )


def test_a_disabled_endpoint_is_sent_nothing(api: Any, tell: Any) -> None:
    api.ok("PUT", PATH, {**BODY, "enabled": False})
    tell(None)
    assert [] == api.ok("GET", "/v1/webhook_deliveries")["items"]
    assert (409, "endpoint_disabled") == api.code("POST", f"{PATH}/test", {})
    span = {"since": "2026-01-01T00:00:00Z"}
    assert (409, "endpoint_disabled") == api.code("POST", f"{PATH}/replay", span)
    api.ok("PUT", PATH, BODY)
    assert {"replayed": 1} == api.ok("POST", f"{PATH}/replay", span)


def test_a_delivery_shows_every_attempt(api: Any, tell: Any, farebox: Any) -> None:
    api.ok("PUT", PATH, BODY)
    (told,) = tell("acme")
    attempt = begin_attempt(farebox.pool, api.organization_id, "ours", farebox.clock())
    assert attempt is not None
    (listed,) = api.ok("GET", "/v1/webhook_deliveries?endpoint=ours")["items"]
    path = f"/v1/webhook_deliveries/{listed['id']}"
    assert (409, "delivery_under_way") == api.code("POST", f"{path}/replay", {})
    outcome = Outcome(status=500, duration_ms=12, excerpt="<b>later</b>")
    finish_attempt(farebox.pool, attempt, outcome, farebox.clock(), 0.5)
    shown = api.ok("GET", path)
    assert (told, "alert.fired", "acme", "failed", 1, 500) == tuple(
        shown["delivery"][name]
        for name in ("notice", "type", "customer", "status", "attempts", "last_status")
    )
    (one,) = shown["attempts"]
    assert (1, 12, 500, None, "<b>later</b>") == tuple(
        one[name] for name in ("number", "duration_ms", "status", "failure", "excerpt")
    )
    assert "waiting" == api.ok("POST", f"{path}/replay", {})["status"]
    assert [] == api.ok("GET", "/v1/webhook_deliveries?status=failed")["items"]
    assert [] == api.ok("GET", "/v1/webhook_deliveries?endpoint=other")["items"]


def test_how_an_endpoint_goes_is_told(api: Any, tell: Any, farebox: Any) -> None:
    api.ok("PUT", PATH, BODY)
    tell(None)
    attempt = begin_attempt(farebox.pool, api.organization_id, "ours", farebox.clock())
    assert attempt is not None
    finish_attempt(farebox.pool, attempt, Outcome(status=410), farebox.clock(), 0.5)
    shown = api.ok("GET", PATH)
    assert (False, "gone") == (shown["enabled"], shown["disabled_reason"])
    assert shown["disabled_at"] == shown["last_failure_at"] == shown["failing_since"]
    shown = api.ok("PUT", PATH, BODY)["endpoint"]
    assert (True, None, None) == (shown["enabled"], shown["disabled_reason"], shown["disabled_at"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/webhook_deliveries?status=lost", "parameter_invalid"),
        ("/v1/webhook_deliveries?state=failed", "parameter_invalid"),
        ("/v1/webhook_deliveries?cursor=x", "cursor_invalid"),
        ("/v1/webhook_deliveries?cursor=WyJhIl0", "cursor_invalid"),
        ("/v1/webhook_deliveries?limit=0", "parameter_invalid"),
        ("/v1/notices?type=alert.fried", "parameter_invalid"),
        ("/v1/notices?cursor=WyJhIl0", "cursor_invalid"),
        ("/v1/notices?cursor=WyJhIiwiYiJd", "cursor_invalid"),
    ],
)
def test_what_no_list_can_be_asked(api: Any, path: str, code: str) -> None:
    assert (400, code) == api.code("GET", path)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_field"),
        ({"since": "yesterday"}, "wrong_type"),
        ({"since": "2026-01-01T00:00:00"}, "offset_missing"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "range_empty"),
        ({"since": "2026-01-01T00:00:00Z", "types": ["all"]}, "unknown_notice_type"),
    ],
)
def test_what_no_span_to_replay_can_be(api: Any, body: Any, code: str) -> None:
    api.ok("PUT", PATH, BODY)
    assert (422, code) == api.code("POST", f"{PATH}/replay", body)


def test_notices_and_deliveries_come_in_pages(api: Any, tell: Any) -> None:
    api.ok("PUT", PATH, BODY)
    told = tell(*[None] * 7)
    for path, name in (("/v1/notices", "id"), ("/v1/webhook_deliveries", "notice")):
        found, cursor = [], ""
        while cursor is not None:
            page = api.ok("GET", f"{path}?limit=3{cursor and f'&cursor={cursor}'}")
            found += [one[name] for one in page["items"]]
            cursor = page["next_cursor"]
        assert sorted(told, reverse=True) == sorted(found, reverse=True)
        assert 7 == len(set(found))
    assert sorted(found, reverse=True) == found


def test_notices_are_found_by_type_and_customer(api: Any, tell: Any) -> None:
    tell("acme", None, "globex")
    tell("acme", kind=NoticeType.GRANT_PAID)
    listed = api.ok("GET", "/v1/notices?customer=acme")["items"]
    assert ["grant.paid", "alert.fired"] == [one["type"] for one in listed]
    assert {"n": 0} == listed[0]["data"]
    assert 3 == len(api.ok("GET", "/v1/notices?type=alert.fired")["items"])


def test_a_key_of_one_customer_sees_its_notices_and_no_endpoint(
    api: Any, tell: Any, new_key: Callable[..., Any]
) -> None:
    api.ok("PUT", "/v1/customers/acme", {})
    tell("acme", None, "globex")
    own = new_key(api, Scope.MANAGE, customer="acme")
    assert ["acme"] == [one["customer"] for one in own.ok("GET", "/v1/notices")["items"]]
    assert (403, "customer_key_refused") == own.code("GET", "/v1/notices?customer=globex")
    for method, path in (
        ("GET", "/v1/webhook_endpoints"),
        ("PUT", PATH),
        ("GET", PATH),
        ("DELETE", PATH),
        ("POST", f"{PATH}/test"),
        ("POST", f"{PATH}/replay"),
        ("POST", f"{PATH}/rotate_secret"),
        ("GET", "/v1/webhook_deliveries"),
        ("GET", "/v1/webhook_deliveries/dlv_00000000000000000000000000"),
        ("POST", "/v1/webhook_deliveries/dlv_00000000000000000000000000/replay"),
    ):
        assert (403, "customer_key_refused") == own.code(method, path, {}), path


def test_reading_is_not_managing(api: Any, new_key: Callable[..., Any]) -> None:
    api.ok("PUT", PATH, BODY)
    reader = new_key(api, Scope.READ)
    assert reader.ok("GET", PATH)["key"] == "ours"
    for method, path in (("PUT", PATH), ("POST", f"{PATH}/test"), ("DELETE", PATH)):
        assert (403, "scope_missing") == reader.code(method, path, {})


def test_organizations_see_nothing_of_each_other(
    api: Any, tell: Any, new_api: Callable[[], Any]
) -> None:
    api.ok("PUT", PATH, BODY)
    tell(None)
    (delivery,) = api.ok("GET", "/v1/webhook_deliveries")["items"]
    other = new_api()
    for path in ("/v1/notices", "/v1/webhook_endpoints", "/v1/webhook_deliveries"):
        assert [] == other.ok("GET", path)["items"]
    assert (404, "not_found") == other.code("GET", f"/v1/webhook_deliveries/{delivery['id']}")
    assert (404, "not_found") == other.code("DELETE", PATH)
    assert 201 == other("PUT", PATH, BODY).status_code


def test_a_replay_under_a_key_happens_once(api: Any, tell: Any, farebox: Any, clock: Any) -> None:
    api.ok("PUT", PATH, BODY)
    tell(None)
    attempt = begin_attempt(farebox.pool, api.organization_id, "ours", farebox.clock())
    assert attempt is not None
    finish_attempt(farebox.pool, attempt, Outcome(status=200), farebox.clock(), 0.5)
    (delivery,) = api.ok("GET", "/v1/webhook_deliveries")["items"]
    path, once = f"/v1/webhook_deliveries/{delivery['id']}/replay", {"Idempotency-Key": "r-1"}
    first = api.ok("POST", path, {}, headers=once)
    assert "waiting" == first["status"]
    again = begin_attempt(
        farebox.pool, api.organization_id, "ours", farebox.clock() + timedelta(seconds=1)
    )
    assert again is not None
    finish_attempt(farebox.pool, again, Outcome(status=200), farebox.clock(), 0.5)
    assert first == api.ok("POST", path, {}, headers=once)
    assert decode_id(Prefix.DELIVERY, delivery["id"]) == again.delivery_id
    assert [] == api.ok("GET", "/v1/webhook_deliveries?status=waiting")["items"]
