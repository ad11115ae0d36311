"""Let a meter count the events that came before it: read aside, look, then switch at once."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.events.json_text import decode_json
from farebox.flows.burn_backfill import PoolUnits, rate_backfill
from farebox.flows.burn_usage import draw_uses
from farebox.flows.load_book import meter_versions
from farebox.metering.book import MeterBook
from farebox.metering.kind import Filed, MeterVersion
from farebox.metering.reading import ReadingRefusal
from farebox.metering.series import Keeping, Series, keeping_of
from farebox.period.instant import END
from farebox.postgres import backfill, burn, catalog, rollup
from farebox.postgres.backfill import (
    BackfillRow,
    BackfillStatus,
    CustomerReadings,
    EarlierEvent,
    ReadingRow,
    RefusalRow,
)
from farebox.postgres.catalog import Kind
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool, transaction

EVENTS_A_STEP = 2_000
CUSTOMERS_SHOWN = 20
_SERIES_REMEMBERED = 1_000_000

Progress = Callable[[int, int], None]
"""Is told after each step up to which sequence events were read, and which is the last."""


class BackfillCode(StrEnum):
    """Why a meter is not backfilled, in order of precedence."""

    METER_VERSION_UNKNOWN = "meter_version_unknown"
    METER_VERSION_REPLACED = "meter_version_replaced"
    ALREADY_BACKFILLED = "already_backfilled"


class BackfillRefusal(Struct, frozen=True):
    """An expected no, and what would help."""

    code: BackfillCode
    message: str


class Preview(Struct, frozen=True, kw_only=True):
    """What a backfill comes to.

    events: looked at; refused: those the meter matches and cannot read, by code; times: of the
    readings, first and last; customers: those with most readings; pools: that burn by it.
    """

    events: int
    readings: int
    refused: dict[str, int]
    first_time: datetime | None
    last_time: datetime | None
    customers: Sequence[CustomerReadings]
    pools: Sequence[PoolUnits] = ()


class _Plan(Struct, frozen=True):
    version: MeterVersion
    row: BackfillRow


def events_before(
    pool: Pool, organization_id: UUID, meter_key: str, meter_version: int, now: datetime
) -> int:
    """Return how many events came before the meter version that it could read.

    At once where no meter read their type, voided ones included; else they are counted.
    """
    with transaction(pool, organization_id) as connection:
        plan = _plan(connection, organization_id, meter_key, meter_version, now)
        if isinstance(plan, BackfillRefusal) or plan.row.from_sequence == 0:
            return 0
        if meter_version == 1:
            unread = backfill.unread_events(connection, organization_id, plan.row.event_type)
            if unread is not None:
                return unread
        return backfill.count_events(connection, organization_id, plan.row)


def preview_backfill(
    pool: Pool,
    organization_id: UUID,
    meter_key: str,
    meter_version: int,
    now: datetime,
    progress: Progress | None = None,
) -> Preview | BackfillRefusal:
    """Read the earlier events aside and say what that comes to; usage stays as it is.

    What was read is kept for `backfill_meter`, until then or until `drop_backfill`.
    """
    plan = _build(pool, organization_id, meter_key, meter_version, now, progress)
    if isinstance(plan, BackfillRefusal):
        return plan
    with transaction(pool, organization_id) as connection:
        backfill.drop_voided(connection, organization_id, plan.row)
        passed = burn.read_watermark(connection, organization_id)
        rated = rate_backfill(connection, organization_id, plan.row, passed)
        return _preview(connection, organization_id, plan, rated.pools)


def backfill_meter(
    pool: Pool,
    organization_id: UUID,
    meter_key: str,
    meter_version: int,
    now: datetime,
    progress: Progress | None = None,
) -> Preview | BackfillRefusal:
    """Read the earlier events, or go on where it was left, and let them count in one commit.

    Where the version was effective before it was published, what older versions read of the
    same times counts no more from that commit on. Final invoices keep theirs. What burns pools
    burns in that commit too.
    """
    plan = _build(pool, organization_id, meter_key, meter_version, now, progress)
    if isinstance(plan, BackfillRefusal):
        return plan
    with transaction(pool, organization_id) as connection:
        row = backfill.lock_backfill(connection, organization_id, meter_key, meter_version)
        if row is None or row.status != BackfillStatus.BUILT:
            return _already(plan.row)
        # A pool that is opened meanwhile would neither see these readings nor be seen.
        lock_organization(connection, organization_id)
        # Held before the voids are looked at: an undo holds it too, so none comes in between.
        rollup.hold_watermark(connection, organization_id)
        backfill.drop_voided(connection, organization_id, row)
        passed = burn.wait_for_watermark(connection, organization_id)
        rated = rate_backfill(connection, organization_id, row, passed)
        preview = _preview(connection, organization_id, plan, rated.pools)
        backfill.switch(connection, organization_id, row, now)
        rollup.note_rewritten(connection, organization_id)
        # At the end, for it locks pools.
        draw_uses(connection, organization_id, rated.rated, now)
    return preview


def drop_backfill(pool: Pool, organization_id: UUID, meter_key: str, meter_version: int) -> bool:
    """Forget what a preview read aside; False where there is nothing, or it counts already."""
    with transaction(pool, organization_id) as connection:
        row = backfill.lock_backfill(connection, organization_id, meter_key, meter_version)
        if row is None or row.status == BackfillStatus.SWITCHED:
            return False
        backfill.drop(connection, organization_id, row)
        return True


class _Reader:
    """The meter version, reading; its times are those with which the backfill began.

    known_series: ids of series that this process has put aside already.
    """

    def __init__(self, organization_id: UUID, version: MeterVersion, row: BackfillRow) -> None:
        fixed = MeterVersion(version.meter, version.version, row.effective_from, row.effective_to)
        self._book = MeterBook(organization_id.bytes, 0, [fixed])
        self.known_series: set[str] = set()

    def read(
        self, event: EarlierEvent, data: object, event_type: str
    ) -> list[Filed] | ReadingRefusal:
        filed = self._book.read(data, event_type, event.source, event.subject, event.time)
        return [] if filed is None else filed


def _plan(
    connection: Connection,
    organization_id: UUID,
    meter_key: str,
    meter_version: int,
    now: datetime,
) -> _Plan | BackfillRefusal:
    versions = catalog.versions(connection, organization_id, Kind.METER, meter_key)
    if not 1 <= meter_version <= len(versions):
        message = f"there is no version {meter_version} of a meter {meter_key!r}"
        return BackfillRefusal(BackfillCode.METER_VERSION_UNKNOWN, message)
    reading = {one.version: one for one in meter_versions(versions)}
    found = reading.get(meter_version)
    # Of the times after a newer version's start, only that one can say what counts.
    if found is None or (meter_version > 1 and found.effective_to < END):
        message = f"{meter_key!r} has a newer version; backfill that one"
        return BackfillRefusal(BackfillCode.METER_VERSION_REPLACED, message)
    row = BackfillRow(
        meter_key=meter_key,
        meter_version=meter_version,
        status=BackfillStatus.BUILDING,
        event_type=found.meter.event_type,
        effective_from=found.effective_from,
        effective_to=found.effective_to,
        from_sequence=versions[meter_version - 1].from_sequence,
        done_sequence=0,
        events=0,
        started_at=now,
        updated_at=now,
    )
    return _Plan(found, row)


def _build(
    pool: Pool,
    organization_id: UUID,
    meter_key: str,
    meter_version: int,
    now: datetime,
    progress: Progress | None,
) -> _Plan | BackfillRefusal:
    with transaction(pool, organization_id) as connection:
        plan = _plan(connection, organization_id, meter_key, meter_version, now)
        if isinstance(plan, BackfillRefusal):
            return plan
        backfill.add_backfill(connection, organization_id, plan.row)
        row = backfill.lock_backfill(connection, organization_id, meter_key, meter_version)
        assert row is not None, "it was added above"
    reader = _Reader(organization_id, plan.version, row)
    while row is not None and row.status == BackfillStatus.BUILDING:
        row = _step(pool, organization_id, row, reader, now)
        if row is not None and progress is not None:
            progress(row.done_sequence, row.from_sequence)
    if row is None or row.status == BackfillStatus.SWITCHED:
        return _already(plan.row)
    return _Plan(plan.version, row)


def _step(
    pool: Pool, organization_id: UUID, before: BackfillRow, reader: _Reader, now: datetime
) -> BackfillRow | None:
    """Read some events and put their readings and the progress aside in one commit."""
    with transaction(pool, organization_id) as connection:
        row = backfill.lock_backfill(
            connection, organization_id, before.meter_key, before.meter_version
        )
        if row is None or row.status != BackfillStatus.BUILDING:
            return row
        events, done = backfill.earlier_events(connection, organization_id, row, EVENTS_A_STEP)
        readings: list[ReadingRow] = []
        refusals: list[RefusalRow] = []
        series: dict[str, Series] = {}
        for event in events:
            payload = decode_json(event.payload.encode())
            assert isinstance(payload, dict), "a payload is stored as a JSON object"
            drawn = payload.get("fareboxdraw") is not None
            filed = reader.read(event, payload.get("data"), row.event_type)
            if isinstance(filed, ReadingRefusal):
                refused = (filed.code.value, filed.field, filed.path)
                refusals.append(RefusalRow(event.sequence, *refused))
                continue
            for one in filed:
                readings.extend(_reading_rows(event, one, drawn=drawn))
                series.setdefault(one.series.series_id, one.series)
        unknown = [series[key] for key in sorted(series) if key not in reader.known_series]
        backfill.add_readings(connection, organization_id, row, readings, refusals, unknown)
        after = msgspec.structs.replace(
            row,
            status=BackfillStatus.BUILT if done == row.from_sequence else row.status,
            done_sequence=done,
            events=row.events + len(events),
            updated_at=now,
        )
        backfill.save_progress(connection, organization_id, after)
    if len(reader.known_series) > _SERIES_REMEMBERED:
        reader.known_series.clear()
    reader.known_series.update(series)
    return after


def _reading_rows(event: EarlierEvent, filed: Filed, *, drawn: bool) -> list[ReadingRow]:
    kinds = [filed.keeping]
    if filed.per_event and filed.keeping is not Keeping.POINTS:
        kinds.append(Keeping.POINTS)
    return [
        ReadingRow(
            filed.series.series_id,
            event.time,
            event.sequence,
            kind.value,
            None if kind is Keeping.VALUES else Decimal(str(filed.value)),
            str(filed.value) if kind is Keeping.VALUES else None,
            drawn,
        )
        for kind in kinds
    ]


def _preview(
    connection: Connection, organization_id: UUID, plan: _Plan, pools: Sequence[PoolUnits]
) -> Preview:
    kind = keeping_of(plan.version.meter).value
    summary = backfill.summarize(connection, organization_id, plan.row, kind)
    return Preview(
        events=plan.row.events,
        readings=summary.readings,
        refused=backfill.refused_by_code(connection, organization_id, plan.row),
        first_time=summary.first_time,
        last_time=summary.last_time,
        customers=backfill.readings_by_customer(
            connection, organization_id, plan.row, kind, CUSTOMERS_SHOWN
        ),
        pools=pools,
    )


def _already(row: BackfillRow) -> BackfillRefusal:
    message = f"version {row.meter_version} of {row.meter_key!r} is backfilled already"
    return BackfillRefusal(BackfillCode.ALREADY_BACKFILLED, message)
