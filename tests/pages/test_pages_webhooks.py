"""The page of webhooks: how endpoints go, every attempt, a test and a replay for who may."""

import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from farebox.access.id import Prefix, encode_id
from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope
from farebox.flows.api_key import NewApiKey, create_api_key_in
from farebox.flows.deliver_webhook import begin_attempt, finish_attempt
from farebox.flows.webhook_endpoint import PutEndpoint, WebhookEndpoint, put_endpoint
from farebox.http.pages.webhooks import PAGE, health_of
from farebox.http.state import State
from farebox.notices.delivery import Outcome, SendFailure
from farebox.notices.type import NoticeType
from farebox.postgres import notice, webhook_delivery
from farebox.postgres.notice import Notice
from farebox.postgres.session import transaction
from farebox.postgres.webhook_delivery import NewDelivery
from farebox.postgres.webhook_endpoint import EndpointRow

HOSTILE = "</script><script>alert(1)</script>"


class Hooks:
    """A vendor of its own with the endpoint `ours`."""

    def __init__(self, state: State, vendor: Any) -> None:
        self.state = state
        self.vendor = vendor
        self.organization_id = vendor.organization_id

    def put(self, key: str = "ours", **fields: Any) -> EndpointRow:
        endpoint = WebhookEndpoint(key=key, **{"url": "https://hooks.example.com/", **fields})
        done = put_endpoint(
            self.state.pool,
            self.organization_id,
            endpoint,
            self.state.clock(),
            bytes(32),
            private_addresses=False,
        )
        assert isinstance(done, PutEndpoint)
        return done.row

    def tell(self, count: int = 1, **data: object) -> None:
        """Tell what happened, with a delivery to `ours` each."""
        with transaction(self.state.pool, self.organization_id) as connection:
            for _ in range(count):
                told = Notice(
                    notice_id=self.state.new_id(),
                    type=NoticeType.ALERT_FIRED,
                    time=self.state.clock(),
                    customer=HOSTILE,
                    data=data,
                )
                new = NewDelivery(
                    delivery_id=self.state.new_id(),
                    endpoint_key="ours",
                    notice_id=told.notice_id,
                )
                now = self.state.clock()
                notice.add_notices(connection, self.organization_id, [told], dispatched_at=now)
                webhook_delivery.add_deliveries(connection, self.organization_id, [new], now)

    def attempt(self, outcome: Outcome | None, now: datetime | None = None) -> str:
        """Make an attempt, which is broken off without an outcome; return the delivery's id."""
        now = now or self.state.clock()
        begun = begin_attempt(self.state.pool, self.organization_id, "ours", now)
        assert begun is not None
        if outcome is not None:
            finish_attempt(self.state.pool, begun, outcome, now, 0.5)
        return encode_id(Prefix.DELIVERY, begun.delivery_id)

    def shown(self, path: str = "/console/webhooks/ours") -> str:
        text = re.sub(r"<[^>]+>", " ", self.vendor.page(path))
        return " ".join(text.split())


@pytest.fixture
def hooks(console_state: State, new_vendor: Callable[[str], Any]) -> Hooks:
    return Hooks(console_state, new_vendor("Hooks"))


def test_without_endpoints_the_page_says_how_to_put_one(hooks: Hooks) -> None:
    assert "No endpoint yet" in hooks.shown("/console/webhooks")
    assert "Nothing happened yet" in hooks.shown("/console/webhooks")
    assert 404 == hooks.vendor.get("/console/webhooks/nowhere").status_code


def test_the_list_tells_how_endpoints_go(hooks: Hooks) -> None:
    hooks.put()
    hooks.put("off", enabled=False)
    hooks.tell(2)
    assert "ours https://hooks.example.com/ not used yet all 2 –" in hooks.shown(
        "/console/webhooks"
    )
    hooks.attempt(Outcome(status=200))
    assert "healthy all 1 15 Jun 2026" in hooks.shown("/console/webhooks")
    hooks.attempt(Outcome(status=500))
    text = hooks.shown("/console/webhooks")
    assert "failing all 1 15 Jun 2026" in text
    assert "off https://hooks.example.com/ disabled all 0 –" in text


def test_every_attempt_is_shown_and_nothing_of_an_answer_is_believed(hooks: Hooks) -> None:
    hooks.put()
    hooks.tell()
    now = hooks.state.clock()
    hooks.attempt(Outcome(status=500, duration_ms=1234, excerpt=HOSTILE))
    hooks.attempt(None, now + timedelta(minutes=1))
    hooks.attempt(
        Outcome(failure=SendFailure.TIMED_OUT, duration_ms=10_000), now + timedelta(minutes=2)
    )
    text = hooks.shown()
    assert "3 attempts" in text
    assert "1 15 Jun 2026, 12:00:00 500 &lt;/script&gt;" in text
    assert "2 15 Jun 2026, 12:01:00 broken off –" in text
    assert "3 15 Jun 2026, 12:02:00 timed out 10,000 ms" in text
    assert "1,234 ms" in text
    assert HOSTILE not in hooks.vendor.page("/console/webhooks/ours")
    assert HOSTILE not in hooks.vendor.page("/console/webhooks")


