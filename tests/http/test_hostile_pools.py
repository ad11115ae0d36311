"""Pools asked wrongly: each fault is refused by its code, and no unit moves by it."""

from typing import Any

import pytest

from farebox.http.page import encode_cursor

INT32_END = 2**31
LONG = "x" * 257


@pytest.fixture
def sold(api: Any) -> Any:
    """Return the API of a vendor with two pools of tokens, and one of credits by a rate card."""
    api.ok("PUT", "/v1/features/sso?publish=true", {})
    meter = {"event_type": "call", "aggregation": "sum", "value": "$.calls"}
    api.ok("PUT", "/v1/meters/calls?publish=true", meter)
    rate = {"meter": "calls", "price": {"model": "per_unit", "unit": "2"}}
    card = {"currency": "credit", "custom_unit": True, "rates": [rate]}
    api.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"})
    for key, fields in (
        ("tokens", {"unit": "token"}),
        ("spare", {"unit": "token"}),
        ("credits", {"unit": "credit", "rate_card": "credits"}),
    ):
        api.ok("PUT", f"/v1/pools/{key}", {"customer": "acme", **fields})
        api.ok("POST", f"/v1/pools/{key}/grants", {"amount": 100})
    return api


def entries(api: Any, pool: str) -> int:
    """Return how much has ever moved in a pool."""
    return len(api.ok("GET", f"/v1/pools/{pool}/statement")["items"])


def use(calls: Any, **fields: Any) -> dict[str, Any]:
    return {"pool": "credits", "type": "call", "data": {"calls": calls}, **fields}


def free_events(api: Any) -> list[dict[str, Any]]:
    found = api.ok("GET", "/v1/events?type=call")["items"]
    return [one["payload"]["data"] for one in found]


def test_the_name_of_a_recurring_grant_is_that_of_its_path(sold: Any) -> None:
    path = "/v1/pools/tokens/recurring_grants"
    body = {"key": "weekly", "amount": 1}
    assert (422, "key_mismatch") == sold.code("PUT", f"{path}/monthly", body)
    assert [] == sold.ok("GET", path)
    sold.ok("PUT", f"{path}/weekly", body)
    assert (409, "grant_key_reused") == sold.code("PUT", f"{path}/weekly", {"amount": 2})


@pytest.mark.parametrize("field", ["pool", "feature", "customer", "unit", "subject"])
def test_a_null_character_in_a_request_for_a_decision(sold: Any, field: str) -> None:
    feature = field in ("feature", "customer")
    named = {"feature": "sso", "customer": "acme"} if feature else {"pool": "tokens"}
    body = {**named, "amount": 1, field: "a\0b"}
    assert (422, "null_character") == sold.code("POST", "/v1/authorize", body)
    batch = {"requests": [body]}
    assert (422, "null_character") == sold.code("POST", "/v1/authorize/batch", batch)
    assert 1 == entries(sold, "tokens")


def test_what_only_looks_like_a_null_character_is_kept(sold: Any) -> None:
    body = {"pool": "tokens", "amount": 1, "metadata": {"path": "c:\\u0000"}}
    draw = sold.ok("POST", "/v1/authorize", body)["id"]
    found = sold.ok("GET", f"/v1/draws/{draw}")["entries"][0]["metadata"]
    assert {"path": "c:\\u0000"} == found


def test_a_key_that_says_nothing_is_refused_and_not_left_out(sold: Any) -> None:
    answer = (400, "idempotency_key_invalid")
    hold = sold.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": 1, "hold": {}})["hold"]
    for path, body in (
        ("/v1/authorize", {"pool": "tokens", "amount": 1}),
        (f"/v1/holds/{hold}/extend", {"amount": 1}),
        (f"/v1/holds/{hold}/settle", {"amount": 1}),
        (f"/v1/holds/{hold}/release", {}),
    ):
        assert answer == sold.code("POST", path, {**body, "key": ""})
    headers = {"Idempotency-Key": ""}
    body = {"pool": "tokens", "amount": 1}
    assert answer == sold.code("POST", "/v1/authorize", body, headers=headers)
    assert answer == sold.code("POST", "/v1/uses", use(1), headers=headers)
    assert answer == sold.code("POST", "/v1/uses", use(1, key="日本"))
    assert (2, 1) == (entries(sold, "tokens"), entries(sold, "credits"))


