"""The pages of an event say which pool pays for it."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from typing import Any

from farebox.catalog.customer import Customer
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Rate, RateCard
from farebox.catalog.price import Cell, Matrix
from farebox.flows.burn_usage import burn_usage
from farebox.flows.publish import publish
from farebox.flows.put_pool import put_pool
from farebox.ledger.pool import PoolDefinition
from farebox.period.instant import BEGINNING, END
from farebox.postgres import customer
from farebox.postgres.customer import SubjectRow
from farebox.postgres.session import transaction

HALF = Decimal("0.5")
METER = Meter(
    key="tokens",
    event_type="llm.request",
    aggregation=Aggregation.SUM,
    value="$.tokens",
    dimensions={"model": "$.model"},
)


def words(text: str) -> str:
    """Return what a page shows, without its markup and extra space."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def event(identifier: str, time: str, model: str = "large") -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": identifier,
        "source": "gateway",
        "type": "llm.request",
        "subject": "acme-dev",
        "time": time,
        "data": {"model": model, "tokens": 600},
    }


def test_a_burned_event_leads_to_its_pool_in_words(
    new_vendor: Callable[[str], Any], console_state: Any
) -> None:
    vendor = new_vendor("Burning")
    state, organization_id = console_state, vendor.organization_id
    price = Matrix(dimensions=("model",), cells=(Cell(match={"model": "large"}, unit=HALF),))
    rates = (Rate(meter="tokens", price=price),)
    card = RateCard(key="credits", currency="credit", custom_unit=True, rates=rates)
    publish(state.pool, organization_id, [METER, card], state.clock())
    with transaction(state.pool, organization_id) as connection:
        scope = connection, organization_id
        one = Customer(key="acme", name="Acme")
        customer.put_customer(*scope, one, state.new_id(), state.clock())
        customer.add_subject(*scope, SubjectRow("acme-dev", "acme", BEGINNING, END))
    pool = PoolDefinition(key="credits", unit="credit", customer="acme", rate_card="credits")
    put_pool(state.pool, organization_id, pool, state.clock(), state.new_id())
    now = state.clock().isoformat()
    headers = {"Authorization": f"Bearer {vendor.key}"}
    events = [event("e1", now), event("e2", now, "odd")]
    sent = vendor.client.post("/v1/events", json=events, headers=headers)
    assert 2 == sent.json()["accepted"], sent.text

    tried = words(vendor.post("/console/event-tester", data={"event": json.dumps(events[0])}).text)
    assert "It is paid from a prepaid pool within a second." in tried
    assert 2 == burn_usage(state.pool, organization_id, state.clock())
    for name, said in (
        ("e1", "It was paid from a prepaid pool."),
        ("e1", "pool credits , priced by credits v1 : 300 units by itself → operation 1 of its"),
        ("e2", "It should have burned a prepaid pool, and took nothing from it."),
        ("e2", "pool credits : no cell"),
    ):
        page = words(vendor.page(f"/console/event?source=gateway&id={name}"))
        assert said in page, page
