"""What an import burned is given back whosever it was, beside invoices, steps and backfills."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec
import pytest
from farebox_burned_shop import (
    NOW,
    OVERAGE,
    SEPTEMBER,
    balances,
    brought,
    call,
    card,
    credits_of,
    entries,
    left,
    meter,
    open_burned_shop,
    take_back,
    unburned,
    undo,
)
from farebox_late_shop import burn_all, move, put
from farebox_world import World, at, days

from farebox.flows import return_burned
from farebox.flows.backfill_meter import Preview, backfill_meter
from farebox.flows.burn_usage import burn_readings, burn_usage
from farebox.flows.explain_event import explain_event
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.place_reading import Fate
from farebox.postgres import burn, burn_void, invoice, rollup
from farebox.postgres.session import transaction


@pytest.fixture
def shop(world: World) -> World:
    return open_burned_shop(world)


# Whose it was -------------------------------------------------------------------------------------


def test_what_burned_when_it_became_a_customers_is_given_back_by_that_draw(shop: World) -> None:
    pool = credits_of(shop)
    shop.now += days(2)
    put(shop, "beta")
    shop.send(call(shop, 100, subject="gateway"))
    july = brought(shop, call(shop, 200, subject="gateway"))
    burn_all(shop)
    shop.now += days(1)
    put(shop, "acme", "bot", "app", "gateway")
    shop.send(call(shop, 400, subject="gateway"))
    burn_all(shop)
    assert left(14) == balances(shop, pool)
    assert (1, 1) == undo(shop, july)
    assert left(10) == balances(shop, pool)


def test_of_usage_that_burned_again_elsewhere_the_standing_draw_gives_back(shop: World) -> None:
    pool = credits_of(shop)
    put(shop, "beta")
    given: dict[str, Any] = {"customer": "beta", "rate_card": "credits"}
    other = shop.pool_of("others", unit="credit", **given)
    shop.grant(other, 1000)
    shop.now += days(1)
    july = brought(shop, call(shop, 200))
    shop.send(call(shop, 100))
    burn_all(shop)
    (draw,) = entries(shop, pool, "metered")
    take_back(shop, draw)
    assert move(shop, "beta", shop.now) is True
    assert left(6) == balances(shop, other)
    assert (1, 1) == undo(shop, july)
    assert (left(0), left(2)) == (balances(shop, pool), balances(shop, other))


def test_of_usage_that_burned_again_in_the_same_pool_the_standing_draw_gives_back(
    shop: World,
) -> None:
    put(shop, "acme-eu", "eu-bot", parent="acme")
    pool = credits_of(shop, serves_children=True)
    shop.now += days(1)
    july = brought(shop, call(shop, 200, subject="eu-bot"))
    burn_all(shop)
    shop.now += days(1)
    shop.send(call(shop, 100, subject="eu-bot"))
    burn_all(shop)
    for draw in entries(shop, pool, "metered"):
        take_back(shop, draw)
    assert move(shop, "acme", SEPTEMBER, "eu-bot") is True
    assert left(6) == balances(shop, pool)
    assert (1, 1) == undo(shop, july)
    assert left(2) == balances(shop, pool)


def test_what_a_backfill_read_and_could_not_burn_is_listed_no_more(shop: World) -> None:
    credits_of(shop)
    for number in range(2):
        event = call(shop, 5 + number, "unheard-of")
        july = brought(shop, {**event, "data": {**event["data"], "m": 70 + number}})
    burn_all(shop)
    assert [("tokens", "no_cell", 2, Decimal(11))] == unburned(shop)
    shop.now += timedelta(hours=1)
    shop.publish(meter("tokens", "$.m"), since=shop.now - timedelta(hours=2))
    backfill_meter(shop.pool, shop.organization_id, "tokens", 2, shop.now)
    assert [("tokens", "no_cell", 2, Decimal(141))] == unburned(shop)
    assert (1, 0) == undo(shop, july)
    assert [("tokens", "no_cell", 1, Decimal(70))] == unburned(shop)


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_backfill_burned_is_given_back(shop: World, version: int) -> None:
    """Of a new meter all of it; of a new version what it read more than the one before."""
    pool = credits_of(shop)
    shop.publish(card("tokens", "late"))
    shop.now += timedelta(hours=1)
    events = [{**call(shop, 100), "data": {"n": 100, "m": 130, "model": "large"}} for _ in "ab"]
    shop.send({**events[0], "id": "kept"})
    july = brought(shop, events[1])
    burn_all(shop)
    shop.now += timedelta(hours=1)
    since = shop.now - timedelta(hours=2)
    shop.publish(meter("late" if version == 1 else "tokens", "$.m"), since=since)
    key = "late" if version == 1 else "tokens"
    done = backfill_meter(shop.pool, shop.organization_id, key, version, shop.now)
    assert isinstance(done, Preview)
    one = Decimal("4.6") if version == 1 else Decimal("2.6")
    assert left(one * 2) == balances(shop, pool)
    assert (1, 2) == undo(shop, july)
    assert left(one) == balances(shop, pool)


# Invoices -----------------------------------------------------------------------------------------


def test_units_on_a_final_invoice_keep_the_import(shop: World) -> None:
    """The event's own customer has no invoice; that of its pool says what was used beyond it."""
    put(shop, "acme-eu", "eu-bot", parent="acme")
    pool = credits_of(
        shop, 5, currency="USD", limit=OVERAGE, subscription="acme-base", serves_children=True
    )
    covered = brought(shop, call(shop, 100, subject="eu-bot"))
    burn_all(shop)
    beyond = brought(shop, call(shop, 300, subject="eu-bot"))
    burn_all(shop)
    before = balances(shop, pool)
    shop.now = at("2026-10-02")
    shop.bill(shop.now)
    assert {"overage": "0.15"} == {
        line.kind: str(line.amount) for row in shop.invoices() for line in shop.lines(row)
    }
    assert "import_invoiced" == undo(shop, beyond)
    assert before == balances(shop, pool)
    assert (1, 1) == undo(shop, covered)
    assert {"used": Decimal(6), "grant": Decimal(2), "overage": Decimal(-3)} == balances(shop, pool)