@pytest.mark.parametrize("amount", [0, -5])
def test_a_move_of_nothing_or_less(sold: Any, amount: int) -> None:
    body = {"to": "spare", "amount": amount}
    assert (422, "amount_invalid") == sold.code("POST", "/v1/pools/tokens/moves", body)
    assert (1, 1) == (entries(sold, "tokens"), entries(sold, "spare"))


NO_NUMERALS = ["1_000", " 5 ", "٣", "+5", "5.", ".5", "05", "5\n", "abc"]


@pytest.mark.parametrize("amount", [0, -1, "-0.5"])
def test_a_draw_of_which_nothing_or_less_is_taken_back(sold: Any, amount: object) -> None:
    drawn = sold.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": 5})
    before = entries(sold, "tokens")
    path = f"/v1/draws/{drawn['id']}/reverse"
    assert (422, "amount_invalid") == sold.code("POST", path, {"amount": amount})
    assert before == entries(sold, "tokens")


@pytest.mark.parametrize("text", NO_NUMERALS)
def test_an_amount_that_is_not_written_like_a_number(sold: Any, text: str) -> None:
    grants, authorize = "/v1/pools/tokens/grants", "/v1/authorize"
    draw = sold.ok("POST", authorize, {"pool": "tokens", "amount": "5e0", "hold": {}})
    hold = f"/v1/holds/{draw['hold']}"
    amount = {"amount": text}
    limit = {"limit": {"mode": "overdraft", "units": text}}
    for path, body, pointer in (
        (authorize, {"pool": "tokens", **amount}, "/amount"),
        (f"{authorize}/batch", {"requests": [{"pool": "tokens", **amount}]}, "/requests/0/amount"),
        (f"{hold}/settle", amount, "/amount"),
        (f"{hold}/extend", amount, "/amount"),
        (grants, amount, "/amount"),
        ("/v1/pools/tokens/moves", {"to": "spare", **amount}, "/amount"),
        ("/v1/pools/other", {"unit": "token", "policy": limit}, "/policy/limit/units"),
        ("/v1/plans/pro", {"currency": "USD", "fees": [{"key": "a", **amount}]}, "/fees/0/amount"),
    ):
        method = "PUT" if path in ("/v1/pools/other", "/v1/plans/pro") else "POST"
        answer = sold(method, path, body).json()
        found = answer["code"], [one["pointer"] for one in answer["errors"]]
        assert ("wrong_type", [pointer]) == found
    assert 2 == entries(sold, "tokens")


@pytest.mark.parametrize(
    "amount", ['"amount" :\n"+5"', '"\\u0061mount": "+5"', '"amount": "\\u002b5"']
)
def test_nor_however_the_body_is_written(sold: Any, amount: str) -> None:
    content = f'{{"pool": "tokens", {amount}}}'
    assert (422, "wrong_type") == sold.code("POST", "/v1/authorize", content=content)


@pytest.mark.parametrize("amount", ['"1.50"', '"15E-1"', '"1\\u002e5"', "15e-1", '"0.15e+1"'])
def test_an_amount_that_is(sold: Any, amount: str) -> None:
    content = f'{{"pool": "tokens", "amount": {amount}}}'
    assert "1.5" == sold.ok("POST", "/v1/authorize", content=content)["amount"]


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1E30"])
def test_an_amount_that_nobody_can_have(sold: Any, text: str) -> None:
    body = {"pool": "tokens", "amount": text}
    assert (422, "amount_invalid") == sold.code("POST", "/v1/authorize", body)


def test_a_move_to_the_pool_itself(sold: Any) -> None:
    body = {"to": "tokens", "amount": 1}
    answer = sold("POST", "/v1/pools/tokens/moves", body).json()
    assert ("parameter_invalid", "/to") == (answer["code"], answer["errors"][0]["pointer"])
    assert 1 == entries(sold, "tokens")


@pytest.mark.parametrize("verb", ["settle", "extend", "release"])
@pytest.mark.parametrize("hold", ["hld_nope", "nope", "hld_01jbsqz4e2e0rv8h9yj0fn5c7k_9"])
def test_a_hold_of_an_id_that_is_none(sold: Any, verb: str, hold: str) -> None:
    body = {} if verb == "release" else {"amount": 1}
    assert (404, "hold_unknown") == sold.code("POST", f"/v1/holds/{hold}/{verb}", body)
    assert (404, "not_found") == sold.code("POST", f"/v1/holds/{hold}/x/{verb}", body)


