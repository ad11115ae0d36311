"""What SQL says was used equals what a person would work out from the list of events.

The oracle keeps every reading in a list and answers a question by going through all of it: who the
subject counted for at that instant, which window it falls in, which meter version read it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from farebox_world import World
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from msgspec import Struct

from farebox.catalog.meter import Aggregation, Meter
from farebox.flows.read_usage import read_meters, read_quantities
from farebox.metering.fold import Point, fold
from farebox.metering.quantity import Target
from farebox.metering.reading import meter_dimensions
from farebox.metering.window import WindowSize, windows
from farebox.period.instant import BEGINNING, END
from farebox.postgres.session import transaction
from farebox.postgres.usage import Range

# New York's clock goes back on 1 November, Lord Howe's went forward by half an hour on 4 October.
START = datetime(2026, 10, 31, tzinfo=UTC)
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
ORDERED = (Aggregation.WEIGHTED_SUM, Aggregation.INCREASE, Aggregation.LATEST)
SUBJECTS = ("u1", "u2", "u3")


class Used(Struct, frozen=True):
    """One event: what it says, in the order in which it came."""

    time: datetime
    subject: str | None
    payer: str
    model: str
    region: str
    value: Decimal


class Mapped(Struct, frozen=True):
    """For whom a subject used, and when."""

    subject: str
    customer: str
    start: datetime
    end: datetime


class Case(Struct, frozen=True, kw_only=True):
    """A random history and a question about it."""

    versions: tuple[Meter, ...]
    changes: tuple[datetime, ...]
    mapped: tuple[Mapped, ...]
    batches: tuple[tuple[Used, ...], ...]
    folds: tuple[Fraction, ...]
    start: datetime
    end: datetime
    window: WindowSize | None
    timezone: str
    group_by: tuple[str, ...]
    by_subject: bool
    subjects: tuple[str, ...] | None
    raw: bool


Answer = dict[tuple[str, int, str, tuple[str, ...]], tuple[Decimal | None, int]]


def instants(hours: int = 60) -> st.SearchStrategy[datetime]:
    """Instants on and beside the edges of buckets, and anywhere."""
    edge = st.integers(0, hours * 4).map(lambda n: START + n * timedelta(minutes=15))
    beside = st.tuples(edge, st.sampled_from([-1, 1])).map(
        lambda pair: pair[0] + timedelta(microseconds=pair[1])
    )
    free = st.integers(0, hours * 3600_000_000).map(lambda n: START + timedelta(microseconds=n))
    return st.one_of(edge, beside, free)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    versions = draw(meters())
    mapped = [one for subject in SUBJECTS for one in draw(mappings(subject))]
    batches = draw(st.lists(st.lists(uses(), max_size=9), max_size=4))
    start, end = sorted((draw(instants()), draw(instants())))
    window = draw(st.sampled_from([None, *WindowSize]))
    if window in (WindowSize.MINUTE, WindowSize.FIVE_MINUTES):
        end = min(end, start + timedelta(hours=3))
    if start == end:
        end += timedelta(microseconds=1)
    names = sorted({name for meter in versions for name in meter_dimensions(meter)})
    return Case(
        versions=versions,
        changes=tuple(sorted(draw(instants()) for _ in versions[1:])),
        mapped=tuple(mapped),
        batches=tuple(tuple(batch) for batch in batches),
        folds=tuple(Fraction(draw(st.integers(0, 4)), 4) for _ in batches),
        start=start,
        end=end,
        window=window,
        timezone=draw(st.sampled_from(ZONES)),
        group_by=tuple(name for name in names if draw(st.booleans())),
        by_subject=draw(st.booleans()),
        subjects=draw(st.sampled_from([None, ("u1",), ("u2", "u3")])),
        raw=draw(st.booleans()),
    )


@st.composite
def meters(draw: st.DrawFn) -> tuple[Meter, ...]:
    aggregation = draw(st.sampled_from(list(Aggregation)))
    payer = draw(st.booleans())

    def version(dimensions: Mapping[str, str]) -> Meter:
        return Meter(
            key="m",
            event_type="use",
            aggregation=aggregation,
            value=None if aggregation is Aggregation.COUNT else "$.value",
            dimensions=dimensions,
            customer="$.payer" if payer else None,
            counter="model" if aggregation is Aggregation.INCREASE else None,
            percentile=Decimal(60) if aggregation is Aggregation.PERCENTILE else None,
            weight_seconds=1,
        )

    model, region = {"model": "$.model"}, {"region": "$.region"}
    choices = [(model,), (model, {**region, **model}), ({**model, **region}, {**region, **model})]
    if aggregation is not Aggregation.INCREASE:
        choices += [({},), ({**region, **model}, {}, model)]
    found = tuple(version(dimensions) for dimensions in draw(st.sampled_from(choices)))
    # Published twice with the same body a meter has one version, so each has a name of its own.
    return tuple(
        Meter(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "name": f"v{n}"})
        for n, one in enumerate(found)
    )


@st.composite
def mappings(draw: st.DrawFn, subject: str) -> list[Mapped]:
    match draw(st.integers(0, 3)):
        case 0:
            return []
        case 1:
            return [Mapped(subject, "A", BEGINNING, END)]
        case 2:
            moved = draw(instants())
            return [Mapped(subject, "A", BEGINNING, moved), Mapped(subject, "B", moved, END)]
        case _:
            first, second = sorted((draw(instants()), draw(instants())))
            second += timedelta(microseconds=1)
            return [
                Mapped(subject, "A", BEGINNING, first),
                Mapped(subject, "B", first, second),
                Mapped(subject, "A", second, END),
            ]


def uses() -> st.SearchStrategy[Used]:
    return st.builds(
        Used,
        time=instants(),
        subject=st.sampled_from([*SUBJECTS, None]),
        payer=st.sampled_from(["", "A", "B"]),
        model=st.sampled_from(["a", "b", ""]),
        region=st.sampled_from(["eu", "us"]),
        value=st.sampled_from([Decimal(n) for n in ("0", "1", "2", "2.5", "-1", "7.000001")]),
    )


# What SQL says ----------------------------------------------------------------------------------


def ask(world: World, case: Case) -> Answer:
    spans = spans_of(case)
    targets = [Target(customer, "m", case.start, case.end) for customer in ("A", "B")]
    raw = case.raw or case.window in (WindowSize.MINUTE, WindowSize.FIVE_MINUTES)
    cut = Range(by_subject=case.by_subject, subjects=case.subjects, raw=raw)
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        history = read_meters(connection, world.organization_id)["m"]
        found = read_quantities(
            connection,
            world.organization_id,
            history,
            targets,
            dimensions=case.group_by,
            windows=None if case.window is None else spans,
            cut=cut,
        )
    return {
        (
            targets[one.group.target].customer_key,
            one.group.window,
            one.group.subject,
            one.group.dimensions,
        ): (one.quantity, one.events)
        for one in found
        if one.events or one.quantity
    }


def spans_of(case: Case) -> list[tuple[datetime, datetime]]:
    if case.window is None:
        return [(case.start, case.end)]
    return windows(case.start, case.end, case.window, case.timezone)


# What a person would work out -------------------------------------------------------------------


class Read(Struct, frozen=True):
    """A reading: the event, its place in the stream, and the version that read it."""

    used: Used
    sequence: int
    version: int
    dimensions: Mapping[str, str]

    @property
    def user(self) -> str:
        return self.used.subject or ""


def work_out(case: Case) -> Answer:
    readings = read_all(case)
    answer: Answer = {}
    for customer in ("A", "B"):
        for window, span in enumerate(spans_of(case)):
            for key, found in groups_of(case, readings).items():
                quantity, events = quantity_of(case, found, customer, span)
                if events or quantity:
                    answer[customer, window, *key] = quantity, events
    return answer


def read_all(case: Case) -> list[Read]:
    readings = []
    events = [used for batch in case.batches for used in batch]
    for sequence, used in enumerate(events, 1):
        version = sum(change <= used.time for change in case.changes)
        said = {"model": used.model, "region": used.region}
        names = meter_dimensions(case.versions[version])
        readings.append(Read(used, sequence, version, {name: said[name] for name in names}))
    return readings


def groups_of(
    case: Case, readings: Sequence[Read]
) -> dict[tuple[str, tuple[str, ...]], list[Read]]:
    groups: dict[tuple[str, tuple[str, ...]], list[Read]] = defaultdict(list)
    for reading in readings:
        if case.subjects is None or reading.user in case.subjects:
            values = tuple(reading.dimensions.get(name, "") for name in case.group_by)
            groups[reading.user if case.by_subject else "", values].append(reading)
    return groups


def counts_for(case: Case, reading: Read, customer: str, time: datetime) -> bool:
    """Whether what this reading says counts for the customer at an instant."""
    if case.versions[0].customer is not None and reading.used.payer:
        return reading.used.payer == customer
    return any(
        one.subject == reading.user and one.customer == customer and one.start <= time < one.end
        for one in case.mapped
    )


def quantity_of(
    case: Case, readings: Sequence[Read], customer: str, span: tuple[datetime, datetime]
) -> tuple[Decimal | None, int]:
    start, end = span
    meter = case.versions[0]
    inside = [
        one
        for one in readings
        if start <= one.used.time < end and counts_for(case, one, customer, one.used.time)
    ]
    if meter.aggregation not in ORDERED:
        points = [Point(one.used.time, one.sequence, value_of(meter, one)) for one in inside]
        return (fold(meter, points, start, end) if points else None), len(points)
    chains: dict[Any, list[Read]] = defaultdict(list)
    for one in sorted(readings, key=lambda one: (one.used.time, one.sequence)):
        payer = one.used.payer if meter.customer is not None else ""
        said = frozenset((name, value) for name, value in one.dimensions.items() if value)
        chains[one.user, payer, said].append(one)
    parts = [ordered(case, chain, customer, span) for chain in chains.values()]
    numbers = [part for part in parts if part is not None]
    return (sum(numbers, Decimal(0)) if numbers else None), len(inside)


def value_of(meter: Meter, reading: Read) -> Decimal | str:
    match meter.aggregation:
        case Aggregation.COUNT:
            return Decimal(1)
        case Aggregation.UNIQUE_COUNT:
            return str(reading.used.value)
        case _:
            return reading.used.value


def ordered(
    case: Case, chain: Sequence[Read], customer: str, span: tuple[datetime, datetime]
) -> Decimal | None:
    """One user's readings of one set of dimension values, in the order of time."""
    start, end = span
    match case.versions[0].aggregation:
        case Aggregation.LATEST:
            inside = [
                one.used.value
                for one in chain
                if start <= one.used.time < end and counts_for(case, one, customer, one.used.time)
            ]
            return inside[-1] if inside else None
        case Aggregation.INCREASE:
            total = Decimal(0)
            for before, one in pairwise(chain):
                time, value = one.used.time, one.used.value
                if start <= time < end and counts_for(case, one, customer, time):
                    rise = value - before.used.value
                    total += rise if rise >= 0 else max(value, Decimal(0))
            return total
        case _:
            return level_sum(case, chain, customer, span)


