"""The pages of pools: what they say, what can be done from them, and by whom."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import UUID

import pytest

from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope
from farebox.catalog.customer import Customer
from farebox.catalog.license import License
from farebox.flows.api_key import NewApiKey, create_api_key_in
from farebox.flows.decide_pools import Asked, decide_pools
from farebox.flows.grant_units import grant_units
from farebox.flows.put_license import PutLicense, put_license
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.share_pool import Share, Shared, share_pool
from farebox.ledger.administer import NewGrant
from farebox.ledger.command import Draw, Reserve
from farebox.ledger.grant import Basis, Grant
from farebox.ledger.policy import Limit, LimitMode, Policy, Refill
from farebox.ledger.pool import PoolDefinition
from farebox.postgres import customer
from farebox.postgres.session import transaction

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script>"


def words(text: str) -> str:
    """Return what a page shows, without its markup and extra space."""
    shown = re.sub(r"<script.*?</script>", " ", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown)).split())


class Shop:
    """A vendor with the pools of a test."""

    def __init__(self, state: Any, vendor: Any) -> None:
        self.state = state
        self.vendor = vendor
        self.organization_id = vendor.organization_id

    def customer(self, key: str) -> None:
        with transaction(self.state.pool, self.organization_id) as connection:
            customer.put_customer(
                connection,
                self.organization_id,
                Customer(key=key, name=key.title()),
                self.state.new_id(),
                NOW,
            )

    def pool(self, key: str, policy: Policy | None = None, **fields: Any) -> UUID:
        definition = PoolDefinition(key=key, unit="token", policy=policy or Policy(), **fields)
        opened = NOW - timedelta(days=10)
        done = put_pool(
            self.state.pool, self.organization_id, definition, opened, self.state.new_id()
        )
        assert isinstance(done, PutPool), done
        return done.pool_id

    def grant(self, pool_id: UUID, amount: int, **fields: Any) -> Grant:
        asked = NewGrant(amount=Decimal(amount), **fields)
        with transaction(self.state.pool, self.organization_id) as connection:
            time = NOW - timedelta(days=9)
            done = grant_units(connection, self.organization_id, pool_id, asked, time)
        assert isinstance(done, Grant), done
        return done

    def ask(self, pool_id: UUID, command: Any, hours: int = 1) -> None:
        asked = [Asked(pool_id, command)]
        time = NOW - timedelta(hours=hours)
        decide_pools(self.state.pool, self.organization_id, asked, time)


@pytest.fixture
def shop(console_state: Any, new_vendor: Callable[[str], Any]) -> Shop:
    return Shop(console_state, new_vendor("Pools"))


@pytest.fixture
def read_only(shop: Shop) -> Any:
    """Return the same vendor as one sees it who may only read."""
    with transaction(shop.state.pool, shop.organization_id) as connection:
        made = create_api_key_in(
            connection,
            shop.organization_id,
            shop.state.new_id(),
            "reader",
            frozenset({Scope.READ}),
            None,
            NOW,
            bytes(ID_BYTES + SECRET_BYTES),
        )
    assert isinstance(made, NewApiKey)
    return type(shop.vendor)(shop.vendor.client, shop.organization_id, made.text)


def test_empty_pages_say_what_to_do_next(shop: Shop) -> None:
    assert "No pool yet" in words(shop.vendor.page("/console/pools"))
    assert "PUT /v1/pools/{key}" in words(shop.vendor.page("/console/pools"))
    shop.pool("bare")
    text = words(shop.vendor.page("/console/pools/bare"))
    for said in (
        "Nothing is granted",
        "Nothing moved yet",
        "Nobody was refused",
        "Nothing is held",
    ):
        assert said in text
    assert "Nothing moved yet" in words(shop.vendor.page("/console/pools/bare/statement"))
    assert "No pool matches" in words(shop.vendor.page("/console/pools?q=nowhere"))
    assert 404 == shop.vendor.get("/console/pools/nowhere").status_code


def test_the_list_has_those_that_run_low_first(shop: Shop) -> None:
    shop.customer("acme")
    for key, granted, used in (("full", 100, 1), ("low", 100, 90), ("empty", 100, 100)):
        pool_id = shop.pool(key, customer="acme")
        shop.grant(pool_id, granted)
        shop.ask(pool_id, Draw(amount=Decimal(used)))
    shop.pool("closed", closed=True)
    over = shop.pool(
        "over", Policy(currency="EUR", limit=Limit(mode=LimitMode.OVERAGE, price=Decimal(1)))
    )
    shop.grant(over, 10)
    shop.ask(over, Draw(amount=Decimal(15)))
    text = words(shop.vendor.page("/console/pools"))
    places = [
        text.index(f"{key} ") for key in ("empty empty", "over beyond", "low low", "full token")
    ]
    assert sorted(places) == places
    assert places[-1] < text.index("closed closed")
    assert "10 of 100" in text
    assert "acme" in words(shop.vendor.page("/console/pools?q=acm"))
    assert "over " not in words(shop.vendor.page("/console/pools?q=acm")).split("Next change")[1]


def test_pages_show_what_fell_due_since_anybody_asked(shop: Shop) -> None:
    """Each page is the first that is asked about its pool."""
    shop.customer("acme")
    for key in ("listed", "of-acme", "opened", "stated"):
        pool_id = shop.pool(key, customer="acme" if key == "of-acme" else None)
        shop.grant(pool_id, 77, expires_at=NOW - timedelta(days=1))
    policy = Policy(refill=Refill(amount=Decimal(1), seconds=3600, capacity=Decimal(100)))
    flowing = shop.pool("flowing", policy)
    shop.ask(flowing, Draw(amount=Decimal(100)), hours=30)
    assert "listed nothing granted token" in words(shop.vendor.page("/console/pools?q=listed"))
    assert "30 of 100" in words(shop.vendor.page("/console/pools?q=flowing"))
    assert "of-acme nothing granted" in words(shop.vendor.page("/console/customers/acme"))
    for path in ("opened", "stated/statement"):
        assert "grant expired" in words(shop.vendor.page(f"/console/pools/{path}"))


def test_a_page_says_all_of_a_pool(shop: Shop) -> None:
    shop.customer("acme")
    policy = Policy(currency="EUR", limit=Limit(mode=LimitMode.OVERAGE, price=Decimal("0.05")))
    pool_id = shop.pool("tokens", policy, customer="acme", name="Acme tokens")
    shop.grant(pool_id, 1000, key="order-1", basis=Basis.PURCHASED, cost=Decimal(20))
    shop.grant(pool_id, 500, key="gift", priority=-1, expires_at=NOW + timedelta(days=3))
    with transaction(shop.state.pool, shop.organization_id) as connection:
        shares = [
            Share(key="team", guarantee=Decimal(200), cap=Decimal(900)),
            Share(key="ann", parent="team", guarantee=Decimal(100), subjects=("ann@acme",)),
        ]
        done = share_pool(
            connection, shop.organization_id, pool_id, shares, NOW - timedelta(days=9)
        )
        assert isinstance(done, Shared)
    shop.ask(pool_id, Draw(amount=Decimal(620), subject="ann@acme"), hours=30)
    shop.ask(pool_id, Reserve(amount=Decimal(33), subject="bob", seconds=86_400), hours=2)
    shop.ask(pool_id, Draw(amount=Decimal(900), subject="ann@acme"))
    page = shop.vendor.page("/console/pools/tokens")
    text = words(page)
    for said in (
        "Acme tokens",
        "847 available of 1,500 in this period",
        "Held 33",
        "Used in this period 653",
        "1. order-1 purchased · since 6 Jun 2026",
        "€0.02",
        "team 620",
        "ann 620",
        "ann@acme 1 620 0 620",
        "allotment cap exceeded",
        "bob 33",
        "draws go through at €0.05 a token",
        "held",
    ):
        assert said in text, said
    assert 'data-source="/console/pools/tokens/live"' in page
    assert text.index("team") < text.index("ann 620")
    statement = words(shop.vendor.page("/console/pools/tokens/statement"))
    assert "drawn 120 grant 1,000 → 880 used 500 → 620 880 ann@acme of ann" in statement
    only = words(shop.vendor.page("/console/pools/tokens/statement?subject=bob"))
    assert "drawn" not in only
    for query, said in (
        ("stretch=today", "Nothing was used in this time"),
        ("stretch=week&by=day", "14 Jun 2026 1 620 0 620"),
        ("since=2026-06-14&until=2026-06-14&by=allotment", "ann 1 620 0 620"),
        ("since=1990-01-01&until=2026-06-14&by=hour", "Too long for this grouping"),
        ("since=nonsense&until=2026-06-14&by=nonsense", "ann@acme 1 620 0 620"),
    ):
        assert said in words(shop.vendor.page(f"/console/pools/tokens?{query}")), query
    assert "Acme tokens" in words(shop.vendor.page("/console/customers/acme"))


def test_a_page_of_much_use_stays_small_and_well_formed(shop: Shop) -> None:
    pool_id = shop.pool("busy")
    for number in range(60):
        shop.grant(pool_id, 9999, key=f"grant-{number}", pending=number > 55)
    asked = [
        Asked(pool_id, Reserve(amount=Decimal(1), subject=f"user-{number}@example.com"))
        for number in range(70)
    ]
    decide_pools(shop.state.pool, shop.organization_id, asked, NOW)
    asked = [
        Asked(pool_id, Draw(amount=Decimal(number + 1), subject=f"user-{number}@example.com"))
        for number in range(70)
    ]
    decide_pools(shop.state.pool, shop.organization_id, asked, NOW)
    page = shop.vendor.page("/console/pools/busy")
    assert len(page) < 100_000
    assert 1 == page.count("<h1>")
    assert " style=" not in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all("scope=" in one for one in re.findall(r"<th [^>]*>", page))
    text = words(page)
    assert "and 10 more" in text
    assert "The 25 that used the most." in text
    assert "user-69@example.com 1 70 0 70" in text
    entries = words(shop.vendor.page("/console/pools/busy/statement"))
    assert "Earlier entries" in entries
    (before,) = re.findall(r"before=(\d+)", shop.vendor.page("/console/pools/busy/statement"))
    assert "Latest" in words(shop.vendor.page(f"/console/pools/busy/statement?before={before}"))


def test_what_customers_name_cannot_break_out(shop: Shop) -> None:
    pool_id = shop.pool("hostile", name=HOSTILE)
    shop.grant(pool_id, 10, metadata={"x": HOSTILE})
    shop.ask(pool_id, Draw(amount=Decimal(1), subject=HOSTILE))
    shop.ask(pool_id, Draw(amount=Decimal(100), subject=HOSTILE))
    for path in ("", "/hostile", "/hostile/statement"):
        assert "<script>alert" not in shop.vendor.page(f"/console/pools{path}")


def form_of(page: str) -> str:
    found = re.search(r'name="key" value="([^"]+)"', page)
    assert found
    return found.group(1)


def test_units_are_granted_once_however_often_the_form_is_sent(shop: Shop) -> None:
    shop.pool("p", Policy(currency="EUR"))
    form = {
        "key": form_of(shop.vendor.page("/console/pools/p")),
        "amount": "1,000.5",
        "basis": "purchased",
        "cost": "10",
        "last_day": "2026-06-30",
    }
    for _ in range(2):
        answer = shop.vendor.post("/console/pools/p/grants", data=form)
        assert (303, "/console/pools/p?said=granted") == (
            answer.status_code,
            answer.headers["location"],
        )
    text = words(shop.vendor.page("/console/pools/p?said=granted"))
    assert "1,000.5 available of 1,000.5" in text
    assert "1 Jul 2026, 00:00:00" in text
    assert "The units are granted." in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"amount": "many"}, "number_unreadable"),
        ({"amount": ""}, "number_unreadable"),
        ({"amount": "-5"}, "amount_not_positive"),
        ({"last_day": "soon"}, "day_unreadable"),
        ({"last_day": "2026-01-01"}, "grant_times_invalid"),
        ({"cost": "5"}, "currency_missing"),
    ],
)
def test_a_form_that_cannot_be_done_says_why(shop: Shop, change: dict[str, str], said: str) -> None:
    shop.pool("p")
    form = {"key": "k", "amount": "5", **change}
    answer = shop.vendor.post("/console/pools/p/grants", data=form)
    assert f"/console/pools/p?said={said}" == answer.headers["location"]
    text = words(shop.vendor.page(answer.headers["location"]))
    assert "Nothing was" in text
    assert "Nothing is granted" in text


def test_a_grant_that_waits_is_said_to_be_paid_or_not(shop: Shop) -> None:
    pool_id = shop.pool("p")
    for key in ("a", "b"):
        shop.vendor.post(
            "/console/pools/p/grants", data={"key": key, "amount": "7", "pending": "1"}
        )
    page = shop.vendor.page("/console/pools/p")
    first, second = re.findall(r'action="(/console/pools/p/grants/grt_[^"]+)/pay"', page)
    assert "said=paid" in shop.vendor.post(f"{first}/pay").headers["location"]
    assert "said=failed" in shop.vendor.post(f"{second}/fail").headers["location"]
    assert "said=grant_not_pending" in shop.vendor.post(f"{first}/pay").headers["location"]
    text = words(shop.vendor.page("/console/pools/p"))
    assert "7 available of 7" in text
    assert "Not paid" not in text
    assert 404 == shop.vendor.post(f"{first}/void").status_code
    assert 404 == shop.vendor.post("/console/pools/p/grants/grt_1/pay").status_code
    other = shop.pool("other")
    assert other != pool_id
    assert 404 == shop.vendor.post(f"{first.replace('/p/', '/other/')}/pay").status_code


def test_who_may_only_read_sees_no_button_and_can_do_nothing(shop: Shop, read_only: Any) -> None:
    shop.pool("p")
    shop.vendor.post("/console/pools/p/grants", data={"key": "a", "amount": "7", "pending": "1"})
    page = read_only.page("/console/pools/p")
    assert "<button" not in page.split('id="grants"')[1].split("</section>")[0]
    assert "Sign in with a key that manages" not in page
    form = {"key": "b", "amount": "7"}
    assert 403 == read_only.post("/console/pools/p/grants", data=form).status_code
    assert "7 of 7" not in words(shop.vendor.page("/console/pools"))


def test_a_form_of_another_site_is_refused(shop: Shop) -> None:
    shop.pool("p")
    answer = shop.vendor.post(
        "/console/pools/p/grants",
        data={"key": "a", "amount": "7"},
        headers={"sec-fetch-site": "cross-site"},
    )
    assert 403 == answer.status_code


def test_live_needs_a_session_and_a_pool(shop: Shop) -> None:
    shop.pool("p")
    shop.vendor.client.cookies.clear()
    assert 401 == shop.vendor.client.get("/console/pools/p/live").status_code
    assert 404 == shop.vendor.get("/console/pools/nowhere/live").status_code


def test_the_page_of_a_licenses_pool_names_the_license(shop: Shop) -> None:
    shop.customer("acme")
    license = License(key="ACME-7F3K", customer="acme")
    done = put_license(shop.state.pool, shop.organization_id, license, NOW)
    assert isinstance(done, PutLicense), done
    shop.pool("seats", license="ACME-7F3K")
    assert "acme · license ACME-7F3K · UTC" in words(shop.vendor.page("/console/pools/seats"))