@pytest.mark.parametrize("priority", [INT32_END, -INT32_END - 1, 10**30])
def test_a_priority_that_no_grant_could_be_written_with(sold: Any, priority: int) -> None:
    """A recurring one would have been found out when it comes, and have stopped the pool then."""
    body = {"amount": 1, "priority": priority}
    answer = (422, "wrong_type")
    assert answer == sold.code("POST", "/v1/pools/tokens/grants", body)
    assert answer == sold.code("PUT", "/v1/pools/tokens/recurring_grants/monthly", body)
    sold.ok("POST", "/v1/pools/tokens/grants", {"amount": 1, "priority": INT32_END - 1})
    sold.ok("POST", "/v1/pools/tokens/grants", {"amount": 1, "priority": -INT32_END})


def test_periods_that_begin_on_no_day_and_rests_kept_for_no_time(sold: Any) -> None:
    renewal = {"unit": "month", "anchor_day": 0}
    path = "/v1/pools/tokens/recurring_grants/monthly"
    body = {"amount": 1, "renewal": renewal}
    assert (422, "renewal_invalid") == sold.code("PUT", path, body)
    body = {"amount": 1, "rollover": {"seconds": 0}}
    assert (422, "rollover_invalid") == sold.code("PUT", path, body)
    body = {"unit": "token", "policy": {"renewal": renewal}}
    assert (422, "anchor_day_out_of_range") == sold.code("PUT", "/v1/pools/other", body)


@pytest.mark.parametrize("seconds", [86_400 * 366 * 10 + 1, 10**30])
def test_a_share_that_would_lend_after_longer_than_time_is_counted(sold: Any, seconds: int) -> None:
    share = {"key": "a", "guarantee": 50, "lend_after_seconds": seconds}
    body = {"allotments": [share]}
    answer = sold.code("PUT", "/v1/pools/tokens/allotments", body)
    assert (422, "seconds_out_of_range") == answer
    sold.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": 60})


@pytest.mark.parametrize("subject", ["", LONG, "a\u202eb", "a\nb"])
def test_a_subject_that_nothing_can_be_asked_for(sold: Any, subject: str) -> None:
    body = {"unit": "token", "subject": subject}
    assert (422, "subject_invalid") == sold.code("PUT", "/v1/pools/own", body)
    body = {"allotments": [{"key": "a", "subjects": [subject]}]}
    assert (422, "subject_invalid") == sold.code("PUT", "/v1/pools/tokens/allotments", body)
    body = {"feature": "sso", "amount": 1, "seconds": 60, "subject": subject}
    assert (400, "parameter_invalid") == sold.code("POST", "/v1/pools/tokens/access", body)
    assert 1 == entries(sold, "tokens")


def test_access_for_a_customer_without_a_name(sold: Any) -> None:
    body = {"feature": "sso", "amount": 1, "seconds": 60, "customer": ""}
    assert (404, "not_found") == sold.code("POST", "/v1/pools/tokens/access", body)
    assert 1 == entries(sold, "tokens")


def test_an_override_that_is_over_when_it_is_put_is_refused(sold: Any) -> None:
    path = "/v1/customers/acme/entitlements/sso"
    over = {"ends_at": "2020-01-01T00:00:00Z"}
    assert (422, "entitlement_contradictory") == sold.code("PUT", path, over)
    answer = sold.ok("GET", path)
    assert (False, []) == (answer["enabled"], answer["origins"])


@pytest.mark.parametrize("fields", [{}, {"hold": {"seconds": 60}}])
def test_a_use_that_would_put_units_in(sold: Any, fields: dict[str, Any]) -> None:
    assert (422, "amount_invalid") == sold.code("POST", "/v1/uses", use(-5, **fields))
    hold = sold.ok("POST", "/v1/uses", use(5, hold={"seconds": 60}))["decision"]["hold"]
    body = {"type": "call", "data": {"calls": -5}}
    assert (422, "amount_invalid") == sold.code("POST", f"/v1/uses/{hold}/settle", body)
    assert ("10", "0") == tuple(sold.ok("GET", "/v1/pools/credits")[it] for it in ("held", "used"))
    assert [] == free_events(sold)


