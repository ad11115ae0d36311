"""A meter that came after its events: looked at first, then counted, all at the same moment."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.flows import backfill_meter as flow
from farebox.flows.backfill_meter import (
    BackfillRefusal,
    Preview,
    backfill_meter,
    drop_backfill,
    events_before,
    preview_backfill,
)
from farebox.flows.read_usage import read_meters, read_quantities, read_single_values
from farebox.metering.quantity import Target
from farebox.postgres import backfill
from farebox.postgres.backfill import CustomerReadings, RefusalRow
from farebox.postgres.session import transaction

TOKENS = Meter(
    key="tokens",
    event_type="call",
    aggregation=Aggregation.SUM,
    value="$.tokens",
    per_event=True,
)


@pytest.fixture
def acme(world: World) -> World:
    world.customer("acme")
    for number in range(1, 6):
        world.use("call", at(f"2026-09-0{number}"), "acme", tokens=number)
    world.use("call", at("2026-09-06"), "stranger", tokens=100)
    world.use("call", at("2026-09-07"), "acme", tokens="many")
    world.use("other", at("2026-09-07"), "acme", tokens=7)
    return world


def used(world: World) -> tuple[Decimal, list[Decimal]]:
    """Return the sum and the single values; both begin and end within a quarter of an hour."""
    targets = [Target("acme", "tokens", at("2026-08-31 23:59"), at("2026-10-01 00:07"))]
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        history = read_meters(connection, world.organization_id)["tokens"]
        found = read_quantities(connection, world.organization_id, history, targets)
        single = read_single_values(connection, world.organization_id, history, targets, ())
    total = sum((one.quantity for one in found if one.quantity is not None), Decimal(0))
    return total, [value for values in single.values() for value in values]


def preview(world: World, version: int = 1) -> Any:
    return preview_backfill(world.pool, world.organization_id, "tokens", version, world.now)


def fill(world: World, version: int = 1, **extra: Any) -> Any:
    return backfill_meter(world.pool, world.organization_id, "tokens", version, world.now, **extra)


def before(world: World, version: int = 1) -> int:
    return events_before(world.pool, world.organization_id, "tokens", version, world.now)


FILLED = (Decimal(15), [Decimal(n) for n in (1, 2, 3, 4, 5)])
EXPECTED = Preview(
    events=7,
    readings=6,
    refused={"value_not_a_number": 1},
    first_time=at("2026-09-01"),
    last_time=at("2026-09-06"),
    customers=[CustomerReadings("acme", 5, Decimal(15)), CustomerReadings("", 1, Decimal(100))],
)


def test_a_preview_changes_nothing_and_a_backfill_counts(acme: World) -> None:
    acme.publish(TOKENS)
    assert 7 == before(acme)
    assert EXPECTED == preview(acme)
    assert (Decimal(0), []) == used(acme)
    assert EXPECTED == fill(acme)
    assert FILLED == used(acme)
    acme.fold()
    assert FILLED == used(acme)


def test_what_came_after_the_meter_counts_once(acme: World) -> None:
    acme.publish(TOKENS)
    acme.use("call", at("2026-09-08"), "acme", tokens=1000)
    preview(acme)
    acme.use("call", at("2026-09-09"), "acme", tokens=2000)
    acme.fold()
    fill(acme)
    assert Decimal(3015) == used(acme)[0]


def test_refused_events_are_listed(acme: World) -> None:
    acme.publish(TOKENS)
    fill(acme)
    with transaction(acme.pool, acme.organization_id) as connection:
        found = backfill.read_refusals(connection, acme.organization_id, "tokens", 1)
    assert [RefusalRow(7, "value_not_a_number", "value", "$.tokens")] == found


def test_a_type_is_unread_no_more(acme: World) -> None:
    acme.publish(TOKENS)
    fill(acme)
    with transaction(acme.pool, acme.organization_id) as connection:
        assert [("other",)] == connection.execute("select type from unread_type").fetchall()


def test_events_before_are_counted_where_another_meter_read_them(acme: World) -> None:
    acme.publish(Meter(key="calls", event_type="call", aggregation=Aggregation.COUNT))
    backfill_meter(acme.pool, acme.organization_id, "calls", 1, acme.now)
    acme.publish(TOKENS)
    assert 7 == before(acme)
    assert EXPECTED == fill(acme)


def code_of(answer: Any) -> str:
    assert isinstance(answer, BackfillRefusal), answer
    return answer.code.value


def test_refusals_have_names(acme: World) -> None:
    assert "meter_version_unknown" == code_of(fill(acme))
    acme.publish(TOKENS)
    assert "meter_version_unknown" == code_of(fill(acme, 2))
    changed = Meter(**{**fields(TOKENS), "name": "second"})
    acme.publish(changed, since=at("2026-09-04"))
    acme.publish(TOKENS, since=at("2026-09-05"))
    assert "meter_version_replaced" == code_of(fill(acme, 2))
    assert isinstance(fill(acme), Preview)
    assert "already_backfilled" == code_of(fill(acme))
    assert "already_backfilled" == code_of(preview(acme))


def fields(meter: Meter) -> dict[str, Any]:
    return {name: getattr(meter, name) for name in meter.__struct_fields__}


def test_a_backdated_version_reads_its_times_anew(acme: World) -> None:
    acme.publish(TOKENS)
    fill(acme)
    acme.publish(Meter(**{**fields(TOKENS), "value": "10 * tokens"}), since=at("2026-09-04"))
    assert FILLED == used(acme)  # until the backfill, what was read still counts
    fill(acme, 2)
    assert (Decimal(96), [Decimal(n) for n in (1, 2, 3, 40, 50)]) == used(acme)


def test_what_was_built_can_be_dropped(acme: World) -> None:
    acme.publish(TOKENS)
    key = (acme.pool, acme.organization_id, "tokens", 1)
    assert not drop_backfill(*key)
    preview(acme)
    assert drop_backfill(*key)
    assert EXPECTED == fill(acme)
    assert not drop_backfill(*key)
    assert FILLED == used(acme)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "name", ["add_backfill", "add_readings", "save_progress", "drop_voided", "switch"]
)
def test_killed_at_any_step_it_goes_on(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Killed at the first, second, ... call of a step until it comes through."""
    monkeypatch.setattr(flow, "EVENTS_A_STEP", 2)
    monkeypatch.setattr(backfill, "SEQUENCES_A_STEP", 3)
    world = new_world()
    world.customer("acme")
    for number in range(1, 10):
        world.use("call", at(f"2026-09-0{number}"), "acme", tokens=number)
    world.publish(TOKENS)
    original: Callable[..., Any] = getattr(backfill, name)
    kills = 0
    for allowed in range(1, 8):
        calls = iter(range(100))

        def killed(*args: Any, calls: Any = calls, allowed: int = allowed) -> Any:
            done = original(*args)
            if next(calls) + 1 == allowed:
                raise Killed
            return done

        with monkeypatch.context() as patch:
            patch.setattr(backfill, name, killed)
            try:
                fill(world)
                break
            except Killed:
                kills += 1
                assert (Decimal(0), []) == used(world)
    assert kills
    if code_of(fill(world)) == "already_backfilled":
        assert (Decimal(45), [Decimal(n) for n in range(1, 10)]) == used(world)


