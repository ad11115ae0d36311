"""Nothing unpriced in silence: all usage is on a line, or listed with the reason."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Alias, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, Percentage, Price
from farebox.flows import list_unbilled as module
from farebox.flows.list_late import list_late
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.unbilled import HELP, Unbilled, UnbilledReason
from farebox.ledger.command import Answer
from farebox.ledger.policy import Limit, LimitMode
from farebox.postgres.session import transaction

SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")
MIDDLE = at("2026-09-16 00:07")


def open_shop(world: World) -> None:
    world.publish(
        Meter(
            key="tokens",
            event_type="llm",
            aggregation=Aggregation.SUM,
            value="$.n",
            dimensions={"model": "$.model"},
        ),
        Meter(key="sales", event_type="sale", aggregation=Aggregation.SUM, value="$.n"),
        Meter(
            key="named",
            event_type="named",
            aggregation=Aggregation.COUNT,
            customer="$.payer",
        ),
    )
    price: Price = Matrix(
        dimensions=("model",), cells=(Cell(match={"model": "a"}, unit=Decimal(1)),)
    )
    world.publish(
        RateCard(
            key="std",
            currency="USD",
            default=True,
            rates=(Rate(meter="tokens", price=price),),
            effective_from=at("2026-09-02"),
        ),
        Plan(
            key="p",
            currency="USD",
            charges=(
                Charge(key="llm", meter="tokens"),
                Charge(
                    key="sales",
                    meter="sales",
                    price=Percentage(percent=Decimal(1), minimum=Decimal("0.1")),
                ),
            ),
        ),
        Plan(key="other", currency="USD"),
    )


def found(world: World, start: datetime = SEPTEMBER, end: datetime = OCTOBER) -> list[Unbilled]:
    return list(all_unbilled(world.pool, world.organization_id, start, end))


def short(one: Unbilled) -> tuple[str, str | None, str | None, int, str | None]:
    quantity = None if one.quantity is None else str(one.quantity.normalize())
    return one.reason.value, one.customer or one.subject, one.meter, one.events, quantity


@pytest.fixture
def shop(world: World) -> World:
    open_shop(world)
    world.customer("acme")
    world.subscribe("acme", "p", SEPTEMBER)
    return world


def go_beyond(world: World, limit: Limit) -> None:
    later, world.now = world.now, MIDDLE
    world.draw(world.pool_of("calls", customer="acme", currency="USD", limit=limit), 3)
    world.now = later


def buy(world: World) -> None:
    """Let a pool that names no subscription buy units on invoice."""
    later, world.now = world.now, MIDDLE
    pool = world.pool_of("calls", customer="acme", currency="USD")
    world.grant(pool, 3, cost=Decimal(2), on_invoice=True)
    world.now = later


def take_back_after_the_end(world: World) -> None:
    """Take units back when the subscription that was charged has ended, and none has followed."""
    later, world.now = world.now, SEPTEMBER
    world.subscribe("acme", "other", SEPTEMBER, key="ending", end=MIDDLE)
    limit = Limit(mode=LimitMode.OVERAGE, price=Decimal(2))
    pool = world.pool_of(
        "calls",
        customer="acme",
        subscription="ending",
        currency="USD",
        limit=limit,
        undo_seconds=86_400 * 30,
    )
    drawn = world.draw(pool, 3)
    assert isinstance(drawn, Answer)
    world.now = MIDDLE
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, pool
        assert isinstance(reverse_draw(*scope, drawn.operation, None, world.now), Answer)
    world.now = later


ROWS: dict[UnbilledReason, Callable[[World], None]] = {
    UnbilledReason.NO_METER: lambda world: world.use("what", MIDDLE, "acme"),
    UnbilledReason.NO_CUSTOMER: lambda world: world.use("llm", MIDDLE, "who", n=1, model="a"),
    UnbilledReason.NO_SUBSCRIPTION: lambda world: (
        world.customer("free"),
        world.use("llm", MIDDLE, "free", n=1, model="a"),
    )[0],
    UnbilledReason.NO_CHARGE: lambda world: world.use("named", MIDDLE, "acme"),
    UnbilledReason.NO_RATE: lambda world: world.use("llm", SEPTEMBER, "acme", n=1, model="a"),
    UnbilledReason.NO_CELL: lambda world: world.use("llm", MIDDLE, "acme", n=1, model="zz"),
    UnbilledReason.NO_VALUES: lambda world: world.use("sale", MIDDLE, "acme", n=100),
    UnbilledReason.NO_OVERAGE_PRICE: lambda world: go_beyond(world, Limit(mode=LimitMode.SOFT)),
    UnbilledReason.NO_POOL_SUBSCRIPTION: lambda world: go_beyond(
        world, Limit(mode=LimitMode.OVERAGE, price=Decimal(2))
    ),
    UnbilledReason.NO_PURCHASE_INVOICE: buy,
    UnbilledReason.NO_CREDIT_INVOICE: take_back_after_the_end,
}


def test_every_reason_has_a_row_and_help() -> None:
    assert list(UnbilledReason) == list(ROWS)
    assert list(UnbilledReason) == list(HELP)


@pytest.mark.parametrize("reason", list(UnbilledReason))
def test_a_reason_is_found_live_and_on_the_final_invoice(
    shop: World, reason: UnbilledReason
) -> None:
    ROWS[reason](shop)
    assert [reason] == [one.reason for one in found(shop)]
    shop.fold()
    assert [reason] == [one.reason for one in found(shop)]
    shop.bill(OCTOBER)
    assert [reason] == [one.reason for one in found(shop)]
    assert [] == found(shop, OCTOBER, at("2026-11-01"))


def test_what_is_billed_is_not_listed(shop: World) -> None:
    shop.use("llm", MIDDLE, "acme", n=5, model="a")
    assert [] == found(shop)


def test_time_decides_who_is_nobodys(shop: World) -> None:
    """A subject that was mapped for a while, and a customer who was subscribed for a while."""
    shop.customer("short")
    shop.subscribe("short", "p", at("2026-09-10"), end=MIDDLE)
    shop.map("bot", "acme", at("2026-09-05"), MIDDLE)
    for subject in ("bot", "short"):
        for time in (at("2026-09-03"), MIDDLE - timedelta(microseconds=1), MIDDLE, OCTOBER):
            shop.use("llm", time, subject, n=1, model="a")
    shop.fold(up_to=3)
    assert [
        ("no_customer", "bot", "tokens", 1, "1"),
        ("no_customer", "bot", "tokens", 1, "1"),
        ("no_subscription", "short", "tokens", 1, "1"),
        ("no_subscription", "short", "tokens", 1, "1"),
    ] == [short(one) for one in found(shop)]


def test_an_event_without_a_subject_is_nobodys(shop: World) -> None:
    shop.use("llm", MIDDLE, None, n=7, model="a")
    (one,) = found(shop)
    assert (UnbilledReason.NO_CUSTOMER, "", Decimal(7)) == (one.reason, one.subject, one.quantity)


def test_a_customer_that_events_name_and_nobody_made_is_listed(shop: World) -> None:
    shop.use("named", MIDDLE, "acme", payer="ghost")
    assert [("no_customer", "ghost", "named", 1, "1")] == [short(one) for one in found(shop)]
    shop.customer_only("ghost")
    assert [("no_subscription", "ghost", "named", 1, "1")] == [short(one) for one in found(shop)]


def test_an_alias_or_a_cell_prices_it_in_the_next_draft(shop: World) -> None:
    shop.use("llm", MIDDLE, "acme", n=5, model="a-latest")
    shop.use("llm", MIDDLE, "acme", n=7, model="b")
    shop.bill(OCTOBER, finalize=False)
    assert {} == shop.amounts("acme-p", SEPTEMBER)
    assert [
        {"model": "a-latest"},
        {"model": "b"},
    ] == [one.dimensions for one in found(shop)]
    shop.publish(Alias(dimension="model", alias="a-latest", canonical="a"))
    shop.bill(OCTOBER, finalize=False)
    assert {"llm": "5.00"} == shop.amounts("acme-p", SEPTEMBER)
    cells = (
        Cell(match={"model": "a"}, unit=Decimal(1)),
        Cell(match={"model": "b"}, unit=Decimal(2)),
    )
    price = Matrix(dimensions=("model",), cells=cells)
    rate = Rate(meter="tokens", price=price)
    shop.publish(
        RateCard(
            key="std", currency="USD", default=True, rates=(rate,), effective_from=at("2026-09-02")
        )
    )
    shop.bill(OCTOBER)
    assert {"llm": "19.00"} == shop.amounts("acme-p", SEPTEMBER)
    assert [] == found(shop)


def test_pages_together_hold_all_of_it(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        shop.use("llm", MIDDLE, f"who{number}", n=1, model="a")
        shop.customer(f"free{number}")
        shop.use("llm", MIDDLE, f"free{number}", n=1, model="a")
        shop.customer(f"paid{number}")
        shop.subscribe(f"paid{number}", "p", SEPTEMBER)
        shop.use("llm", MIDDLE, f"paid{number}", n=1, model="zz")
    shop.use("llm", MIDDLE, None, n=1, model="a")
    whole = [short(one) for one in found(shop)]
    assert 22 == len(whole)
    monkeypatch.setattr(module, "PAGE", 2)
    assert whole == [short(one) for one in found(shop)]


# What came too late -----------------------------------------------------------------------------


def test_late_usage_is_listed_once_and_billed_by_no_run(shop: World) -> None:
    shop.map("bot", "acme")
    shop.use("llm", MIDDLE, "acme", n=5, model="a")
    shop.bill(OCTOBER)
    assert ([], None) == list_late(shop.pool, shop.organization_id)
    shop.now = at("2026-10-20")
    event = shop.event("llm", MIDDLE, "bot", n=3, model="a")
    shop.send(event, shop.event("llm", MIDDLE, "acme", n=4, model="a"))
    assert ["duplicate"] == shop.send(event)
    shop.use("llm", OCTOBER, "acme", n=100, model="a")
    shop.use("llm", SEPTEMBER - timedelta(microseconds=1), "acme", n=100, model="a")
    shop.use("llm", MIDDLE, "stranger", n=100, model="a")
    shop.use("named", MIDDLE, "acme")
    for _ in range(2):
        (one,), following = list_late(shop.pool, shop.organization_id)
        assert following is None
        assert (2, Decimal(7), {"model": "a"}) == (one.events, one.quantity, one.dimensions)
        shop.fold()
    shop.now = at("2026-11-02")
    shop.bill(at("2026-11-01"))
    assert {"llm": "100.00"} == shop.amounts("acme-p", OCTOBER)
    assert {"llm": "5.00"} == shop.amounts("acme-p", SEPTEMBER)


def test_late_usage_is_whose_it_was_then(shop: World) -> None:
    shop.customer("globex")
    shop.subscribe("globex", "p", SEPTEMBER)
    shop.map("bot", "acme", at("2026-09-01"), MIDDLE)
    shop.map("bot", "globex", MIDDLE, OCTOBER)
    shop.bill(OCTOBER)
    shop.use("llm", MIDDLE - timedelta(microseconds=1), "bot", n=1, model="a")
    shop.use("llm", MIDDLE, "bot", n=2, model="a")
    late, _ = list_late(shop.pool, shop.organization_id)
    assert {"acme": Decimal(1), "globex": Decimal(2)} == {
        one.customer: one.quantity for one in late
    }


def test_the_late_list_has_pages(shop: World) -> None:
    for number in range(5):
        shop.customer(f"c{number}")
        shop.subscribe(f"c{number}", "p", SEPTEMBER)
    shop.bill(OCTOBER)
    for number in range(5):
        shop.use("llm", MIDDLE, f"c{number}", n=1, model="a")
    customers = []
    after = None
    while True:
        page, after = list_late(shop.pool, shop.organization_id, after=after, limit=2)
        customers += [one.customer for one in page]
        if after is None:
            break
    assert [f"c{number}" for number in range(5)] == sorted(customers)
    (one,), _ = list_late(shop.pool, shop.organization_id, customer_key="c3")
    assert "c3" == one.customer
