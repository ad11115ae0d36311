"""Who sees the console: one row per refusal, and no forged, stale or foreign way in."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient
from msgspec.structs import replace

from farebox.http.pages.session import (
    Claim,
    SessionRefusal,
    check_session,
    read_claim,
    seal_session,
)
from farebox.postgres import access
from farebox.postgres.console import SessionKey
from farebox.postgres.session import Pool, transaction

ORGANIZATION, API_KEY = UUID(int=7), UUID(int=8)
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
ENDS = NOW + timedelta(hours=12)
DIGEST = bytes(range(32))
KEY = SessionKey(
    name="owner",
    organization="Test",
    secret_hash=DIGEST,
    scopes=["manage"],
    customer_key=None,
    revoked_at=None,
)
COOKIE = seal_session(ORGANIZATION, API_KEY, ENDS, DIGEST)


def _claim(text: str) -> Claim:
    claim = read_claim(text)
    assert isinstance(claim, Claim)
    return claim


REFUSALS = [
    (SessionRefusal.SESSION_MALFORMED, "", KEY, NOW),
    (SessionRefusal.SESSION_UNKNOWN, COOKIE, None, NOW),
    (SessionRefusal.SESSION_ENDED, COOKIE, KEY, ENDS),
    (SessionRefusal.KEY_REVOKED, COOKIE, replace(KEY, revoked_at=NOW), NOW),
    (SessionRefusal.KEY_OF_CUSTOMER, COOKIE, replace(KEY, customer_key="acme"), NOW),
    (SessionRefusal.SCOPE_MISSING, COOKIE, replace(KEY, scopes=["ingest"]), NOW),
]


def test_refusals_are_all_here_in_their_order() -> None:
    assert list(SessionRefusal) == [row[0] for row in REFUSALS]


@pytest.mark.parametrize(("refusal", "text", "key", "now"), REFUSALS)
def test_refusal(refusal: SessionRefusal, text: str, key: SessionKey | None, now: datetime) -> None:
    claim = read_claim(text)
    found = claim if isinstance(claim, SessionRefusal) else check_session(claim, key, now)
    assert refusal == found


@pytest.mark.parametrize("scopes", [["read"], ["manage"], ["ingest", "read"]])
def test_a_key_that_may_read_opens_the_console(scopes: list[str]) -> None:
    assert check_session(_claim(COOKIE), replace(KEY, scopes=scopes), NOW) is None


@given(st.integers(0, 71), st.integers(1, 255))
def test_no_byte_of_a_session_can_be_changed(position: int, change: int) -> None:
    claim = _claim(COOKIE)
    raw = bytearray(claim.body + claim.mac)
    raw[position] ^= change
    forged = Claim(
        UUID(bytes=bytes(raw[:16])),
        UUID(bytes=bytes(raw[16:32])),
        datetime.fromtimestamp(int.from_bytes(raw[35:40]) % (1 << 33), UTC),
        bytes(raw[40:]),
    )
    if forged != claim:
        assert check_session(forged, KEY, NOW) is SessionRefusal.SESSION_UNKNOWN


def test_another_keys_digest_proves_nothing() -> None:
    forged = seal_session(ORGANIZATION, API_KEY, ENDS, bytes(32))
    assert check_session(_claim(forged), KEY, NOW) is SessionRefusal.SESSION_UNKNOWN


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    assert isinstance(read_claim(text), Claim | SessionRefusal)


def test_the_cookie_is_out_of_reach_and_holds_no_key(vendor: Any) -> None:
    attributes = {part.strip().lower() for part in vendor.set_cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/console", "max-age=43200"} <= attributes
    assert vendor.key not in vendor.cookie
    assert vendor.key.split("_")[2] not in vendor.page("/console")


def test_a_session_ends_with_its_key(new_vendor: Any, pool: Pool) -> None:
    made = new_vendor("Soon gone")
    assert made.get("/console").status_code == 200
    with transaction(pool, made.organization_id) as connection:
        (key,) = access.api_keys(connection, made.organization_id)
        assert access.revoke_api_key(connection, made.organization_id, key.api_key_id, NOW)
    answer = made.get("/console")
    assert (401, True) == (answer.status_code, "was revoked" in answer.text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Enter an API key"),
        ("hunter2", "An API key reads"),
        ("fbx_" + "a" * 16 + "_" + "b" * 52, "There is no such API key"),
    ],
)
def test_a_wrong_key_is_told_what_is_wrong(browser: TestClient[Any], text: str, says: str) -> None:
    answer = browser.post("/console/sign-in", data={"key": text})
    assert (401, True) == (answer.status_code, says in answer.text)


@pytest.mark.parametrize(
    ("wanted", "goes"),
    [
        ("/console/invoices?q=acme", "/console/invoices?q=acme"),
        ("//evil.example/console", "/console"),
        ("https://evil.example/console", "/console"),
        ("/console\\@evil.example", "/console"),
        ("/consoles", "/console"),
        ("/console/\r\nset-cookie: a=b", "/console"),
        ("", "/console"),
    ],
)
def test_signing_in_leads_nowhere_else(vendor: Any, wanted: str, goes: str) -> None:
    answer = vendor.post("/console/sign-in", data={"key": vendor.key, "next": wanted})
    assert (303, goes) == (answer.status_code, answer.headers["location"])


def test_without_a_session_every_page_asks_for_one(browser: TestClient[Any]) -> None:
    for path in ("/console", "/console/customers/acme", "/console/invoices?q=acme"):
        answer = browser.get(path)
        assert (401, True) == (answer.status_code, f'name="next" value="{path}"' in answer.text)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://testserver.local"}, 200),
        ({}, 200),
    ],
)
def test_another_site_cannot_send_a_form(vendor: Any, headers: dict[str, str], status: int) -> None:
    answer = vendor.post("/console/calculator", data={"currency": "USD"}, headers=headers)
    # 422: the form was read, and has no price.
    assert status == (200 if answer.status_code == 422 else answer.status_code)


def test_signing_out_takes_the_cookie_back(vendor: Any) -> None:
    answer = vendor.post("/console/sign-out")
    assert 303 == answer.status_code
    assert "farebox_session=;" in answer.headers["set-cookie"].replace('""', "")


def test_a_form_has_a_limit(vendor: Any) -> None:
    answer = vendor.post("/console/calculator", data={"price": "x" * 300_000})
    assert 400 == answer.status_code
