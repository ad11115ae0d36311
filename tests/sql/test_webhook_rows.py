"""Rows of notices and deliveries: kept word for word, handed on once, claimed by one worker."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from farebox.flows.dispatch_notices import dispatch_notices
from farebox.notices.delivery import DeliveryStatus, Outcome, Verdict
from farebox.notices.type import NoticeType
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.notice import Notice, add_notices
from farebox.postgres.session import Pool, transaction, unbound
from farebox.postgres.webhook_endpoint import Wanted

NOW = datetime(2026, 10, 2, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)
DONE = Verdict(status=DeliveryStatus.DELIVERED)
OK = Outcome(status=200, duration_ms=5)


class Undone(Exception):
    """Takes a transaction back."""


def told(number: int = 1, *, customer: str | None = None, **data: object) -> Notice:
    """Return a notice; a higher number is a later one."""
    return Notice(
        notice_id=UUID(int=number),
        type=NoticeType.ALERT_FIRED,
        time=NOW + timedelta(minutes=number),
        customer=customer,
        data=data,
    )


def add_endpoint(connection: psycopg.Connection, organization_id: UUID, key: str) -> None:
    wanted = Wanted(
        key=key,
        url="https://hooks.example.com/",
        types=[],
        customer_key=None,
        description="",
        metadata={},
        enabled=True,
    )
    webhook_endpoint.add_endpoint(connection, organization_id, wanted, f"whsec_{key}", NOW)


@pytest.fixture
def prepared(pool: Pool, organization_id: UUID) -> Iterator[UUID]:
    """Return an organization with the endpoints `a` and `b` and three notices for each."""
    with transaction(pool, organization_id) as connection:
        for key in ("a", "b"):
            add_endpoint(connection, organization_id, key)
        add_notices(connection, organization_id, [told(number) for number in (3, 1, 2)])
    dispatch_notices(pool, organization_id, NOW, uuid4)
    yield organization_id
    with transaction(pool, organization_id) as connection:
        for key in ("a", "b"):
            webhook_endpoint.delete_endpoint(connection, organization_id, key)


def claim(connection: psycopg.Connection, organization_id: UUID, key: str, now: datetime) -> Any:
    if webhook_endpoint.lock_target(connection, organization_id, key, now) is None:
        return None
    return webhook_delivery.claim_delivery(
        connection, organization_id, key, now, now + timedelta(seconds=30)
    )


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({}, "{}"),
        ({"b": 1, "a": Decimal("1.10")}, '{"b":1,"a":"1.1"}'),
        ({"a": Decimal("0E-18"), "b": "1.10"}, '{"a":"0","b":"1.10"}'),
        ({"at": NOW, "none": None}, '{"at":"2026-10-02T12:00:00Z","none":null}'),
        ({"text": 'é "\u2028\\\t'}, '{"text":"é \\"\u2028\\\\\\t"}'),
        ({"deep": [{"a": None}, 10**30]}, '{"deep":[{"a":null},' + str(10**30) + "]}"),
    ],
)
def test_data_is_kept_word_for_word(
    pool: Pool, organization_id: UUID, data: dict[str, object], kept: str
) -> None:
    with transaction(pool, organization_id) as connection:
        add_notices(connection, organization_id, [told(1, customer="acme", **data)])
        (row,) = notice.notices(connection, organization_id)
    assert kept == row.data
    assert data.keys() == msgspec.json.decode(row.data).keys()
    assert (UUID(int=1), "alert.fired", NOW + timedelta(minutes=1), "acme") == (
        row.notice_id,
        row.type,
        row.time,
        row.customer_key,
    )


def test_a_notice_is_there_when_what_it_tells_is(pool: Pool, organization_id: UUID) -> None:
    with suppress(Undone), transaction(pool, organization_id) as connection:
        add_notices(connection, organization_id, [told()])
        raise Undone
    with transaction(pool, organization_id) as connection:
        add_notices(connection, organization_id, [])
        assert [] == notice.notices(connection, organization_id)


def test_notices_are_listed_newest_first_page_by_page(pool: Pool, organization_id: UUID) -> None:
    rows = [told(number, customer="acme" if number % 2 else None) for number in range(1, 8)]
    with transaction(pool, organization_id) as connection:
        add_notices(connection, organization_id, rows)
        pages, after = [], None
        while page := notice.notices(connection, organization_id, after=after, limit=3):
            pages.append([row.notice_id.int for row in page])
            after = (page[-1].time, page[-1].notice_id)
        assert [[7, 6, 5], [4, 3, 2], [1]] == pages
        acme = notice.notices(connection, organization_id, customer_key="acme")
        assert [7, 5, 3, 1] == [row.notice_id.int for row in acme]
        assert [] == notice.notices(connection, organization_id, notice_type="grant.paid")
        span = notice.notices_between(
            connection, organization_id, rows[1].time, rows[4].time, [], "acme", 10
        )
        assert [3] == [row.notice_id.int for row in span]


def test_workers_that_dispatch_at_once_hand_each_notice_on_once(
    pool: Pool, organization_id: UUID
) -> None:
    with transaction(pool, organization_id) as connection:
        for key in ("a", "b"):
            add_endpoint(connection, organization_id, key)
        add_notices(connection, organization_id, [told(number) for number in range(1, 1501)])
    start = Barrier(4)

    def dispatch(_: int) -> int:
        start.wait()
        total = 0
        while count := dispatch_notices(pool, organization_id, NOW, uuid4):
            total += count
        return total

    with ThreadPoolExecutor(4) as threads:
        handed_on = list(threads.map(dispatch, range(4)))
    assert 1500 == sum(handed_on)
    with transaction(pool, organization_id) as connection:
        rows = webhook_delivery.deliveries(connection, organization_id, limit=10_000)
        assert 3000 == len({(row.endpoint_key, row.notice_id) for row in rows}) == len(rows)
        for key in ("a", "b"):
            webhook_endpoint.delete_endpoint(connection, organization_id, key)
    with unbound(pool) as connection:
        assert organization_id not in notice.organizations_to_dispatch(connection)


def test_a_claim_is_passed_over_by_other_workers(pool: Pool, prepared: UUID) -> None:
    """While the transaction is open by its lock, after that by its lease, until this has ended."""
    with transaction(pool, prepared) as first, transaction(pool, prepared) as second:
        one = claim(first, prepared, "a", NOW)
        assert claim(second, prepared, "a", NOW) is None
        assert claim(second, prepared, "b", NOW).number == 1
    with transaction(pool, prepared) as connection:
        assert claim(connection, prepared, "a", LATER - timedelta(seconds=1)) is None
        again = claim(connection, prepared, "a", LATER)
    assert (one.delivery_id, 1, 2) == (again.delivery_id, one.number, again.number)


def test_what_waits_longest_is_claimed_first(pool: Pool, prepared: UUID) -> None:
    numbers = []
    with transaction(pool, prepared) as connection:
        while (one := claim(connection, prepared, "a", NOW)) is not None:
            numbers.append(one.notice_id.int)
            webhook_delivery.finish_attempt(
                connection, prepared, one.delivery_id, one.number, OK, DONE, NOW
            )
    assert [1, 2, 3] == numbers


def test_a_claim_is_all_that_it_takes_to_send(pool: Pool, prepared: UUID) -> None:
    with transaction(pool, prepared) as connection:
        target = webhook_endpoint.lock_target(connection, prepared, "a", NOW)
        one = claim(connection, prepared, "a", NOW)
    assert target is not None
    assert ("https://hooks.example.com/", ["whsec_a"]) == (target.url, target.secrets)
    assert (1, 1, "alert.fired", "{}") == (one.number, one.tries, one.type, one.data)


def test_only_who_holds_the_lease_changes_the_delivery(pool: Pool, prepared: UUID) -> None:
    failed = Verdict(status=DeliveryStatus.FAILED, next_attempt_at=LATER)
    with transaction(pool, prepared) as connection:
        early = claim(connection, prepared, "a", NOW)
        late = claim(connection, prepared, "a", LATER)
        for one, verdict in ((late, DONE), (early, failed), (late, failed)):
            webhook_delivery.finish_attempt(
                connection, prepared, one.delivery_id, one.number, OK, verdict, LATER
            )
        row = webhook_delivery.find_delivery(connection, prepared, early.delivery_id)
    assert row is not None
    assert ("delivered", 2, None, LATER) == (
        row.status,
        row.attempts,
        row.next_attempt_at,
        row.delivered_at,
    )


def due(pool: Pool, now: datetime, *, each: int = 16, of: UUID | None = None) -> list[Any]:
    with unbound(pool) as connection:
        found = webhook_endpoint.endpoints_due(connection, now, each, 10_000)
    return [key for organization_id, key in found if organization_id == of]


def test_due_endpoints_are_found_in_every_organization(
    pool: Pool, prepared: UUID, new_organization: Callable[[], UUID]
) -> None:
    assert ["a", "b"] == due(pool, NOW, of=prepared)
    assert ["a"] == due(pool, NOW, each=1, of=prepared)
    assert [] == due(pool, NOW - timedelta(seconds=1), of=prepared)
    with transaction(pool, prepared) as connection:
        assert claim(connection, prepared, "a", NOW) is not None
    assert ["b"] == due(pool, NOW, of=prepared)
    assert ["a", "b"] == due(pool, LATER, of=prepared)
    with transaction(pool, prepared) as connection:
        rests = Verdict(status=DeliveryStatus.FAILED, rests_until=LATER)
        webhook_endpoint.note_failure(connection, prepared, "b", rests, NOW)
    assert [] == due(pool, NOW, of=prepared)
    with transaction(pool, prepared) as connection:
        connection.execute("update webhook_endpoint set enabled = false where key = 'a'")
    assert ["b"] == due(pool, LATER, of=prepared)


@pytest.mark.parametrize("table", ["notice", "webhook_endpoint", "webhook_delivery"])
def test_an_organization_sees_its_own_only(
    pool: Pool, prepared: UUID, new_organization: Callable[[], UUID], table: str
) -> None:
    other = new_organization()
    with transaction(pool, other) as connection:
        assert (0,) == connection.execute(f"select count(*) from {table}").fetchone()
        assert claim(connection, prepared, "a", NOW) is None
        assert not webhook_endpoint.delete_endpoint(connection, prepared, "a")
        assert [] == list(notice.lock_undispatched(connection, prepared, 10))
        assert [] == webhook_delivery.deliveries(connection, prepared)
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        transaction(pool, other) as connection,
    ):
        add_notices(connection, prepared, [told(9)])


@pytest.mark.parametrize(
    "statement",
    ["delete from notice", "delete from webhook_delivery", "delete from webhook_attempt"],
)
def test_the_log_is_not_for_the_runtime_role_to_delete(
    pool: Pool, prepared: UUID, statement: str
) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        transaction(pool, prepared) as connection,
    ):
        connection.execute(statement.encode())


def test_old_notices_go_with_their_deliveries_and_old_attempts_by_themselves(
    pool: Pool, prepared: UUID
) -> None:
    with transaction(pool, prepared) as connection:
        assert claim(connection, prepared, "a", NOW) is not None
        add_notices(connection, prepared, [told(8)])  # not handed on, so it stays
    with unbound(pool) as connection:
        webhook_delivery.drop_attempts(connection, NOW)
        notice.drop_notices(connection, NOW)
    assert (4, 6, 1) == counts(pool, prepared)
    with unbound(pool) as connection:
        assert 1 <= webhook_delivery.drop_attempts(connection, NOW + timedelta(seconds=1))
    assert (4, 6, 0) == counts(pool, prepared)
    with unbound(pool) as connection:
        assert 3 <= notice.drop_notices(connection, NOW + timedelta(seconds=1))
    assert (1, 0, 0) == counts(pool, prepared)


def counts(pool: Pool, organization_id: UUID) -> tuple[int, ...]:
    with transaction(pool, organization_id) as connection:
        return tuple(
            connection.execute(f"select count(*) from {table}").fetchall()[0][0]
            for table in ("notice", "webhook_delivery", "webhook_attempt")
        )


def test_a_deleted_endpoint_takes_its_deliveries_along(pool: Pool, prepared: UUID) -> None:
    with transaction(pool, prepared) as connection:
        assert claim(connection, prepared, "a", NOW) is not None
        assert webhook_endpoint.delete_endpoint(connection, prepared, "a")
        assert not webhook_endpoint.delete_endpoint(connection, prepared, "a")
    assert (3, 3, 0) == counts(pool, prepared)
