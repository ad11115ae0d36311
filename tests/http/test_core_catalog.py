"""Definitions: edited, published, read page by page; bad ones refused by name."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from farebox.http.body import read_body
from farebox.http.definition import PublishRequest
from farebox.http.problem import Refused

METER = {"event_type": "call", "aggregation": "count"}
CARD = {"currency": "USD", "rates": [{"meter": "m", "price": {"model": "per_unit", "unit": "1.5"}}]}


def test_a_draft_is_not_in_force_until_it_is_published(api: Any) -> None:
    put = api.ok("PUT", "/v1/meters/m", METER)
    assert (True, None) == (put["changed"], put["newest"])
    assert "m" == put["draft"]["key"]
    view = api.ok("GET", "/v1/meters/m")
    assert (None, []) == (view["current"], view["versions"])
    published = api.ok("POST", "/v1/meters/m/publish")
    assert (True, None, 1) == (
        published["changed"],
        published["draft"],
        published["newest"]["version"],
    )
    assert False is api.ok("POST", "/v1/meters/m/publish", {})["changed"]
    assert 1 == api.ok("GET", "/v1/meters/m")["current"]["version"]


def test_the_same_body_again_changes_nothing(api: Any) -> None:
    api.ok("PUT", "/v1/meters/m?publish=true", METER)
    for path in ("/v1/meters/m", "/v1/meters/m?publish=true"):
        again = api.ok("PUT", path, METER)
        assert (False, None, 1) == (again["changed"], again["draft"], again["newest"]["version"])
    api.ok("PUT", "/v1/rate_cards/c?publish=true", CARD)
    same = {**CARD, "rates": [{"meter": "m", "price": {"model": "per_unit", "unit": 1.50}}]}
    assert False is api.ok("PUT", "/v1/rate_cards/c?publish=true", same)["changed"]


def test_going_back_to_what_is_published_drops_the_draft(api: Any) -> None:
    api.ok("PUT", "/v1/meters/m?publish=true", METER)
    assert api.ok("PUT", "/v1/meters/m", {**METER, "name": "Calls"})["draft"] is not None
    back = api.ok("PUT", "/v1/meters/m", METER)
    assert (True, None) == (back["changed"], back["draft"])


def test_publishing_at_once_replaces_a_draft(api: Any) -> None:
    api.ok("PUT", "/v1/meters/m", {**METER, "name": "Draft"})
    put = api.ok("PUT", "/v1/meters/m?publish=true", METER)
    assert (None, "") == (put["draft"], put["newest"]["definition"]["name"])


def test_numbers_come_back_digit_by_digit(api: Any) -> None:
    api.ok("PUT", "/v1/meters/m?publish=true", METER)
    text = (
        '{"currency": "USD", "rates": [{"meter": "m", "price":'
        ' {"model": "per_unit", "unit": 0.123456789012345678}}]}'
    )
    response = api("PUT", "/v1/rate_cards/c?publish=true", content=text)
    price = response.json()["newest"]["definition"]["rates"][0]["price"]
    assert "0.123456789012345678" == price["unit"]


def test_a_version_in_the_future_is_not_in_force_yet(api: Any) -> None:
    api.ok("PUT", "/v1/meters/m?publish=true", METER)
    api.ok("PUT", "/v1/rate_cards/c?publish=true", CARD)
    later = "2100-01-01T00:00:00Z"
    api.ok("PUT", "/v1/rate_cards/c", {**CARD, "name": "Next"})
    api.ok("POST", "/v1/rate_cards/c/publish", {"effective_from": later})
    view = api.ok("GET", "/v1/rate_cards/c")
    assert 1 == view["current"]["version"]
    assert [None, later] == [one["effective_from"] for one in view["versions"]]
    assert 1 == api.ok("GET", "/v1/rate_cards")["items"][0]["current"]["version"]
    assert "Next" == api.ok("GET", "/v1/rate_cards/c/versions/2")["definition"]["name"]
    assert (404, "not_found") == api.code("GET", "/v1/rate_cards/c/versions/3")


def test_only_meters_and_rate_cards_have_a_date(api: Any) -> None:
    when = {"effective_from": "2100-01-01T00:00:00Z"}
    assert (400, "parameter_invalid") == api.code("POST", "/v1/plans/p/publish", when)
    assert (422, "offset_missing") == api.code(
        "PUT", "/v1/meters/m?publish=true&effective_from=2026-01-01T00:00:00", METER
    )


def test_a_draft_may_refer_to_drafts_a_version_only_to_versions(api: Any) -> None:
    api.ok("PUT", "/v1/meters/m", METER)
    api.ok("PUT", "/v1/features/f", {"meter": "m"})
    assert (422, "unknown_meter") == api.code("POST", "/v1/features/f/publish")
    assert (422, "unknown_meter") == api.code("PUT", "/v1/features/f?publish=true", {"meter": "m"})
    api.ok("POST", "/v1/meters/m/publish")
    api.ok("POST", "/v1/features/f/publish")


def test_if_match_guards_an_edit(api: Any) -> None:
    first = api("PUT", "/v1/meters/m", METER)
    tag = first.headers["etag"]
    assert tag == api("GET", "/v1/meters/m").headers["etag"]
    api.ok("PUT", "/v1/meters/m", {**METER, "name": "Two"}, headers={"If-Match": tag})
    stale = api.code("PUT", "/v1/meters/m", {**METER, "name": "3"}, headers={"If-Match": tag})
    assert (412, "precondition_failed") == stale
    api.ok("PUT", "/v1/meters/m", {**METER, "name": "3"}, headers={"If-Match": "*"})
    absent = api.code("PUT", "/v1/meters/n", METER, headers={"If-Match": "*"})
    assert (412, "precondition_failed") == absent


def test_all_problems_are_told_at_once_with_their_places(api: Any) -> None:
    body = {
        "currency": "XXX",
        "minimum": "-1",
        "fees": [{"key": "a", "amount": "-5"}, {"key": "a", "amount": "1"}],
        "charges": [{"key": "c", "meter": "none"}],
    }
    response = api("PUT", "/v1/plans/p", body)
    assert 422 == response.status_code
    assert [
        ("unknown_meter", "/charges/0/meter"),
        ("unknown_currency", "/currency"),
        ("fee_duplicate", "/fees/1/key"),
        ("negative_fee", "/fees/0/amount"),
        ("negative_minimum", "/minimum"),
    ] == [(one["code"], one["pointer"]) for one in response.json()["errors"]]
    assert (404, "not_found") == api.code("GET", "/v1/plans/p")


@pytest.mark.parametrize(
    ("text", "status", "code", "pointer"),
    [
        ("", 400, "malformed_json", None),
        ("{", 400, "malformed_json", None),
        ("[]", 400, "malformed_json", None),
        ('{"name": NaN}', 400, "malformed_json", None),
        (b'{"name": "\xff"}', 400, "not_utf8", None),
        ('{"name": "a\\u0000b"}', 422, "null_character", "/name"),
        ('{"name": "\\ud800"}', 422, "lone_surrogate", "/name"),
        ('{"minimum": 1e400}', 422, "number_out_of_range", "/minimum"),
        ('{"minimum": ' + "9" * 101 + "}", 422, "number_out_of_range", "/minimum"),
        ('{"minimum": 1e20}', 422, "number_out_of_range", "/minimum"),
        ('{"minimum": 0.1234567890123456789}', 422, "number_out_of_range", "/minimum"),
        ('{"minimum": "NaN"}', 422, "number_out_of_range", "/minimum"),
        ('{"minimum": "1e999999999"}', 422, "number_out_of_range", "/minimum"),
        ('{"minimum": true}', 422, "wrong_type", "/minimum"),
        ('{"fees": [{"amount": "1"}]}', 422, "missing_field", "/fees/0/key"),
        ('{"nmae": "x"}', 422, "unknown_field", "/nmae"),
        ('{"metadata": ' + "[" * 100_000 + "]" * 100_000 + "}", 422, "nested_too_deep", None),
        ('{"key": "other"}', 422, "key_mismatch", "/key"),
    ],
)
def test_bad_bodies(
    api: Any, text: str | bytes, status: int, code: str, pointer: str | None
) -> None:
    if text[:1] == "{" and len(text) > 1 and code != "malformed_json":
        text = '{"currency": "USD", ' + text[1:]  # type: ignore[operator]
    response = api("PUT", "/v1/plans/p", content=text)
    assert (status, code) == (response.status_code, response.json()["code"]), response.text
    if pointer is not None:
        assert pointer == response.json()["errors"][0]["pointer"]


def test_keys_are_what_a_url_and_a_file_name_can_carry(api: Any) -> None:
    for key in ("a b", "ä", "x" * 129):
        assert (422, "key_invalid") == api.code("PUT", f"/v1/meters/{key}", METER)
    api.ok("PUT", "/v1/meters/" + "x" * 128, METER)
    api.ok("PUT", "/v1/meters/A.b_c:d-9", METER)


def test_a_body_that_is_too_large(api: Any) -> None:
    response = api("PUT", "/v1/meters/m", content=b" " * 10_000_001)
    assert (413, "body_too_large") == (response.status_code, response.json()["code"])


def test_pages_meet_without_gap_or_overlap(api: Any) -> None:
    keys = sorted(f"m{n}" for n in range(7))
    for key in keys:
        api.ok("PUT", f"/v1/meters/{key}" + ("?publish=true" if key > "m3" else ""), METER)
    seen, cursor = [], ""
    while cursor is not None:
        page = api.ok(
            "GET", f"/v1/meters?limit=3&cursor={cursor}" if cursor else "/v1/meters?limit=3"
        )
        seen += [one["key"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert keys == seen
    assert api.ok("GET", "/v1/meters?limit=7")["next_cursor"] is None
    assert (400, "cursor_invalid") == api.code("GET", "/v1/meters?cursor=nonsense")
    for limit in ("0", "1001", "many"):
        assert (400, "parameter_invalid") == api.code("GET", f"/v1/meters?limit={limit}")


def test_a_meter_that_is_published_is_read_by_the_next_event(api: Any) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "call", "data": {}}
    api.ok("POST", "/v1/events", [event])
    api.ok(
        "PUT",
        "/v1/meters/m?publish=true",
        {"event_type": "call", "aggregation": "sum", "value": "$.n"},
    )
    answers = api.ok("POST", "/v1/events", [{**event, "id": "2"}])["events"]
    assert ["value_missing"] == [one["code"] for one in answers]
    assert "/data/n" == answers[0]["pointer"]


def test_idempotency_keys_bind_what_was_published(api: Any) -> None:
    api.ok("PUT", "/v1/rate_cards/c", {"currency": "USD"})
    once = {"Idempotency-Key": "publish-1"}
    first = api("POST", "/v1/rate_cards/c/publish", {}, headers=once)
    api.ok("PUT", "/v1/rate_cards/c?publish=true", {"currency": "EUR"})
    again = api("POST", "/v1/rate_cards/c/publish", {}, headers=once)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    reused = {"effective_from": "2100-01-01T00:00:00Z"}
    path = "/v1/rate_cards/c/publish"
    assert (422, "idempotency_key_reused") == api.code("POST", path, reused, headers=once)
    other = "/v1/plans/p/publish"
    assert (422, "idempotency_key_reused") == api.code("POST", other, {}, headers=once)
    spaced = {"Idempotency-Key": "a b"}
    assert (400, "idempotency_key_invalid") == api.code("POST", path, {}, headers=spaced)


def test_a_refusal_binds_no_idempotency_key(api: Any) -> None:
    once = {"Idempotency-Key": "k"}
    path = "/v1/features/f/publish"
    assert (404, "no_such_definition") == api.code("POST", path, {}, headers=once)
    api.ok("PUT", "/v1/features/f", {})
    assert True is api.ok("POST", path, {}, headers=once)["changed"]


def test_one_of_many_at_once_under_one_idempotency_key_acts(api: Any) -> None:
    once, body = {"Idempotency-Key": "k"}, {"scopes": ["read"]}
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(lambda _: api.ok("POST", "/v1/api_keys", body, headers=once), range(8))
        )
    assert 1 == len({one["id"] for one in made})
    assert 2 == len(api.ok("GET", "/v1/api_keys")["items"])


def test_an_idempotency_key_belongs_to_its_organization(
    api: Any, new_api: Callable[[], Any]
) -> None:
    once, body = {"Idempotency-Key": "k"}, {"scopes": ["read"]}
    first = api.ok("POST", "/v1/api_keys", body, headers=once)
    other = new_api().ok("POST", "/v1/api_keys", body, headers=once)
    assert first["id"] != other["id"]
    assert other["key"] is not None


def test_aliases_live_under_dimension_and_name(api: Any) -> None:
    put = api.ok("PUT", "/v1/aliases/model:gpt-4o:beta?publish=true", {"canonical": "gpt-4o"})
    definition = put["newest"]["definition"]
    assert ("model", "gpt-4o:beta") == (definition["dimension"], definition["alias"])
    other = {"dimension": "region", "alias": "x", "canonical": "y"}
    assert (422, "key_mismatch") == api.code("PUT", "/v1/aliases/model:x", other)
    assert (422, "alias_cycle") == api.code("PUT", "/v1/aliases/model:x", {"canonical": "x"})


def test_what_cannot_be_kept_is_refused_at_the_door() -> None:
    with pytest.raises(Refused) as refusal:
        read_body(b'{"effective_from": "2026-01-01T00:00:00"}', PublishRequest)
    assert "offset_missing" == refusal.value.problem.code
