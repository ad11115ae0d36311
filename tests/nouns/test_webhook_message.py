"""A notice on the wire: the same bytes each time, and signatures that the library accepts."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from farebox.notices.message import make_secret, message_body, message_headers
from farebox.notices.type import SAYS, NoticeType, wants

TIME = datetime(2026, 10, 2, 12, 0, 0, 250_000, tzinfo=UTC)
SECRET, OTHER = make_secret(bytes(range(32))), make_secret(bytes(32))
BODY = message_body("invoice.finalized", TIME, '{"total": "1.10"}')


def test_the_body_is_type_time_and_data_as_it_was_written() -> None:
    expected = (
        b'{"type":"invoice.finalized","timestamp":"2026-10-02T12:00:00.250000Z",'
        b'"data":{"total": "1.10"}}'
    )
    assert expected == BODY
    there = TIME.astimezone(timezone(timedelta(hours=9)))
    assert expected == message_body("invoice.finalized", there, '{"total": "1.10"}')


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_any_data_comes_through(data: dict[str, object]) -> None:
    text = msgspec.json.encode(data).decode()
    assert data == msgspec.json.decode(message_body("alert.fired", TIME, text))["data"]


def test_a_secret_is_one_by_standard_webhooks() -> None:
    assert SECRET.startswith("whsec_")
    assert bytes(range(32)) == b64decode(SECRET.removeprefix("whsec_"))


def test_the_library_verifies_what_was_signed() -> None:
    headers = message_headers("ntc_1", BODY, [SECRET], datetime.now(UTC))
    assert {"total": "1.10"} == Webhook(SECRET).verify(BODY, dict(headers))["data"]
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, dict(headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY.replace(b"1.10", b"1.11"), dict(headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, {**headers, "webhook-id": "ntc_2"})


def test_both_secrets_sign_while_both_hold() -> None:
    headers = message_headers("ntc_1", BODY, [SECRET, OTHER], datetime.now(UTC))
    assert 2 == len(headers["webhook-signature"].split(" "))
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, dict(headers))


def test_the_time_of_sending_is_signed_whatever_zone_it_is_said_in() -> None:
    now = datetime.now(UTC)
    here = message_headers("ntc_1", BODY, [SECRET], now)
    there = message_headers("ntc_1", BODY, [SECRET], now.astimezone(timezone(timedelta(hours=-7))))
    assert here == there
    assert str(int(now.timestamp())) == here["webhook-timestamp"]
    old = message_headers("ntc_1", BODY, [SECRET], now - timedelta(minutes=6))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(BODY, dict(old))


def test_every_type_says_what_it_tells() -> None:
    assert list(NoticeType) == list(SAYS)
    assert all(says.endswith(".") and len(says) < 100 for says in SAYS.values())


@pytest.mark.parametrize(
    ("types", "customer", "expected"),
    [
        ((), None, True),
        (("invoice.finalized",), None, True),
        (("pool.exhausted", "invoice.finalized"), "acme", True),
        (("pool.exhausted",), None, False),
        ((), "acme", True),
        ((), "globex", False),
        (("pool.exhausted",), "acme", False),
    ],
)
def test_an_endpoint_gets_what_it_wants(
    types: tuple[str, ...], customer: str | None, expected: bool
) -> None:
    assert expected is wants(types, customer, "invoice.finalized", "acme")


def test_a_notice_about_nobody_is_not_for_the_endpoint_of_a_customer() -> None:
    assert wants((), None, "alert.fired", None)
    assert not wants((), "acme", "alert.fired", None)


def test_a_test_is_wanted_by_nobody() -> None:
    assert not wants((), None, "webhook.test", None)
    assert not wants(("webhook.test",), None, "webhook.test", None)
