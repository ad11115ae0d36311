"""What the pages of pools say: unlimited, stopped by a license, what is next, the chart."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import UUID

import pytest

from farebox.catalog.customer import Customer
from farebox.catalog.license import License
from farebox.flows.decide_pools import Asked, decide_pools
from farebox.flows.grant_units import grant_units, recur
from farebox.flows.put_license import PutLicense, put_license, revoke_license
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.read_pool import books_now, pools_listed
from farebox.http.pages import pools_view
from farebox.ledger.administer import NewGrant, NewRecurrence
from farebox.ledger.command import Answer, Draw, Reserve, Settle
from farebox.ledger.grant import Grant
from farebox.ledger.policy import Limit, LimitMode, Policy, Refill
from farebox.ledger.pool import PoolDefinition
from farebox.postgres import customer
from farebox.postgres.session import transaction

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
OPENED = NOW - timedelta(days=5)
HOUR = timedelta(hours=1)
UNLIMITED = Policy(limit=Limit(mode=LimitMode.UNLIMITED))


def words(text: str) -> str:
    """Return what a page shows, without its markup and extra space."""
    shown = re.sub(r"<script.*?</script>", " ", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown)).split())


class Desk:
    """A vendor whose pools are used as a test says, at the times that it says."""

    def __init__(self, state: Any, vendor: Any) -> None:
        self.state, self.vendor = state, vendor
        self.organization_id = vendor.organization_id
        with transaction(state.pool, self.organization_id) as connection:
            acme = Customer(key="acme", name="Acme")
            customer.put_customer(
                connection, self.organization_id, acme, state.new_id(), OPENED - 100 * HOUR
            )

    def pool(
        self, key: str, policy: Policy | None = None, opened: datetime = OPENED, **fields: Any
    ) -> UUID:
        definition = PoolDefinition(key=key, unit="token", policy=policy or Policy(), **fields)
        done = put_pool(
            self.state.pool, self.organization_id, definition, opened, self.state.new_id()
        )
        assert isinstance(done, PutPool), done
        return done.pool_id

    def grant(self, pool_id: UUID, amount: int, time: datetime = OPENED, **fields: Any) -> None:
        asked = NewGrant(amount=Decimal(amount), **fields)
        with transaction(self.state.pool, self.organization_id) as connection:
            done = grant_units(connection, self.organization_id, pool_id, asked, time)
        assert isinstance(done, Grant), done

    def ask(self, pool_id: UUID, command: Any, time: datetime) -> Answer:
        asked = [Asked(pool_id, command)]
        (answer,) = decide_pools(self.state.pool, self.organization_id, asked, time)
        assert isinstance(answer, Answer), answer
        return answer

    def license(self, key: str, **fields: Any) -> None:
        asked = License(key=key, customer="acme", **fields)
        done = put_license(self.state.pool, self.organization_id, asked, OPENED)
        assert isinstance(done, PutLicense), done

    def page(self, path: str) -> str:
        return words(self.vendor.page(path))


@pytest.fixture
def desk(console_state: Any, new_vendor: Callable[[str], Any]) -> Desk:
    return Desk(console_state, new_vendor("States"))


def chart_of(page: str) -> dict[str, Any]:
    """Return what the chart of a page is drawn from."""
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    read: dict[str, Any] = json.loads(text)
    return read


def course_of(page: str) -> list[tuple[datetime, str]]:
    """Return the steps of a pool's chart: from when on how much was available."""
    chart = chart_of(page)
    times = [datetime.fromtimestamp(at, UTC) for at in chart["x"]]
    return list(zip(times, chart["series"][0]["values"], strict=True))


def test_a_new_pools_chart_spans_the_period_and_steps_from_its_opening_to_now(desk: Desk) -> None:
    opened = NOW - timedelta(minutes=5)
    pool_id = desk.pool("new", opened=opened)
    desk.grant(pool_id, 100_000, opened + timedelta(seconds=20))
    desk.ask(pool_id, Draw(amount=Decimal(120)), opened + timedelta(seconds=40))
    page = desk.vendor.page("/console/pools/new")
    chart = chart_of(page)
    end = datetime(2026, 7, 15, tzinfo=UTC)
    assert ("steps", [int(opened.timestamp()), int(end.timestamp())]) == (
        chart["kind"],
        chart["span"],
    )
    assert [
        (opened, "0"),
        (opened + timedelta(seconds=20), "100000"),
        (opened + timedelta(seconds=40), "99880"),
        (NOW, "99880"),
    ] == course_of(page)
    assert "Since Available 15 Jun 2026, 11:55:00 0 15 Jun 2026, 11:55:20 100,000" in words(page)


