"""Publishing: every change is a version from its instant, and the same body again is none."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from farebox_world import World, at, days
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.catalog.customer import Partner
from farebox.catalog.meter import Aggregation, Alias, Meter
from farebox.catalog.plan import Feature, Plan, Rate, RateCard
from farebox.catalog.price import PerUnit
from farebox.flows.load_book import load_book, meter_versions
from farebox.flows.publish import publish
from farebox.period.instant import BEGINNING, END
from farebox.postgres import catalog, stream
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.session import transaction

METER = Meter(key="calls", event_type="call", aggregation=Aggregation.SUM, value="units")
COUNT = Meter(key="calls", event_type="call", aggregation=Aggregation.COUNT)


def card(price: str, **fields: Any) -> RateCard:
    rate = Rate(meter="calls", price=PerUnit(unit=Decimal(price)))
    return RateCard(key="card", currency="EUR", rates=(rate,), **fields)


def revision(world: World) -> int:
    with transaction(world.pool, world.organization_id) as connection:
        return stream.read_head(connection, world.organization_id).catalog_revision


def kept(world: World, kind: Kind) -> list[Version]:
    with transaction(world.pool, world.organization_id) as connection:
        return catalog.versions(connection, world.organization_id, kind)


def test_the_same_body_again_changes_nothing(world: World) -> None:
    everything = (
        METER,
        Feature(key="f"),
        Alias(dimension="model", alias="a", canonical="b"),
        card("1"),
        Plan(key="p", currency="EUR"),
        Partner(key="r"),
    )
    first = world.publish(*everything)
    world.now += days(1)
    again = world.publish(*everything)
    assert [True] * 6 == [one.made for one in first]
    assert [False] * 6 == [one.made for one in again]
    assert [one.version for one in first] == [one.version for one in again]
    assert 1 == revision(world)
    assert [BEGINNING] * 6 == [one.version.effective_from for one in first]
    assert ["model:a"] == [one.key for one in kept(world, Kind.ALIAS)]


def test_a_body_that_comes_back_is_a_new_version(world: World) -> None:
    for number, price in enumerate(("1", "2", "1"), 1):
        world.now += days(1)
        (published,) = world.publish(card(price))
        assert (True, number) == (published.made, published.version.version)
    assert [BEGINNING, at("2026-10-04 12:00"), at("2026-10-05 12:00")] == [
        one.effective_from for one in kept(world, Kind.RATE_CARD)
    ]


def test_a_rate_card_names_its_own_instant(world: World) -> None:
    instant = at("2026-01-01")
    world.publish(card("1", effective_from=instant))
    world.publish(card("2", effective_from=at("2025-01-01")), since=at("2030-01-01"))
    world.publish(card("3"), since=at("2031-01-01"))
    assert [instant, at("2025-01-01"), at("2031-01-01")] == [
        one.effective_from for one in kept(world, Kind.RATE_CARD)
    ]


def test_only_meters_make_events_be_read_again(world: World) -> None:
    world.publish(card("1"), Plan(key="p", currency="EUR"), Feature(key="f"))
    assert 0 == revision(world)
    world.publish(METER)
    assert 1 == revision(world)
    world.publish(METER, COUNT)
    assert 2 == revision(world)


def test_a_version_knows_the_last_event_before_it(world: World) -> None:
    world.publish(METER)
    for number in range(3):
        world.use("call", at("2026-09-05"), "acme", units=number)
    (published,) = world.publish(COUNT)
    assert 3 == published.version.from_sequence


def test_all_or_none_are_published(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_version = catalog.add_version

    def fail_on_plan(connection: Any, organization_id: Any, version: Version) -> None:
        if version.kind is Kind.PLAN:
            raise psycopg.DataError("broken")
        add_version(connection, organization_id, version)

    monkeypatch.setattr(catalog, "add_version", fail_on_plan)
    with pytest.raises(psycopg.DataError):
        world.publish(METER, Plan(key="p", currency="EUR"))
    assert ([], 0) == (kept(world, Kind.METER), revision(world))


def test_publishers_side_by_side_number_their_versions_without_gap(world: World) -> None:
    barrier = threading.Barrier(6)

    def run(number: int) -> bool:
        barrier.wait()
        price = card(str(number // 2))  # each body by two publishers
        return publish(world.pool, world.organization_id, [price], world.now)[0].made

    with ThreadPoolExecutor(6) as threads:
        made = sum(threads.map(run, range(6)))
    assert 3 <= made <= 6
    assert list(range(1, made + 1)) == [one.version for one in kept(world, Kind.RATE_CARD)]


def test_an_event_is_read_by_the_version_of_its_time(world: World) -> None:
    world.publish(METER)
    world.publish(COUNT, since=at("2026-09-10"))
    just_before = at("2026-09-09 23:59:59.999999")
    for time in (just_before, at("2026-09-10")):
        world.use("call", time, "acme", units=5)
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute(
            "select s.meter_version, e.quantities[1] from event e"
            " join series s on s.series_id = e.series[1] order by e.sequence"
        ).fetchall()
    assert [(1, 5), (2, 1)] == found


def version(number: int, day: int) -> Version:
    instant = at("2026-09-01") + days(day)
    text = '{"key":"calls","event_type":"call","aggregation":"count"}'
    return Version(Kind.METER, "calls", number, text, "", instant, instant, 0)


@given(starts=st.lists(st.integers(0, 8), min_size=1, max_size=6), asked=st.integers(-1, 10))
def test_at_every_instant_the_newest_version_in_force_reads(
    starts: Sequence[int], asked: int
) -> None:
    """Versions may start in any order; of those that began, the highest number counts."""
    versions = [version(number, day) for number, day in enumerate(starts, 1)]
    instant = at("2026-09-01") + days(asked)
    reading = [
        one.version
        for one in meter_versions(versions)
        if one.effective_from <= instant < one.effective_to
    ]
    begun = [number for number, day in enumerate(starts, 1) if day <= asked]
    assert begun[-1:] == reading


def test_versions_of_other_meters_do_not_end_this_one(world: World) -> None:
    other = Meter(key="other", event_type="call", aggregation=Aggregation.COUNT)
    world.publish(METER)
    world.publish(other, since=at("2026-09-10"))
    found = meter_versions(kept(world, Kind.METER))
    assert [("calls", BEGINNING, END), ("other", at("2026-09-10"), END)] == [
        (one.meter.key, one.effective_from, one.effective_to) for one in found
    ]


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_in_a_definition_comes_back(world: World, text: str) -> None:
    meter = Meter(
        key="calls", event_type="call", aggregation=Aggregation.COUNT, metadata={text: text}
    )
    (published,) = world.publish(meter)
    found = meter_versions(kept(world, Kind.METER))
    assert meter == found[-1].meter
    assert published.version == kept(world, Kind.METER)[-1]
    assert revision(world) == load_book(world.pool, world.organization_id).revision
