"""Endpoints as they are put, and every refusal; what is sent again; what a billing run tells."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from farebox_world import World, at, new_id

from farebox.access.id import Prefix, encode_id
from farebox.catalog.plan import Fee, Plan
from farebox.catalog.problem import Problem
from farebox.flows import bill as bill_flow
from farebox.flows import webhook_endpoint as flow
from farebox.flows.deliver_webhook import begin_attempt, finish_attempt
from farebox.flows.dispatch_notices import dispatch_notices
from farebox.flows.replay_webhook import replay_delivery_in, replay_span_in
from farebox.flows.webhook_endpoint import (
    PutEndpoint,
    WebhookCode,
    WebhookEndpoint,
    put_endpoint,
    try_endpoint_in,
    type_problems,
)
from farebox.notices.delivery import Outcome
from farebox.notices.type import NoticeType
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.notice import Notice, NoticeRow
from farebox.postgres.session import transaction
from farebox.postgres.webhook_delivery import DeliveryRow
from farebox.postgres.webhook_endpoint import EndpointRow

URL = "https://hooks.example.com/"
HOUR = timedelta(hours=1)


def put(world: World, key: str = "ours", **fields: Any) -> PutEndpoint | list[Problem]:
    private = fields.pop("private", False)
    endpoint = WebhookEndpoint(key=key, **{"url": URL, **fields})
    return put_endpoint(
        world.pool,
        world.organization_id,
        endpoint,
        world.now,
        bytes(range(32)),
        private_addresses=private,
    )


def row(world: World, key: str = "ours", **fields: Any) -> EndpointRow:
    done = put(world, key, **fields)
    assert isinstance(done, PutEndpoint), done
    return done.row


def tell(world: World, count: int = 1, kind: NoticeType = NoticeType.ALERT_FIRED) -> None:
    told = [
        Notice(notice_id=new_id(), type=kind, time=world.now, customer=None, data={"n": number})
        for number in range(count)
    ]
    with transaction(world.pool, world.organization_id) as connection:
        notice.add_notices(connection, world.organization_id, told)


def dispatch(world: World) -> None:
    dispatch_notices(world.pool, world.organization_id, world.now, new_id)


def deliveries(world: World) -> Sequence[DeliveryRow]:
    """Return the deliveries, the oldest first."""
    with transaction(world.pool, world.organization_id) as connection:
        found = webhook_delivery.deliveries(connection, world.organization_id, limit=1000)
    return list(reversed(found))


def replay(world: World, delivery: DeliveryRow) -> DeliveryRow | Problem | None:
    with transaction(world.pool, world.organization_id) as connection:
        return replay_delivery_in(
            connection, world.organization_id, delivery.delivery_id, world.now
        )


def replay_span(world: World, endpoint: EndpointRow, hours: int = 1, *types: str) -> int | Problem:
    """Send what was told in the hours before now, and in this moment, again."""
    with transaction(world.pool, world.organization_id) as connection:
        return replay_span_in(
            connection,
            world.organization_id,
            endpoint,
            world.now - hours * HOUR,
            world.now + timedelta(microseconds=1) if hours else world.now,
            types,
            world.now,
            new_id,
        )


def many_endpoints(world: World) -> Any:
    for number in range(flow.ENDPOINTS_MAX):
        row(world, f"e{number}")
    return put(world)


def try_disabled(world: World) -> Any:
    endpoint = row(world, enabled=False)
    with transaction(world.pool, world.organization_id) as connection:
        return try_endpoint_in(
            connection, world.organization_id, endpoint, world.now, new_id(), new_id()
        )


def under_way(world: World) -> Any:
    row(world)
    tell(world)
    dispatch(world)
    assert begin_attempt(world.pool, world.organization_id, "ours", world.now) is not None
    return replay(world, deliveries(world)[0])


def too_many(world: World) -> Any:
    endpoint = row(world)
    tell(world, 10_001)
    return replay_span(world, endpoint)


REFUSALS: list[tuple[WebhookCode, str, Callable[[World], Any]]] = [
    (WebhookCode.URL_INVALID, "/url", lambda world: put(world, url="hooks.example.com")),
    (WebhookCode.URL_NOT_HTTPS, "/url", lambda world: put(world, url="http://hooks.example.com")),
    (WebhookCode.URL_PRIVATE, "/url", lambda world: put(world, url="https://[::ffff:10.0.0.1]/")),
    (
        WebhookCode.UNKNOWN_NOTICE_TYPE,
        "/types/1",
        lambda world: put(world, types=("alert.fired", "alert.fried")),
    ),
    (WebhookCode.TOO_MANY_ENDPOINTS, "", many_endpoints),
    (WebhookCode.ENDPOINT_DISABLED, "", try_disabled),
    (WebhookCode.DELIVERY_UNDER_WAY, "", under_way),
    (WebhookCode.RANGE_EMPTY, "/until", lambda world: replay_span(world, row(world), 0)),
    (WebhookCode.TOO_MANY_NOTICES, "/until", too_many),
]


def test_refusals_are_all_here_in_their_order() -> None:
    assert list(WebhookCode) == [code for code, _, _ in REFUSALS]


@pytest.mark.parametrize(("code", "pointer", "act"), REFUSALS, ids=[one[0] for one in REFUSALS])
def test_refusal(
    world: World, code: WebhookCode, pointer: str, act: Callable[[World], Any]
) -> None:
    refused = act(world)
    problem = refused[0] if isinstance(refused, list) else refused
    assert (code, pointer) == (problem.code, problem.pointer)


def test_all_that_is_wrong_is_told_at_once(world: World) -> None:
    problems = put(world, "no key!", url="x", types=("a", "b"), customer="nobody")
    assert isinstance(problems, list)
    assert [
        ("key_invalid", "/key"),
        ("url_invalid", "/url"),
        ("unknown_notice_type", "/types/0"),
        ("unknown_notice_type", "/types/1"),
        ("unknown_customer", "/customer"),
    ] == [(one.code, one.pointer) for one in problems]
    with transaction(world.pool, world.organization_id) as connection:
        assert 0 == webhook_endpoint.count_endpoints(connection, world.organization_id)


def test_a_new_endpoint_has_a_secret_that_is_shown_once(world: World) -> None:
    first, again = put(world), put(world)
    assert isinstance(first, PutEndpoint)
    assert isinstance(again, PutEndpoint)
    assert first.secret is not None
    assert first.secret.startswith("whsec_")
    assert (True, False, None) == (first.changed, again.changed, again.secret)
    assert "secret" not in first.row.__struct_fields__


def test_the_order_and_repetition_of_types_changes_nothing(world: World) -> None:
    row(world, types=("pool.exhausted", "alert.fired"))
    again = put(world, types=("alert.fired", "pool.exhausted", "alert.fired"))
    assert isinstance(again, PutEndpoint)
    assert not again.changed


def test_a_change_keeps_the_secret_and_how_it_goes(world: World) -> None:
    row(world)
    fail(world)
    changed = put(world, description="Accounting", metadata={"team": "finance"})
    assert isinstance(changed, PutEndpoint)
    assert (True, None) == (changed.changed, changed.secret)
    assert world.now == changed.row.failing_since
    assert 1 == changed.row.failures


def test_another_url_begins_afresh(world: World) -> None:
    row(world)
    fail(world)
    changed = row(world, url="https://other.example.com/")
    assert (None, 0, None) == (changed.failing_since, changed.failures, changed.rests_until)


def test_a_full_organization_still_changes_what_it_has(world: World) -> None:
    many_endpoints(world)
    assert row(world, "e7", description="changed").description == "changed"


def fail(world: World, status: int = 503) -> None:
    tell(world)
    dispatch(world)
    attempt = begin_attempt(world.pool, world.organization_id, "ours", world.now)
    assert attempt is not None
    finish_attempt(world.pool, attempt, Outcome(status=status), world.now, 0.5)


def test_plain_http_inside_is_for_installations_that_say_so(world: World) -> None:
    assert row(world, url="http://127.0.0.1:9000/hook", private=True)


def test_a_test_goes_to_its_endpoint_whatever_its_types(world: World) -> None:
    endpoint = row(world, types=("invoice.finalized",))
    row(world, "other")
    with transaction(world.pool, world.organization_id) as connection:
        made = try_endpoint_in(
            connection, world.organization_id, endpoint, world.now, new_id(), new_id()
        )
    assert isinstance(made, DeliveryRow)
    dispatch(world)
    assert [("ours", "webhook.test")] == [(one.endpoint_key, one.type) for one in deliveries(world)]


def test_a_delivery_that_was_given_up_has_a_whole_schedule_again(world: World) -> None:
    row(world)
    fail(world, 410)
    (given_up,) = deliveries(world)
    assert "given_up" == given_up.status
    refused = replay(world, given_up)
    assert isinstance(refused, Problem)
    assert WebhookCode.ENDPOINT_DISABLED is refused.code
    row(world, enabled=True)
    again = replay(world, given_up)
    assert isinstance(again, DeliveryRow)
    assert ("waiting", 1, world.now) == (again.status, again.attempts, again.next_attempt_at)
    attempt = begin_attempt(world.pool, world.organization_id, "ours", world.now)
    assert attempt is not None
    assert (2, 1) == (attempt.number, attempt.tries)


def test_what_is_not_there_is_not_sent_again(world: World) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        assert replay_delivery_in(connection, world.organization_id, new_id(), world.now) is None


def test_a_span_is_sent_again_with_what_never_was(world: World) -> None:
    tell(world, 2)  # before there was an endpoint
    dispatch(world)
    endpoint = row(world, types=("alert.fired", "grant.paid"))
    tell(world, 3)
    tell(world, 1, NoticeType.GRANT_PAID)
    tell(world, 1, NoticeType.GRANT_EXPIRED)  # which it does not want
    dispatch(world)
    while attempt := begin_attempt(world.pool, world.organization_id, "ours", world.now):
        finish_attempt(world.pool, attempt, Outcome(status=200), world.now, 0.5)
    assert 4 == len(deliveries(world))
    assert 6 == replay_span(world, endpoint)
    assert {"waiting"} == {one.status for one in deliveries(world)}
    assert 6 == len(deliveries(world))
    assert 1 == replay_span(world, endpoint, 1, "grant.paid")
    assert 0 == replay_span(world, endpoint, 1, "grant.expired")
    world.now += 2 * HOUR
    assert 0 == replay_span(world, endpoint)


def test_what_is_being_sent_is_left_as_it_is_by_a_span(world: World) -> None:
    endpoint = row(world)
    tell(world, 3)
    dispatch(world)
    assert begin_attempt(world.pool, world.organization_id, "ours", world.now) is not None
    assert 2 == replay_span(world, endpoint)


def test_a_type_that_is_none_is_named() -> None:
    assert [] == list(type_problems([]))
    (problem,) = type_problems(["alert.fired", "x" * 500])
    assert len(problem.message) < 200


def plan(world: World, customers: int) -> None:
    world.publish(Plan(key="base", currency="EUR", fees=(Fee(key="f", amount=10),)))
    for number in range(customers):
        world.customer(f"c{number}")
        world.subscribe(f"c{number}", "base", at("2026-09-01"))


def notices(world: World) -> list[NoticeRow]:
    with transaction(world.pool, world.organization_id) as connection:
        found = notice.notices(connection, world.organization_id, limit=1000)
    return sorted(found, key=lambda one: one.notice_id)


def test_a_billing_run_tells_every_invoice_in_their_order(world: World) -> None:
    plan(world, 3)
    world.bill(at("2026-10-01"))
    invoices, told = world.invoices(), notices(world)
    assert invoices
    assert [one.number for one in invoices] == [
        msgspec.json.decode(one.data)["number"] for one in told
    ]
    first = invoices[0]
    assert ("invoice.finalized", first.customer_key, world.now) == (
        told[0].type,
        told[0].customer_key,
        told[0].time,
    )
    data = msgspec.json.decode(told[0].data)
    assert encode_id(Prefix.INVOICE, first.invoice_id) == data["invoice"]
    assert ("EUR", "10.00", "2026-09-01T00:00:00Z") == (
        data["currency"],
        data["total"],
        data["period_start"],
    )
    assert {"draft"} != {one.status for one in invoices}


def test_billing_twice_tells_once_and_drafts_tell_nothing(world: World) -> None:
    plan(world, 2)
    world.bill(at("2026-10-01"), finalize=False)
    assert [] == notices(world)
    world.bill(at("2026-10-01"))
    count = len(notices(world))
    world.bill(at("2026-10-01"))
    assert count == len(notices(world)) == len(world.invoices())


def test_a_page_that_is_taken_back_tells_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(world, 2)

    def fail_at_the_end(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bill_flow.billing_run, "count_invoices", fail_at_the_end)
    with suppress(ZeroDivisionError):
        world.bill(at("2026-10-01"))
    assert [] == world.invoices()
    assert [] == notices(world)
