"""What comes back of a pool is credited to whom it was charged, in its currency, or is unbilled."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_pool_lines import (
    NOVEMBER,
    OCTOBER,
    OVERAGE,
    SEPTEMBER,
    billed,
    buy,
    draw,
    name,
    sell,
    take_back,
    unpaid,
    void,
    whole,
)
from farebox_world import World, at

from farebox.catalog.plan import Interval, Plan
from farebox.flows import list_unbilled as module
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.unbilled import Unbilled
from farebox.ledger.command import Answer, Extend, Reserve, Settle
from farebox.ledger.policy import Limit, LimitMode, TopUp

MIDDLE = at("2026-09-15")
D = Decimal


@pytest.fixture
def sold(world: World) -> World:
    """Return a world with a customer who has subscriptions in dollars and in euros."""
    sell(world)
    world.publish(Plan(key="euros", currency="EUR"))
    world.subscribe("acme", "base", SEPTEMBER, key="short", end=MIDDLE)
    world.subscribe("acme", "base", SEPTEMBER, key="acme-other")
    world.subscribe("acme", "euros", SEPTEMBER, key="euro")
    return world


def listed(world: World) -> list[tuple[str, int, Decimal | None, Decimal | None, str | None]]:
    found = all_unbilled(world.pool, world.organization_id, SEPTEMBER, NOVEMBER)
    return [
        (one.reason.value, one.events, one.quantity, one.amount, one.currency)
        for one in found
        if one.pool is not None
    ]


def used_and_bought(world: World, pool: UUID) -> tuple[int, int]:
    """Use 1000 units beyond the grants, and then 100 of 300 that are bought."""
    beyond = draw(world, pool, 1000).operation
    bought = buy(world, pool)
    covered = draw(world, pool, 100).operation
    void(world, pool, bought)  # 200 come back at once
    return beyond, covered


def test_what_is_used_beyond_a_hold_of_another_currency_is_charged_as_it_is_used(
    sold: World,
) -> None:
    """What was held is listed, also what it was extended by before; what is beyond goes back first.

    A unit costs the same in both currencies, so it does not tell.
    """
    pool = name(sold, "acme-base")
    (held,) = sold.ask(pool, Reserve(amount=D(10), seconds=86_400))
    assert isinstance(held, Answer)
    assert held.hold is not None
    sold.ask(pool, Extend(hold=held.hold, amount=D(30)))
    name(sold, "euro", "EUR")
    sold.ask(pool, Extend(hold=held.hold, amount=D(200)))
    (settled,) = sold.ask(pool, Settle(hold=held.hold, amount=D(1240)))
    assert isinstance(settled, Answer)
    assert [D(40)] == unpaid(sold)
    expected = [("euro", "overage", D(1200), D("1.80"))]
    assert expected == billed(sold, OCTOBER)
    take_back(sold, pool, settled.operation, D(1210))
    back = ("euro", "overage", D(-1200), D("-1.80"))
    assert [*expected, back] == billed(sold, NOVEMBER)
    assert [D(30)] == unpaid(sold)


def test_nothing_is_credited_in_another_currency_than_it_was_charged_in(sold: World) -> None:
    """A dollar subscription paid and runs on; the pool names one in euros when units come back."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    beyond, covered = used_and_bought(sold, pool)
    name(sold, "euro", "EUR")
    take_back(sold, pool, beyond, D(400))
    take_back(sold, pool, covered)
    assert [
        ("acme-base", "overage", D(600), D("0.90")),
        ("acme-base", "purchase", D(300), D("10.00")),
        ("acme-base", "refund", D(-300), D("-10.00")),
    ] == sorted(billed(sold, OCTOBER))
    assert [] == listed(sold)


@pytest.mark.parametrize(("follows", "currency"), [("euro", "EUR"), ("next", "USD")])
def test_a_credit_that_no_subscription_of_the_currency_can_get_is_listed(
    sold: World, follows: str, currency: str
) -> None:
    """By when it came back, with what it is worth to the cent, in the currency of the charge.

    The one that follows is in another currency, or has not begun.
    """
    sold.subscribe("acme", "base", NOVEMBER, key="next")
    pool = name(sold, "short")
    sold.now = at("2026-09-14")
    beyond, covered = used_and_bought(sold, pool)
    name(sold, follows, currency)
    sold.now = at("2026-10-02")
    take_back(sold, pool, beyond, D(400))
    take_back(sold, pool, covered, D(50))
    take_back(sold, pool, covered)
    assert [
        ("short", "overage", D(1000), D("1.50")),
        ("short", "purchase", D(300), D("10.00")),
        ("short", "refund", D(-200), D("-6.67")),
    ] == sorted(billed(sold, NOVEMBER))
    assert [("no_credit_invoice", 3, D(-500), D("-3.93"), "USD")] == listed(sold)
    found = all_unbilled(sold.pool, sold.organization_id, SEPTEMBER, OCTOBER)
    assert [] == [one for one in found if one.pool is not None]


