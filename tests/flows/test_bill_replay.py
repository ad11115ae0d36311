"""A finalized invoice, rated again from what it stored, is the same to the byte."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from farebox_world import World, at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.catalog.meter import Aggregation, Alias, Meter
from farebox.catalog.plan import Charge, Fee, Plan, Rate, RateCard, Timing
from farebox.catalog.price import (
    Adjustments,
    Capacity,
    CapacityTier,
    Cell,
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PercentageTier,
    PerUnit,
    Price,
    Stairstep,
    StairstepTier,
    Tier,
    Volume,
)
from farebox.flows.replay_invoice import replay_invoice
from farebox.postgres.session import transaction

SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")


def d(text: str) -> Decimal:
    return Decimal(text)


TIERS = (Tier(up_to=d("10"), unit=d("1.1"), flat=d("3")), Tier(unit=d("0.7"), flat=d("1")))
PRICES: dict[str, Price] = {
    "flat": Flat(amount=d("4.5")),
    "per_unit": PerUnit(unit=d("0.333"), per=d("3")),
    "graduated": Graduated(tiers=TIERS),
    "volume": Volume(tiers=TIERS, flat_at_zero=True),
    "package": Package(amount=d("2"), size=d("7"), free=d("3")),
    "stairstep": Stairstep(
        tiers=(StairstepTier(up_to=d("20"), amount=d("5")), StairstepTier(amount=d("9")))
    ),
    "percentage": Percentage(
        percent=d("2.9"), fixed=d("0.3"), minimum=d("0.5"), free_events=2, free_amount=d("5")
    ),
    "graduated_percentage": GraduatedPercentage(
        tiers=(PercentageTier(up_to=d("15"), percent=d("3")), PercentageTier(percent=d("1")))
    ),
    "capacity": Capacity(
        dimension="model",
        tiers=(CapacityTier(amount=d("1"), limits={"a": d("9")}), CapacityTier(amount=d("6"))),
    ),
    "matrix": Matrix(
        dimensions=("model",),
        cells=(Cell(match={"model": "a"}, unit=d("0.05")), Cell(match={"model": "b"}, unit=d("2"))),
    ),
    "dynamic": Dynamic(multiplier=d("1.07")),
}
ADJUSTMENTS = Adjustments(
    included=d("4"),
    discount_percent=d("7.5"),
    discount_amount=d("1.11"),
    maximum=d("30"),
    minimum=d("12"),
)


def open_shop(world: World, prices: dict[str, Price], changes: dict[str, Price]) -> None:
    """Every price as a charge of one meter; `changes` take over in the middle of the month."""
    meters = [
        Meter(
            key=key,
            event_type="use",
            aggregation=Aggregation.SUM,
            value="$.n",
            dimensions={"model": "$.model"},
            per_event=key == "percentage",
        )
        for key in prices
    ]
    world.publish(*meters)

    def card(prices: dict[str, Price], since: datetime | None = None) -> RateCard:
        rates = tuple(Rate(meter=key, price=price) for key, price in prices.items())
        return RateCard(key="std", currency="USD", default=True, rates=rates, effective_from=since)

    world.publish(card(prices))
    world.publish(card({**prices, **changes}, at("2026-09-16 00:07")))
    charges = [Charge(key=key, meter=key) for key in prices]
    charges += [Charge(key=f"{key}-adjusted", meter=key, adjustments=ADJUSTMENTS) for key in prices]
    world.publish(
        Plan(
            key="p",
            currency="USD",
            fees=(
                Fee(key="before", amount=d("7.005")),
                Fee(key="after", amount=d("3.33"), timing=Timing.ARREARS),
            ),
            charges=tuple(charges),
            minimum=d("900"),
        ),
        Alias(dimension="model", alias="a2", canonical="a"),
    )
    world.customer("acme")
    world.subscribe("acme", "p", SEPTEMBER)


def assert_replays(world: World) -> None:
    rows = world.invoices()
    assert rows
    for row in rows:
        assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)


events = st.lists(
    st.tuples(
        st.integers(0, 30 * 24 * 3600 - 1),
        st.sampled_from(["a", "a2", "b", "zz"]),
        st.sampled_from(["0", "1", "2.5", "12", "-3", "0.000000000000000001"]),
    ),
    max_size=12,
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(used=events, late=events, swapped=st.permutations(list(PRICES)))
def test_every_price_model_replays(
    new_world: Callable[[], World],
    used: list[tuple[int, str, str]],
    late: list[tuple[int, str, str]],
    swapped: list[str],
) -> None:
    """With and without adjustments, over a change of the rate card and a change of the model."""
    world = new_world()
    # A price of another model takes over where events need not be kept for it.
    changes = {
        key: PRICES[other]
        for key, other in zip(PRICES, swapped, strict=True)
        if other != "percentage" and key != "percentage"
    }
    open_shop(world, PRICES, changes)

    def send(batch: list[tuple[int, str, str]]) -> None:
        if batch:
            world.send(
                *(
                    world.event("use", SEPTEMBER + timedelta(seconds=at_), "acme", model=m, n=n)
                    for at_, m, n in batch
                )
            )

    send(used)
    world.bill(OCTOBER)
    # What comes later, in events or in the catalog, does not reach it.
    send(late)
    world.publish(Alias(dimension="model", alias="zz", canonical="b"))
    assert_replays(world)


def test_a_subscription_that_ended_since_replays(world: World) -> None:
    open_shop(world, {"per_unit": PRICES["per_unit"]}, {})
    world.use("use", SEPTEMBER, "acme", model="a", n=7)
    world.bill(OCTOBER)
    world.subscribe("acme", "p", SEPTEMBER, end=at("2026-10-05"))
    assert_replays(world)


def test_an_invoice_that_was_tampered_with_does_not(world: World, superuser_url: str) -> None:
    """Whoever goes behind the triggers is found out."""
    open_shop(world, {"per_unit": PRICES["per_unit"]}, {})
    world.use("use", SEPTEMBER, "acme", model="a", n=7)
    world.bill(OCTOBER)
    (row,) = [one for one in world.invoices() if one.kind == "period"]
    with psycopg.connect(superuser_url, dbname="farebox_test") as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            "update invoice_line set amount = amount + 0.01 where invoice_id = %s"
            " and charge_key = 'per_unit'",
            (row.invoice_id,),
        )
    (difference,) = replay_invoice(world.pool, world.organization_id, row.invoice_id) or ()
    assert ("amount", "0.79", "0.78") == (
        difference.field,
        difference.stored,
        difference.replayed,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "update invoice set total = 0",
        "delete from invoice",
        "update invoice_line set amount = 0",
        "delete from invoice_line",
        "truncate invoice_line",
    ],
)
def test_the_runtime_role_cannot_change_what_is_final(world: World, statement: str) -> None:
    open_shop(world, {"per_unit": PRICES["per_unit"]}, {})
    world.bill(OCTOBER)
    refused = (psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException)
    with (
        pytest.raises(refused),
        transaction(world.pool, world.organization_id) as connection,
    ):
        connection.execute(statement.encode())
    assert_replays(world)
