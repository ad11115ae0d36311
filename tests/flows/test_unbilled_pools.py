"""Usage that burned a prepaid pool is not unbilled, and what nobody pays for is listed."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_world import World, at, days

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows import list_unbilled as module
from farebox.flows.burn_usage import burn_usage
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.move_subject import Moved, move_subject_in
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.unbilled import Unbilled
from farebox.ledger.command import Answer, Reserve, Settle
from farebox.ledger.policy import Burst, Limit, LimitMode
from farebox.postgres import burn
from farebox.postgres.session import transaction

SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")
BEFORE, SINCE, WITHIN = at("2026-09-05"), at("2026-09-10"), at("2026-09-15")
UNTIL, AFTER = at("2026-09-20"), at("2026-09-25")
SOFT = Limit(mode=LimitMode.SOFT)
PRICED = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.05"))
Short = tuple[str, str | None, str | None, int, Decimal | None]


@pytest.fixture
def shop(world: World) -> World:
    """Return a world on 10 September with customers of no plan, and a card in credits."""
    world.now = SINCE
    cells = (Cell(match={"model": "large"}, unit=Decimal("0.5")),)
    card = RateCard(
        key="credits",
        currency="credit",
        custom_unit=True,
        rates=(Rate(meter="tokens", price=Matrix(dimensions=("model",), cells=cells)),),
    )
    world.publish(
        Meter(
            key="tokens",
            event_type="llm",
            aggregation=Aggregation.SUM,
            value="$.n",
            dimensions={"model": "$.model"},
        ),
        Meter(key="calls", event_type="llm", aggregation=Aggregation.COUNT),
        Plan(
            key="calls",
            currency="USD",
            charges=(Charge(key="calls", meter="calls", price=PerUnit(unit=Decimal(1))),),
        ),
        card,
    )
    world.customer("acme")
    world.subscribe("acme", "calls", SEPTEMBER)
    return world


def credits_of(world: World, customer: str = "acme", amount: int = 1000, **fields: object) -> UUID:
    pool = world.pool_of(
        f"{customer}-credits",
        unit="credit",
        customer=customer,
        **{"rate_card": "credits", **fields},
    )
    world.grant(pool, amount)
    return pool


def use(world: World, tokens: int, time: datetime, subject: str = "acme", **data: object) -> None:
    world.use("llm", time, subject, **{"n": tokens, "model": "large", **data})


def burn_all(world: World) -> None:
    while burn_usage(world.pool, world.organization_id, world.now):
        pass


def found(world: World, start: datetime = SEPTEMBER, end: datetime = OCTOBER) -> list[Unbilled]:
    return list(all_unbilled(world.pool, world.organization_id, start, end))


def short(items: list[Unbilled]) -> list[Short]:
    return [
        (one.reason.value, one.customer, one.meter or one.pool, one.events, one.quantity)
        for one in items
    ]


def unburned(world: World) -> list[tuple[str, str, int, Decimal]]:
    with transaction(world.pool, world.organization_id) as connection:
        rows = burn.unburned(connection, world.organization_id)
    return [(row.pool, row.reason, row.events, row.quantity) for row in rows]


# What burned --------------------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_usage_that_burned_a_pool_is_not_listed(shop: World, folded: bool) -> None:
    """Whether its customer has a plan that does not charge the meter, or has no plan at all."""
    shop.customer("free")
    for customer in ("acme", "free"):
        credits_of(shop, customer)
    shop.now = WITHIN
    for customer in ("acme", "free"):
        use(shop, 100, WITHIN, customer)
    burn_all(shop)
    if folded:
        shop.fold()
    assert [("no_subscription", "free", "calls", 1, Decimal(1))] == short(found(shop))


def test_usage_that_is_still_to_burn_is_listed_until_it_has(shop: World) -> None:
    credits_of(shop)
    shop.now = WITHIN
    use(shop, 100, WITHIN)
    burn_all(shop)
    shop.fold()
    use(shop, 7, WITHIN)
    use(shop, 5, WITHIN + days(1))
    (one,) = found(shop)
    assert [("no_charge", "acme", "tokens", 2, Decimal(12))] == short([one])
    assert (SINCE, OCTOBER) == (one.start, one.end)
    burn_all(shop)
    assert [] == found(shop)


def test_an_event_that_names_its_draw_is_not_waiting_to_burn(shop: World) -> None:
    draw = shop.draw_id(credits_of(shop))
    shop.now = WITHIN
    event = {**shop.event("llm", WITHIN, "acme", n=5, model="large"), "fareboxdraw": draw}
    assert ["accepted"] == shop.send(event)
    assert [] == found(shop)


def test_an_event_that_names_a_draw_from_anothers_pool_is_waiting_to_burn(shop: World) -> None:
    """It was nobody's when it came, and any draw may be named for nobody's usage."""
    credits_of(shop)
    shop.customer("beta")
    draw = shop.draw_id(credits_of(shop, "beta"))
    shop.now = WITHIN
    event = {**shop.event("llm", WITHIN, "new", n=5, model="large"), "fareboxdraw": draw}
    assert ["accepted"] == shop.send(event)
    shop.map("new", "acme")
    (one,) = found(shop)
    assert [("no_charge", "acme", "tokens", 1, Decimal(5))] == short([one])


def test_an_event_that_was_taken_back_is_not_waiting_to_burn(shop: World) -> None:
    credits_of(shop)
    shop.now = WITHIN
    use(shop, 100, WITHIN)
    use(shop, 7, WITHIN)
    with transaction(shop.pool, shop.organization_id) as connection:
        connection.execute(
            "insert into void values (%s, 1, %s, 'undone')", (shop.organization_id, shop.now)
        )
    tokens = [one for one in found(shop) if one.meter == "tokens"]
    assert [("no_charge", "acme", "tokens", 1, Decimal(7))] == short(tokens)


def test_usage_without_a_rate_in_the_pool_is_on_that_list_alone(shop: World) -> None:
    credits_of(shop)
    shop.now = WITHIN
    use(shop, 100, WITHIN, model="unheard-of")
    burn_all(shop)
    assert [("acme-credits", "no_cell", 1, Decimal(100))] == unburned(shop)
    assert [] == found(shop)


def test_what_a_closed_pool_refused_is_on_that_list_alone(shop: World) -> None:
    credits_of(shop)
    shop.now = WITHIN
    shop.pool_of("acme-credits", unit="credit", customer="acme", rate_card="credits", closed=True)
    use(shop, 100, WITHIN - datetime.resolution)
    burn_all(shop)
    assert [("acme-credits", "pool_closed", 1, Decimal(100))] == unburned(shop)
    assert [] == found(shop)


def test_usage_before_and_after_the_time_of_the_pool_is_listed(shop: World) -> None:
    """Each instant is on one side: the first of the pool's time burns, the first after does not."""
    pool = credits_of(shop)
    shop.now = UNTIL
    shop.grant(pool, 1)
    shop.pool_of("acme-credits", unit="credit", customer="acme")
    shop.now = AFTER
    instant = datetime.resolution
    use(shop, 1, BEFORE)
    use(shop, 2, SINCE - instant)
    use(shop, 10, SINCE)
    use(shop, 20, UNTIL - instant)
    use(shop, 100, UNTIL)
    use(shop, 200, AFTER)
    burn_all(shop)
    items = found(shop)
    assert [
        ("no_charge", "acme", "tokens", 2, Decimal(3)),
        ("no_charge", "acme", "tokens", 2, Decimal(300)),
    ] == short(items)
    assert [(SEPTEMBER, SINCE), (UNTIL, OCTOBER)] == [(one.start, one.end) for one in items]
    shop.fold()
    assert items == found(shop)


