"""An event whose usage a pool pays for says which pool, how many units and which draw."""

import json
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from farebox_world import World, at

from farebox.access.id import Prefix, encode_numbered
from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.burn_usage import burn_usage
from farebox.flows.check_event import check_event
from farebox.flows.explain_event import EventExplained, explain_event
from farebox.flows.place_burn import PoolPlace
from farebox.flows.place_reading import Fate, ReadingPlace
from farebox.ledger.command import Answer
from farebox.postgres.session import transaction
from farebox.postgres.transfer import operation
from farebox.rating.charge import RateCardVersion

CALLS = Meter(
    key="tokens",
    event_type="llm.request",
    aggregation=Aggregation.SUM,
    value="$.tokens",
    dimensions={"model": "$.model"},
)


def card(large: str) -> RateCard:
    cells = (
        Cell(match={"model": "large"}, unit=Decimal(large)),
        Cell(match={"model": "small"}, unit=Decimal("0.0000003")),
    )
    price = Matrix(dimensions=("model",), cells=cells)
    rates = (Rate(meter="tokens", price=price),)
    return RateCard(key="credits", currency="credit", custom_unit=True, rates=rates)


@pytest.fixture
def sold(world: World) -> World:
    """Return a world with a customer on a plan, who has a pool as well, and one without a plan."""
    world.now = at("2026-09-01 00:00")
    charge = Charge(key="tokens", meter="tokens", price=PerUnit(unit=Decimal("0.01")))
    world.publish(CALLS, Plan(key="base", currency="USD", charges=(charge,)), card("0.02"))
    for key in ("acme", "globex"):
        world.customer(key)
        world.map(f"{key}-dev", key)
    world.subscribe("acme", "base", world.now, key="acme-base")
    return world


def credits_of(world: World, customer: str = "acme", key: str = "credits") -> UUID:
    pool = world.pool_of(key, unit="credit", customer=customer, rate_card="credits")
    world.grant(pool, 1000)
    world.now += timedelta(hours=1)
    return pool


def call(
    world: World, tokens: int, model: str = "large", subject: str = "acme-dev", **fields: Any
) -> Mapping[str, Any]:
    event = world.event("llm.request", world.now, subject, tokens=tokens, model=model)
    event = {**event, **fields}
    assert ["accepted"] == world.send(event)
    return event


def burn_all(world: World) -> None:
    while burn_usage(world.pool, world.organization_id, world.now):
        pass


def explained(world: World, event: Mapping[str, Any]) -> tuple[EventExplained, ReadingPlace]:
    found = explain_event(world.pool, world.organization_id, event["source"], event["id"])
    assert found is not None
    ((place,),) = [one.readings for one in found.meters]
    return found, place


def burn_of(world: World, event: Mapping[str, Any]) -> PoolPlace:
    _, place = explained(world, event)
    assert place.burn is not None
    return place.burn


@pytest.mark.parametrize("customer", ["acme", "globex"])
def test_what_burned_names_the_pool_the_units_and_the_draw(sold: World, customer: str) -> None:
    pool = credits_of(sold, customer)
    event = call(sold, 100, subject=f"{customer}-dev")
    tiny = call(sold, 1, "small", subject=f"{customer}-dev")
    before, place = explained(sold, event)
    assert (Fate.BURNS_POOL, Decimal(2)) == (before.fate, place.burn and place.burn.units)
    burn_all(sold)
    after, place = explained(sold, event)
    assert (Fate.BURNED_POOL, Fate.BURNED_POOL, ()) == (after.fate, place.fate, place.lines)
    assert place.burn is not None
    assert ("credits", Decimal(2), RateCardVersion("credits", 1), None) == (
        place.burn.pool,
        place.burn.units,
        place.burn.rate_card,
        place.burn.reason,
    )
    assert place.burn.draw is not None
    with transaction(sold.pool, sold.organization_id) as connection:
        (entry,) = operation(connection, sold.organization_id, pool, place.burn.draw)
    assert ("metered", f"{customer}-dev") == (entry.reason, entry.subject)
    assert (Decimal("0.0000003"), place.burn.draw) == (
        burn_of(sold, tiny).units,
        burn_of(sold, tiny).draw,
    )