def test_what_is_under_way_cannot_be_sent_again(hooks: Hooks) -> None:
    hooks.put()
    hooks.tell()
    delivery = hooks.attempt(None)
    text = hooks.shown()
    assert "being sent" in text
    assert "under way" in text
    assert "Send again" not in text
    answer = hooks.vendor.post(f"/console/webhooks/ours/deliveries/{delivery}/replay")
    assert "being sent at this moment" in hooks.shown(answer.headers["location"])


def test_a_disabled_endpoint_says_why(hooks: Hooks) -> None:
    hooks.put()
    hooks.tell()
    hooks.attempt(Outcome(status=410))
    text = hooks.shown()
    assert "Farebox disabled it: it answered 410 Gone." in text
    assert "Send a test" not in text
    answer = hooks.vendor.post("/console/webhooks/ours/test")
    assert "so nothing is sent to it" in hooks.shown(answer.headers["location"])


def test_a_test_and_a_replay_go_out(hooks: Hooks) -> None:
    hooks.put()
    answer = hooks.vendor.post("/console/webhooks/ours/test")
    assert (303, "/console/webhooks/ours?said=tested") == (
        answer.status_code,
        answer.headers["location"],
    )
    assert "A test is on its way" in hooks.shown(answer.headers["location"])
    assert "webhook.test" in hooks.shown()
    delivery = hooks.attempt(Outcome(status=204))
    assert "No delivery is waiting" in hooks.shown("/console/webhooks/ours?status=waiting")
    answer = hooks.vendor.post(f"/console/webhooks/ours/deliveries/{delivery}/replay")
    assert "The delivery is sent again." in hooks.shown(answer.headers["location"])
    assert "webhook.test" in hooks.shown("/console/webhooks/ours?status=waiting")


def test_who_may_only_read_changes_nothing(hooks: Hooks, browser: Any) -> None:
    hooks.put()
    hooks.tell()
    with transaction(hooks.state.pool, hooks.organization_id) as connection:
        made = create_api_key_in(
            connection,
            hooks.organization_id,
            hooks.state.new_id(),
            "reader",
            frozenset({Scope.READ}),
            None,
            hooks.state.clock(),
            os.urandom(ID_BYTES + SECRET_BYTES),
        )
    assert isinstance(made, NewApiKey)
    reader = type(hooks.vendor)(browser, hooks.organization_id, made.text)
    text = reader.page("/console/webhooks/ours")
    assert "Send a test" not in text
    assert "Send again" not in text
    (delivery,) = re.findall(r'id="(dlv_\w+)"', text)
    for path in ("test", f"deliveries/{delivery}/replay"):
        answer = reader.post(f"/console/webhooks/ours/{path}")
        assert (403, True) == (answer.status_code, "may only read" in answer.text)


def test_another_site_or_organization_sends_nothing(
    hooks: Hooks, new_vendor: Callable[[str], Any]
) -> None:
    hooks.put()
    hooks.tell()
    (delivery,) = re.findall(r'id="(dlv_\w+)"', hooks.vendor.page("/console/webhooks/ours"))
    stranger = new_vendor("Stranger")
    for path in ("test", f"deliveries/{delivery}/replay", "deliveries/dlv_x/replay"):
        headers = {"sec-fetch-site": "cross-site"}
        whole = f"/console/webhooks/ours/{path}"
        assert 403 == hooks.vendor.post(whole, headers=headers).status_code
        assert 404 == stranger.post(whole).status_code
    assert 404 == stranger.get("/console/webhooks/ours").status_code


def test_many_deliveries_and_endpoints_come_in_pages(hooks: Hooks) -> None:
    for number in range(PAGE + 1):
        hooks.put(f"e{number:02}")
    hooks.put()
    hooks.tell(PAGE + 2)
    for path, pattern, count in (
        ("/console/webhooks", r'/console/webhooks/(\w+)"', PAGE + 2),
        ("/console/webhooks/ours", r'id="(dlv_\w+)"', PAGE + 2),
    ):
        first = hooks.vendor.page(path)
        (following,) = re.findall(r'href="(\?[^"]*after=[^"]*)"', first)
        second = hooks.vendor.page(path + following.replace("&amp;", "&"))
        found = {*re.findall(pattern, first), *re.findall(pattern, second)}
        assert count == len(found)
        assert len(first.encode()) < 60_000


def test_health_has_a_word_for_every_state(hooks: Hooks) -> None:
    words = []
    row = hooks.put()
    words.append(health_of(row).word)
    for outcome in (Outcome(status=200), Outcome(status=500), Outcome(status=410)):
        hooks.tell()
        hooks.attempt(outcome)
    with transaction(hooks.state.pool, hooks.organization_id) as connection:
        from farebox.postgres.webhook_endpoint import find_endpoint

        found = find_endpoint(connection, hooks.organization_id, "ours")
    assert found is not None
    words.append(health_of(found).word)
    assert ["not used yet", "disabled"] == words