def test_usage_of_a_child_that_its_parents_pool_serves_is_not_listed(shop: World) -> None:
    shop.customer("acme-eu", parent="acme")
    credits_of(shop, serves_children=True)
    shop.now = WITHIN
    use(shop, 100, WITHIN, "acme-eu")
    burn_all(shop)
    assert [("no_subscription", "acme-eu", "calls", 1, Decimal(1))] == short(found(shop))


def test_a_subject_that_moves_burns_the_pool_of_whose_it_is_at_the_time(shop: World) -> None:
    """From a customer with a pool to one without, and back."""
    shop.customer("free")
    shop.subscribe("free", "calls", SEPTEMBER)
    shop.map("bot", "acme")
    credits_of(shop)
    move(shop, "bot", "free", WITHIN)
    move(shop, "bot", "acme", UNTIL)
    shop.now = AFTER
    instant = datetime.resolution
    for tokens, time in (
        (1, WITHIN - instant),
        (10, WITHIN),
        (20, UNTIL - instant),
        (100, UNTIL),
    ):
        use(shop, tokens, time, "bot")
    expected = ("no_charge", "free", "tokens", 2, Decimal(30))
    waiting = ("no_charge", "acme", "tokens", 2, Decimal(101))
    assert [waiting, expected] == short(found(shop))
    burn_all(shop)
    assert [expected] == short(found(shop))
    shop.fold()
    assert [expected] == short(found(shop))


def move(world: World, subject: str, customer: str, since: datetime) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        done = move_subject_in(
            connection, world.organization_id, subject, customer, since, world.now
        )
    assert isinstance(done, Moved), done


