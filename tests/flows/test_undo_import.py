"""Undoing an import: refused by name where money was stated, otherwise as if it had never been."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from farebox_burned_shop import brought
from farebox_world import World, at, new_id

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan
from farebox.catalog.price import PerUnit
from farebox.flows import undo_import as flow
from farebox.flows.backfill_meter import backfill_meter
from farebox.flows.import_events import ImportRefusal
from farebox.flows.undo_import import Undone, undo_import
from farebox.postgres import backfill, rollup
from farebox.postgres.session import transaction


def undo(world: World, import_id: UUID) -> Undone | ImportRefusal:
    return undo_import(world.pool, world.organization_id, import_id, world.now)


def code_of(answer: Undone | ImportRefusal) -> str:
    assert isinstance(answer, ImportRefusal), answer
    return answer.code.value


@pytest.fixture
def acme(world: World) -> World:
    price = PerUnit(unit=Decimal(2))
    world.publish(
        Meter(key="calls", event_type="call", aggregation=Aggregation.COUNT),
        Meter(key="disk", event_type="disk", aggregation=Aggregation.WEIGHTED_SUM, value="$.gb"),
        Plan(
            key="plan",
            currency="USD",
            charges=(
                Charge(key="calls", meter="calls", price=price),
                Charge(key="disk", meter="disk", price=price),
            ),
        ),
    )
    for key in ("acme", "other"):
        world.customer(key)
        world.subscribe(key, "plan", at("2026-08-01"))
    return world


def call(world: World, time: str, subject: str = "acme") -> dict[str, Any]:
    return world.event("call", at(time), subject)


def test_what_is_unknown_or_undone_is_refused(acme: World) -> None:
    assert "import_unknown" == code_of(undo(acme, new_id()))
    import_id = brought(acme, call(acme, "2026-09-05"))
    assert Undone(1) == undo(acme, import_id)
    assert "import_undone" == code_of(undo(acme, import_id))


def test_an_invoiced_import_is_refused(acme: World) -> None:
    september = brought(acme, call(acme, "2026-09-05"))
    october = brought(acme, call(acme, "2026-10-01 00:00"))
    acme.bill(at("2026-10-01"))
    assert "import_invoiced" == code_of(undo(acme, september))
    assert Undone(1) == undo(acme, october)


def test_what_came_after_the_invoice_may_be_undone(acme: World) -> None:
    acme.use("call", at("2026-09-05"), "acme")
    acme.bill(at("2026-10-01"))
    assert Undone(1) == undo(acme, brought(acme, call(acme, "2026-09-06")))


def test_what_no_customer_or_no_meter_has_may_be_undone(acme: World) -> None:
    nobody = brought(acme, call(acme, "2026-09-05", "nobody"))
    unread = brought(acme, acme.event("unknown", at("2026-09-05"), "acme"))
    acme.bill(at("2026-10-01"))
    assert Undone(1) == undo(acme, nobody)
    assert Undone(1) == undo(acme, unread)
    with transaction(acme.pool, acme.organization_id) as connection:
        assert [] == connection.execute("select from unread_type").fetchall()


def test_a_level_carried_into_an_invoice_is_refused(acme: World) -> None:
    level = brought(acme, acme.event("disk", at("2026-07-30"), "acme", gb=3))
    acme.bill(at("2026-10-01"))
    assert "import_invoiced" == code_of(undo(acme, level))


def test_a_draft_does_not_keep_an_import(acme: World) -> None:
    import_id = brought(acme, call(acme, "2026-09-05"))
    acme.bill(at("2026-10-01"), finalize=False)
    assert Undone(1) == undo(acme, import_id)
    acme.bill(at("2026-10-01"))
    assert {Decimal(0)} == {row.total for row in acme.invoices()}


def test_a_voided_event_stays_a_duplicate(acme: World) -> None:
    event = call(acme, "2026-09-05")
    undo(acme, brought(acme, event))
    assert ["duplicate"] == acme.send(event)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (flow.void, "void_import"),
        (flow.imports, "save_import"),
        (flow.rollup, "note_rewritten"),
        (flow, "reach"),
    ],
)
def test_killed_half_way_nothing_or_all_is_undone(
    acme: World, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    acme.use("call", at("2026-09-05"), "acme")
    import_id = brought(acme, *(call(acme, "2026-09-05") for _ in range(5)))
    before = tables(acme)
    original: Callable[..., Any] = getattr(module, name)

    def killed(*args: Any) -> Any:
        original(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(Killed):
            undo(acme, import_id)
    if name != "reach":
        before = tables(acme) if acme.fold() else before
        acme.fold()
    assert [] == voids(acme)
    assert Undone(5) == undo(acme, import_id)
    assert [(1, Decimal(1))] == tables(acme)
    assert 5 == len(voids(acme))


def tables(world: World) -> list[tuple[Any, ...]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute("select count, total from rollup").fetchall()


def voids(world: World) -> list[tuple[Any, ...]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute("select sequence, voided_at, reason from void").fetchall()


def test_whoever_read_usage_before_is_told(acme: World) -> None:
    import_id = brought(acme, call(acme, "2026-09-05"))

    def rewritten() -> int:
        with transaction(acme.pool, acme.organization_id) as connection:
            return rollup.read_rewritten(connection, acme.organization_id)

    before = rewritten()
    undo(acme, import_id)
    assert before + 1 == rewritten()


def test_no_void_lies_above_the_watermark(acme: World) -> None:
    """Readers of what is not folded yet rely on this and look for none there."""
    import_id = brought(acme, call(acme, "2026-09-05"))
    acme.use("call", at("2026-09-05"), "acme")
    undo(acme, import_id)
    with transaction(acme.pool, acme.organization_id) as connection:
        rows = connection.execute(
            "select v.sequence <= w.sequence from void v join watermark w using (organization_id)"
        ).fetchall()
    assert [(True,)] == rows


def test_moment_of_voiding_is_kept(acme: World) -> None:
    import_id = brought(acme, call(acme, "2026-09-05"))
    undo(acme, import_id)
    found: list[tuple[int, datetime, str]] = voids(acme)
    assert [(1, acme.now, f"import {import_id} undone")] == found


@pytest.mark.parametrize(("gone", "left"), [("1", (3, 4)), ("9", (3, 4)), ("3", (3, 4))])
def test_an_extreme_that_went_is_read_anew(world: World, gone: str, left: tuple[int, int]) -> None:
    world.publish(Meter(key="m", event_type="use", aggregation=Aggregation.MAX, value="$.value"))

    def use(value: str) -> dict[str, Any]:
        return world.event("use", at("2026-09-05"), "acme", value=value)

    world.send(use("3"), use("4"))
    undo(world, brought(world, use(gone)))
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute("select count, total, minimum, maximum from rollup").fetchall()
    assert [(2, Decimal(7), *left)] == found


def test_a_customer_that_the_event_names_is_asked_too(acme: World) -> None:
    named = Meter(
        key="calls",
        event_type="call",
        aggregation=Aggregation.COUNT,
        customer="$.payer",
    )
    acme.publish(named, since=at("2026-08-01"))
    event = acme.event("call", at("2026-09-05"), "nobody", payer="acme")
    import_id = brought(acme, event)
    acme.bill(at("2026-10-01"))
    assert "import_invoiced" == code_of(undo(acme, import_id))


def test_what_a_backfill_read_is_asked_too(acme: World) -> None:
    import_id = brought(acme, acme.event("late", at("2026-09-05"), "acme"))
    acme.publish(Meter(key="late", event_type="late", aggregation=Aggregation.COUNT))
    backfill_meter(acme.pool, acme.organization_id, "late", 1, acme.now)
    acme.bill(at("2026-10-01"))
    assert "import_invoiced" == code_of(undo(acme, import_id))


def test_an_undo_while_a_backfill_reads_is_seen_by_its_switch(
    acme: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_id = brought(acme, acme.event("late", at("2026-09-05"), "acme"))
    acme.use("late", at("2026-09-05"), "acme")
    acme.publish(Meter(key="late", event_type="late", aggregation=Aggregation.COUNT))
    original = backfill.add_readings

    def meanwhile(*args: Any) -> None:
        assert Undone(1) == undo(acme, import_id)
        original(*args)

    monkeypatch.setattr(backfill, "add_readings", meanwhile)
    backfill_meter(acme.pool, acme.organization_id, "late", 1, acme.now)
    assert [(1, Decimal(1))] == tables(acme)
