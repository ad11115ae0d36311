"""Webhooks are delivered to a real receiver: signed, again after failures, one at a time."""

import asyncio
import json
import time
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from farebox.connectors import webhook
from farebox.flows.webhook_endpoint import rotate_secret_in
from farebox.notices.delivery import SCHEDULE
from farebox.notices.type import NoticeType
from farebox.postgres.session import transaction
from farebox.worker.deliver import ATTEMPTS_A_TURN, ENDPOINTS_EACH

LAST = len(SCHEDULE) + 1


def statuses(desk: Any, key: str | None = None) -> list[str]:
    return [row.status for row in desk.deliveries(key)]


def log(desk: Any, row: Any) -> list[tuple[int, int | None, str | None]]:
    return [(one.number, one.status, one.failure) for one in desk.attempts(row)]


def test_a_notice_arrives_signed_and_as_it_was_told(desk: Any) -> None:
    desk.put("ours", types=("pool.exhausted",))
    desk.tell(NoticeType.ALERT_FIRED)
    told = desk.tell(NoticeType.POOL_EXHAUSTED, customer="acme", pool="gpu", left="0")
    desk.deliver()
    (got,) = desk.receiver.got
    assert told == got.message_id
    assert "application/json" == got.headers["content-type"]
    assert got.headers["user-agent"].startswith("Farebox/")
    body = got.verified(desk.secrets["ours"])
    assert ["type", "timestamp", "data"] == list(body)
    assert ("pool.exhausted", {"pool": "gpu", "left": "0"}) == (body["type"], body["data"])
    (row,) = desk.deliveries()
    assert ("delivered", 1, 204, None) == (
        row.status,
        row.attempts,
        row.last_status,
        row.next_attempt_at,
    )
    assert desk.endpoint("ours").last_success_at is not None


def test_a_notice_is_sent_about_a_second_after_its_commit(desk: Any) -> None:
    desk.put("ours")

    async def act(deliverer: Any) -> None:
        running = asyncio.create_task(deliverer.run())
        for count in range(1, 4):
            await asyncio.sleep(0.4)
            told_at = time.monotonic()
            desk.tell()
            while len(desk.receiver.got) < count:
                await asyncio.sleep(0.01)
            assert desk.receiver.got[-1].at - told_at < 1.5
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    desk.with_deliverer(act)


def test_failures_are_tried_again_by_the_schedule_and_then_given_up(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500)
    desk.tell()
    for tries, wait in enumerate(SCHEDULE, 1):
        desk.deliver()
        (row,) = desk.deliveries()
        assert ("failed", tries, 500) == (row.status, row.attempts, row.last_status)
        later = (row.next_attempt_at - desk.clock()).total_seconds()
        assert 0.75 * wait.total_seconds() < later <= 1.2 * wait.total_seconds()
        desk.clock.ahead += (row.next_attempt_at - desk.clock()) * 0.6
        desk.deliver()
        assert tries == len(desk.receiver.got)
        desk.clock.move(seconds=later * 0.4 + 1)
    desk.deliver()
    assert (["given_up"], LAST) == (statuses(desk), len(desk.receiver.got))
    assert [(number, 500, None) for number in range(1, LAST + 1)] == log(desk, desk.deliveries()[0])
    assert 1 == len({(got.message_id, got.body) for got in desk.receiver.got})
    assert LAST == len({got.headers["webhook-timestamp"] for got in desk.receiver.got})


def test_a_notice_gets_through_when_the_receiver_is_back(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500, 503, 200, body=b'{"error": "later"}')
    desk.tell()
    for _ in range(3):
        desk.deliver()
        desk.clock.move(minutes=1)
    (row,) = desk.deliveries()
    assert ("delivered", None) == (row.status, row.next_attempt_at)
    assert [(1, 500, None), (2, 503, None), (3, 200, None)] == log(desk, row)
    assert '{"error": "later"}' == desk.attempts(row)[0].excerpt
    assert (None, 0) == (desk.endpoint("ours").failing_since, desk.endpoint("ours").failures)


def test_notices_arrive_in_their_order(desk: Any) -> None:
    desk.put("ours")
    told = [desk.tell(number=number) for number in range(ATTEMPTS_A_TURN * 2 + 5)]
    desk.deliver()
    assert sorted(told) == [got.message_id for got in desk.receiver.got]
    assert ["delivered"] * len(told) == statuses(desk)


def test_a_notice_that_fails_does_not_hold_up_those_after_it(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500, 204)
    first, second = sorted([desk.tell(), desk.tell()])
    desk.deliver()
    assert ["failed", "delivered"] == statuses(desk)
    desk.clock.move(seconds=7)
    desk.deliver()
    assert [first, second, first] == [got.message_id for got in desk.receiver.got]


def test_each_endpoint_gets_what_it_wants(desk: Any) -> None:
    desk.put("all")
    desk.put("pools", types=("pool.exhausted", "pool.topped_up"))
    desk.put("off", enabled=False)
    desk.tell(NoticeType.POOL_EXHAUSTED)
    desk.tell(NoticeType.GRANT_PAID)
    desk.deliver()
    found = {path: len(desk.receiver.on(path)) for path in ("/all", "/pools", "/off")}
    assert {"/all": 2, "/pools": 1, "/off": 0} == found
    assert 3 == len(desk.deliveries())


def test_an_answer_that_is_long_or_no_text_is_kept_in_part(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500, body=b"\0\xff" + b"a" * 3_000_000)
    desk.tell()
    desk.deliver()
    (attempt,) = desk.attempts(desk.deliveries()[0])
    assert "\ufffd\ufffd" + "a" * 998 == attempt.excerpt


