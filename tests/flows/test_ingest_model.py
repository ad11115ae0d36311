"""What becomes of any mix of events is what a list and a dictionary say it is."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from farebox_world import World, at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.postgres.session import transaction

NOON = at("2026-09-05 12:00")
METERS = (
    Meter(
        key="calls",
        event_type="call",
        aggregation=Aggregation.SUM,
        value="units",
        dimensions={"model": "$.model"},
    ),
    Meter(
        key="models",
        event_type="call",
        aggregation=Aggregation.UNIQUE_COUNT,
        value="$.model",
        filter="data.units > 1",
    ),
    Meter(key="levels", event_type="level", aggregation=Aggregation.LATEST, value="units"),
)
ACCEPTED, DUPLICATE, CONFLICT = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT


class Sent(Struct, frozen=True):
    """An event as the model knows it: one name, and all that it says."""

    identifier: int
    kind: str
    subject: str | None
    model: str
    units: int
    hours: int

    def event(self) -> Event:
        return Event(
            id=str(self.identifier),
            source="test",
            type=self.kind,
            subject=self.subject,
            time=NOON + timedelta(hours=self.hours),
            data={"units": self.units, "model": self.model},
        )

    def series(self) -> set[tuple[str, str, tuple[str, ...]]]:
        """Return the series into which the meters read it: meter, subject, dimensions."""
        subject = self.subject or ""
        if self.kind == "level":
            return {("levels", subject, ())}
        if self.kind != "call":
            return set()
        calls = {("calls", subject, (self.model,))}
        return calls | ({("models", subject, ())} if self.units > 1 else set())


class Model:
    """The stream as a list."""

    def __init__(self) -> None:
        self.stream: list[Sent] = []
        self.by_name: dict[int, Sent] = {}
        self.unread_at: dict[str, int] = {}

    def take(self, call: Sequence[Sent]) -> list[Outcome]:
        outcomes = [self._take(one) for one in call]
        for one, outcome in zip(call, outcomes, strict=True):
            if outcome is ACCEPTED and one.kind in ("other", "third"):
                self.unread_at[one.kind] = len(self.stream)
        return outcomes

    def _take(self, one: Sent) -> Outcome:
        stored = self.by_name.get(one.identifier)
        if stored is not None:
            return DUPLICATE if stored == one else CONFLICT
        self.by_name[one.identifier] = one
        self.stream.append(one)
        return ACCEPTED

    def series(self) -> set[tuple[str, str, tuple[str, ...]]]:
        return set().union(*(one.series() for one in self.stream))

    def unread(self) -> list[tuple[Any, ...]]:
        found = []
        for kind, last_sequence in sorted(self.unread_at.items()):
            times = [NOON + timedelta(hours=one.hours) for one in self.stream if one.kind == kind]
            found.append((kind, len(times), min(times), max(times), last_sequence))
        return found


def check(world: World, model: Model) -> None:
    """Compare everything that is stored with the model."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query).fetchall()

    with transaction(world.pool, world.organization_id) as connection:
        events = rows(
            "select e.sequence, k.sequence, e.id, e.type, e.subject, e.time,"
            " (e.payload->'data'->>'units')::int, e.payload->'data'->>'model',"
            " cardinality(e.series), cardinality(e.value_series), cardinality(e.point_series)"
            " from event e full join event_key k using (organization_id, sequence) order by 1"
        )
        series = rows("select meter_key, subject, dimensions from series")
        unread = rows(
            "select type, events, first_time, last_time, last_sequence"
            " from unread_type order by type"
        )
        head = rows("select last_sequence from stream_head")
    assert [
        (
            *(place, place, str(one.identifier), one.kind, one.subject),
            *(NOON + timedelta(hours=one.hours), one.units, one.model),
            1 if one.kind == "call" else None,
            1 if one.kind == "call" and one.units > 1 else None,
            1 if one.kind == "level" else None,
        )
        for place, one in enumerate(model.stream, 1)
    ] == events
    assert model.series() == {(meter, subject, tuple(texts)) for meter, subject, texts in series}
    assert len(model.series()) == len(series)
    assert model.unread() == unread
    assert [(len(model.stream),)] == head