def test_units_on_a_final_invoice_keep_the_import_also_where_another_pays_since(
    shop: World,
) -> None:
    """What was used since then is on an invoice that is not final."""
    put(shop, "acme-eu", "eu-bot", parent="acme")
    fields = {"currency": "USD", "limit": OVERAGE, "serves_children": True}
    credits_of(shop, 1, subscription="acme-base", **fields)
    stated = brought(shop, call(shop, 300, subject="eu-bot"))
    burn_all(shop)
    shop.subscribe("acme", "base", shop.now, key="acme-other")
    credits_of(shop, 1, subscription="acme-other", **fields)
    later = brought(shop, call(shop, 300, subject="eu-bot"))
    burn_all(shop)
    shop.now = at("2026-10-02")
    shop.bill(at("2026-10-01"))
    assert "import_invoiced" == undo(shop, stated)
    assert (1, 1) == undo(shop, later)


@pytest.mark.parametrize("payer", ["acme-base", None])
def test_units_given_back_count_against_the_use_in_its_period(
    shop: World, payer: str | None
) -> None:
    """The undo comes in October, before September is invoiced; October's own use is stated."""
    pool = credits_of(shop, 5, currency="USD", limit=OVERAGE, subscription=payer)
    july = brought(shop, call(shop, 300))
    shop.send(call(shop, 200))
    burn_all(shop)
    shop.now = at("2026-10-02")
    assert (1, 1) == undo(shop, july)
    assert {"used": Decimal(4), "grant": Decimal(1)} == balances(shop, pool)
    shop.send(call(shop, 500))
    burn_all(shop)
    months = [SEPTEMBER, at("2026-10-01"), at("2026-11-01")]
    listed = [
        [one.quantity for one in all_unbilled(shop.pool, shop.organization_id, *month)]
        for month in pairwise(months)
    ]
    assert [[], [] if payer else [Decimal(9)]] == listed
    shop.now = at("2026-11-02")
    shop.bill(shop.now)
    stated = [
        [(line.kind, line.quantity) for line in shop.lines(row)]
        for row in sorted(shop.invoices(), key=lambda row: row.period_start)
        if row.kind == "period"
    ]
    assert [[], [("overage", Decimal(9))] if payer else []] == stated


def test_an_undo_and_a_billing_run_do_not_wait_for_each_other_in_a_ring(shop: World) -> None:
    july = brought(shop, call(shop, 100))
    shop.fold()
    with ThreadPoolExecutor(1) as threads:
        with transaction(shop.pool, shop.organization_id) as run:
            rollup.wait_watermark(run, shop.organization_id)
            undoing = threads.submit(undo, shop, july)
            _wait_for_lock(shop, "watermark")
            run.execute("set local lock_timeout = '5s'")
            invoice.lock_numbers(run, shop.organization_id, "default")
        assert (1, 0) == undoing.result()


# At the same time, and half-way -------------------------------------------------------------------


def _wait_for_lock(world: World, table: str) -> None:
    for _ in range(10_000):
        with transaction(world.pool, world.organization_id) as connection:
            (waiting,) = connection.execute(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                " and query like %s",
                (f"%from {table} %",),
            ).fetchone() or (0,)
        if waiting:
            return
    raise AssertionError("nobody waits")