def test_a_chart_tells_only_changes_and_what_fell_due_since(desk: Desk) -> None:
    pool_id = desk.pool("p")
    desk.grant(pool_id, 30, expires_at=NOW - HOUR)
    desk.grant(pool_id, 70)
    held = desk.ask(pool_id, Reserve(amount=Decimal(10), seconds=7200), OPENED + HOUR)
    desk.ask(pool_id, Settle(hold=held.operation, amount=Decimal(10)), OPENED + 2 * HOUR)
    assert [(OPENED, "100"), (OPENED + HOUR, "90"), (NOW - HOUR, "70"), (NOW, "70")] == course_of(
        desk.vendor.page("/console/pools/p")
    )


def test_a_chart_begins_with_what_the_last_period_left(desk: Desk) -> None:
    opened = NOW - timedelta(days=40)
    pool_id = desk.pool("p", opened=opened)
    desk.grant(pool_id, 100, opened)
    desk.ask(pool_id, Draw(amount=Decimal(40)), opened + HOUR)
    turned = datetime(2026, 6, 6, tzinfo=UTC)
    page = desk.vendor.page("/console/pools/p")
    assert [(turned, "60"), (NOW, "60")] == course_of(page)
    assert int(turned.timestamp()) == chart_of(page)["span"][0]


def test_a_chart_of_much_use_is_told_by_the_hour(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_view, "_ENTRIES_MAX", 5)
    pool_id = desk.pool("p")
    desk.grant(pool_id, 100)
    for number in range(6):
        desk.ask(pool_id, Draw(amount=Decimal(1)), OPENED + number * HOUR / 4 + HOUR / 8)
    course = course_of(desk.vendor.page("/console/pools/p"))
    # The fifth and the sixth draw are of the second hour.
    assert [(OPENED, "0"), (OPENED + HOUR, "96"), (OPENED + 2 * HOUR, "94"), (NOW, "94")] == course


def test_a_pool_without_bound_says_so_and_what_was_used(desk: Desk) -> None:
    pool_id = desk.pool("calls", UNLIMITED, customer="acme")
    desk.ask(pool_id, Draw(amount=Decimal(5_100_000)), NOW - HOUR)
    text = desk.page("/console/pools/calls")
    assert "Unlimited 5,100,000 used in this period" in text
    assert "It needs no grant" in text
    assert "available of" not in text
    page = desk.vendor.page("/console/pools/calls")
    assert 'data-value="period.used"' in page
    assert 'data-island="chart"' not in page
    for path in ("/console/pools", "/console/customers/acme"):
        text = desk.page(path)
        assert "calls token unlimited · 5.1M used 0 5.1M" in text.replace(" · acme acme", "")
        assert "nothing granted" not in text


def test_a_pool_without_bound_that_has_grants_shows_both(desk: Desk) -> None:
    pool_id = desk.pool("p", UNLIMITED)
    desk.grant(pool_id, 50)
    desk.ask(pool_id, Draw(amount=Decimal(60)), NOW - HOUR)
    low = desk.pool("low")
    desk.grant(low, 50)
    desk.ask(low, Draw(amount=Decimal(45)), NOW - HOUR)
    assert "0 available of 50 in this period, and unlimited beyond" in desk.page("/console/pools/p")
    text = desk.page("/console/pools")
    assert "p unlimited token" in text
    assert text.index("low low token") < text.index("p unlimited token")


@pytest.mark.parametrize(
    ("fields", "word", "sentence"),
    [
        ({"ends_at": NOW - HOUR}, "license over", "ended on 15 Jun 2026, 11:00:00"),
        ({"ends_at": NOW}, "license over", "ended on 15 Jun 2026, 12:00:00"),
        ({"starts_at": NOW + HOUR}, "license not begun", "begins on 15 Jun 2026, 13:00:00"),
        ({}, "license revoked", "was revoked on 15 Jun 2026, 10:00:00"),
    ],
)
def test_a_pool_whose_license_is_not_in_force_says_so_and_since_when(
    desk: Desk, fields: dict[str, Any], word: str, sentence: str
) -> None:
    desk.license("WS-12", **fields)
    desk.grant(desk.pool("seat", license="WS-12"), 50)
    if not fields:
        with transaction(desk.state.pool, desk.organization_id) as connection:
            revoke_license(connection, desk.organization_id, "WS-12", NOW - 2 * HOUR)
    text = desk.page("/console/pools/seat")
    assert f"seat {word}" in text
    assert f"Nothing is given: license WS-12 {sentence}" in text
    for path in ("/console/pools", "/console/customers/acme"):
        assert f"seat {word} WS-12 {sentence} token" in desk.page(path)


