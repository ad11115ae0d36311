"""The pages of an invoice and of its lines tell what a pool cost, and how that came about."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.plan import Fee, Plan
from farebox.flows.bill import bill
from farebox.flows.decide_pools import Asked, decide_pools
from farebox.flows.grant_units import grant_units
from farebox.flows.publish import publish
from farebox.flows.put_pool import PutPool, put_pool
from farebox.ledger.administer import NewGrant
from farebox.ledger.command import Answer, Draw
from farebox.ledger.grant import Basis, Grant
from farebox.ledger.policy import Limit, LimitMode, Policy
from farebox.ledger.pool import PoolDefinition
from farebox.postgres import customer
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.pool import find_pool
from farebox.postgres.session import transaction

MAY = datetime(2026, 5, 1, tzinfo=UTC)
OVERAGE = Policy(currency="USD", limit=Limit(mode=LimitMode.OVERAGE, price=Decimal("0.0150")))
HOSTILE = "<script>alert(1)</script>"


def words(text: str) -> str:
    """Return what a page shows, without its markup and extra space."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


@pytest.fixture(scope="module")
def vendor(new_vendor: Callable[[str], Any], console_state: Any) -> Any:
    """Return a vendor whose customer bought units in May and went beyond them twice."""
    made, state = new_vendor("Beyond"), console_state
    scope = state.pool, made.organization_id
    fees = (Fee(key="fee", amount=Decimal(1)),)
    publish(*scope, [Plan(key="team", currency="USD", fees=fees)], MAY)
    with transaction(*scope) as connection:
        there = connection, made.organization_id
        customer.put_customer(*there, Customer(key="acme"), state.new_id(), MAY)
        subscription = Subscription(key="main", customer="acme", plan="team", start=MAY)
        row = SubscriptionRow(
            "main", state.new_id(), "acme", "team", 1, MAY, None, "UTC", None, "{}"
        )
        customer.put_subscription(*there, subscription, row, MAY)
    definition = PoolDefinition(
        key="tokens", unit="token", customer="acme", subscription="main", policy=OVERAGE
    )
    pool = put_pool(*scope, definition, MAY, state.new_id())
    assert isinstance(pool, PutPool)
    bought = NewGrant(
        amount=Decimal(10), basis=Basis.PURCHASED, cost=Decimal("2.5"), key="po-7", on_invoice=True
    )
    more = NewGrant(amount=Decimal(5))
    steps = (bought, ("12.5", "ann"), ("3", HOSTILE), more, ("5", "ann"), ("4", None))
    for day, step in enumerate(steps, 1):
        time = MAY + timedelta(days=day)
        if isinstance(step, NewGrant):
            with transaction(*scope) as connection:
                there = connection, made.organization_id, pool.pool_id
                assert isinstance(grant_units(*there, step, time), Grant)
        else:
            command = Draw(amount=Decimal(step[0]), subject=step[1])
            (answer,) = decide_pools(*scope, [Asked(pool.pool_id, command)], time)
            assert isinstance(answer, Answer)
    bill(*scope, state.new_id(), state.clock(), state.clock, state.new_id)
    return made


def test_an_invoice_tells_what_a_pool_cost(vendor: Any) -> None:
    text = vendor.page("/console/invoices/INV-000002")
    shown = words(text)
    assert "Bought for the pool tokens Grant Units Cost po-7 bought 2 May 2026, 00:00:00" in shown
    assert "Overage of the pool tokens · $0.015 per token" in shown
    assert (
        "1 3 May 2026, 00:00:00 to 4 May 2026, 00:00:00 2 5.5 $0.0825"
        " 2 7 May 2026, 00:00:00 1 4 $0.06 Exact $0.1425 Line, rounded once 9.5 $0.14"
    ) in shown
    lines = re.findall(r'href="(/console/invoices/[^"]+/lines/\d+)"', text)
    assert 2 == len(lines)


def test_a_line_of_a_pool_opens_to_its_entries(vendor: Any) -> None:
    text = vendor.page("/console/invoices/INV-000002")
    bought, overage = re.findall(r'href="(/console/invoices/[^"]+/lines/\d+)"', text)
    page = vendor.page(overage)
    assert HOSTILE not in page
    shown = words(page)
    assert "3 May 2026, 00:00:00 drawn · ann ann 1 2.5 $0.0375" in shown
    assert "7 May 2026, 00:00:00 drawn – 2 4 $0.06" in shown
    assert "A fixed amount" not in shown
    assert "2 May 2026, 00:00:00 grant issued – 10 $2.50" in words(vendor.page(bought))


def test_the_invoice_to_come_tells_of_a_pool_too(vendor: Any, console_state: Any) -> None:
    scope = console_state.pool, vendor.organization_id
    with transaction(*scope) as connection:
        found = find_pool(connection, vendor.organization_id, key="tokens")
    assert found is not None
    command = Draw(amount=Decimal(2), subject="ann")
    decide_pools(*scope, [Asked(found.pool_id, command)], console_state.clock())
    shown = words(vendor.page("/console/customers/acme"))
    assert "tokens: overage at 0.015 USD per token" in shown
    assert "15 Jun 2026, 12:00:00 1 2 $0.03 Line 2 $0.03" in shown