SENT = st.builds(
    Sent,
    identifier=st.integers(0, 7),
    kind=st.sampled_from(["call", "call", "call", "level", "other", "third"]),
    subject=st.sampled_from([None, "acme"]),
    model=st.sampled_from(["a", "b", ""]),
    units=st.sampled_from([1, 2]),
    hours=st.sampled_from([0, 0, -1, 5]),
)
CALLS = st.lists(
    # Few different events, so that the same one often comes again.
    st.lists(SENT, min_size=1, max_size=6).flatmap(
        lambda some: st.lists(st.sampled_from(some), max_size=10)
    ),
    max_size=6,
)


@given(calls=CALLS, expected=st.lists(st.booleans(), min_size=6, max_size=6), data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_mix_of_events_is_told_and_stored_as_the_model_says(
    new_world: Callable[[], World],
    calls: list[list[Sent]],
    expected: list[bool],
    data: st.DataObject,
) -> None:
    """In two worlds: in one, duplicates are looked for exactly where in the other they are not."""
    model, worlds = Model(), (new_world(), new_world())
    known: list[set[str]] = [set(), set()]
    for world in worlds:
        world.publish(*METERS)
    for call, may_know in zip(calls, expected, strict=False):
        before, outcomes = len(model.stream), model.take(call)
        forgets = data.draw(st.booleans())
        for world, memory, looks in zip(worlds, known, (may_know, not may_know), strict=True):
            if forgets:
                memory.clear()
            events, revision = world.prepare(*[one.event() for one in call])
            fresh = {
                one.series_id
                for event, outcome in zip(events, outcomes, strict=True)
                for one in event.series
                if outcome is ACCEPTED and one.series_id not in memory
            }
            ingested = world.ingest(events, revision, known=memory, may_know=looks)
            assert outcomes == ingested.outcomes
            assert (before + 1, outcomes.count(ACCEPTED)) == (
                ingested.first_sequence,
                ingested.appended,
            )
            assert sorted(fresh) == ingested.series
    for world in worlds:
        check(world, model)


@pytest.mark.parametrize(
    ("units", "expected"), [((2, 2), [CONFLICT, CONFLICT]), ((2, 1), [CONFLICT, DUPLICATE])]
)
def test_what_is_repeated_in_a_call_is_compared_with_what_is_stored(
    world: World, units: tuple[int, int], expected: list[Outcome]
) -> None:
    """A stored event comes twice in one call, first with other content."""

    def sent(units: int) -> Event:
        return Sent(1, "call", "acme", "a", units, 0).event()

    world.publish(*METERS)
    world.ingest(*world.prepare(sent(1)))
    events, revision = world.prepare(*map(sent, units))
    assert expected == world.ingest(events, revision).outcomes


@pytest.mark.parametrize("may_know", [True, False])
@pytest.mark.parametrize(
    "is_known",
    [
        lambda n: n == 0,
        lambda n: n == 1999,
        lambda n: n != 0,
        lambda n: n != 1999,
        lambda n: n % 2 == 0,
        lambda n: n % 2 == 1,
        lambda n: 500 <= n < 1500,
        lambda n: not 500 <= n < 1500,
        lambda n: n * 7919 % 2003 < 1900,
    ],
)
def test_many_known_keys_among_many_leave_no_gap(
    world: World, is_known: Callable[[int], bool], may_know: bool
) -> None:
    """Known ones in front, at the end, in turn, in blocks; every third says something else."""
    model = Model()
    world.publish(*METERS)
    numbers = range(2000)
    known = [Sent(n, "call", "acme", "a", 1, 0) for n in numbers if is_known(n)]
    assert [ACCEPTED] * len(known) == model.take(known)
    world.ingest(*world.prepare(*[one.event() for one in known]), may_know=may_know)
    call = [
        Sent(n, "call" if n % 5 else "other", "acme", f"m{n % 40}", 2, n % 24)
        if not is_known(n) or n % 3 == 0
        else Sent(n, "call", "acme", "a", 1, 0)
        for n in numbers
    ]
    outcomes = model.take(call)
    events, revision = world.prepare(*[one.event() for one in call])
    assert outcomes == world.ingest(events, revision, may_know=may_know).outcomes
    check(world, model)