def test_a_pool_whose_license_is_in_force_says_nothing_of_it(desk: Desk) -> None:
    desk.license("WS-12", ends_at=NOW + HOUR)
    desk.grant(desk.pool("seat", license="WS-12"), 50)
    page = desk.vendor.page("/console/pools/seat")
    assert "Nothing is given" not in page
    assert 'href="/console/customers/acme#licenses"' in page
    assert "seat token" in desk.page("/console/pools")


def test_the_next_change_is_not_of_a_hold_that_was_settled(desk: Desk) -> None:
    pool_id = desk.pool("p")
    desk.grant(pool_id, 100)
    held = desk.ask(pool_id, Reserve(amount=Decimal(10), seconds=86_400), NOW - HOUR)
    assert "16 Jun 2026, 11:00:00" in desk.page("/console/pools")
    desk.ask(pool_id, Settle(hold=held.operation, amount=Decimal(10)), NOW - HOUR / 2)
    text = desk.page("/console/pools")
    assert "16 Jun 2026, 11:00:00" not in text
    assert "10 Jul 2026, 00:00:00" in text


def test_the_list_and_the_books_agree_on_what_is_next(desk: Desk) -> None:
    """Of everything that may be next: the list asks the rows, a pool's page its books."""
    plain = desk.pool("plain")
    expiring = desk.pool("expiring")
    desk.grant(expiring, 10, expires_at=NOW + 3 * HOUR)
    desk.grant(expiring, 10, expires_at=NOW + 2 * HOUR)
    waiting = desk.pool("waiting")
    desk.grant(waiting, 10, effective_at=NOW + HOUR, expires_at=NOW + 2 * HOUR)
    unpaid = desk.pool("unpaid")
    desk.grant(unpaid, 10, pending=True, pay_by=NOW + HOUR, expires_at=NOW + 2 * HOUR)
    holding = desk.pool("holding")
    desk.grant(holding, 10)
    desk.ask(holding, Reserve(amount=Decimal(1), seconds=7200), NOW - HOUR)
    renewing = desk.pool("renewing")
    with transaction(desk.state.pool, desk.organization_id) as connection:
        asked = NewRecurrence(key="monthly", amount=Decimal(5), starts_at=NOW + 5 * HOUR)
        recur(connection, desk.organization_id, renewing, asked, OPENED)
    gone = desk.pool("gone")
    desk.grant(gone, 10, OPENED, expires_at=NOW + HOUR)
    desk.ask(gone, Draw(amount=Decimal(10)), NOW - HOUR)
    flowing = desk.pool(
        "flowing", Policy(refill=Refill(amount=Decimal(1), seconds=60, capacity=Decimal(5)))
    )
    desk.pool("closed", closed=True)
    rows = pools_listed(desk.state.pool, desk.organization_id, NOW)
    with transaction(desk.state.pool, desk.organization_id, snapshot=True) as connection:
        ids = [row.pool_id for row in rows]
        books = books_now(connection, desk.organization_id, ids, NOW)
    assert {plain, expiring, waiting, unpaid, holding, renewing, gone, flowing} < set(ids)
    assert {row.key: books[row.pool_id].next_due for row in rows} == {
        row.key: row.next_due for row in rows
    }
    turns = datetime(2026, 7, 10, tzinfo=UTC)
    assert {
        "plain": turns,
        "expiring": NOW + 2 * HOUR,
        "waiting": NOW + HOUR,
        "unpaid": NOW + HOUR,
        "holding": NOW + HOUR,
        "renewing": NOW + 5 * HOUR,
    }.items() <= {row.key: row.next_due for row in rows}.items()


def test_a_chart_ends_with_what_has_flowed_in_since(desk: Desk) -> None:
    refill = Refill(amount=Decimal(1), seconds=3600, capacity=Decimal(100))
    pool_id = desk.pool("p", Policy(refill=refill))
    desk.ask(pool_id, Draw(amount=Decimal(100)), NOW - 30 * HOUR)
    assert [(OPENED, "0"), (NOW, "30")] == course_of(desk.vendor.page("/console/pools/p"))
