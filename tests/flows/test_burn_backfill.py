"""What a backfill reads burns once, when it is switched: what is new, and no more than that."""

from collections.abc import Callable
from decimal import Decimal
from threading import Barrier, Thread
from typing import Any

import msgspec
import pytest
from farebox_late_shop import (
    NOW,
    SEPTEMBER,
    billed,
    burn_all,
    burned,
    card,
    draws,
    meter,
    move,
    open_shop,
    pools_of,
    put,
    unbilled,
    use,
)
from farebox_world import World, days

from farebox.catalog.meter import Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows import backfill_meter as flow
from farebox.flows.backfill_meter import Preview, backfill_meter, preview_backfill
from farebox.flows.burn_backfill import PoolUnits
from farebox.flows.burn_usage import BurnNote, burn_usage
from farebox.flows.reverse_draw import reverse_draw
from farebox.ledger.command import Answer
from farebox.postgres import backfill, burn
from farebox.postgres.session import transaction

TOKENS = meter("tokens", "llm")


@pytest.fixture
def shop(world: World) -> World:
    """Return the shop where bot uses on behalf of Acme; its pool is open from 5 September on."""
    open_shop(world)
    put(world, "acme", "bot")
    return world


def change(world: World, **fields: Any) -> None:
    """Publish another version of the meter, in force from 1 September."""
    made = {name: getattr(TOKENS, name) for name in TOKENS.__struct_fields__}
    world.publish(Meter(**{**made, **fields}), since=SEPTEMBER)


def fill(world: World, version: int = 2, key: str = "tokens", **extra: Any) -> Preview:
    done = backfill_meter(world.pool, world.organization_id, key, version, world.now, **extra)
    assert isinstance(done, Preview), done
    return done


def preview(world: World, version: int = 2, key: str = "tokens") -> Preview:
    done = preview_backfill(world.pool, world.organization_id, key, version, world.now)
    assert isinstance(done, Preview), done
    return done


# A meter that came after its events ---------------------------------------------------------------


@pytest.mark.parametrize("passed", [0, 1, 2])
def test_usage_that_no_meter_read_burns_with_the_switch(shop: World, passed: int) -> None:
    """The card rates jobs from 20 September on; two events are dated ahead of that."""
    shop.now = NOW - days(1) / 24
    for minutes, count in ((-30, 100), (10, 200), (50, 400)):
        shop.use("job", NOW + days(minutes) / 1440, "bot", n=count, model="large")
    burn_usage(shop.pool, shop.organization_id, shop.now, up_to=passed)
    shop.now = NOW
    charge = Charge(key="jobs", meter="jobs", price=PerUnit(unit=Decimal("0.01")))
    shop.publish(meter("jobs", "job"), card("tokens", "jobs"))
    shop.publish(Plan(key="jobs", currency="USD", charges=(charge,)))
    shop.subscribe("acme", "jobs", SEPTEMBER, key="jobs")
    assert [PoolUnits("acme-credits", Decimal(12))] == fill(shop, 1, "jobs").pools
    assert {"acme-credits": Decimal(12)} == burned(shop)
    burn_all(shop)
    assert {"acme-credits": Decimal(12)} == burned(shop)
    shop.now = NOW + days(12)
    shop.bill(shop.now)
    (line,) = [
        line
        for row in shop.invoices()
        for line in shop.lines(row)
        if row.subscription_key == "jobs" and line.kind == "usage"
    ]
    assert Decimal(1) == line.amount


