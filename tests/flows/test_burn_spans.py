"""Whatever changes later, each use is burned from one pool or billed by the plan, never both."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Event

import msgspec
import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import PerUnit
from farebox.flows.burn_usage import BurnNote, burn_usage
from farebox.flows.list_unbilled import all_unbilled
from farebox.postgres.session import transaction
from farebox.postgres.transfer import statement

START = at("2026-09-01 00:00")
DAY = timedelta(days=1)
PRICE = PerUnit(unit=Decimal("0.01"))
Change = Callable[[World], object]


def card(key: str, *meters: str) -> RateCard:
    rates = tuple(Rate(meter=meter, price=PerUnit(unit=Decimal(1))) for meter in meters)
    return RateCard(key=key, currency="credit", custom_unit=True, rates=rates)


def meter(key: str) -> Meter:
    return Meter(key=key, event_type=key, aggregation=Aggregation.SUM, value="$.n")


@pytest.fixture
def sold(world: World) -> World:
    """Return a world where a team and its mother have a plan, and two cards price tokens."""
    world.now = START
    charges = tuple(Charge(key=key, meter=key, price=PRICE) for key in ("tokens", "images"))
    world.publish(
        *(meter(key) for key in ("tokens", "images")),
        Plan(key="base", currency="USD", charges=charges),
        card("a", "tokens"),
        card("b", "tokens"),
    )
    world.customer("mother")
    world.customer("team", parent="mother")
    for key in ("mother", "team"):
        world.subscribe(key, "base", START, key=key)
    return world


def use(world: World, count: int, kind: str = "tokens") -> int:
    """Let the team use so much a day on, and burn what was used."""
    world.now += DAY
    (outcome,) = world.send(world.event(kind, world.now, "team", n=count))
    assert "accepted" == outcome
    while burn_usage(world.pool, world.organization_id, world.now):
        pass
    world.now += DAY
    return count


def pools_of(world: World, **fields: object) -> None:
    world.pool_of("credits", unit="credit", **{"customer": "team", **fields})  # type: ignore[arg-type]


def burned(world: World) -> Decimal:
    """Return what the notes of all draws say was used."""
    total = Decimal(0)
    with transaction(world.pool, world.organization_id) as connection:
        query = "select pool_id from pool where organization_id = %s"
        for (pool_id,) in connection.execute(query, (world.organization_id,)).fetchall():
            for entry in statement(connection, world.organization_id, pool_id, limit=1000):
                if entry.reason == "metered" and entry.note is not None:
                    note = msgspec.json.decode(entry.note, type=BurnNote)
                    total += sum(part.quantity for part in note.uses)
    return total


def billed(world: World) -> Decimal:
    """Return what the plan bills for September."""
    world.now = at("2026-10-02 00:00")
    world.bill(world.now)
    rows = [one for one in world.invoices() if one.kind == "period"]
    lines = [line for row in rows for line in world.lines(row)]
    return sum((line.quantity or Decimal(0) for line in lines if line.kind == "usage"), Decimal(0))


CHANGES: dict[str, list[Change]] = {
    "another card": [
        lambda world: pools_of(world, rate_card="a"),
        lambda world: pools_of(world, rate_card="b"),
    ],
    "no card for a while": [
        lambda world: pools_of(world, rate_card="a"),
        pools_of,
        lambda world: pools_of(world, rate_card="a"),
    ],
    "another card at the same instant": [
        lambda world: (pools_of(world, rate_card="a"), pools_of(world, rate_card="b")),
        lambda world: (pools_of(world), pools_of(world, rate_card="b")),
    ],
    "children served later": [
        lambda world: pools_of(world, customer="mother", rate_card="a"),
        lambda world: pools_of(world, customer="mother", rate_card="a", serves_children=True),
        lambda world: pools_of(world, customer="mother", rate_card="a"),
    ],
    "another mother": [
        lambda world: pools_of(world, customer="mother", rate_card="a", serves_children=True),
        lambda world: world.customer_only("team"),
        lambda world: world.customer_only("team", parent="mother"),
    ],
    "a pool of its own": [
        lambda world: world.pool_of(
            "mothers", unit="credit", customer="mother", rate_card="b", serves_children=True
        ),
        lambda world: pools_of(world, rate_card="a"),
        pools_of,
    ],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_each_use_is_burned_or_billed_once(sold: World, changes: list[Change]) -> None:
    sent = use(sold, 1)
    for number, change in enumerate(changes, 1):
        change(sold)
        sent += use(sold, 10**number)
    taken = burned(sold)
    assert sent == taken + billed(sold)
    assert 0 < taken < sent
    unbilled = all_unbilled(sold.pool, sold.organization_id, START, sold.now)
    # These pools have no grants: what was used of them is beyond, which is told of each pool.
    assert [] == [one for one in unbilled if one.pool is None]


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_use_that_is_dated_ahead_is_burned_or_billed_once(
    sold: World, changes: list[Change]
) -> None:
    """By the time of a change it has burned already, or has been passed by."""
    sent = 0
    for number, change in enumerate([lambda world: None, *changes]):
        change(sold)
        sent += use(sold, 10**number)
        for minutes in (1, 59):
            ahead = sold.now + timedelta(minutes=minutes)
            count = (minutes + 1) * 10**number
            assert ["accepted"] == list(sold.send(sold.event("tokens", ahead, "team", n=count)))
            sent += count
        while burn_usage(sold.pool, sold.organization_id, sold.now):
            pass
    taken = burned(sold)
    assert sent == taken + billed(sold)
    assert 0 < taken < sent


def test_a_change_waits_for_the_step_under_way(sold: World) -> None:
    """Each holds what the other wants to have next only in the same order."""
    pools_of(sold, rate_card="a")
    sold.now += DAY
    stop = Event()

    def step() -> None:
        while not stop.is_set():
            burn_usage(sold.pool, sold.organization_id, sold.now)

    with ThreadPoolExecutor(2) as threads:
        steps = [threads.submit(step) for _ in range(2)]
        for number in range(60):
            sold.send(sold.event("tokens", sold.now, "team", n=1))
            pools_of(sold, rate_card="ab"[number % 2])
            sold.now += timedelta(seconds=1)
        stop.set()
        for one in steps:
            one.result()
    while burn_usage(sold.pool, sold.organization_id, sold.now):
        pass
    assert 60 == burned(sold) + billed(sold)


def test_what_was_used_before_its_meter_was_on_the_card_is_billed(sold: World) -> None:
    pools_of(sold, rate_card="a")
    used = use(sold, 7, "images")
    # In force from long ago, but nobody knew when the images were made.
    sold.publish(card("a", "tokens", "images"), since=START)
    later = use(sold, 50, "images")
    assert later == burned(sold)
    assert used == billed(sold)


def test_a_step_that_crosses_a_change_of_cards_burns_by_each(sold: World) -> None:
    dear = Rate(meter="tokens", price=PerUnit(unit=Decimal(100)))
    sold.publish(RateCard(key="b", currency="credit", custom_unit=True, rates=(dear,)))
    pool = sold.pool_of("credits", unit="credit", customer="team", rate_card="a")
    sold.grant(pool, 1000)
    sold.now += DAY
    first = sold.event("tokens", sold.now, "team", n=3)
    sold.now += DAY
    pools_of(sold, rate_card="b")
    sold.now += DAY
    sold.send(first, sold.event("tokens", sold.now, "team", n=4))
    while burn_usage(sold.pool, sold.organization_id, sold.now):
        pass
    with transaction(sold.pool, sold.organization_id) as connection:
        entries = statement(connection, sold.organization_id, pool, limit=100)
    (entry,) = [one for one in entries if one.reason == "metered"]
    assert 3 + 400 == entry.amount
    assert entry.note is not None
    uses = msgspec.json.decode(entry.note, type=BurnNote).uses
    assert [("a", 3), ("b", 400)] == sorted((one.rate_card, one.units) for one in uses)