def test_a_step_under_way_is_waited_for(shop: World) -> None:
    pool = credits_of(shop)
    july = brought(shop, call(shop, 300))
    shop.fold()
    with ThreadPoolExecutor(1) as threads:
        with transaction(shop.pool, shop.organization_id) as step:
            scope = step, shop.organization_id
            after = burn.lock_watermark(*scope)
            assert after == 0
            undoing = threads.submit(undo, shop, july)
            _wait_for_lock(shop, "burn_watermark")
            burn_readings(*scope, burn.read_step(*scope, 0, 1), shop.now)
            burn.set_watermark(*scope, 1)
        assert (1, 1) == undoing.result()
    assert left(0) == balances(shop, pool)


def test_steps_and_undos_that_race_leave_what_is_not_undone(shop: World) -> None:
    pool = credits_of(shop)
    found = []
    for number in range(30):
        subject = ("bot", "app")[number % 2]
        found.append(brought(shop, call(shop, 100, subject=subject)))
        shop.send(call(shop, 50, subject=subject))

    def steps() -> None:
        for to in range(3, 61, 3):
            burn_usage(shop.pool, shop.organization_id, shop.now, up_to=to)

    def undos(some: list[UUID]) -> None:
        for one in some:
            undo(shop, one)

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(steps), *(threads.submit(undos, found[n::2]) for n in (0, 1))]
        for one in running:
            one.result()
    burn_all(shop)
    assert left(30) == balances(shop, pool)


class Killed(Exception):
    pass


def test_killed_half_way_nothing_is_given_back(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = credits_of(shop)
    july = brought(shop, call(shop, 300), call(shop, 100, subject="app"))
    burn_all(shop)
    original = return_burned._take_back

    def killed(*args: Any) -> None:
        original(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(burn_void, "DRAWS_A_PAGE", 1)
        patch.setattr(return_burned, "_take_back", killed)
        with pytest.raises(Killed):
            undo(shop, july)
    assert left(8) == balances(shop, pool)
    assert (2, 2) == undo(shop, july)
    assert left(0) == balances(shop, pool)


def test_many_pools_give_back_a_page_at_a_time(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = []
    for number in range(7):
        put(shop, f"c{number}", f"s{number}")
        given: dict[str, Any] = {"customer": f"c{number}", "rate_card": "credits"}
        pools.append(shop.pool_of(f"p{number}", unit="credit", **given))
        shop.grant(pools[-1], 1000)
    shop.now = NOW
    july = brought(shop, *(call(shop, 100, subject=f"s{n % 7}") for n in range(21)))
    shop.send(*(call(shop, 100, subject=f"s{n}") for n in range(7)))
    monkeypatch.setattr("farebox.flows.burn_usage.EVENTS_A_STEP", 5)
    burn_all(shop)
    monkeypatch.setattr(burn_void, "DRAWS_A_PAGE", 4)
    events, draws = undo(shop, july)
    assert (21, True) == (events, draws > 4)  # type: ignore[operator]
    assert [left(2)] * 7 == [balances(shop, pool) for pool in pools]


# What is told -------------------------------------------------------------------------------------


def test_what_is_left_is_explained_by_its_draw_and_what_went_is_voided(shop: World) -> None:
    pool = credits_of(shop)
    kept, gone = call(shop, 100), call(shop, 300)
    shop.send(kept)
    july = brought(shop, gone)
    burn_all(shop)
    undo(shop, july)
    (draw,) = entries(shop, pool, "metered")
    told = []
    for event in (kept, gone):
        found = explain_event(shop.pool, shop.organization_id, event["source"], event["id"])
        assert found is not None
        ((place,),) = [one.readings for one in found.meters]
        told.append((place.fate, place.burn and (place.burn.units, place.burn.draw)))
    assert [(Fate.BURNED_POOL, (Decimal(2), draw.operation)), (Fate.VOIDED, None)] == told


def test_the_reversal_says_what_it_was_made_for(shop: World) -> None:
    pool = credits_of(shop)
    july = brought(shop, call(shop, 300), call(shop, 100))
    burn_all(shop)
    undo(shop, july)
    (back,) = entries(shop, pool, "voided")
    (draw,) = entries(shop, pool, "metered")
    assert draw.operation == back.undoes
    assert {
        "reason": f"import {july} undone",
        "voided": [
            {
                "meter": "tokens",
                "dimensions": {"model": "large"},
                "quantity": "400",
                "events": 2,
                "units": "8",
            }
        ],
    } == msgspec.json.decode(back.note or "")