def level_sum(
    case: Case, chain: Sequence[Read], customer: str, span: tuple[datetime, datetime]
) -> Decimal:
    """Go from one instant at which anything may change to the next and add up the rectangles."""
    start, end = span
    edges = {start, end, *case.changes}
    edges |= {one.used.time for one in chain}
    edges |= {edge for one in case.mapped for edge in (one.start, one.end)}
    inside = sorted(edge for edge in edges if start <= edge <= end)
    area = Fraction(0)
    for left, right in pairwise(inside):
        known = [one for one in chain if one.used.time <= left]
        if not known or not counts_for(case, known[-1], customer, left):
            continue
        if level_goes_on(case, known[-1], left):
            width = (right - left) // timedelta(microseconds=1)
            area += Fraction(known[-1].used.value) * width
    quotient = area / 1_000_000
    return Decimal(quotient.numerator) / Decimal(quotient.denominator)


def level_goes_on(case: Case, reading: Read, at: datetime) -> bool:
    """A level ends with its meter version, unless the next one has the same dimensions."""
    names = set(meter_dimensions(case.versions[reading.version]))
    passed = [change for change in case.changes if reading.used.time < change <= at]
    followed = [case.versions[sum(other <= one for other in case.changes)] for one in passed]
    return all(set(meter_dimensions(meter)) == names for meter in followed)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=cases())
def test_sql_answers_as_the_oracle(new_world: Callable[[], World], case: Case) -> None:
    world = new_world()
    world.publish(case.versions[0])
    for version, change in zip(case.versions[1:], case.changes, strict=True):
        world.publish(version, since=change)
    for key in ("A", "B"):
        world.customer_only(key)
    for one in case.mapped:
        if one.start < one.end:
            world.map(one.subject, one.customer, one.start, one.end)
    sent = 0
    for batch, share in zip(case.batches, case.folds, strict=True):
        events = [as_event(world, used) for used in batch]
        if events:
            world.send(*events)
            # Whatever is sent twice counts once.
            assert ["duplicate"] == world.send(events[0])
        sent += len(batch)
        world.fold(up_to=int(sent * share))
    expected = work_out(case)
    note(f"expected {expected}")
    assert expected == ask(world, case)


def as_event(world: World, used: Used) -> dict[str, Any]:
    data = {"model": used.model, "region": used.region, "value": str(used.value)}
    return world.event("use", used.time, used.subject, payer=used.payer, **data)
