"""Every line of a pool opens: to its episodes and entries, or to the grant that was bought."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from farebox_pool_lines import (
    NOVEMBER,
    OCTOBER,
    OVERAGE,
    SEPTEMBER,
    adds_up,
    draw,
    invoice_of,
    name,
    opened,
    pool_lines,
    pool_of,
    sell,
    take_back,
    whole,
)
from farebox_world import World, at

from farebox.flows.explain_pool import PoolExplained
from farebox.flows.grant_units import change_grant
from farebox.flows.replay_invoice import replay_invoice
from farebox.invoicing.pool_use import PoolUse, PoolUseKind, costed_episodes
from farebox.ledger.command import Answer, Release, Reserve, Settle
from farebox.ledger.grant import Basis, Grant
from farebox.ledger.policy import Burst, Limit, LimitMode
from farebox.postgres import pool_use
from farebox.postgres.explain import Place
from farebox.postgres.session import transaction

BURST = Burst(units=Decimal(500), price=Decimal("0.01"))


@pytest.fixture
def sold(world: World) -> World:
    return sell(world)


def told(found: PoolExplained) -> list[tuple[datetime, datetime, Decimal, Decimal]]:
    return [(one.start, one.end, one.units, amount) for one, amount in found.episodes]


def test_overage_opens_to_its_episodes_and_draws_at_each_price(sold: World) -> None:
    pool = pool_of(sold, limit=OVERAGE)
    sold.grant(pool, 100)
    first = sold.now = at("2026-09-05 10:00")
    draw(sold, pool, 130, subject="ann")
    sold.now += timedelta(hours=1)
    draw(sold, pool, 20, subject="bob", key="call-7")
    sold.grant(pool, 10)
    draw(sold, pool, 10)  # the grants suffice again
    second = sold.now = at("2026-09-20 08:00")
    draw(sold, pool, 7)
    dearer = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.0020"))
    pool_of(sold, limit=dearer)
    draw(sold, pool, 3)
    sold.now = max(sold.now, OCTOBER)
    row = invoice_of(sold, SEPTEMBER)
    cheap, dear = pool_lines(sold, row)
    assert [
        "tokens: overage at 0.0015 USD per token",
        "tokens: overage at 0.002 USD per token",
    ] == [cheap.description, dear.description]

    found = whole(sold, row, cheap)
    assert (PoolUseKind.OVERAGE, Decimal("0.0015")) == (found.use.kind, found.use.price)
    assert [
        (first, first + timedelta(hours=1), Decimal(50), Decimal("0.0750")),
        (second, second, Decimal(7), Decimal("0.0105")),
    ] == told(found)
    assert [
        (1, "ann", None, Decimal(30)),
        (1, "bob", "call-7", Decimal(20)),
        (2, None, None, Decimal(7)),
    ] == [(one.episode, one.entry.subject, one.entry.key, one.entry.units) for one in found.entries]
    assert [(second, second, Decimal(3), Decimal("0.006"))] == told(whole(sold, row, dear))
    adds_up(sold, row)


def test_units_that_were_held_and_given_back_are_in_no_episode(sold: World) -> None:
    pool = pool_of(sold, burst=BURST)
    sold.now = at("2026-09-10 08:00")
    holds = []
    for _ in range(3):
        (held,) = sold.ask(pool, Reserve(amount=Decimal(50), seconds=7200))
        assert isinstance(held, Answer)
        assert held.hold is not None
        holds.append(held.hold)
    settled = sold.now = at("2026-09-10 09:00")
    sold.ask(pool, Settle(hold=holds[0], amount=Decimal(20)), Release(hold=holds[1]))
    sold.now = max(sold.now, OCTOBER)
    row = invoice_of(sold, SEPTEMBER)
    (line,) = pool_lines(sold, row)
    assert [(settled, settled, Decimal(20), Decimal("0.20"))] == told(whole(sold, row, line))
    adds_up(sold, row)


def test_what_is_taken_back_later_counts_in_its_own_period(sold: World) -> None:
    """A final line stays as it is; the next one names what it takes back as of an earlier one."""
    pool = pool_of(sold, limit=OVERAGE, undo_seconds=86_400 * 60)
    used = sold.now = at("2026-09-10 08:00")
    taken = draw(sold, pool, 1000)
    take_back(sold, pool, taken.operation, Decimal(100))
    sold.now = OCTOBER
    september = invoice_of(sold, SEPTEMBER)
    before = whole(sold, september, pool_lines(sold, september)[0])
    back = sold.now = at("2026-10-09 10:00")
    take_back(sold, pool, taken.operation, Decimal(300))
    kept = sold.now = at("2026-10-10 10:00")
    draw(sold, pool, 50)
    sold.now = NOVEMBER
    october = invoice_of(sold, OCTOBER)

    (line,) = pool_lines(sold, october)
    assert (Decimal(-250), Decimal("-0.38")) == (line.quantity, line.amount)
    found = whole(sold, october, line)
    assert [(True, back, Decimal(-300)), (False, kept, Decimal(50))] == [
        (one.earlier, one.start, one.units) for one, _ in found.episodes
    ]
    assert [(1, Decimal(-300)), (2, Decimal(50))] == [
        (one.episode, one.entry.units) for one in found.entries
    ]
    again = whole(sold, september, pool_lines(sold, september)[0])
    assert before == again
    assert [(used, used, Decimal(900), Decimal("1.3500"))] == told(again)
    for row in (september, october):
        adds_up(sold, row)
        assert () == replay_invoice(sold.pool, sold.organization_id, row.invoice_id)


def test_a_draft_explains_what_it_says_although_more_was_voided_since(sold: World) -> None:
    pool = pool_of(sold, limit=OVERAGE)
    sold.now = at("2026-09-10 08:00")
    taken = draw(sold, pool, 1000)
    sold.now = max(sold.now, OCTOBER)
    row = invoice_of(sold, SEPTEMBER, finalize=False)
    take_back(sold, pool, taken.operation, Decimal(400), voided=True)
    adds_up(sold, row)
    assert [Decimal(1000)] == [line.quantity for line in pool_lines(sold, row)]
    sold.now = max(sold.now, OCTOBER)
    row = invoice_of(sold, SEPTEMBER)
    assert [Decimal(600)] == [line.quantity for line in pool_lines(sold, row)]
    adds_up(sold, row)


def test_what_is_voided_counts_in_the_period_of_its_use_however_late_that_is_billed(
    sold: World,
) -> None:
    pool = pool_of(sold, limit=OVERAGE)
    sold.now = at("2026-09-10 08:00")
    september = draw(sold, pool, 100)
    sold.now = at("2026-10-05 08:00")
    october = draw(sold, pool, 50)
    take_back(sold, pool, september.operation, Decimal(10), voided=True)
    take_back(sold, pool, october.operation, Decimal(5), voided=True)
    sold.now = NOVEMBER
    for start, units in ((SEPTEMBER, 90), (OCTOBER, 45)):
        row = invoice_of(sold, start)
        assert [units] == [line.quantity for line in pool_lines(sold, row)]
        adds_up(sold, row)


def change(world: World, pool: UUID, grant: Grant, verb: str) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        scope = connection, world.organization_id, pool
        assert isinstance(change_grant(*scope, grant.number, verb, world.now), Grant)


def test_a_purchase_and_its_refund_open_to_the_grant(sold: World) -> None:
    pool = pool_of(sold)
    bought = sold.now = at("2026-09-03 00:00")
    fields: dict[str, Any] = {"basis": Basis.PURCHASED, "cost": Decimal(10), "on_invoice": True}
    named = sold.grant(pool, 300, key="po-7", **fields)
    nameless = sold.grant(pool, 200, **{**fields, "cost": Decimal("10.005")})
    sold.now += timedelta(hours=1)
    alike = sold.grant(pool, 50, key=str(nameless.number), **fields)  # as if it were that number
    draw(sold, pool, 100)
    voided = sold.now = at("2026-09-04 00:00")
    change(sold, pool, named, "void")
    sold.now = max(sold.now, OCTOBER)
    row = invoice_of(sold, SEPTEMBER)
    found = [whole(sold, row, line) for line in pool_lines(sold, row)]
    assert [
        ("purchase", named.number, "po-7", Decimal(300), Decimal(10), bought),
        ("purchase", nameless.number, None, Decimal(200), Decimal("10.005"), bought),
        ("purchase", alike.number, str(nameless.number), Decimal(50), Decimal(10), alike.issued_at),
        ("refund", named.number, "po-7", Decimal(300), Decimal(10), bought),
    ] == [
        (one.use.kind, one.grant.number, one.grant.key, one.grant.amount, one.grant.cost,
         one.grant.issued_at)
        for one in found
        if one.grant is not None
    ]  # fmt: skip
    assert [
        [("grant_issued", bought, Decimal(300))],
        [("grant_issued", bought, Decimal(200))],
        [("grant_issued", alike.issued_at, Decimal(50))],
        [("grant_voided", voided, Decimal(-200))],
    ] == [
        [(entry.entry.reason, entry.entry.time, entry.entry.units) for entry in one.entries]
        for one in found
    ]
    adds_up(sold, row)
    (first, *_) = pool_lines(sold, row)
    page = opened(sold, row, first, after=Place(bought, 2**70)).pool
    assert page is not None
    assert [] == page.entries


def test_a_refund_in_several_parts_opens_to_each_of_them(sold: World) -> None:
    pool = pool_of(sold, undo_seconds=86_400 * 60)
    grant = sold.grant(pool, 300, basis=Basis.PURCHASED, cost=Decimal(10), on_invoice=True)
    first, second = draw(sold, pool, 100), draw(sold, pool, 40)
    change(sold, pool, grant, "void")
    sold.now += timedelta(days=1)
    take_back(sold, pool, first.operation)
    sold.now = OCTOBER
    september = invoice_of(sold, SEPTEMBER)
    sold.now += timedelta(days=1)
    take_back(sold, pool, second.operation)
    sold.now = NOVEMBER
    october = invoice_of(sold, OCTOBER)
    parts = [
        [(entry.entry.units, entry.amount) for entry in whole(sold, row, line, limit=1).entries]
        for row in (september, october)
        for line in pool_lines(sold, row)
        if line.kind == "refund"
    ]
    assert [
        [(Decimal(-160), Decimal("-5.33")), (Decimal(-100), Decimal("-3.34"))],
        [(Decimal(-40), Decimal("-1.33"))],
    ] == parts
    for row in (september, october):
        adds_up(sold, row)


def test_very_many_episodes_are_told_to_the_last_unit(
    sold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many are kept for themselves; the last one stands for the rest."""
    monkeypatch.setattr(pool_use, "EPISODES_MAX", 3)
    pool = pool_of(sold, limit=OVERAGE)
    for day in range(1, 7):
        sold.now = SEPTEMBER + timedelta(days=day)
        draw(sold, pool, day)
        sold.grant(pool, 1)
        draw(sold, pool, 1)
    sold.now = max(sold.now, OCTOBER)
    row = invoice_of(sold, SEPTEMBER)
    (line,) = pool_lines(sold, row)
    found = whole(sold, row, line)
    assert [(1, 1), (1, 2), (4, 18)] == [(one.count, one.units) for one, _ in found.episodes]
    last, _ = found.episodes[-1]
    assert (SEPTEMBER + timedelta(days=3), SEPTEMBER + timedelta(days=6)) == (last.start, last.end)
    adds_up(sold, row)


