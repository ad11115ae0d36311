"""Billing runs: each period once, numbers without a gap, whatever happens between two pages."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from farebox_world import World, at, new_id

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Fee, Plan, Timing
from farebox.catalog.price import PerUnit
from farebox.flows import bill as billing
from farebox.flows.bill import bill
from farebox.flows.replay_invoice import replay_invoice
from farebox.postgres import billing_run, rollup
from farebox.postgres.session import open_pool, transaction

CALLS = Meter(key="calls", event_type="call", aggregation=Aggregation.SUM, value="units")
SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")


def basic(
    currency: str = "EUR", price: str = "0.5", minimum: str | None = None, fee: str | None = None
) -> Plan:
    return Plan(
        key="basic",
        currency=currency,
        fees=() if fee is None else (Fee(key="base", amount=Decimal(fee)),),
        charges=(Charge(key="calls", meter="calls", price=PerUnit(unit=Decimal(price))),),
        minimum=None if minimum is None else Decimal(minimum),
    )


def many(world: World, count: int, plan: Plan | None = None) -> None:
    """Subscribe `count` customers since 1 September; customer n used n units."""
    world.publish(CALLS, plan or basic())
    keys = [f"c{number:04d}" for number in range(count)]
    for key in keys:
        world.customer(key)
        world.subscribe(key, "basic", SEPTEMBER)
    events = [
        world.event("call", at("2026-09-05 12:00"), key, units=number)
        for number, key in enumerate(keys)
    ]
    for start in range(0, count, 500):
        world.send(*events[start : start + 500])


def numbers_of(world: World) -> list[str | None]:
    with transaction(world.pool, world.organization_id) as connection:
        rows = connection.execute("select number from invoice order by number").fetchall()
    return [row[0] for row in rows]


def gapless(count: int) -> list[str]:
    return [f"INV-{number:06d}" for number in range(1, count + 1)]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages of two subscriptions, so that a few of them are many pages."""
    monkeypatch.setattr(billing, "SUBSCRIPTIONS_A_PAGE", 2)


def test_a_run_twice_bills_once(world: World) -> None:
    many(world, 3)
    assert 3 == world.bill(OCTOBER).invoices
    before = [(row, world.lines(row)) for row in world.invoices()]
    assert 0 == world.bill(OCTOBER).invoices
    assert before == [(row, world.lines(row)) for row in world.invoices()]
    assert ["0.00", "0.50", "1.00"] == [str(row.total) for row, _ in before]
    assert gapless(3) == [row.number for row, _ in before]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_subscription_is_taken_whatever_the_page(world: World, count: int) -> None:
    many(world, count)
    result = world.bill(OCTOBER)
    assert (count, (count + 1) // 2) == (result.invoices, result.pages)
    assert gapless(count) == numbers_of(world)
    assert [f"c{n:04d}-basic" for n in range(count)] == [
        row.subscription_key for row in world.invoices()
    ]


def test_periods_missed_for_years_come_in_bounded_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing, "INVOICES_A_PAGE", 7)
    many(world, 2)
    result = world.bill(at("2027-09-01"))
    assert (24, 4) == (result.invoices, result.pages)
    assert 0 == world.bill(at("2027-09-01")).invoices
    assert gapless(24) == numbers_of(world)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_run_that_fails_between_pages_goes_on_where_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    many(world, 6)
    rate, rated = billing.rate_periods, iter(range(100))

    def fail(*arguments: object) -> object:
        if next(rated) == broken:
            raise psycopg.OperationalError("the server closed the connection")
        return rate(*arguments)  # type: ignore[arg-type]

    run_id = new_id()
    with monkeypatch.context() as patched:
        patched.setattr(billing, "rate_periods", fail)
        with pytest.raises(psycopg.OperationalError):
            bill(world.pool, world.organization_id, run_id, OCTOBER, world.clock, new_id)
    assert gapless(2 * broken) == numbers_of(world)
    with transaction(world.pool, world.organization_id) as connection:
        run = billing_run.find_run(connection, world.organization_id, run_id)
    assert run is not None
    assert ("running", 2 * broken) == (run.status, run.invoices)

    bill(world.pool, world.organization_id, run_id, OCTOBER, world.clock, new_id)
    assert gapless(6) == numbers_of(world)
    assert [Decimal(n) / 2 for n in range(6)] == [row.total for row in world.invoices()]
    with transaction(world.pool, world.organization_id) as connection:
        run = billing_run.find_run(connection, world.organization_id, run_id)
    assert run is not None
    assert ("finished", 6) == (run.status, run.invoices)