@pytest.mark.parametrize("passed", [0, 1, 3])
def test_what_only_a_newer_version_reads_burns_with_the_switch(shop: World, passed: int) -> None:
    """Whether the steps have passed it or not; what both read burns once."""
    change(shop, filter='data.model != "small"')
    fill(shop)
    use(shop, 100, 6)
    use(shop, 200, 8, model="small")
    use(shop, 300, 9)
    shop.publish(more_sizes(), since=SEPTEMBER)
    burn_usage(shop.pool, shop.organization_id, shop.now, up_to=passed)
    change(shop, filter="data.n > 0")
    before = sum(burned(shop).values())
    assert [PoolUnits("acme-credits", 12 - before)] == preview(shop, 3).pools
    assert before == sum(burned(shop).values())
    assert [PoolUnits("acme-credits", 12 - before)] == fill(shop, 3).pools
    assert {"acme-credits": Decimal(12)} == burned(shop)
    burn_all(shop)
    assert {"acme-credits": Decimal(12)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)
    assert [] == unbilled(shop)


def more_sizes() -> Any:
    made = card("tokens")
    price: Any = made.rates[0].price
    cells = tuple(
        msgspec.structs.replace(price.cells[0], match={"model": size})
        for size in ("large", "small")
    )
    rate = msgspec.structs.replace(made.rates[0], price=msgspec.structs.replace(price, cells=cells))
    return msgspec.structs.replace(made, rates=(rate,))


# In the place of an older version -----------------------------------------------------------------


def test_a_version_that_reads_the_same_burns_nothing_again(shop: World) -> None:
    use(shop, 100, 6)
    use(shop, 200, 8)
    burn_all(shop)
    change(shop, name="second")
    assert () == tuple(preview(shop).pools) == tuple(fill(shop).pools)
    burn_all(shop)
    assert {"acme-credits": Decimal(6)} == burned(shop)
    assert 1 == len(draws(shop))


def test_a_version_that_reads_more_burns_the_rest(shop: World) -> None:
    """The note has what had burned already below zero."""
    use(shop, 100, 4)
    use(shop, 200, 8)
    burn_all(shop)
    change(shop, value="10 * n")
    use(shop, 1, 9)
    fill(shop)
    burn_all(shop)
    notes = [msgspec.json.decode(one.note or "", type=BurnNote) for one in draws(shop)]
    uses = [(one.quantity, one.events) for note in notes for one in note.uses]
    assert [(-200, -1), (10, 1), (200, 1), (2000, 1)] == sorted(uses)
    assert {"acme-credits": Decimal("40.2")} == burned(shop)
    assert {"acme": Decimal(10), "beta": Decimal(0)} == billed(shop)


def test_what_was_used_less_stays_burned_and_counts_against_what_was_used_more(
    shop: World,
) -> None:
    use(shop, 100, 6)
    use(shop, 200, 8)
    burn_all(shop)
    change(shop, value="n - 150")
    assert () == tuple(fill(shop).pools)
    assert {"acme-credits": Decimal(6)} == burned(shop)
    assert [("below_zero", 1, Decimal(-50))] == unburned(shop)
    change(shop, value="350 - n")
    assert [PoolUnits("acme-credits", Decimal(7))] == fill(shop, 3).pools
    assert [] == unburned(shop)


def unburned(shop: World) -> list[tuple[str, int, Decimal]]:
    with transaction(shop.pool, shop.organization_id) as connection:
        rows = burn.unburned(connection, shop.organization_id)
    return [(one.reason, one.events, one.quantity) for one in rows]


def test_by_other_dimensions_only_what_they_cost_more_burns(shop: World) -> None:
    use(shop, 100, 6)
    burn_all(shop)
    change(shop, dimensions={"model": "$.model", "n": "$.n"})
    fill(shop)
    assert {"acme-credits": Decimal(2)} == burned(shop)