def test_a_line_that_was_written_before_episodes_were_kept_has_one() -> None:
    start, end = at("2026-09-10"), at("2026-09-11")
    text = (
        b'{"pool":"tokens","name":"","unit":"token","kind":"burst","quantity":"60","price":"0.01",'
        b'"cost":null,"grant":null,"first_at":"2026-09-10T00:00:00Z",'
        b'"last_at":"2026-09-11T00:00:00Z","episodes":[{"start":"2026-09-10T00:00:00Z",'
        b'"end":"2026-09-11T00:00:00Z","units":"90"}]}'
    )
    use = msgspec.json.decode(text, type=PoolUse)
    assert text == msgspec.json.encode(use)
    assert [(start, end, Decimal(60), Decimal("0.60"))] == [
        (one.start, one.end, one.units, amount) for one, amount in costed_episodes(use)
    ]


def test_what_is_taken_back_counts_with_the_episode_of_its_use(sold: World) -> None:
    pool = pool_of(sold, limit=OVERAGE)
    sold.now = at("2026-09-10 08:00")
    draw(sold, pool, 10)
    sold.grant(pool, 5)
    draw(sold, pool, 5)
    again = draw(sold, pool, 20)
    take_back(sold, pool, again.operation, Decimal(8))
    take_back(sold, pool, again.operation, Decimal(2), voided=True)
    sold.now = OCTOBER
    row = invoice_of(sold, SEPTEMBER)
    found = whole(sold, row, pool_lines(sold, row)[0])
    assert [Decimal(10), Decimal(10)] == [one.units for one, _ in found.episodes]
    adds_up(sold, row)