def test_a_use_that_costs_nothing_is_written_each_time_and_once_under_its_key(sold: Any) -> None:
    for key, repeated in ((None, False), (None, False), ("free-1", False), ("free-1", True)):
        decision = sold.ok("POST", "/v1/uses", use(0, subject="ann", key=key))["decision"]
        assert (None, repeated) == (decision["id"], decision["repeated"])
    assert 3 == len(free_events(sold))
    other = {**use(0, subject="bob", key="free-1")}
    assert (422, "idempotency_key_reused") == sold.code("POST", "/v1/uses", other)
    assert (3, 1) == (len(free_events(sold)), entries(sold, "credits"))


def test_nothing_cannot_be_held(sold: Any) -> None:
    body = use(0, hold={"seconds": 60})
    assert (422, "amount_invalid") == sold.code("POST", "/v1/uses", body)
    hold = sold.ok("POST", "/v1/uses", use(5, hold={"seconds": 60}))["decision"]["hold"]
    body = {"type": "call", "data": {"calls": 0}}
    sold.ok("POST", f"/v1/uses/{hold}/settle", body)
    assert "100" == sold.ok("GET", "/v1/pools/credits")["available"]


def test_a_use_whose_event_is_too_large(sold: Any) -> None:
    body = use(1)
    body["data"]["prompt"] = "x" * 66_000
    assert (422, "event_too_large") == sold.code("POST", "/v1/uses", body)
    assert (1, []) == (entries(sold, "credits"), free_events(sold))


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"dry_run": "true"}, (400, "parameter_invalid")),
        ({"dry_run": 1}, (400, "parameter_invalid")),
        ({"hold": {"seconds": True}}, (422, "wrong_type")),
        ({"hold": {"second": 60}}, (422, "unknown_field")),
        ({"hold": {"seconds": 0}}, (400, "parameter_invalid")),
    ],
)
def test_a_use_asked_for_in_words_that_mean_nothing(
    sold: Any, fields: dict[str, Any], answer: tuple[int, str]
) -> None:
    assert answer == sold.code("POST", "/v1/uses", use(1, **fields))
    assert 1 == entries(sold, "credits")


@pytest.mark.parametrize("list_", ["grants", "statement"])
@pytest.mark.parametrize("text", ["²", "9" * 30, "-1", "", "x"])
def test_a_cursor_that_was_made_up(sold: Any, list_: str, text: str) -> None:
    path = f"/v1/pools/tokens/{list_}?cursor={encode_cursor(text)}"
    assert (400, "cursor_invalid") == sold.code("GET", path)


@pytest.mark.parametrize("by", ["subject", "hour"])
@pytest.mark.parametrize("text", ["1E+999999", "1E-999999", "NaN", "Infinity"])
def test_a_cursor_of_usage_that_was_made_up(sold: Any, by: str, text: str) -> None:
    path = f"/v1/pools/tokens/usage?by={by}&cursor={encode_cursor(text, 'x')}"
    assert (400, "cursor_invalid") == sold.code("GET", path)


@pytest.mark.parametrize("path", ["/v1/pools/tokens/statement", "/v1/refusals"])
@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("text", ["0", "1", "null", "2026-10-01"])
def test_a_time_that_is_none(sold: Any, path: str, name: str, text: str) -> None:
    assert (400, "parameter_invalid") == sold.code("GET", f"{path}?{name}={text}")


def test_a_time_without_an_offset_is_taken_as_utc_whatever_the_database_says(sold: Any) -> None:
    time = sold.ok("GET", "/v1/pools/tokens/statement")["items"][0]["time"]
    for text in (time, time.removesuffix("Z")):
        found = sold.ok("GET", f"/v1/pools/tokens/statement?since={text}")
        assert 1 == len(found["items"])
        found = sold.ok("GET", f"/v1/pools/tokens/statement?until={text}")
        assert [] == found["items"]


def test_a_check_of_something_else_than_its_path_says(sold: Any) -> None:
    path = "/v1/pools/tokens/check"
    assert (422, "key_mismatch") == sold.code("POST", path, {"pool": "spare", "amount": 1})
    body = {"feature": "sso", "amount": 1}
    assert (400, "parameter_invalid") == sold.code("POST", path, body)
    assert sold.ok("POST", path, {"amount": 1})["granted"]


def test_what_ended_is_not_ended_again(sold: Any) -> None:
    path = "/v1/pools/tokens/recurring_grants/monthly"
    sold.ok("PUT", path, {"amount": 1})
    ended = [sold.ok("POST", f"{path}/end", {})["ends_at"] for _ in range(2)]
    assert ended[0] == ended[1]


