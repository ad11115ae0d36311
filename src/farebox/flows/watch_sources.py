"""Whether all arrived: gaps in sources' own numbers, their control totals, and their silence."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.catalog.meter import Aggregation
from farebox.flows.read_usage import read_meters
from farebox.postgres import source, stream
from farebox.postgres.session import Pool, transaction
from farebox.postgres.source import ControlRow, SourceRow

EVENTS_A_STEP = 100_000


class SourceCode(StrEnum):
    """What gives reason to doubt that all arrived, in order of precedence."""

    SEQUENCE_GAP = "sequence_gap"
    CONTROL_MISMATCH = "control_mismatch"
    SOURCE_SILENT = "source_silent"


class ControlCode(StrEnum):
    """Why a control is not kept, in order of precedence."""

    RANGE_EMPTY = "range_empty"
    UNKNOWN_METER = "unknown_meter"
    METER_NOT_ADDITIVE = "meter_not_additive"


class ControlRefusal(Struct, frozen=True):
    """A refusal with the field at fault."""

    code: ControlCode
    pointer: str
    message: str


class ControlResult(Struct, frozen=True):
    """A control beside what was received; `agrees` when all of it is equal."""

    control: ControlRow
    events: int
    totals: Mapping[str, Decimal]
    agrees: bool


class SourceState(Struct, frozen=True):
    """What was seen of a source, and whether it has been silent for longer than it may."""

    row: SourceRow
    silent: bool


class SourceWarning(Struct, frozen=True):
    """One reason to look before billing."""

    code: SourceCode
    source: str
    message: str


class Sources(Struct, frozen=True):
    """A page of sources, as the events up to `sequence` show them; `head` is the stream's end."""

    items: tuple[SourceState, ...]
    sequence: int
    head: int


def tally_sources(pool: Pool, organization_id: UUID, *, steps: int) -> int:
    """Bring what was seen of sources up to the stream and return how many events that took.

    At most `steps` steps, so that the first look at a long history ends in time; the next look
    goes on. Zero where there is nothing to do, or another process is at it.
    """
    total = 0
    for _ in range(steps):
        with transaction(pool, organization_id) as connection:
            after = source.lock_tally(connection, organization_id)
            head = stream.read_head(connection, organization_id).last_sequence
            if after is None or after >= head:
                return total
            to = min(head, after + EVENTS_A_STEP)
            source.tally(connection, organization_id, after, to)
            total += to - after
    return total


def list_sources(
    pool: Pool, organization_id: UUID, now: datetime, *, after: str = "", limit: int = 100
) -> Sources:
    """Return sources by name as they stand now."""
    tally_sources(pool, organization_id, steps=5)
    with transaction(pool, organization_id, snapshot=True) as connection:
        rows = source.sources(connection, organization_id, after=after, limit=limit)
        sequence = source.read_tally(connection, organization_id)
        head = stream.read_head(connection, organization_id).last_sequence
    return Sources(tuple(SourceState(row, _silent(row, now)) for row in rows), sequence, head)


def _silent(row: SourceRow, now: datetime) -> bool:
    if row.silence_seconds is None:
        return False
    if row.last_received_at is None:
        return True
    return now - row.last_received_at > timedelta(seconds=row.silence_seconds)


def declare_control(
    pool: Pool, organization_id: UUID, control: ControlRow
) -> ControlResult | ControlRefusal:
    """Keep what a source says it sent and compare it with what was received by now."""
    with transaction(pool, organization_id) as connection:
        refusal = _refusal(connection, organization_id, control)
        if refusal is not None:
            return refusal
        source.put_control(connection, organization_id, control)
        return _compare(connection, organization_id, control)


def _refusal(
    connection: Connection, organization_id: UUID, control: ControlRow
) -> ControlRefusal | None:
    if control.start >= control.end:
        return ControlRefusal(ControlCode.RANGE_EMPTY, "/to", "`to` must lie after `from`")
    meters = read_meters(connection, organization_id)
    for meter in control.totals:
        if meter not in meters:
            message = f"there is no meter {meter!r}"
            return ControlRefusal(ControlCode.UNKNOWN_METER, f"/totals/{meter}", message)
        aggregation = meters[meter].current.aggregation
        if aggregation not in (Aggregation.COUNT, Aggregation.SUM):
            message = f"a total is of a count or a sum; {meter!r} is {aggregation}"
            return ControlRefusal(ControlCode.METER_NOT_ADDITIVE, f"/totals/{meter}", message)
    return None


def compare_controls(
    pool: Pool,
    organization_id: UUID,
    start: datetime,
    end: datetime,
    source_name: str | None = None,
) -> list[ControlResult]:
    """Compare every control that lies in [start, end) with what was received by now."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        return [
            _compare(connection, organization_id, control)
            for control in source.controls(connection, organization_id, start, end, source_name)
        ]


def _compare(connection: Connection, organization_id: UUID, control: ControlRow) -> ControlResult:
    events, found = source.received(connection, organization_id, control)
    totals = {meter: found.get(meter, Decimal(0)) for meter in control.totals}
    agrees = events == control.events and totals == dict(control.totals)
    return ControlResult(control, events, totals, agrees)


def source_warnings(
    pool: Pool, organization_id: UUID, start: datetime, end: datetime, now: datetime
) -> list[SourceWarning]:
    """Return what gives reason to doubt that all of [start, end) arrived."""
    tally_sources(pool, organization_id, steps=1_000_000)
    warnings: list[SourceWarning] = []
    after = ""
    while True:
        page = list_sources(pool, organization_id, now, after=after, limit=1000).items
        for state in page:
            warnings += _warnings_of(state, start)
        if len(page) < 1000:
            break
        after = page[-1].row.source
    for result in compare_controls(pool, organization_id, start, end):
        if not result.agrees:
            warnings.append(_mismatch(result))
    order = list(SourceCode)
    return sorted(warnings, key=lambda one: (order.index(one.code), one.source))


def _warnings_of(state: SourceState, start: datetime) -> list[SourceWarning]:
    row, found = state.row, []
    if row.missing and row.last_time is not None and row.last_time >= start:
        first = ", ".join(f"{low} to {high}" if low < high else str(low) for low, high in row.gaps)
        message = f"{row.missing} numbers have not arrived: {first}"
        found.append(SourceWarning(SourceCode.SEQUENCE_GAP, row.source, message))
    if state.silent:
        since = row.last_received_at
        message = "nothing ever came" if since is None else f"nothing since {since.isoformat()}"
        found.append(SourceWarning(SourceCode.SOURCE_SILENT, row.source, message))
    return found


def _mismatch(result: ControlResult) -> SourceWarning:
    control = result.control
    parts = []
    if control.events != result.events:
        parts.append(f"{control.events} events sent, {result.events} received")
    for meter, sent in sorted(control.totals.items()):
        if sent != result.totals[meter]:
            parts.append(f"{meter}: {sent} sent, {result.totals[meter]} received")
    span = f"{control.start.isoformat()} to {control.end.isoformat()}"
    message = f"{span}: {'; '.join(parts)}"
    return SourceWarning(SourceCode.CONTROL_MISMATCH, control.source, message)