def test_an_operation_that_took_from_burst_too_ends_no_episode(sold: World) -> None:
    pool = pool_of(sold, limit=OVERAGE, burst=Burst(units=Decimal(5), price=Decimal("0.01")))
    (held,) = sold.ask(pool, Reserve(amount=Decimal(3)))
    assert isinstance(held, Answer)
    assert held.hold is not None
    draw(sold, pool, 10)  # 2 of the burst, 8 of overage
    sold.grant(pool, 5)
    sold.ask(pool, Settle(hold=held.hold, amount=Decimal(6)))  # 3 of the burst, 3 of the grant
    draw(sold, pool, 10)  # 2 of the grant, 8 of overage
    sold.now = OCTOBER
    row = invoice_of(sold, SEPTEMBER)
    assert [("burst", [Decimal(5)]), ("overage", [Decimal(16)])] == [
        (line.kind, [one.units for one, _ in whole(sold, row, line).episodes])
        for line in pool_lines(sold, row)
    ]


def test_a_stored_line_of_before_opens_to_its_entries_all_the_same(sold: World) -> None:
    pool = pool_of(sold, limit=OVERAGE)
    first = draw(sold, pool, 10).time
    sold.grant(pool, 1)
    draw(sold, pool, 1)
    sold.now += timedelta(days=1)
    last = draw(sold, pool, 20, subject="ann").time
    sold.now = OCTOBER
    row = invoice_of(sold, SEPTEMBER, finalize=False)
    (line,) = pool_lines(sold, row)
    with transaction(sold.pool, sold.organization_id) as connection:
        of_it = "where invoice_id = %s and position = %s"
        named = row.invoice_id, line.position
        connection.execute(
            f"create temporary table before on commit drop as select * from invoice_line {of_it}",
            named,
        )
        connection.execute(f"delete from invoice_line {of_it}", named)
        connection.execute(
            "update before set detail = ((detail::jsonb #- '{pool,upto}')"
            " #- '{pool,episodes}')::json"
        )
        connection.execute("insert into invoice_line select * from before")
    found = whole(sold, row, line)
    assert [(first, last, Decimal(30), Decimal("0.0450"))] == told(found)
    assert [(Decimal(10), None), (Decimal(20), None)] == [
        (one.entry.units, one.episode) for one in found.entries
    ]


