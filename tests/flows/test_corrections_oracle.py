"""Usage after backfills and voids equals the oracle's of what would have been, had all been early.

The histories, the questions and the oracle are those of `test_usage_oracle.py`; here the meter
comes after some of its events, its changes are backdated, and some batches are undone.
"""

import importlib.util
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
from farebox_world import World, new_id
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from farebox.catalog.meter import Aggregation, Meter
from farebox.flows.backfill_meter import Preview, backfill_meter, preview_backfill
from farebox.flows.undo_import import Undone, undo_import
from farebox.postgres import imports, stream
from farebox.postgres.imports import ImportRow
from farebox.postgres.session import transaction

# Tests are no package, so the module is loaded by its place and known by a name of its own.
_PATH = Path(__file__).with_name("test_usage_oracle.py")
_spec = importlib.util.spec_from_file_location("farebox_usage_oracle", _PATH)
assert _spec is not None
assert _spec.loader is not None
if "farebox_usage_oracle" not in sys.modules:
    sys.modules["farebox_usage_oracle"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_usage_oracle"])

from farebox_usage_oracle import START, Case, as_event, ask, cases, work_out  # noqa: E402


class Lateness(msgspec.Struct, frozen=True):
    """What comes late in a history of batches, each known by its position.

    published: after how many batches each version of the meter is; backfilled: whether that
    waits until all batches are in; undone: which batches, and after how many.
    """

    published: tuple[int, ...]
    wait: bool
    previewed: bool
    undone: dict[int, int]


@st.composite
def late_cases(draw: st.DrawFn) -> tuple[Case, Lateness]:
    case = draw(cases().filter(lambda one: any(one.batches)))
    count = len(case.batches)
    published = sorted(draw(st.integers(0, count)) for _ in case.versions)
    undone = draw(st.sets(st.integers(0, count - 1)))
    return case, Lateness(
        tuple(published),
        draw(st.booleans()),
        draw(st.booleans()),
        {batch: draw(st.integers(batch + 1, count)) for batch in undone},
    )


class History:
    """Plays a case with its lateness on a world."""

    def __init__(self, world: World, case: Case, late: Lateness) -> None:
        self.world, self.case, self.late = world, case, late
        self.imports: dict[int, UUID] = {}

    def play(self) -> None:
        for key in ("A", "B"):
            self.world.customer_only(key)
        for one in self.case.mapped:
            if one.start < one.end:
                self.world.map(one.subject, one.customer, one.start, one.end)
        for position in range(len(self.case.batches) + 1):
            self.publish_due(position)
            self.undo_due(position)
            if position < len(self.case.batches):
                self.send(position)
        last = len(self.case.versions)
        if self.late.wait:
            self.backfill(last)

    def publish_due(self, position: int) -> None:
        for number, due in enumerate(self.late.published):
            if due == position:
                since = self.case.changes[number - 1] if number else None
                self.world.publish(self.case.versions[number], since=since)
                # A version that is to be replaced must be backfilled before it is.
                if not (self.late.wait and number + 1 == len(self.case.versions)):
                    self.backfill(number + 1)

    def backfill(self, version: int) -> None:
        pool, organization_id, now = self.world.pool, self.world.organization_id, self.world.now
        if self.late.previewed:
            found = preview_backfill(pool, organization_id, "m", version, now)
            assert isinstance(found, Preview), found
        done = backfill_meter(pool, organization_id, "m", version, now)
        assert isinstance(done, Preview) or done.code == "meter_version_replaced", done

    def undo_due(self, position: int) -> None:
        for batch, due in self.late.undone.items():
            if due == position and batch in self.imports:
                undone = undo_import(
                    self.world.pool,
                    self.world.organization_id,
                    self.imports[batch],
                    self.world.now,
                )
                assert Undone(len(self.case.batches[batch])) == undone

    def send(self, batch: int) -> None:
        events = [as_event(self.world, used) for used in self.case.batches[batch]]
        if not events:
            return
        self.world.send(*events)
        self.imports[batch] = record(self.world, len(events))
        share = self.case.folds[batch]
        with transaction(self.world.pool, self.world.organization_id) as connection:
            head = stream.read_head(connection, self.world.organization_id).last_sequence
        self.world.fold(up_to=int(head * share))


def record(world: World, count: int) -> UUID:
    """Note the last `count` events of the stream as an import."""
    import_id = new_id()
    row = ImportRow(
        import_id=import_id,
        name=str(import_id),
        file_digest="",
        mapping_digest="",
        status="finished",
        last_row=count,
        accepted=count,
        duplicates=0,
        conflicts=0,
        rejected=0,
        started_at=world.now,
        updated_at=world.now,
    )
    with transaction(world.pool, world.organization_id) as connection:
        imports.add_import(connection, world.organization_id, row)
        head = stream.read_head(connection, world.organization_id).last_sequence
        imports.add_range(connection, world.organization_id, import_id, head - count + 1, head)
    return import_id


_READINGS = """
  select r.series_id, date_bin('15 minutes', r.time, '2000-01-01 00:00:00+00') as bucket, r.value,
         r.sequence, r.time
  from (
    select e.sequence, e.time, u.series_id, u.value
    from event e cross join lateral unnest(e.{series}, e.{values}) as u(series_id, value)
    union all
    select sequence, time, series_id, {column} from backfill_reading where kind = '{kind}'
  ) r where r.sequence not in (select sequence from void)"""
_TOTALS = _READINGS.format(series="series", values="quantities", column="quantity", kind="totals")
_VALUES = _READINGS.format(
    series="value_series", values="value_texts", column="text_value", kind="values"
)
_POINTS = _READINGS.format(
    series="point_series", values="point_quantities", column="quantity", kind="points"
)
_DIFFERENCES = (
    f"""select series_id, bucket, count(*), sum(value), min(value), max(value)
        from ({_TOTALS}) r group by 1, 2
        {{}} select series_id, bucket, count, total, minimum, maximum from rollup""",
    f"""select series_id, bucket, value, count(*) from ({_VALUES}) r group by 1, 2, 3
        {{}} select series_id, bucket, value, count from value_count""",
    f"""select series_id, bucket, value, sequence, time from ({_POINTS}) r
        {{}} select series_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00'), value,
                    sequence, time from point""",
)


def wrong_rows(world: World) -> list[object]:
    """Return rows of rollups that are not what the remaining readings come to, or are missing."""
    with transaction(world.pool, world.organization_id) as connection:
        return [
            row
            for statement in _DIFFERENCES
            for text in (
                statement.format("except all"),
                " except all ".join(reversed(statement.split("{}"))),
            )
            for row in connection.execute(text).fetchall()
        ]


def without_undone(case: Case, late: Lateness) -> Case:
    kept = [batch for number, batch in enumerate(case.batches) if number not in late.undone]
    return msgspec.structs.replace(case, batches=tuple(kept))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=late_cases())