def test_each_of_several_draws_is_found_by_its_own_events(sold: World) -> None:
    credits_of(sold)
    draws = []
    for _ in range(3):
        event = call(sold, 10)
        burn_all(sold)
        sold.now += timedelta(minutes=1)
        draws.append((event, burn_of(sold, event).draw))
    assert 3 == len({draw for _, draw in draws})
    assert [draw for _, draw in draws] == [burn_of(sold, event).draw for event, _ in draws]


def test_a_version_that_came_later_does_not_change_what_burned(sold: World) -> None:
    credits_of(sold)
    event = call(sold, 100)
    burn_all(sold)
    sold.publish(card("5"), since=sold.now - timedelta(minutes=30))
    burn = burn_of(sold, event)
    assert (Decimal(2), RateCardVersion("credits", 1)) == (burn.units, burn.rate_card)


def test_usage_without_a_rate_is_unburned_for_its_reason(sold: World) -> None:
    credits_of(sold)
    event = call(sold, 7, "unheard-of")
    for _ in ("waiting", "dealt with"):
        found, place = explained(sold, event)
        assert (Fate.UNBURNED, "no_cell") == (found.fate, place.burn and place.burn.reason)
        assert place.burn is not None
        assert (None, None) == (place.burn.units, place.burn.draw)
        burn_all(sold)


def test_usage_from_before_the_pool_is_billed_as_ever(sold: World) -> None:
    early = call(sold, 1)
    sold.now += timedelta(minutes=1)
    credits_of(sold)
    burn_all(sold)
    found, place = explained(sold, early)
    assert (Fate.NOT_YET_BILLED, None, 1) == (found.fate, place.burn, len(place.lines))


def test_an_event_that_names_its_draw_shows_it(sold: World) -> None:
    pool = credits_of(sold)
    drawn = sold.draw(pool, 5, subject="acme-dev")
    assert isinstance(drawn, Answer)
    name = encode_numbered(Prefix.DRAW, pool, drawn.operation)
    own = call(sold, 9, fareboxdraw=name)
    burn_all(sold)
    found, place = explained(sold, own)
    assert (Fate.BURNED_POOL, drawn.operation) == (found.fate, place.burn and place.burn.draw)


def test_a_draw_from_a_pool_that_usage_does_not_burn_is_billed_besides(sold: World) -> None:
    pool = sold.pool_of("calls", unit="call", customer="acme")
    sold.grant(pool, 1000)
    drawn = sold.draw(pool, 5)
    assert isinstance(drawn, Answer)
    event = call(sold, 9, fareboxdraw=encode_numbered(Prefix.DRAW, pool, drawn.operation))
    found, place = explained(sold, event)
    assert (Fate.NOT_YET_BILLED, 1) == (found.fate, len(place.lines))
    assert (drawn.operation, False) == (
        place.burn and place.burn.draw,
        place.burn and place.burn.alone,
    )


def test_a_check_tells_what_would_burn(sold: World) -> None:
    credits_of(sold, "globex")

    def check(model: str, subject: str) -> tuple[Fate | None, PoolPlace | None]:
        event = sold.event("llm.request", sold.now, subject, tokens=100, model=model)
        body = json.dumps(event).encode()
        found = check_event(sold.pool, sold.organization_id, body, sold.now)
        return found.fate, found.meters[0].readings[0].burn

    fate, burn = check("large", "globex-dev")
    assert burn is not None
    assert (Fate.BURNS_POOL, "credits", Decimal(2), RateCardVersion("credits", 1), None) == (
        fate,
        burn.pool,
        burn.units,
        burn.rate_card,
        burn.draw,
    )
    fate, burn = check("unheard-of", "globex-dev")
    assert (Fate.UNBURNED, "no_cell") == (fate, burn and burn.reason)
    assert (Fate.NOT_YET_BILLED, None) == check("large", "acme-dev")