def test_a_redirect_is_a_failure_and_not_followed(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 307, headers={"location": f"{desk.receiver.base}/elsewhere"})
    desk.tell()
    desk.deliver()
    assert ["/ours"] == [got.path for got in desk.receiver.got]
    assert [(1, 307, None)] == log(desk, desk.deliveries()[0])


def test_gone_disables_the_endpoint(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 410)
    desk.tell()
    desk.tell()
    desk.deliver()
    row = desk.endpoint("ours")
    assert (False, "gone") == (row.enabled, row.disabled_reason)
    assert row.disabled_at is not None
    assert ["given_up", "waiting"] == statuses(desk)
    desk.tell()
    desk.clock.move(days=1)
    desk.deliver()
    assert 1 == len(desk.receiver.got)
    # Enabled again it begins afresh: what waited is sent, what happened meanwhile is not.
    desk.receiver.answer("/ours", 204)
    row = desk.put("ours", enabled=True)
    assert (True, None, None) == (row.enabled, row.disabled_at, row.failing_since)
    desk.deliver()
    assert ["given_up", "delivered"] == statuses(desk)


def test_five_days_of_failures_disable_the_endpoint(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500)
    for day in range(6):
        assert desk.endpoint("ours").enabled, day
        desk.tell()
        desk.deliver()
        desk.clock.move(days=1)
    row = desk.endpoint("ours")
    assert (False, "failing") == (row.enabled, row.disabled_reason)


def test_one_success_ends_a_failure_of_days(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500, 500, 200, 500)
    for _ in range(7):
        desk.tell()
        desk.deliver()
        desk.clock.move(days=1)
    assert desk.endpoint("ours").enabled


def test_what_the_receiver_asks_for_is_waited_for(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 429, headers={"retry-after": "600"})
    desk.tell()
    desk.tell()
    desk.deliver()
    # The second one is not even tried: the receiver speaks of all of them.
    assert 1 == len(desk.receiver.got)
    for row in (desk.deliveries()[0].next_attempt_at, desk.endpoint("ours").rests_until):
        assert 590 < (row - desk.clock()).total_seconds() <= 600


def test_both_secrets_sign_for_a_day_after_a_change(desk: Any) -> None:
    desk.put("ours")
    earlier = desk.secrets["ours"]
    with transaction(desk.pool, desk.organization_id) as connection:
        made = rotate_secret_in(
            connection, desk.organization_id, "ours", desk.clock(), bytes(range(32))
        )
    assert made is not None
    desk.tell()
    desk.deliver()
    desk.receiver.got[0].verified(earlier)
    desk.receiver.got[0].verified(made.secret)
    desk.clock.move(hours=23, minutes=58)
    desk.tell()
    desk.deliver()
    assert 2 == len(desk.receiver.got[1].headers["webhook-signature"].split())
    desk.clock.move(minutes=3)
    desk.tell()
    desk.deliver()
    assert 1 == len(desk.receiver.got[2].headers["webhook-signature"].split())
    with pytest.raises(WebhookVerificationError):
        desk.receiver.got[0].verified("whsec_" + "A" * 43 + "=")


def test_an_endpoint_that_is_deleted_while_it_is_called_is_forgotten(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 204, seconds=0.3)
    desk.tell()

    async def act(deliverer: Any) -> None:
        await deliverer.begin_turns()
        while not desk.receiver.got:
            await asyncio.sleep(0.01)
        desk.clear()
        await deliverer.finish_turns()

    desk.with_deliverer(act)
    assert [] == desk.deliveries()


def test_a_name_that_leads_nowhere_is_named(desk: Any) -> None:
    desk.put("ours")
    desk.tell()

    async def nowhere(*_: object) -> list[str]:
        raise webhook.NameUnknown("hooks.example.com")

    async def run() -> None:
        async with webhook.open_sender(
            private_addresses=True, connections=1, resolve=nowhere
        ) as send:
            deliverer = desk.deliverer(send)
            await deliverer.begin_turns()
            await deliverer.finish_turns()
            await deliverer.close()

    asyncio.run(run())
    assert [(1, None, "name_unknown")] == log(desk, desk.deliveries()[0])


def test_the_body_is_compact_json_of_the_same_bytes(desk: Any) -> None:
    desk.put("ours")
    desk.receiver.answer("/ours", 500, 204)
    desk.tell(text="äöü\u2028", null=None, deep={"a": [1, 2]})
    desk.deliver()
    desk.clock.move(seconds=10)
    desk.deliver()
    first, second = desk.receiver.got
    assert first.body == second.body
    assert {"text": "äöü\u2028", "null": None, "deep": {"a": [1, 2]}} == json.loads(first.body)[
        "data"
    ]


def test_one_organization_takes_only_its_share_of_the_places(new_desk: Any) -> None:
    crowd, other = new_desk(), new_desk()
    for number in range(ENDPOINTS_EACH + 5):
        crowd.put(f"slow{number}")
        crowd.receiver.answer(f"/slow{number}", 204, seconds=20)
    crowd.tell()
    other.put("quick")
    other.tell()

    async def act(deliverer: Any) -> None:
        running = asyncio.create_task(deliverer.run())
        while len(crowd.receiver.got) < ENDPOINTS_EACH + 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.7)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    crowd.with_deliverer(act)
    assert 1 == len(other.receiver.on("/quick"))
    assert ENDPOINTS_EACH + 1 == len(crowd.receiver.got)
