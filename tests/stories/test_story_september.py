"""September 2026 at a small vendor: four customers, four clocks, three currencies, every cent."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

import msgspec
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Alias, Meter
from farebox.catalog.plan import Charge, Fee, Plan, Rate, RateCard
from farebox.catalog.price import Adjustments, Cell, Graduated, Matrix, PerUnit, Price, Tier
from farebox.flows.list_late import list_late
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.preview_invoice import Preview, preview_invoice
from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.unbilled import Unbilled
from farebox.flows.warn_billing import BillingWarning
from farebox.postgres import billing_run
from farebox.postgres.session import transaction

SEPTEMBER, OCTOBER, NOVEMBER = at("2026-09-01"), at("2026-10-01"), at("2026-11-01")
MIDDLE = at("2026-09-16")
NEW_YORK = timedelta(hours=4)
TOKYO = timedelta(hours=-9)


def models(**prices: str) -> Matrix:
    cells = tuple(
        Cell(match={"model": model}, unit=Decimal(price)) for model, price in prices.items()
    )
    return Matrix(dimensions=("model",), cells=cells, per=Decimal(1_000_000))


def card(price: Price, **fields: object) -> RateCard:
    rates = (Rate(meter="tokens", price=price),)
    return RateCard(key="std", currency="USD", default=True, rates=rates, **fields)  # type: ignore[arg-type]


def open_for_business(world: World) -> None:
    world.publish(
        Meter(
            key="tokens",
            event_type="llm.request",
            aggregation=Aggregation.SUM,
            value="$.tokens",
            dimensions={"model": "$.model"},
        ),
        Meter(key="requests", event_type="llm.request", aggregation=Aggregation.COUNT),
        Meter(
            key="storage",
            event_type="disk.level",
            aggregation=Aggregation.WEIGHTED_SUM,
            value="$.gb",
        ),
    )
    world.publish(card(models(small="2.50", large="10")))
    world.publish(card(models(small="2", large="8"), effective_from=MIDDLE))
    requests = Graduated(
        tiers=(
            Tier(up_to=Decimal(3), unit=Decimal(1)),
            Tier(unit=Decimal("0.50")),
        )
    )
    world.publish(
        Plan(
            key="team",
            currency="USD",
            fees=(Fee(key="base", name="Base fee", amount=Decimal(50)),),
            charges=(
                Charge(key="tokens", name="Tokens", meter="tokens"),
                Charge(
                    key="requests",
                    name="Requests",
                    meter="requests",
                    price=requests,
                    adjustments=Adjustments(included=Decimal(2)),
                ),
                Charge(
                    key="storage",
                    name="Storage",
                    meter="storage",
                    price=PerUnit(unit=Decimal("0.10")),
                    adjustments=Adjustments(minimum=Decimal(5)),
                ),
            ),
        ),
        by_request("yen", "JPY", "12.5"),
        by_request("dinar", "KWD", "0.0015"),
    )
    world.customer("acme")
    world.customer("globex", timezone="America/New_York")
    world.customer("sakura", timezone="Asia/Tokyo")
    world.customer("dhow", timezone="Asia/Kuwait")
    world.subscribe("acme", "team", SEPTEMBER)
    world.subscribe("globex", "team", SEPTEMBER + NEW_YORK, timezone="America/New_York")
    world.subscribe("sakura", "yen", SEPTEMBER + TOKYO, timezone="Asia/Tokyo")
    world.subscribe("dhow", "dinar", at("2026-08-31 21:00"), timezone="Asia/Kuwait")


def by_request(key: str, currency: str, price: str) -> Plan:
    unit = PerUnit(unit=Decimal(price))
    charges = (
        Charge(key="requests", name="Requests", meter="requests", price=unit),
        # Tokens are part of what a request costs.
        Charge(key="tokens", name="Tokens", meter="tokens", price=PerUnit(unit=Decimal(0))),
    )
    return Plan(key=key, currency=currency, charges=charges)


def use_september(world: World) -> None:
    def request(subject: str, time: str, model: str, tokens: int) -> None:
        world.use("llm.request", at(time), subject, model=model, tokens=tokens)

    request("acme", "2026-09-05 10:00", "small", 1_000_000)
    request("acme", "2026-09-10 10:00", "large", 500_000)
    request("acme", "2026-09-20 10:00", "small", 3_000_000)
    world.fold()
    request("acme", "2026-09-20 11:00", "small-latest", 1_000_000)
    request("acme", "2026-09-21 10:00", "strange", 7)
    request("acme", "2026-09-30 23:59:59.999999", "small", 0)
    request("acme", "2026-10-01 00:00", "small", 9_000_000)
    world.use("disk.level", at("2026-09-29 12:00"), "acme", gb=10)
    world.use("disk.level", at("2026-09-30 00:00"), "acme", gb=0)
    # Two minutes to midnight in New York are in September, and before it there was no contract.
    request("globex", "2026-09-01 03:58", "small", 5_000_000)
    request("globex", "2026-10-01 03:58", "small", 1_000_000)
    for time in ("2026-08-31 15:00", "2026-09-15 00:00", "2026-09-30 14:59:59"):
        request("sakura", time, "small", 1)
    request("sakura", "2026-09-30 15:00", "small", 1)
    for time in ("2026-08-31 21:00", "2026-09-15 00:00", "2026-09-30 20:59:59"):
        request("dhow", time, "small", 1)
    world.use("mystery", at("2026-09-09"), "acme")
    request("nobody", "2026-09-09 00:00", "small", 11)


def totals(world: World, kind: str = "period") -> Mapping[str, tuple[str | None, str, str]]:
    return {
        row.subscription_key: (row.number, row.currency, str(row.total))
        for row in world.invoices()
        if row.kind == kind
    }


def reasons(found: list[Unbilled]) -> list[tuple[str, str | None, str | None, int]]:
    return [
        (one.reason.value, one.customer or one.subject, one.meter or one.event_type, one.events)
        for one in found
    ]


ACME_DRAFT = {
    "Tokens": "7.50",
    "Tokens'": "6.00",
    "Requests": "3.50",
    "Storage": "12.00",
    "Base fee": "50.00",
}
ACME = {**ACME_DRAFT, "Tokens'": "8.00"}
GLOBEX = {
    "Base fee": "50.00",
    "Tokens": "2.00",
    "Requests": "0.00",
    "Storage: minimum": "5.00",
}


def test_september(world: World) -> None:
    """From the first event to the last late one."""
    open_for_business(world)
    use_september(world)
    world.now = at("2026-10-02 12:00")

    # A look before anything is final: three models have a price, two names are unknown.
    assert 6 == world.bill(OCTOBER + NEW_YORK, finalize=False).invoices
    assert ACME_DRAFT == world.amounts("acme-team", SEPTEMBER)
    assert {
        "acme-team": (None, "USD", "79.00"),
        "globex-team": (None, "USD", "57.00"),
        "sakura-yen": (None, "JPY", "38"),
        "dhow-dinar": (None, "KWD", "0.005"),
    } == totals(world)
    assert [
        ("no_meter", "mystery", 1, 1),
        ("no_customer", "requests", 1, 1),
        ("no_customer", "tokens", 1, 1),
        ("no_subscription", "requests", 1, 1),
        ("no_subscription", "tokens", 1, 1),
        ("no_cell", "tokens (model=small-latest)", 1, 1),
        ("no_cell", "tokens (model=strange)", 1, 1),
    ] == warnings(world)

    # The alias says what the new name means: the next draft prices it.
    world.publish(Alias(dimension="model", alias="small-latest", canonical="small"))
    assert 6 == world.bill(OCTOBER + NEW_YORK, finalize=False).invoices
    assert ACME == world.amounts("acme-team", SEPTEMBER)

    # Final: numbers without a gap, fees in advance of the first month on invoices of their own.
    assert 6 == world.bill(OCTOBER + NEW_YORK).invoices
    assert {
        "acme-team": ("INV-000002", "USD", "81.00"),
        "dhow-dinar": ("INV-000003", "KWD", "0.005"),
        "globex-team": ("INV-000005", "USD", "57.00"),
        "sakura-yen": ("INV-000006", "JPY", "38"),
    } == totals(world)
    assert {
        "acme-team": ("INV-000001", "USD", "50.00"),
        "globex-team": ("INV-000004", "USD", "50.00"),
    } == totals(world, "start")
    assert ACME == world.amounts("acme-team", SEPTEMBER)
    assert GLOBEX == world.amounts("globex-team", SEPTEMBER + NEW_YORK)
    assert 0 == world.bill(OCTOBER + NEW_YORK).invoices

    # What reached no line is named, with its customer or user.
    found = list(all_unbilled(world.pool, world.organization_id, SEPTEMBER, OCTOBER))
    assert [
        ("no_meter", None, "mystery", 1),
        ("no_customer", "nobody", "requests", 1),
        ("no_customer", "nobody", "tokens", 1),
        ("no_subscription", "globex", "requests", 1),
        ("no_subscription", "globex", "tokens", 1),
        ("no_cell", "acme", "tokens", 1),
    ] == reasons(found)

    # A batch that was stuck arrives late: on no invoice, and not lost.
    world.now = at("2026-10-05 09:00")
    request = world.event("llm.request", at("2026-09-07"), "acme", model="small", tokens=500_000)
    assert ["accepted"] == world.send(request)
    assert ["duplicate"] == world.send(request)
    assert late(world) == [
        ("INV-000002", "requests", {}, 1, Decimal(1)),
        ("INV-000002", "tokens", {"model": "small"}, 1, Decimal(500_000)),
    ]
    assert 0 == world.bill(OCTOBER + NEW_YORK).invoices
    assert ACME == world.amounts("acme-team", SEPTEMBER)

    # October bills October: 9 million at 2 a million, one request included, storage to its minimum.
    world.now = at("2026-11-02 12:00")
    assert 4 == world.bill(NOVEMBER + timedelta(hours=5)).invoices
    assert {
        "Tokens": "18.00",
        "Requests": "0.00",
        "Storage: minimum": "5.00",
        "Base fee": "50.00",
    } == world.amounts("acme-team", OCTOBER)
    assert [f"INV-{number:06d}" for number in range(1, 11)] == [
        row.number for row in world.invoices()
    ]
    assert len(late(world)) == 2

    # Rated again from what it stored, every invoice is the same to the byte.
    for row in world.invoices():
        assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)


def warnings(world: World) -> list[tuple[str, str, int, int]]:
    with transaction(world.pool, world.organization_id) as connection:
        (run, *_) = billing_run.runs(connection, world.organization_id)
    found = msgspec.json.decode(run.warnings, type=list[BillingWarning])
    return [(one.code, one.subject, one.found, one.events) for one in found]


def late(world: World) -> list[tuple[str | None, str, Mapping[str, str], int, Decimal | None]]:
    found, following = list_late(world.pool, world.organization_id)
    assert following is None
    return [(one.number, one.meter, one.dimensions, one.events, one.quantity) for one in found]


def test_the_upcoming_invoice_says_what_september_costs_so_far(world: World) -> None:
    """50.00 base, 7.50 and 6.00 tokens, 1.00 requests (3 less 2 included), 5.00 storage minimum."""
    open_for_business(world)
    use_september(world)
    preview = preview_invoice(
        world.pool, world.organization_id, "acme-team", at("2026-09-20 10:30")
    )
    assert isinstance(preview, Preview)
    expected = ["50.00", "7.50", "6.00", "1.00", "5.00"]
    assert expected == [str(line.amount) for line in preview.body.lines]
    assert Decimal("69.50") == preview.body.total