def test_progress_is_told_and_a_stop_is_resumed(
    acme: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "EVENTS_A_STEP", 2)
    acme.publish(TOKENS)
    told: list[tuple[int, int]] = []

    def stop(done: int, last: int) -> None:
        told.append((done, last))
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        fill(acme, progress=stop)
    assert [(2, 8), (4, 8)] == told
    told.clear()
    assert EXPECTED == fill(acme, progress=lambda done, last: told.append((done, last)))
    assert [(6, 8), (8, 8)] == told
    assert FILLED == used(acme)


def test_a_level_that_counts_no_more_is_not_carried_on(world: World) -> None:
    """What only the older version read, after the newer one's instant, holds no level any more."""
    world.customer("acme")
    disk = Meter(
        key="tokens",
        event_type="disk",
        aggregation=Aggregation.WEIGHTED_SUM,
        value="$.gb",
        weight_seconds=86400,
    )
    world.publish(disk)
    world.use("disk", at("2026-08-01"), "acme", gb=1)
    world.use("disk", at("2026-08-10"), "acme", gb=9)
    world.fold()
    world.publish(Meter(**{**fields(disk), "filter": "data.gb < 5"}), since=at("2026-08-05"))
    fill(world, 2)
    target = Target("acme", "tokens", at("2026-09-01"), at("2026-09-11"))
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        history = read_meters(connection, world.organization_id)["tokens"]
        (found,) = read_quantities(connection, world.organization_id, history, [target])
    assert Decimal(10) == found.quantity
