"""What tells a request from another under its key."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from farebox.http.decision import AuthorizeRequest, command_of, hold_command

LONG = "10000000000000000000.00000000000000000"


def test_an_amount_counts_with_all_of_its_digits_however_it_is_written() -> None:
    digests = [
        command_of(AuthorizeRequest(pool="p", amount=Decimal(amount), key="k"), None).digest
        for amount in (f"{LONG}1", f"{LONG}2", "1", "1.00", "1E0")
    ]
    assert [False, False, True, True] == [one == other for one, other in pairwise(digests)]


@pytest.mark.parametrize("verb", ["settle", "extend"])
def test_so_does_that_of_a_hold(verb: str) -> None:
    bodies = [f'{{"amount": "{LONG}{last}", "key": "k"}}' for last in "12"]
    first, second = (hold_command(verb, 1, body.encode(), None).digest for body in bodies)
    assert first != second


@pytest.fixture
def hold(api: Any) -> str:
    """Return the path that extends a hold of ten minutes."""
    api.ok("PUT", "/v1/pools/p", {"unit": "token"})
    api.ok("POST", "/v1/pools/p/grants", {"amount": 100})
    asked = {"pool": "p", "amount": 10, "hold": {"seconds": 600}}
    return f"/v1/holds/{api.ok('POST', '/v1/authorize', asked)['hold']}/extend"


def test_the_key_of_an_extension_by_time_alone_counts(api: Any, hold: str) -> None:
    first = api.ok("POST", hold, {"seconds": 1000, "key": "E"})
    again = api.ok("POST", hold, {"seconds": 1000, "key": "E"})
    assert {**first, "repeated": True} == again
    for other in ({"seconds": 2000}, {}):
        assert (422, "idempotency_key_reused") == api.code("POST", hold, {**other, "key": "E"})
    assert first["expires_at"] == api.ok("POST", hold, {})["expires_at"]


def test_so_does_one_in_the_header_and_of_a_draw(api: Any, hold: str) -> None:
    headers = {"Idempotency-Key": "E"}
    first = api.ok("POST", hold, {"seconds": 1000}, headers=headers)
    assert not first["repeated"]
    assert api.ok("POST", hold, {"seconds": 1000}, headers=headers)["repeated"]
    api.ok("POST", "/v1/authorize", {"pool": "p", "amount": 1, "key": "D"})
    reused = api.code("POST", hold, {"seconds": 2000, "key": "D"})
    assert (422, "idempotency_key_reused") == reused


def test_a_batch_has_keys_in_its_requests_and_none_of_its_own(api: Any, hold: str) -> None:
    body = {"requests": [{"pool": "p", "amount": 1, "key": "A"}]}
    headers = {"Idempotency-Key": "B"}
    refused = api.code("POST", "/v1/authorize/batch", body, headers=headers)
    assert (400, "idempotency_key_invalid") == refused
    for repeated in (False, True):
        (answer,) = api.ok("POST", "/v1/authorize/batch", body)["answers"]
        assert answer["granted"]["repeated"] is repeated


def test_a_key_of_an_extension_counts_in_its_pool_alone(api: Any, hold: str) -> None:
    api.ok("POST", hold, {"seconds": 1000, "key": "E"})
    api.ok("PUT", "/v1/pools/q", {"unit": "token"})
    api.ok("POST", "/v1/pools/q/grants", {"amount": 100})
    asked = {"pool": "q", "amount": 10, "hold": {}}
    other = api.ok("POST", "/v1/authorize", asked)["hold"]
    answer = api.ok("POST", f"/v1/holds/{other}/extend", {"seconds": 1000, "key": "E"})
    assert not answer["repeated"]
    headers = {"Idempotency-Key": "E"}
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme"}, headers=headers)


def test_a_refused_extension_binds_no_key_and_is_stored(api: Any, hold: str) -> None:
    body = {"seconds": 1_000_000, "key": "E"}
    for _ in range(2):
        assert (422, "hold_too_long") == api.code("POST", hold, body)
    (stored,) = api.ok("GET", "/v1/refusals?pool=p")
    assert ("hold_too_long", 2) == (stored["code"], stored["count"])
    assert not api.ok("POST", hold, {"seconds": 1000, "key": "E"})["repeated"]


@pytest.mark.parametrize("verb", ["settle", "release", "extend"])
@pytest.mark.parametrize("asked", [{}, {"seconds": 600}])
def test_a_repeated_answer_says_when_the_hold_ended_though_it_is_over(
    api: Any, hold: str, verb: str, asked: dict[str, int]
) -> None:
    """Of a hold that lasts as the request said: also after it was made to last longer."""
    body = {"pool": "p", "amount": 10, "hold": asked, "key": "H"}
    held = api.ok("POST", "/v1/authorize", body)
    path = f"/v1/holds/{held['hold']}"
    more = {"seconds": 1000} if verb == "extend" and asked else {}
    body_of = {"settle": {"amount": 4}, "release": {}, "extend": {"amount": 5, **more}}
    done = api.ok("POST", f"{path}/{verb}", {**body_of[verb], "key": "V"})
    if verb == "extend":
        api.ok("POST", f"{path}/release", {})
    for first, where, again in ((held, "/v1/authorize", body), (done, f"{path}/{verb}", None)):
        repeated = api.ok("POST", where, again or {**body_of[verb], "key": "V"})
        assert {**first, "repeated": True} == repeated
        assert repeated["expires_at"] is not None


def test_when_a_hold_ends_is_as_it_stands_where_an_extension_held_more_units(
    api: Any, hold: str
) -> None:
    """A shorter one leaves the end as it was, which is not kept: so nothing is made up."""
    asked = {"alone": {"seconds": 1000}, "shorter": {"amount": 5, "seconds": 10}}
    first = {key: api.ok("POST", hold, {**body, "key": key}) for key, body in asked.items()}
    assert first["alone"]["expires_at"] == first["shorter"]["expires_at"]
    again = {key: api.ok("POST", hold, {**body, "key": key}) for key, body in asked.items()}
    assert first == {key: {**one, "repeated": False} for key, one in again.items()}
    later = api.ok("POST", hold, {"seconds": 2000})["expires_at"]
    again = {key: api.ok("POST", hold, {**body, "key": key}) for key, body in asked.items()}
    ends = {key: one["expires_at"] for key, one in again.items()}
    assert {"alone": first["alone"]["expires_at"], "shorter": later} == ends
