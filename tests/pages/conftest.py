"""A console over real PostgreSQL, its clock stopped, and a vendor whose every page has content."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from litestar.testing import TestClient

from farebox.access.id import uuidv7
from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Fee, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Graduated, Matrix, Tier
from farebox.flows.bill import bill
from farebox.flows.create_organization import create_organization
from farebox.flows.publish import publish
from farebox.http.app import create_app
from farebox.http.pages.routes import handlers
from farebox.http.state import State
from farebox.intake.intake import Intake
from farebox.period.instant import BEGINNING, END
from farebox.postgres import customer
from farebox.postgres.customer import SubjectRow, SubscriptionRow
from farebox.postgres.session import Pool, transaction

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script>"


class Vendor:
    """An organization, its owner key and a browser that has signed in with it."""

    def __init__(self, client: TestClient[Any], organization_id: UUID, key: str) -> None:
        self.client = client
        self.organization_id = organization_id
        self.key = key
        answer = client.post(
            "/console/sign-in", data={"key": key, "next": "/console"}, follow_redirects=False
        )
        assert answer.status_code == 303, answer.text
        self.cookie = answer.cookies["farebox_session"]
        self.set_cookie = answer.headers["set-cookie"]
        client.cookies.clear()

    def get(self, path: str, **options: Any) -> Any:
        return self._send("GET", path, **options)

    def post(self, path: str, **options: Any) -> Any:
        return self._send("POST", path, **options)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        headers = {"cookie": f"farebox_session={self.cookie}", **options.pop("headers", {})}
        answer = self.client.request(
            method, path, headers=headers, follow_redirects=False, **options
        )
        # The client is shared: what it was told to keep must not sign in another test.
        self.client.cookies.clear()
        return answer

    def page(self, path: str) -> str:
        """Return the text of a page that is there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-800:])
        return str(answer.text)


def new_id() -> UUID:
    """Return a fresh time-ordered id."""
    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


@pytest.fixture(scope="session")
def console_state(pool: Pool, runtime_url: str) -> State:
    return State(pool, Intake(pool, runtime_url, lambda: NOW), lambda: NOW, new_id, os.urandom)


@pytest.fixture(scope="session")
def browser(console_state: State) -> Iterator[TestClient[Any]]:
    """Return a client of the console that nobody has signed in with."""
    lifespan = [lambda _: console_state.intake.opened()]
    with TestClient(create_app(console_state, routes=handlers, lifespan=lifespan)) as client:
        yield client


@pytest.fixture(scope="session")
def new_vendor(console_state: State, browser: TestClient[Any]) -> Callable[[str], Vendor]:
    """Return a function that makes an empty organization and signs in."""

    def make(name: str) -> Vendor:
        organization_id, key = create_organization(
            console_state.pool, str(new_id()), name, NOW, new_id, os.urandom
        )
        return Vendor(browser, organization_id, key)

    return make


@pytest.fixture(scope="session")
def vendor(console_state: State, new_vendor: Callable[[str], Vendor]) -> Vendor:
    """Return a vendor with two customers, a month billed and a month under way."""
    made = new_vendor("Northwind AI")
    organization_id = made.organization_id
    publish(console_state.pool, organization_id, _catalog(), MAY)
    with transaction(console_state.pool, organization_id) as connection:
        for key, name in (("acme", "Acme Robotics"), ("hostile", HOSTILE)):
            customer.put_customer(
                connection, organization_id, Customer(key=key, name=name), new_id(), MAY
            )
            customer.add_subject(connection, organization_id, SubjectRow(key, key, BEGINNING, END))
            row = SubscriptionRow(
                f"{key}-main", new_id(), key, "team", 1, MAY, None, "UTC", None, "{}"
            )
            subscription = Subscription(key=row.key, customer=key, plan="team", start=MAY)
            customer.put_subscription(connection, organization_id, subscription, row, MAY)
    _send(made)
    bill(
        console_state.pool,
        organization_id,
        new_id(),
        NOW,
        console_state.clock,
        console_state.new_id,
    )
    return made


def _catalog() -> list[Meter | RateCard | Plan]:
    return [
        Meter(
            key="tokens",
            name="Tokens",
            unit="tokens",
            event_type="llm.request",
            aggregation=Aggregation.SUM,
            value="$.tokens",
            dimensions={"model": "$.model"},
        ),
        Meter(
            key="requests",
            name="Requests",
            event_type="llm.request",
            aggregation=Aggregation.COUNT,
        ),
        Meter(
            key="users",
            event_type="llm.request",
            aggregation=Aggregation.UNIQUE_COUNT,
            value="$.user",
        ),
        RateCard(
            key="models",
            currency="USD",
            default=True,
            rates=(
                Rate(
                    meter="tokens",
                    price=Matrix(
                        dimensions=("model",),
                        per=Decimal(1000),
                        cells=(Cell(match={"model": "large"}, unit=Decimal("2.5")),),
                    ),
                ),
            ),
        ),
        Plan(
            key="team",
            name="Team",
            currency="USD",
            fees=(Fee(key="base", name="Platform fee", amount=Decimal(20)),),
            charges=(
                Charge(key="tokens", name="Model tokens", meter="tokens"),
                Charge(
                    key="requests",
                    meter="requests",
                    price=Graduated(
                        tiers=(
                            Tier(up_to=Decimal(2), unit=Decimal("0.5")),
                            Tier(unit=Decimal("0.25")),
                        )
                    ),
                ),
            ),
        ),
    ]


def _send(made: Vendor) -> None:
    rows = [
        ("m1", "acme", "2026-05-03T08:00:00Z", "large", 1000, "ann"),
        ("m2", "acme", "2026-05-04T09:30:00Z", "large", 234, "bob"),
        ("m3", "acme", "2026-05-20T10:00:00Z", "unheard-of", 77, "ann"),
        ("j1", "acme", "2026-06-10T10:00:00Z", "large", 4000, "ann"),
        ("j2", "hostile", "2026-06-11T10:00:00Z", HOSTILE, 5, HOSTILE),
        ("j3", "nobody", "2026-06-12T10:00:00Z", "large", 5, "eve"),
        ("j4", "nobody", "2026-06-15T10:00:00Z", "large", 6, "eve"),
    ]
    events = [
        _event(identifier, "llm.request", subject, time, {"model": m, "tokens": n, "user": user})
        for identifier, subject, time, m, n, user in rows
    ]
    events.append(_event("s1", "sms.sent", "acme", "2026-06-12T10:00:00Z", {}))
    headers = {"Authorization": f"Bearer {made.key}"}
    answer = made.client.post("/v1/events", json=events, headers=headers)
    assert (200, len(events)) == (answer.status_code, answer.json()["accepted"])


def _event(
    identifier: str, kind: str, subject: str, time: str, data: dict[str, Any]
) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": identifier,
        "source": "gateway",
        "type": kind,
        "subject": subject,
        "time": time,
        "data": data,
    }
