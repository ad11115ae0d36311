"""A customer's page says what the customer may use and why, its licenses and whose part it is."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from litestar.testing import TestClient

from farebox.http.app import create_app
from farebox.http.pages import customer_rights
from farebox.http.state import State

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
CATALOG = """
features:
  - {key: calls, unit: call}
  - {key: sso}
  - {key: region}
plans:
  - key: pro
    currency: USD
    features: [sso]
    entitlements: [{feature: calls, limit: 1000}, {feature: region, value: eu-central-1}]
  - key: enterprise
    currency: USD
    entitlements: [{feature: calls, unlimited: true}]
"""


def words(text: str) -> str:
    """Return what a page shows, without its markup and extra space."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


class Desk:
    """A vendor of two plans, asked through its API and looked at in the console."""

    def __init__(self, api: TestClient[Any], vendor: Any) -> None:
        self.api, self.vendor = api, vendor
        headers = {"Content-Type": "application/yaml"}
        self.ask("POST", "/v1/catalog/apply", content=CATALOG, headers=headers)

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.vendor.key}", **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        answer = self.api.request(method, path, headers=headers, **options)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def put(self, path: str, body: Any) -> Any:
        return self.ask("PUT", f"/v1/{path}", body)

    def subscribe(self, customer: str, plan: str) -> None:
        self.put(f"customers/{customer}", {"name": customer.title()})
        start = {"customer": customer, "plan": plan, "start": "2026-06-01T00:00:00Z"}
        self.put(f"subscriptions/{customer}-{plan}", start)

    def page(self, customer: str) -> str:
        return str(self.vendor.page(f"/console/customers/{customer}"))


@pytest.fixture(scope="module")
def api(console_state: State) -> Iterator[TestClient[Any]]:
    with TestClient(create_app(console_state)) as client:
        yield client


@pytest.fixture
def desk(api: TestClient[Any], new_vendor: Callable[[str], Any]) -> Desk:
    return Desk(api, new_vendor("Rights"))


def section(page: str, name: str) -> str:
    """Return the markup of one card of a page."""
    (card,) = re.findall(f'<section class="card" id="{name}">(.*?)</section>', page, re.DOTALL)
    return str(card)


def test_the_page_tells_what_the_customer_may_use_how_much_is_left_and_why(desk: Desk) -> None:
    desk.subscribe("acme", "pro")
    override = {"enabled": False, "reason": "not paid", "ends_at": "2026-07-01T00:00:00Z"}
    desk.put("customers/acme/entitlements/sso", override)
    asked = {"feature": "calls", "customer": "acme", "amount": "120"}
    desk.ask("POST", "/v1/authorize", asked)
    card = section(desk.page("acme"), "entitlements")
    assert "calls 1,000 120 880 1 Jul 2026, 00:00:00 plan pro" in words(card)
    assert "region eu-central-1 – – – plan pro" in words(card)
    assert "sso no – – – override: not paid until 1 Jul 2026, 00:00:00" in words(card)
    assert ["/console/pools/calls%3Aacme", "/console/plans/pro", "/console/plans/pro"] == (
        re.findall(r'href="([^"]+)"', card)
    )


def test_an_entitlement_without_bound_says_what_was_used(desk: Desk) -> None:
    desk.subscribe("big", "enterprise")
    desk.ask("POST", "/v1/authorize", {"feature": "calls", "customer": "big", "amount": "70000"})
    card = words(section(desk.page("big"), "entitlements"))
    assert "calls unlimited 70,000 – 1 Jul 2026, 00:00:00 plan enterprise" in card