def test_what_no_rate_burned_burns_by_the_version_that_has_one(shop: World) -> None:
    """And is listed as unburned no more."""
    use(shop, 100, 6, model="huge")
    use(shop, 200, 6, model="huge")
    use(shop, 7, 6, model="tiny")
    burn_all(shop)
    change(shop, dimensions={"model": "$.size"}, filter='data.model == "huge"')
    fill(shop)
    with transaction(shop.pool, shop.organization_id) as connection:
        listed = burn.unburned(connection, shop.organization_id)
    assert [('{"model":""}', 2, 300)] == [
        (one.dimensions, one.events, one.quantity) for one in listed
    ]
    change(shop, dimensions={"model": "$.kind"}, value="n + 1", filter="data.n > 0")
    with transaction(shop.pool, shop.organization_id) as connection:
        assert listed == burn.unburned(connection, shop.organization_id)
    fill(shop, 3)
    with transaction(shop.pool, shop.organization_id) as connection:
        listed = burn.unburned(connection, shop.organization_id)
    assert [('{"model":""}', 3, 310)] == [
        (one.dimensions, one.events, one.quantity) for one in listed
    ]


def test_what_has_lost_its_rate_since_is_not_listed_where_it_burned(shop: World) -> None:
    use(shop, 100, 6)
    burn_all(shop)
    price = Matrix(dimensions=("model",), cells=(Cell(match={"model": "tiny"}, unit=Decimal(1)),))
    rate = Rate(meter="tokens", price=price)
    less = RateCard(key="credits", currency="credit", custom_unit=True, rates=(rate,))
    shop.publish(less, since=SEPTEMBER)
    change(shop, name="second")
    fill(shop)
    change(shop, filter='data.model == "tiny"')
    fill(shop, 3)
    with transaction(shop.pool, shop.organization_id) as connection:
        assert [] == burn.unburned(connection, shop.organization_id)
    assert {"acme-credits": Decimal(2)} == burned(shop)


def test_what_was_taken_back_burns_anew(shop: World) -> None:
    use(shop, 100, 6)
    burn_all(shop)
    use(shop, 200, 8)
    burn_all(shop)
    wrong = next(one for one in draws(shop) if one.amount == 4)
    with transaction(shop.pool, shop.organization_id) as connection:
        ids = connection, shop.organization_id
        done = reverse_draw(*ids, wrong.pool_id, wrong.operation, None, shop.now)
    assert isinstance(done, Answer)
    change(shop, value="n - 50")
    assert [PoolUnits("acme-credits", Decimal(2))] == preview(shop).pools
    change(shop, value="n - 20")
    fill(shop, 3)
    assert {"acme-credits": Decimal("5.2")} == burned(shop)


def test_what_was_asked_for_first_burns_neither_by_steps_nor_by_a_backfill(shop: World) -> None:
    event = shop.event("llm", SEPTEMBER + days(7), "bot", n=100, model="large")
    (pool_id, _), *_ = pools_of(shop)
    shop.send({**event, "fareboxdraw": shop.draw_id(pool_id, 2)})
    burn_all(shop)
    change(shop, value="2 * n")
    assert () == tuple(fill(shop).pools)
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert "usage_burned" in str(move(shop, "beta", SEPTEMBER))


def test_a_meter_that_is_backfilled_twice_burns_what_each_adds(shop: World) -> None:
    use(shop, 100, 6)
    burn_all(shop)
    for version, factor in ((2, 3), (3, 2), (4, 5)):
        change(shop, value=f"{factor} * n")
        fill(shop, version)
        burn_all(shop)
    # The second went down and gave nothing back; the third counts from where it stood.
    assert {"acme-credits": Decimal(12)} == burned(shop)


def test_a_version_that_is_switched_after_a_newer_one_burns_what_that_left_to_it(
    shop: World,
) -> None:
    """It was built before the newer one was published, which counts from the second event on."""
    for minutes, count in ((10, 200), (50, 400)):
        shop.use("job", NOW + days(minutes) / 1440, "bot", n=count, model="large")
    first = meter("jobs", "job")
    shop.publish(first, card("tokens", "jobs"))
    preview(shop, 1, "jobs")
    made = {name: getattr(first, name) for name in first.__struct_fields__}
    shop.publish(Meter(**{**made, "value": "2 * n"}), since=NOW + days(1) / 48)
    assert [PoolUnits("acme-credits", Decimal(16))] == fill(shop, 2, "jobs").pools
    assert [PoolUnits("acme-credits", Decimal(4))] == fill(shop, 1, "jobs").pools
    burn_all(shop)
    assert {"acme-credits": Decimal(20)} == burned(shop)


