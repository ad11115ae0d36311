"""What became of an event, and lists of events by customer, type and time."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection

from farebox.catalog.meter import Meter
from farebox.events.admit import event_key
from farebox.flows.explain_line import named, walk
from farebox.flows.load_book import meter_versions
from farebox.flows.place_reading import Fate, ReadingPlace, place_reading
from farebox.flows.rate_periods import read_terms
from farebox.flows.reading_at import ReadingAt
from farebox.metering.series import Keeping, keeping_of
from farebox.postgres import catalog, explain
from farebox.postgres.catalog import Kind
from farebox.postgres.explain import EventRow, Place, RawReading, SeriesRow, Window
from farebox.postgres.session import Pool, transaction

PROBES = 16
_FIRST_STEP, _LAST_STEP = timedelta(minutes=1), timedelta(days=28)


class _Extensions(Struct, frozen=True):
    fareboxdraw: str | int | bool | None = None


class MeterFate(Struct, frozen=True):
    """A meter of the event's type, and the places of what it read; none: it read nothing."""

    meter: str
    fate: Fate
    readings: tuple[ReadingPlace, ...]


class EventExplained(Struct, frozen=True):
    """An event of the stream; its fate is that of the reading that got furthest."""

    event: EventRow
    fate: Fate
    meters: tuple[MeterFate, ...]


def explain_event(
    pool: Pool, organization_id: UUID, source: str, identifier: str
) -> EventExplained | None:
    """Tell what became of the event with this source and id; None where it never came."""
    key = event_key(organization_id.bytes, source, identifier)
    with transaction(pool, organization_id, snapshot=True) as connection:
        row = explain.find_event(connection, organization_id, key)
        if row is None:
            return None
        meters = _meter_fates(connection, organization_id, row)
    return EventExplained(row, fate_of([one.fate for one in meters]), meters)


def fate_of(fates: list[Fate]) -> Fate:
    """Return the furthest of several fates; an event that no meter knows has one too."""
    return max(fates, key=list(Fate).index, default=Fate.NO_METER)


def _meter_fates(
    connection: Connection, organization_id: UUID, row: EventRow
) -> tuple[MeterFate, ...]:
    terms = read_terms(connection, organization_id)
    series = explain.series_rows(
        connection, organization_id, [one.series_id for one in row.readings]
    )
    found: dict[str, list[ReadingPlace]] = {
        meter: [] for meter in _knowing(connection, organization_id, row)
    }
    for one in row.readings:
        of = series[one.series_id]
        if of.counted_until is not None and row.time >= of.counted_until:
            continue
        history = terms.meters[of.meter_key]
        reading = _reading(row, one, of, history.versions[of.meter_version], named(of, history))
        place = place_reading(connection, organization_id, terms, reading)
        found.setdefault(of.meter_key, []).append(place)
    return tuple(
        MeterFate(meter, _fate(row, places), tuple(places)) for meter, places in found.items()
    )


def _knowing(connection: Connection, organization_id: UUID, row: EventRow) -> list[str]:
    """Return the meters of this type that looked at the event: when it came, or since."""
    backfilled = explain.backfilled_versions(connection, organization_id)
    versions = [
        one
        for one in catalog.versions(connection, organization_id, Kind.METER)
        if one.from_sequence < row.sequence or (one.key, one.version) in backfilled
    ]
    return [
        one.meter.key
        for one in meter_versions(versions)
        if one.meter.event_type == row.type and one.effective_from <= row.time < one.effective_to
    ]


def _fate(row: EventRow, places: list[ReadingPlace]) -> Fate:
    if row.voided:
        return Fate.VOIDED
    return fate_of([place.fate for place in places]) if places else Fate.FILTERED_OUT


def _reading(
    row: EventRow, one: RawReading, of: SeriesRow, meter: Meter, dimensions: dict[str, str]
) -> ReadingAt:
    text = keeping_of(meter) is Keeping.VALUES
    return ReadingAt(
        meter=of.meter_key,
        value=one.value if text else Decimal(one.value),
        dimensions=dimensions,
        subject=of.subject,
        customer=of.customer_key,
        time=row.time,
        sequence=row.sequence,
        received_at=row.received_at,
        voided=row.voided,
        draw=_draw_of(row),
    )


def _draw_of(row: EventRow) -> str | None:
    named = msgspec.json.decode(row.payload, type=_Extensions).fareboxdraw
    return named if isinstance(named, str) else None


class EventQuestion(Struct, frozen=True, kw_only=True):
    """Which events to list, newest first; those of a customer are those that a meter read."""

    start: datetime
    end: datetime
    customer: str | None = None
    type: str | None = None
    after: Place | None = None
    limit: int = 100


def list_events(
    pool: Pool, organization_id: UUID, question: EventQuestion
) -> tuple[list[EventRow], Place | None]:
    """Return a page of events by time, newest first, and where the next begins.

    A page looks through a bounded part of the stream: it may hold fewer than asked for, or none,
    and still have a next one.
    """
    window = Window(
        start=question.start,
        end=question.end,
        type=question.type,
        after=question.after,
        order="desc",
    )
    with transaction(pool, organization_id, snapshot=True) as connection:
        if question.customer is None:
            return _probe(connection, organization_id, window, question.limit)
        members = explain.members(
            connection, organization_id, question.customer, None, question.start, question.end
        )
        return walk(connection, organization_id, members, window, question.limit)


def _probe(
    connection: Connection, organization_id: UUID, window: Window, limit: int
) -> tuple[list[EventRow], Place | None]:
    """Go back in time by steps that grow while little is found."""
    rows: list[EventRow] = []
    end, step = window.end, _FIRST_STEP
    if window.after is not None:
        end = min(end, window.after.time + datetime.resolution)
    for _ in range(PROBES):
        start = window.start if end - window.start <= step else end - step
        part = replace(window, start=start, end=end)
        found = explain.events_in(connection, organization_id, part, limit - len(rows) + 1)
        rows += found
        if len(rows) > limit:
            return rows[:limit], Place(rows[limit - 1].time, rows[limit - 1].sequence)
        if start <= window.start:
            return rows, None
        end, step = start, min(step * 4, _LAST_STEP)
    return rows, Place(end, -1)