def test_what_comes_back_after_the_end_is_credited_to_the_one_that_followed(sold: World) -> None:
    """It is named by then, or was the last to be named; the currency is the same."""
    pool = name(sold, "short")
    sold.now = at("2026-09-14")
    beyond, covered = used_and_bought(sold, pool)
    sold.now = at("2026-09-20")
    name(sold, "acme-other")
    take_back(sold, pool, beyond, D(400))
    name(sold, None)
    take_back(sold, pool, covered)
    assert [
        ("acme-other", "overage", D(-400), D("-0.60")),
        ("acme-other", "refund", D(-100), D("-3.33")),
        ("short", "overage", D(1000), D("1.50")),
        ("short", "purchase", D(300), D("10.00")),
        ("short", "refund", D(-200), D("-6.67")),
    ] == sorted(billed(sold, OCTOBER))
    assert [] == listed(sold)
    # Though it was used in the same period, that is on another invoice.
    (row,) = [
        one
        for one in sold.invoices()
        if one.subscription_key == "acme-other" and one.kind == "period"
    ]
    (line,) = [one for one in sold.lines(row) if one.kind == "overage"]
    assert [True] == [one.earlier for one, _ in whole(sold, row, line).episodes]


def test_a_credit_is_given_while_the_pool_names_a_subscription_that_has_not_begun(
    sold: World,
) -> None:
    sold.subscribe("acme", "base", NOVEMBER, key="next")
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    beyond, covered = used_and_bought(sold, pool)
    name(sold, "next")
    take_back(sold, pool, beyond, D(400))
    take_back(sold, pool, covered)
    draw(sold, pool, 70)
    assert [
        ("acme-base", "overage", D(600), D("0.90")),
        ("acme-base", "purchase", D(300), D("10.00")),
        ("acme-base", "refund", D(-300), D("-10.00")),
    ] == sorted(billed(sold, OCTOBER))
    assert [("no_pool_subscription", 1, D(70), D("0.1050"), "USD")] == listed(sold)


def test_a_subscription_takes_no_credit_over_from_before_it_begins(sold: World) -> None:
    sold.subscribe("acme", "base", NOVEMBER, key="next")
    pool = name(sold, "short")
    sold.now = at("2026-09-14")
    beyond, _ = used_and_bought(sold, pool)
    sold.now = at("2026-09-20")
    name(sold, "acme-other")
    draw(sold, pool, 10)
    name(sold, None)
    take_back(sold, pool, beyond, D(400))
    name(sold, "next")
    assert ("acme-other", "overage", D(-390), D("-0.59")) in billed(sold, OCTOBER)
    assert [] == listed(sold)


def test_what_was_never_charged_is_not_credited_and_counts_against_its_own_use(
    sold: World,
) -> None:
    """Nor does what comes back of what was charged count against use that nobody pays."""
    pool = name(sold, "euro", "EUR")
    sold.now = MIDDLE
    charged = draw(sold, pool, 50)
    name(sold, None)
    beyond, covered = used_and_bought(sold, pool)
    september = [("euro", "overage", D(50), D("0.08"))]
    assert september == billed(sold, OCTOBER)
    name(sold, "acme-base")
    take_back(sold, pool, beyond, D(400))
    take_back(sold, pool, covered)
    take_back(sold, pool, charged.operation)
    assert [*september, ("euro", "overage", D(-50), D("-0.08"))] == billed(sold, NOVEMBER)
    assert [("no_pool_subscription", 1, D(600), D("0.9000"), "USD")] == listed(sold)


def test_what_is_in_another_currency_is_not_taken_over_though_the_pool_names_none(
    sold: World,
) -> None:
    """Its currency changed meanwhile: what was before the change stays in the one of before."""
    pool = name(sold, None)
    sold.now = MIDDLE
    draw(sold, pool, 1000)
    name(sold, None, "EUR")
    draw(sold, pool, 200)
    buy(sold, pool)
    name(sold, "euro", "EUR")
    assert [
        ("euro", "overage", D(200), D("0.30")),
        ("euro", "purchase", D(300), D("10.00")),
    ] == sorted(billed(sold, OCTOBER))
    assert [("no_pool_subscription", 1, D(1000), D("1.5000"), "USD")] == listed(sold)


def test_a_pool_that_says_no_currency_for_a_while_keeps_that_of_what_it_cost(sold: World) -> None:
    """As that of an entitlement does between two plans; the second one pays from then on."""
    pool = name(sold, "short")
    sold.now = at("2026-09-16")
    draw(sold, pool, 1000)
    name(sold, None, None, limit=Limit())
    name(sold, "euro", None, limit=Limit())
    sold.grant(pool, 5)
    assert [("no_pool_subscription", 1, D(1000), D("1.5000"), "USD")] == listed(sold)
    name(sold, "acme-base")
    draw(sold, pool, 15)
    assert [("acme-base", "overage", D(10), D("0.02"))] == billed(sold, OCTOBER)
    assert [D(1000)] == unpaid(sold)