# Mapped or moved afterwards -----------------------------------------------------------------------


@pytest.mark.parametrize("passed", [False, True])
def test_backfilled_usage_of_nobody_burns_the_pool_of_whom_it_becomes(
    shop: World, passed: bool
) -> None:
    use(shop, 100, 8, "app")
    if passed:
        burn_all(shop)
    change(shop, value="2 * n")
    fill(shop)
    assert {"acme-credits": Decimal(0)} == burned(shop)
    put(shop, "acme", "bot", "app")
    burn_all(shop)
    assert {"acme-credits": Decimal(4)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


def test_backfilled_usage_that_burned_does_not_become_anothers(shop: World) -> None:
    use(shop, 100, 8)
    change(shop, value="2 * n")
    fill(shop)
    assert "usage_burned" in str(move(shop, "beta", SEPTEMBER))
    assert {"acme-credits": Decimal(4)} == burned(shop)


# Exactly once -------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["add_readings", "save_progress", "drop_voided", "switch"])
def test_killed_at_any_step_it_burns_once(
    shop: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(flow, "EVENTS_A_STEP", 2)
    for day in range(6, 14):
        use(shop, 100, day)
    burn_usage(shop.pool, shop.organization_id, shop.now, up_to=5)
    change(shop, value="2 * n")
    original: Callable[..., Any] = getattr(backfill, name)
    for allowed in range(1, 9):
        calls = iter(range(100))

        def killed(*args: Any, calls: Any = calls, allowed: int = allowed) -> Any:
            done = original(*args)
            if next(calls) + 1 == allowed:
                raise Killed
            return done

        with monkeypatch.context() as patch:
            patch.setattr(backfill, name, killed)
            try:
                fill(shop)
                break
            except Killed:
                assert {"acme-credits": Decimal(10)} == burned(shop)
    burn_all(shop)
    assert {"acme-credits": Decimal(32)} == burned(shop)


def test_a_backfill_beside_the_steps_burns_each_reading_once(shop: World) -> None:
    for number in range(200):
        use(shop, 100, 6 + number % 8)
    change(shop, value="3 * n")
    start = Barrier(2)

    def steps() -> None:
        start.wait()
        for to in range(1, 201):
            burn_usage(shop.pool, shop.organization_id, shop.now, up_to=to)

    stepping = Thread(target=steps)
    stepping.start()
    start.wait()
    fill(shop)
    stepping.join()
    burn_all(shop)
    assert {"acme-credits": Decimal(1200)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


def test_a_pool_that_is_opened_after_a_backfill_leaves_what_is_dated_ahead_to_the_plan(
    world: World,
) -> None:
    open_shop(world)
    put(world, "beta", "bot")
    world.publish(meter("jobs", "job"), card("tokens", "jobs"))
    ahead = world.now + days(1) / 48
    world.use("llm", ahead, "bot", n=100, model="large")
    made = {name: getattr(TOKENS, name) for name in TOKENS.__struct_fields__}
    world.publish(Meter(**{**made, "event_type": "job"}), since=SEPTEMBER)
    world.use("job", ahead, "bot", n=7, model="large")
    fill(world)
    world.publish(TOKENS, since=SEPTEMBER)
    fill(world, 3)
    world.grant(
        world.pool_of("beta-credits", unit="credit", customer="beta", rate_card="credits"), 10**15
    )
    burn_all(world)
    assert {"acme-credits": Decimal(0), "beta-credits": Decimal(0)} == burned(world)
    assert {"acme": Decimal(0), "beta": Decimal(1)} == billed(world)