@pytest.mark.usefixtures("small_pages")
def test_a_page_that_is_not_written_leaves_no_hole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(world, 6)
    count_invoices, counted = billing_run.count_invoices, iter(range(100))

    def fail(*arguments: object) -> None:
        count_invoices(*arguments)  # type: ignore[arg-type]
        if next(counted) == 1:
            raise psycopg.OperationalError("killed after the numbers were taken")

    with monkeypatch.context() as patched:
        patched.setattr(billing_run, "count_invoices", fail)
        with pytest.raises(psycopg.OperationalError):
            world.bill(OCTOBER)
    assert gapless(2) == numbers_of(world)
    world.bill(OCTOBER)
    assert gapless(6) == numbers_of(world)


@pytest.mark.usefixtures("small_pages")
def test_runs_side_by_side_bill_each_period_once(world: World, runtime_url: str) -> None:
    """Four runs, in two pools as two processes have them, start at the same moment."""
    many(world, 40)
    other = open_pool(runtime_url, size=4)
    barrier = threading.Barrier(4)

    def run(number: int) -> int:
        barrier.wait()
        pool = world.pool if number % 2 else other
        return bill(pool, world.organization_id, new_id(), OCTOBER, world.clock, new_id).invoices

    with ThreadPoolExecutor(4) as threads:
        written = sum(threads.map(run, range(4)))
    other.close()
    assert 40 == written
    assert gapless(40) == numbers_of(world)
    assert [Decimal(n) / 2 for n in range(40)] == sorted(row.total for row in world.invoices())


def test_drafts_have_no_number_and_are_written_anew(world: World) -> None:
    many(world, 2)
    assert 2 == world.bill(OCTOBER, finalize=False).invoices
    drafts = world.invoices()
    assert [(None, "draft", None)] * 2 == [
        (row.number, row.status, row.finalized_at) for row in drafts
    ]
    world.use("call", at("2026-09-06"), "c0000", units=8)
    assert 2 == world.bill(OCTOBER, finalize=False).invoices
    again = world.invoices()
    assert ["4.00", "0.50"] == [str(row.total) for row in again]
    assert not {row.invoice_id for row in again} & {row.invoice_id for row in drafts}

    assert 2 == world.bill(OCTOBER).invoices
    assert gapless(2) == [row.number for row in world.invoices()]
    assert 0 == world.bill(OCTOBER, finalize=False).invoices
    assert 2 == len(world.invoices())


def test_what_comes_after_the_final_invoice_does_not_change_it(world: World) -> None:
    many(world, 2)
    world.bill(OCTOBER)
    before = [(row, world.lines(row)) for row in world.invoices()]
    world.use("call", at("2026-09-06"), "c0000", units=8)
    assert 0 == world.bill(OCTOBER).invoices
    assert before == [(row, world.lines(row)) for row in world.invoices()]


def test_the_cutoff_is_the_last_event_on_the_invoice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage that comes during the run is invoiced, or it comes after the cutoff; never both."""
    many(world, 1)
    reach = billing.reach

    def reach_then_receive(*arguments: object) -> None:
        reach(*arguments)  # type: ignore[arg-type]
        world.use("call", at("2026-09-30 23:59"), "c0000", units=10)

    monkeypatch.setattr(billing, "reach", reach_then_receive)
    world.bill(OCTOBER)
    (row,) = world.invoices()
    with transaction(world.pool, world.organization_id) as connection:
        counted = connection.execute(
            "select coalesce(sum((payload->'data'->>'units')::numeric), 0) from event"
            " where organization_id = %s and sequence <= %s",
            (world.organization_id, row.cutoff_sequence),
        ).fetchone()
    assert counted == (row.total * 2,)
    assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)


@pytest.mark.usefixtures("small_pages")
def test_a_catalog_that_changes_during_the_run_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pages a meter gets a version, its events come, and a plan gets a customer."""
    many(world, 4)
    due_pages = billing._due_pages

    def change_after_the_first(*arguments: object) -> Iterator[object]:
        pages = due_pages(*arguments)  # type: ignore[arg-type]
        yield next(pages)
        world.publish(
            Meter(key="calls", event_type="call", aggregation=Aggregation.SUM, value="2 * units"),
            Plan(key="new", currency="USD", charges=basic().charges),
            since=at("2026-09-20"),
        )
        world.use("call", at("2026-09-21"), "c0003", units=10)
        world.customer("zoe")
        world.subscribe("zoe", "new", SEPTEMBER)
        world.use("call", at("2026-09-21"), "zoe", units=1)
        yield from pages

    monkeypatch.setattr(billing, "_due_pages", change_after_the_first)
    assert 5 == world.bill(OCTOBER).invoices
    assert {"c0003-basic": Decimal("11.50"), "zoe-new": Decimal("1.00")} == {
        row.subscription_key: row.total
        for row in world.invoices()
        if row.subscription_key in ("c0003-basic", "zoe-new")
    }