def test_the_page_lists_licenses_with_their_state_term_and_pools(desk: Desk) -> None:
    desk.put("customers/acme", {"name": "Acme"})
    term = {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-06-01T00:00:00Z"}
    desk.put("licenses/a-over", {"customer": "acme", **term})
    desk.put("licenses/b-held", {"customer": "acme", "name": "Workstation 12", "subject": "ann"})
    later = (NOW + timedelta(days=1)).isoformat()
    desk.put("licenses/c-later", {"customer": "acme", "starts_at": later})
    desk.put("licenses/d-gone", {"customer": "acme"})
    desk.ask("POST", "/v1/licenses/d-gone/revoke")
    desk.put("pools/seat", {"unit": "render", "license": "b-held"})
    card = section(desk.page("acme"), "licenses")
    for said in (
        "a-over over 1 Jan 2026, 00:00:00 1 Jun 2026, 00:00:00 –",
        "b-held Workstation 12 · for ann in force 15 Jun 2026, 12:00:00 it never ends seat render",
        "c-later not begun 16 Jun 2026, 12:00:00 it never ends –",
        "d-gone revoked 15 Jun 2026, 12:00:00 15 Jun 2026, 12:00:00 it never ends –",
    ):
        assert said in words(card), said
    assert 'href="/console/pools/seat"' in card


def test_parent_and_parts_link_to_each_other(desk: Desk) -> None:
    desk.put("customers/group", {"name": "Group"})
    for key in ("north", "south"):
        desk.put(f"customers/{key}", {"parent": "group"})
    page = desk.page("north")
    assert "part of <a" in page
    assert 'href="/console/customers/group"' in page
    assert 'id="children"' not in page
    card = section(desk.page("group"), "children")
    assert ["/console/customers/north", "/console/customers/south"] == re.findall(
        r'href="([^"]+)"', card
    )


def test_long_lists_end_and_say_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENTITLEMENTS_SHOWN", "LICENSES_SHOWN", "CHILDREN_SHOWN", "POOLS_SHOWN"):
        monkeypatch.setattr(customer_rights, name, 1)
    desk.subscribe("acme", "pro")
    for key in ("one", "two"):
        desk.put(f"licenses/{key}", {"customer": "acme"})
        desk.put(f"customers/{key}", {"parent": "acme"})
        desk.put(f"pools/seat-{key}", {"unit": "render", "license": "one"})
    page = desk.page("acme")
    entitlements, licenses = (words(section(page, name)) for name in ("entitlements", "licenses"))
    assert "and 2 more. GET /v1/customers/acme/entitlements has them all." in entitlements
    assert "region" not in entitlements
    assert "seat-one render and 1 more The first 1." in licenses
    assert "two" not in licenses
    assert "one and more" in words(section(page, "children"))


def test_a_customer_with_nothing_of_it_has_no_empty_cards(desk: Desk) -> None:
    desk.put("customers/bare", {})
    page = desk.page("bare")
    for name in ("entitlements", "licenses", "children"):
        assert f'id="{name}"' not in page
    assert "part of" not in page


def test_names_of_others_cannot_break_out(desk: Desk) -> None:
    hostile = "</script><script>alert(1)</script>"
    desk.subscribe("acme", "pro")
    desk.put("customers/acme/entitlements/sso", {"reason": hostile})
    desk.put("licenses/x", {"customer": "acme", "name": hostile, "subject": hostile})
    desk.put("customers/part", {"parent": "acme", "name": hostile})
    assert "<script>alert" not in desk.page("acme")


def test_a_period_that_ends_within_a_day_breaks_only_at_its_dash(desk: Desk) -> None:
    desk.put("meters/m?publish=true", {"event_type": "e", "aggregation": "count"})
    fee = {"key": "base", "amount": "20"}
    desk.put("plans/paid?publish=true", {"currency": "USD", "fees": [fee]})
    desk.put("customers/acme", {})
    span = {"start": "2026-05-01T00:00:00Z", "end": "2026-05-22T05:49:34Z"}
    desk.put("subscriptions/main", {"customer": "acme", "plan": "paid", **span})
    desk.ask("POST", "/v1/billing_runs", {})
    page = desk.page("acme")
    assert (
        '<td class="soft nums"><span class="whole">1 May 2026, 00:00:00 –</span>'
        ' <span class="whole">22 May 2026, 05:49:34</span> </td>'
    ) in page