def test_a_line_of_the_last_release_opens_to_all_that_moved_in_its_period(
    sold: World, owner_url: str
) -> None:
    """Also to what another subscription was charged and would be credited with by now."""
    sold.subscribe("acme", "base", SEPTEMBER, key="other")
    pool = name(sold, "acme-base")
    sold.now = at("2026-09-15")
    used = draw(sold, pool, 1000).operation
    sold.now = at("2026-10-02")
    sold.bill(sold.now)
    name(sold, "other")
    paid = "update pool_subscription set subscription_key = %s where pool_id = %s"
    with transaction(sold.pool, sold.organization_id) as connection:
        connection.execute(
            "delete from pool_subscription where pool_id = %s and first_sequence > 1", (pool,)
        )
        connection.execute(paid, ("other", pool))  # as it was: whom the pool names pays for all
    take_back(sold, pool, used, Decimal(400))
    sold.now = at("2026-11-02")
    sold.bill(sold.now)
    (row,) = (
        one
        for one in sold.invoices()
        if (one.subscription_key, one.period_start) == ("other", OCTOBER)
    )
    (line,) = pool_lines(sold, row)
    assert Decimal(-400) == line.quantity
    with transaction(sold.pool, sold.organization_id) as connection:
        connection.execute(paid, ("acme-base", pool))
    assert [] == whole(sold, row, line).entries
    with psycopg.connect(owner_url) as owner:
        owner.execute(
            "insert into invoice_whole values (%s, %s)", (sold.organization_id, row.invoice_id)
        )
    adds_up(sold, row)