def test_usage_undone_between_rating_and_writing_is_rated_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(world, 2)
    rate, rated = billing._rate, iter(range(100))

    def undo_after(*arguments: object) -> object:
        page = rate(*arguments)  # type: ignore[arg-type]
        if next(rated) == 0:
            with transaction(world.pool, world.organization_id) as connection:
                rollup.hold_watermark(connection, world.organization_id)
                connection.execute("update rollup set total = total + 100")
                rollup.note_rewritten(connection, world.organization_id)
        return page

    monkeypatch.setattr(billing, "_rate", undo_after)
    assert 2 == world.bill(OCTOBER).invoices
    assert [Decimal(50), Decimal("50.50")] == [row.total for row in world.invoices()]


def test_an_invoice_without_usage_is_empty_and_still_counts_its_period(world: World) -> None:
    world.publish(CALLS, basic())
    world.customer("acme")
    world.subscribe("acme", "basic", SEPTEMBER)
    assert 1 == world.bill(OCTOBER).invoices
    (row,) = world.invoices()
    assert ("0.00", "INV-000001", "[]") == (str(row.total), row.number, row.unpriced)
    assert 0 == sum(line.amount for line in world.lines(row))
    assert 0 == world.bill(OCTOBER).invoices


@pytest.mark.parametrize(
    ("currency", "price", "units", "usage", "missing", "total"),
    [
        ("EUR", "0.5", 10, "5.00", "15.00", "20.00"),
        ("EUR", "0.5", 40, "20.00", None, "20.00"),
        ("EUR", "0.5", 41, "20.50", None, "20.50"),
        ("JPY", "0.5", 3, "2", "18", "20"),
        ("KWD", "0.0005", 3, "0.002", "19.998", "20.000"),
    ],
)
def test_the_plan_minimum_is_trued_up_in_the_digits_of_the_currency(
    world: World,
    currency: str,
    price: str,
    units: int,
    usage: str,
    missing: str | None,
    total: str,
) -> None:
    world.publish(CALLS, basic(currency, price, minimum="20"))
    world.customer("acme")
    world.subscribe("acme", "basic", SEPTEMBER)
    world.use("call", at("2026-09-05"), "acme", units=units)
    world.bill(OCTOBER)
    (row,) = world.invoices()
    assert (currency, total) == (row.currency, str(row.total))
    expected = [("usage", usage), *([("plan_minimum", missing)] if missing else [])]
    assert expected == [(line.kind, str(line.amount)) for line in world.lines(row)]
    assert () == replay_invoice(world.pool, world.organization_id, row.invoice_id)


def test_fees_in_advance_start_the_subscription_and_end_with_it(world: World) -> None:
    world.publish(CALLS, basic(fee="9.90"))
    world.customer("acme")
    world.subscribe("acme", "basic", SEPTEMBER, end=at("2026-11-15"))
    world.bill(at("2027-03-01"))
    found = [
        (row.kind, f"{row.period_start:%m-%d}", f"{row.period_end:%m-%d}", str(row.total))
        for row in world.invoices()
    ]
    assert [
        ("start", "09-01", "10-01", "9.90"),
        ("period", "09-01", "10-01", "9.90"),
        ("period", "10-01", "11-01", "9.90"),
        ("period", "11-01", "11-15", "0.00"),
    ] == found


def test_the_sum_of_the_lines_is_the_total(world: World) -> None:
    plan = Plan(
        key="basic",
        currency="USD",
        fees=(
            Fee(key="a", amount=Decimal("1.005")),
            Fee(key="b", amount=Decimal("2.004"), timing=Timing.ARREARS),
        ),
        charges=tuple(
            Charge(key=f"calls{n}", meter="calls", price=PerUnit(unit=Decimal(price)))
            for n, price in enumerate(("0.0049", "0.0051", "0.333333"))
        ),
        minimum=Decimal("1.115"),
    )
    many(world, 5, plan)
    world.bill(OCTOBER)
    for row in world.invoices():
        assert row.total == sum(line.amount for line in world.lines(row))


def test_usage_at_the_edges_of_a_month_is_in_one_of_the_two(world: World) -> None:
    many(world, 1)
    microsecond = timedelta(microseconds=1)
    for time in (SEPTEMBER - microsecond, SEPTEMBER, OCTOBER - microsecond, OCTOBER):
        world.use("call", time, "c0000", units=1)
    world.fold()
    world.bill(at("2026-11-01"))
    assert {"calls": "1.00"} == world.amounts("c0000-basic", SEPTEMBER)
    assert {"calls": "0.50"} == world.amounts("c0000-basic", OCTOBER)


def test_another_organization_has_numbers_of_its_own(
    new_world: Callable[[], World], new_organization: Callable[[], UUID]
) -> None:
    one, two = new_world(), new_world()
    for world in (one, two):
        many(world, 2)
        world.bill(OCTOBER)
    assert gapless(2) == numbers_of(one) == numbers_of(two)