def test_a_pool_that_is_named_beside_a_customer_is_theirs(sold: Any) -> None:
    sold.ok("PUT", "/v1/customers/globex", {"name": "Globex"})
    body = {"pool": "tokens", "amount": 1, "customer": "globex"}
    check = "/v1/pools/tokens/check"
    assert (403, "subject_not_served") == sold.code("POST", "/v1/authorize", body)
    assert "subject_not_served" == sold.ok("POST", check, body)["refusal"]["code"]
    for path in ("/v1/authorize", check):
        assert sold.ok("POST", path, {**body, "customer": "acme"})["granted"]
    assert 2 == entries(sold, "tokens"), "the grant and one draw"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/authorize", '{"pool": "tokens", "amount": 1, "amount": 2}'),
        ("/v1/authorize", '{"pool":"tokens","amount":1,"am\\u006funt":2}'),
        ("/v1/authorize", '{"pool": "spare", "amount": 1, "pool": "tokens"}'),
        ("/v1/authorize", '{"pool": "tokens", "amount": 1, "key": "k", "key": null}'),
        ("/v1/authorize", '{"pool": "tokens", "amount": 1, "metadata": {"a": "1", "a": "2"}}'),
        ("/v1/authorize", '{"pool": "tokens", "amount": 1, "hold": {"seconds":1, "seconds":2}}'),
        ("/v1/authorize/batch", '{"requests": [{"pool": "tokens", "amount": 1, "amount": 2}]}'),
        ("/v1/pools/tokens/check", '{"amount": 1, "amount": 2}'),
        ("/v1/pools/tokens/grants", '{"amount": 1, "amount": 2}'),
        ("/v1/uses", '{"pool": "credits", "type": "call", "data": {"calls": 1, "calls": 2}}'),
    ],
)
def test_a_member_that_is_there_twice_is_refused(sold: Any, path: str, body: str) -> None:
    assert (400, "malformed_json") == sold.code("POST", path, content=body.encode())
    assert [1] * 3 == [entries(sold, pool) for pool in ("tokens", "spare", "credits")]


def test_so_is_one_of_what_settles_a_hold(sold: Any) -> None:
    hold = sold.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": 9, "hold": {}})["hold"]
    for verb in ("settle", "extend"):
        path = f"/v1/holds/{hold}/{verb}"
        assert (400, "malformed_json") == sold.code(
            "POST", path, content=b'{"amount":1,"amount":2}'
        )
    assert "9" == sold.ok("GET", "/v1/pools/tokens")["held"]


def test_a_colon_in_a_text_is_no_member(sold: Any) -> None:
    said = {"subject": "user:1", "key": "a:b", "metadata": {"amount": "1", "at": "12:30", "k": ":"}}
    body = {"pool": "tokens", "amount": 1, "unit": None, "hold": {"seconds": 60}, **said}
    hold = sold.ok("POST", "/v1/authorize", body)["hold"]
    sold.ok("POST", f"/v1/holds/{hold}/settle", {"amount": 1, "key": "c:d", "metadata": {"a": "b"}})
    assert "1" == sold.ok("GET", "/v1/pools/tokens")["used"]


def test_two_keys_for_one_request_are_refused(sold: Any) -> None:
    hold = sold.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": 9, "hold": {}})["hold"]
    before = entries(sold, "tokens")
    headers = {"Idempotency-Key": "one"}
    for path, body in (
        ("/v1/authorize", {"pool": "tokens", "amount": 1}),
        ("/v1/uses", use(1)),
        (f"/v1/holds/{hold}/settle", {"amount": 1}),
        (f"/v1/holds/{hold}/extend", {"seconds": 60}),
        (f"/v1/holds/{hold}/release", {}),
    ):
        answer = sold("POST", path, {**body, "key": "another"}, headers=headers)
        assert (400, "parameter_invalid") == (answer.status_code, answer.json()["code"]), path
        assert ["/key"] == [one["pointer"] for one in answer.json()["errors"]]
    assert (before, 1) == (entries(sold, "tokens"), entries(sold, "credits"))
    taken = sold.ok("POST", "/v1/authorize", {"pool": "tokens", "amount": 1, "key": "one"})
    again = {"pool": "tokens", "amount": 1, "key": "one"}
    assert taken["id"] == sold.ok("POST", "/v1/authorize", again, headers=headers)["id"]
