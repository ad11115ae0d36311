"""Whether all arrived: gaps in numbers, control totals and silence, listed before billing."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from farebox_world import World, at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.catalog.meter import Aggregation, Meter
from farebox.flows import watch_sources as module
from farebox.flows.warn_billing import BillingWarning
from farebox.flows.watch_sources import (
    ControlRefusal,
    ControlResult,
    compare_controls,
    declare_control,
    list_sources,
)
from farebox.postgres import billing_run, source
from farebox.postgres.session import transaction
from farebox.postgres.source import ControlRow, SourceRow

START, END = at("2026-09-01"), at("2026-09-02")


def from_source(world: World, name: str, number: object = None, **data: Any) -> dict[str, Any]:
    event = {**world.event("use", START, "acme", **data), "source": name}
    return event if number is None else {**event, "sequence": number}


def seen(world: World) -> dict[str, SourceRow]:
    found = list_sources(world.pool, world.organization_id, world.now)
    assert found.head == found.sequence
    return {state.row.source: state.row for state in found.items}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(numbers=st.sets(st.integers(0, 40), max_size=30), seed=st.integers(0, 99))
def test_gaps_are_the_numbers_that_did_not_come(
    new_world: Callable[[], World], numbers: set[int], seed: int
) -> None:
    """In any order, over any number of looks, and however often an event is sent."""
    world = new_world()
    order = sorted(numbers)
    Random(seed).shuffle(order)
    events = [from_source(world, "s", str(number)) for number in order]
    for at_ in range(0, len(events), 7):
        world.send(*events[at_ : at_ + 7])
        world.send(*events[at_ : at_ + 2])
        if seed % 2:
            seen(world)
    if not numbers:
        assert {} == seen(world)
        return
    row = seen(world)["s"]
    missing = set(range(min(numbers), max(numbers))) - numbers
    assert (len(numbers), len(missing)) == (row.numbered, row.missing)
    listed = {number for first, last in row.gaps for number in range(first, last + 1)}
    assert missing == listed


def test_only_whole_numbers_of_the_extension_count(world: World) -> None:
    world.send(
        from_source(world, "s", "1"),
        from_source(world, "s", 2),
        from_source(world, "s", "-3"),
        from_source(world, "s", "1.5"),
        from_source(world, "s", "9" * 19),
        from_source(world, "s", "x"),
        from_source(world, "s", None, sequence="7"),
        from_source(world, "t", "1", text='"sequence"'),
    )
    found = seen(world)
    assert (7, 2, 0) == (found["s"].events, found["s"].numbered, found["s"].missing)
    assert (1, 1, 0) == (found["t"].events, found["t"].numbered, found["t"].missing)


def test_a_long_history_is_looked_through_in_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_A_STEP", 3)
    world.send(*(from_source(world, "s", str(n)) for n in range(20)))
    first = list_sources(world.pool, world.organization_id, world.now)
    assert (15, 20) == (first.sequence, first.head)
    assert 20 == seen(world)["s"].events


def limit(world: World, name: str, seconds: int | None) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        source.put_limit(connection, world.organization_id, name, seconds)


def test_silence_is_counted_from_the_last_receipt(world: World) -> None:
    world.send(from_source(world, "s"))
    limit(world, "s", 60)
    limit(world, "never", 60)

    def silent() -> dict[str, bool]:
        found = list_sources(world.pool, world.organization_id, world.now)
        return {state.row.source: state.silent for state in found.items}

    world.now += timedelta(seconds=60)
    assert {"s": False, "never": True} == silent()
    world.now += timedelta(seconds=1)
    assert {"s": True, "never": True} == silent()
    limit(world, "s", None)
    limit(world, "never", None)
    assert {"s": False} == silent()


def control(world: World, events: int, **totals: str) -> ControlRow:
    return ControlRow(
        source="s",
        start=START,
        end=END,
        events=events,
        totals={meter: Decimal(total) for meter, total in totals.items()},
        declared_at=world.now,
    )


@pytest.fixture
def metered(world: World) -> World:
    world.publish(
        Meter(key="n", event_type="use", aggregation=Aggregation.SUM, value="$.n"),
        Meter(key="uses", event_type="use", aggregation=Aggregation.COUNT),
        Meter(key="peak", event_type="use", aggregation=Aggregation.MAX, value="$.n"),
    )
    return world


def declare(world: World, control: ControlRow) -> ControlResult:
    result = declare_control(world.pool, world.organization_id, control)
    assert isinstance(result, ControlResult)
    return result


def test_controls_agree_when_all_of_it_is_equal(metered: World) -> None:
    metered.send(
        from_source(metered, "s", n="1.5"),
        from_source(metered, "s", n=2),
        from_source(metered, "other", n=100),
        {**from_source(metered, "s", n=100), "time": END.isoformat()},
    )
    assert declare(metered, control(metered, 2, n="3.50", uses="2")).agrees
    for wrong in ({"n": "3.51"}, {"uses": "1"}):
        assert not declare(metered, control(metered, 2, **wrong)).agrees
    missing = declare(metered, control(metered, 3, n="4"))
    assert (2, Decimal("3.5"), False) == (missing.events, missing.totals["n"], missing.agrees)
    # What was missing arrives: the same control agrees now.
    metered.send(from_source(metered, "s", n="0.5"))
    (now,) = compare_controls(metered.pool, metered.organization_id, START, END)
    assert now.agrees


@pytest.mark.parametrize(
    ("totals", "swap", "code"),
    [
        ({}, True, "range_empty"),
        ({"nothing": "1"}, False, "unknown_meter"),
        ({"peak": "1"}, False, "meter_not_additive"),
    ],
)
def test_a_control_that_cannot_be_compared_is_refused(
    metered: World, totals: dict[str, str], swap: bool, code: str
) -> None:
    wanted = control(metered, 1, **totals)
    if swap:
        wanted = msgspec.structs.replace(wanted, start=wanted.end)
    refusal = declare_control(metered.pool, metered.organization_id, wanted)
    assert isinstance(refusal, ControlRefusal)
    assert code == refusal.code
    assert [] == compare_controls(metered.pool, metered.organization_id, START, END)


def test_a_billing_run_lists_them_before_anything_is_final(metered: World) -> None:
    metered.send(from_source(metered, "s", "1", n=1), from_source(metered, "s", "5", n=1))
    declare(metered, control(metered, 5, n="2"))
    limit(metered, "s", 60)
    metered.now += timedelta(hours=1)
    metered.bill(at("2026-10-01"), finalize=False)
    with transaction(metered.pool, metered.organization_id) as connection:
        (run,) = billing_run.runs(connection, metered.organization_id)
    found = msgspec.json.decode(run.warnings, type=list[BillingWarning])
    from_sources = [(one.code, one.subject, one.message) for one in found if one.subject == "s"]
    assert [
        ("sequence_gap", "s", "3 numbers have not arrived: 2 to 4"),
        (
            "control_mismatch",
            "s",
            "2026-09-01T00:00:00+00:00 to 2026-09-02T00:00:00+00:00: 5 events sent, 2 received",
        ),
        ("source_silent", "s", "nothing since 2026-10-02T12:00:00+00:00"),
    ] == from_sources