def test_a_credit_that_a_final_invoice_gives_stays_there_whoever_takes_over_afterwards(
    sold: World,
) -> None:
    """The last one named gave it, in a time that a subscription with longer periods could take."""
    sold.publish(Plan(key="quarter", currency="EUR", interval=Interval.QUARTER))
    sold.subscribe("acme", "quarter", SEPTEMBER, key="quarter")
    pool = name(sold, "short")
    sold.now = at("2026-09-14")
    beyond, _ = used_and_bought(sold, pool)
    sold.now = at("2026-09-20")
    name(sold, "acme-other")
    draw(sold, pool, 10)
    name(sold, None)
    draw(sold, pool, 20)
    name(sold, None, "EUR")
    draw(sold, pool, 30)
    take_back(sold, pool, beyond, D(400))
    september = billed(sold, OCTOBER)
    assert ("acme-other", "overage", D(-390), D("-0.59")) in september
    draw(sold, pool, 40)
    name(sold, "quarter", "EUR")
    december = [("quarter", "overage", D(40), D("0.06"))]
    assert sorted(september + december) == sorted(billed(sold, at("2026-12-01")))


def test_a_credit_stays_with_one_that_had_not_begun_when_it_was_named(sold: World) -> None:
    """It was credited for it ran by then, and has a final invoice of that time."""
    sold.publish(Plan(key="quarter", currency="USD", interval=Interval.QUARTER))
    sold.subscribe("acme", "quarter", SEPTEMBER, key="quarter")
    sold.subscribe("acme", "base", at("2026-09-20"), key="soon")
    pool = name(sold, "short")
    sold.now = at("2026-09-14")
    beyond, _ = used_and_bought(sold, pool)
    sold.now = at("2026-09-16")
    name(sold, "soon")
    draw(sold, pool, 10)
    name(sold, None)
    sold.now = at("2026-09-25")
    take_back(sold, pool, beyond, D(400))
    october = billed(sold, at("2026-10-20"))
    assert ("soon", "overage", D(-400), D("-0.60")) in october
    name(sold, "quarter")
    assert sorted(october) == sorted(billed(sold, at("2026-12-01")))
    assert [("no_pool_subscription", 1, D(10), D("0.0150"), "USD")] == listed(sold)


def test_a_hold_keeps_the_currency_of_its_price(sold: World) -> None:
    """Settled once the pool is in another, it is charged to nobody, less what comes back."""
    pool = name(sold, "acme-base")
    sold.now = MIDDLE
    (held,) = sold.ask(pool, Reserve(amount=D(1000), seconds=86_400))
    assert isinstance(held, Answer)
    assert held.hold is not None
    name(sold, "euro", "EUR")
    (settled,) = sold.ask(pool, Settle(hold=held.hold, amount=D(800)))
    assert isinstance(settled, Answer)
    take_back(sold, pool, settled.operation, D(100))
    take_back(sold, pool, settled.operation, D(50), voided=True)
    assert [] == billed(sold, OCTOBER)
    assert [("no_pool_subscription", 1, D(650), D("0.9750"), "USD")] == listed(sold)


def test_purchases_that_nobody_is_charged_for_are_listed_less_what_came_back(
    sold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the pool makes by itself too, of every pool, a page at a time."""
    top_up = TopUp(below=D(5), amount=D(50), cost=D(2))
    hard = Limit(mode=LimitMode.HARD)
    for key in ("a", "b", "c", "d"):
        pool = sold.pool_of(
            key,
            customer="acme",
            currency="USD",
            limit=OVERAGE if key == "c" else hard,
            top_up=None if key == "c" else top_up,
            undo_seconds=86_400,
        )
        bought = None if key == "c" else buy(sold, pool)
        draw(sold, pool, 298 if key == "a" else 20)
        if key == "b" and bought is not None:
            void(sold, pool, bought)
    expected = [
        ("a", "no_purchase_invoice", 2, D(350), D("12.00")),
        ("b", "no_purchase_invoice", 1, D(20), D("0.67")),
        ("c", "no_pool_subscription", 1, D(20), D("0.0300")),
        ("d", "no_purchase_invoice", 1, D(300), D("10.00")),
    ]
    for size in (1, 2, 200):
        monkeypatch.setattr(module, "PAGE", size)
        found = all_unbilled(sold.pool, sold.organization_id, SEPTEMBER, OCTOBER)
        assert expected == [short(one) for one in found if one.pool is not None]
    assert [] == billed(sold, OCTOBER)
    assert [] == [
        one
        for one in all_unbilled(sold.pool, sold.organization_id, OCTOBER, NOVEMBER)
        if one.pool is not None
    ]


def test_a_purchase_is_charged_to_the_subscription_that_takes_it_over(sold: World) -> None:
    pool = name(sold, None)
    sold.now = MIDDLE
    buy(sold, pool)
    assert ["no_purchase_invoice"] == [one[0] for one in listed(sold)]
    sold.now += timedelta(days=1)
    name(sold, "acme-base")
    assert [] == listed(sold)
    assert [("acme-base", "purchase", D(300), D("10.00"))] == billed(sold, OCTOBER)


def short(one: Unbilled) -> tuple[str | None, str, int, Decimal | None, Decimal | None]:
    return one.pool, one.reason.value, one.events, one.quantity, one.amount