def test_late_meters_and_undone_imports_answer_as_the_oracle(
    new_world: Callable[[], World], drawn: tuple[Case, Lateness]
) -> None:
    case, late = drawn
    history = History(new_world(), case, late)
    history.play()
    expected = work_out(without_undone(case, late))
    note(f"expected {expected}")
    assert expected == ask(history.world, case)
    history.world.fold()
    assert expected == ask(history.world, case)


METERS = (
    Meter(key="sum", aggregation=Aggregation.SUM, event_type="use", value="value", per_event=True),
    Meter(key="distinct", aggregation=Aggregation.UNIQUE_COUNT, event_type="use", value="value"),
    Meter(key="last", aggregation=Aggregation.LATEST, event_type="use", value="value"),
)
Few = tuple[int, str, int]
FEW = st.tuples(st.sampled_from([0, 14, 15, 29]), st.sampled_from("ab"), st.integers(-3, 3))
BATCHES = 4


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    batches=st.lists(st.lists(FEW, min_size=1, max_size=5), min_size=BATCHES, max_size=BATCHES),
    published=st.tuples(*(st.integers(0, BATCHES) for _ in METERS)),
    undone=st.lists(st.booleans(), min_size=BATCHES, max_size=BATCHES),
    early=st.booleans(),
)
def test_rollups_are_what_remains(
    new_world: Callable[[], World],
    batches: list[list[Few]],
    published: tuple[int, ...],
    undone: list[bool],
    early: bool,
) -> None:
    """Row by row: counts, sums, extremes, distinct values and points, however they came there."""
    world = new_world()
    brought = []
    for position in range(BATCHES + 1):
        for meter, due in zip(METERS, published, strict=True):
            if due == position:
                world.publish(meter)
                if early:
                    backfill_meter(world.pool, world.organization_id, meter.key, 1, world.now)
        if position < BATCHES:
            world.send(
                *(
                    world.event("use", START + timedelta(minutes=minute), subject, value=value)
                    for minute, subject, value in batches[position]
                )
            )
            brought.append(record(world, len(batches[position])))
            world.fold()
    for import_id, gone in zip(brought, undone, strict=True):
        if gone:
            undo_import(world.pool, world.organization_id, import_id, world.now)
    if not early:
        for meter in METERS:
            backfill_meter(world.pool, world.organization_id, meter.key, 1, world.now)
    assert [] == wrong_rows(world)