def test_pages_together_hold_what_waits_and_what_is_beyond(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        shop.customer(f"c{number}")
        credits_of(shop, f"c{number}", amount=10 if number % 2 else 1000, limit=SOFT)
    shop.now = WITHIN
    for number in range(5):
        use(shop, 100, WITHIN, f"c{number}")
    burn_all(shop)
    for number in range(5):
        use(shop, 7, WITHIN, f"c{number}")
    whole = found(shop)
    assert ["no_subscription"] * 10 + ["no_overage_price"] * 2 == [one.reason for one in whole]
    for size in (1, 2, 5):
        monkeypatch.setattr(module, "PAGE", size)
        assert whole == found(shop)


# What is beyond the grants ------------------------------------------------------------------------


def test_units_beyond_a_soft_limit_have_no_price(shop: World) -> None:
    pool = shop.pool_of("calls", customer="acme", subscription="acme-calls", limit=SOFT)
    shop.grant(pool, 10)
    shop.draw(pool, 10)
    assert [] == found(shop)
    shop.now = WITHIN
    shop.draw(pool, "2.5")
    shop.now = UNTIL
    shop.draw(pool, 4)
    (one,) = found(shop)
    assert [("no_overage_price", "acme", "calls", 2, Decimal("6.5"))] == short([one])
    assert (WITHIN, UNTIL) == (one.start, one.end)
    assert "mode overage" in one.help
    assert Decimal(4) == found(shop, UNTIL, OCTOBER)[0].quantity
    assert [] == found(shop, SEPTEMBER, WITHIN)


def test_what_was_used_beyond_a_hard_limit_is_listed(shop: World) -> None:
    """By a settled hold that turned out larger, and by usage events that burned the pool."""
    settled = shop.pool_of("hold", customer="acme")
    shop.grant(settled, 10)
    (held,) = shop.ask(settled, Reserve(amount=Decimal(8)))
    assert isinstance(held, Answer)
    assert held.hold is not None
    shop.ask(settled, Settle(hold=held.hold, amount=Decimal(15)))
    credits_of(shop, amount=20)
    shop.now = WITHIN
    use(shop, 100, WITHIN)
    burn_all(shop)
    assert [
        ("no_overage_price", "acme", "acme-credits", 1, Decimal(30)),
        ("no_overage_price", "acme", "hold", 1, Decimal(5)),
    ] == short(found(shop))


def test_what_was_taken_back_is_not_listed(shop: World) -> None:
    pool = shop.pool_of("calls", customer="acme", limit=SOFT)
    (answer,) = [shop.draw(pool, 5)]
    assert isinstance(answer, Answer)
    with transaction(shop.pool, shop.organization_id) as connection:
        reverse_draw(connection, shop.organization_id, pool, answer.operation, Decimal(2), shop.now)
    assert [("no_overage_price", "acme", "calls", 1, Decimal(3))] == short(found(shop))
    with transaction(shop.pool, shop.organization_id) as connection:
        reverse_draw(connection, shop.organization_id, pool, answer.operation, None, shop.now)
    assert [] == found(shop)


def test_what_is_only_held_or_borrowed_or_free_of_charge_is_not_listed(shop: World) -> None:
    held = shop.pool_of("held", customer="acme", limit=SOFT)
    shop.ask(held, Reserve(amount=Decimal(8)))
    borrowed = Limit(mode=LimitMode.OVERDRAFT, units=Decimal(100))
    shop.draw(shop.pool_of("borrowed", customer="acme", limit=borrowed), 3)
    free = Limit(mode=LimitMode.OVERAGE, price=Decimal(0))
    shop.draw(
        shop.pool_of(
            "free", customer="acme", subscription="acme-calls", currency="USD", limit=free
        ),
        3,
    )
    assert [] == found(shop)


def test_units_at_a_price_need_a_subscription_that_is_in_force(shop: World) -> None:
    shop.subscribe("acme", "calls", WITHIN, key="short", end=UNTIL)
    burst = Burst(units=Decimal(2), price=Decimal(1))
    fields = {"customer": "acme", "currency": "USD", "limit": PRICED, "burst": burst}
    nowhere = shop.pool_of("nowhere", **fields)
    billed = shop.pool_of("billed", subscription="acme-calls", **fields)
    apart = shop.pool_of("short", subscription="short", **fields)
    for time in (SINCE, WITHIN, UNTIL):
        shop.now = time
        for pool in (nowhere, billed, apart):
            shop.draw(pool, 10)
    assert [
        ("no_pool_subscription", "acme", "nowhere", 3, Decimal(30)),
        ("no_pool_subscription", "acme", "short", 2, Decimal(20)),
    ] == short(found(shop))
