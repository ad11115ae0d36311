"""Open an invoice line: its price, tiers, adjustments, quantities, and what is behind it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.flows.explain_pool import PoolExplained, explain_pool
from farebox.flows.read_usage import MeterHistory, read_meters
from farebox.invoicing.assemble import LineDetail
from farebox.metering.reading import meter_dimensions
from farebox.metering.window import BUCKET
from farebox.postgres import explain
from farebox.postgres.explain import EventRow, Member, Place, Window
from farebox.postgres.invoice import InvoiceRow, LineRow, find_invoice, find_number, lines_of
from farebox.postgres.pool_line import LinePeriod
from farebox.postgres.session import Pool, transaction

BUCKETS_A_PAGE = 24
"""A page looks through this many quarters of an hour and may then hold fewer than asked for."""


class LineEvent(Struct, frozen=True, kw_only=True):
    """An event that a line counts, with what the line's meter read from it."""

    sequence: int
    source: str
    id: str
    type: str
    time: datetime
    received_at: datetime
    subject: str | None
    voided: bool
    readings: tuple["LineReading", ...]


class LineReading(Struct, frozen=True):
    """One reading; dimensions by name."""

    value: str
    dimensions: Mapping[str, str]


class EventPage(Struct, frozen=True):
    """Events in the order of time and then of receipt; `after` is where the next page begins."""

    events: tuple[LineEvent, ...]
    after: Place | None


class LineExplained(Struct, frozen=True):
    """The line with all that it was made from."""

    invoice: InvoiceRow
    line: LineRow
    detail: LineDetail
    events: EventPage
    pool: PoolExplained | None = None

    @property
    def after(self) -> Place | None:
        """Where the next page begins: of events, or of entries of a pool."""
        return self.events.after if self.pool is None else self.pool.after


def find_any(connection: Connection, organization_id: UUID, name: str | UUID) -> InvoiceRow | None:
    """Return an invoice by its id or its number."""
    if isinstance(name, UUID):
        return find_invoice(connection, organization_id, name)
    return find_number(connection, organization_id, name)


def explain_line(
    pool: Pool,
    organization_id: UUID,
    name: str | UUID,
    position: int,
    *,
    after: Place | None = None,
    limit: int = 100,
) -> LineExplained | None:
    """Open a line of the invoice with this id or number; None where there is none."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        row = find_any(connection, organization_id, name)
        if row is None:
            return None
        lines = lines_of(connection, organization_id, row.invoice_id)
        line = next((one for one in lines if one.position == position), None)
        if line is None:
            return None
        detail = msgspec.json.decode(line.detail, type=LineDetail)
        events = EventPage((), None)
        if line.meter_key is not None:
            found = _members(connection, organization_id, row, line, line.meter_key, detail)
            events = _events(connection, organization_id, row, line, found, after, limit)
        opened = None
        if detail.pool is not None:
            dates = line.segment_start, line.segment_end
            period = LinePeriod(row.invoice_id, row.subscription_key, *dates)
            opened = explain_pool(
                connection, organization_id, detail.pool, period, row.currency, after, limit
            )
    return LineExplained(row, line, detail, events, opened)


_Counted = tuple[Sequence[Member], MeterHistory]


def _members(
    connection: Connection,
    organization_id: UUID,
    row: InvoiceRow,
    line: LineRow,
    meter_key: str,
    detail: LineDetail,
) -> _Counted:
    """Return the series that the line counts: unpriced ones of the same meter are not on it."""
    history = read_meters(connection, organization_id, meter_key)[meter_key]
    reported = [
        {**one.dimensions, **one.original}
        for one in (() if detail.charge is None else detail.charge.breakdown)
    ]
    members = explain.members(
        connection,
        organization_id,
        row.customer_key,
        meter_key,
        line.segment_start,
        line.segment_end,
    )
    if not reported:
        return [], history
    names = tuple(reported[0])
    counted = {tuple(one[name] for name in names) for one in reported}
    return [one for one in members if _values(one, history, names) in counted], history


def _values(member: Member, history: MeterHistory, names: tuple[str, ...]) -> tuple[str, ...]:
    said = named(member, history)
    return tuple(said.get(name, "") for name in names)


def _events(
    connection: Connection,
    organization_id: UUID,
    row: InvoiceRow,
    line: LineRow,
    counted: _Counted,
    after: Place | None,
    limit: int,
) -> EventPage:
    members, history = counted
    window = Window(
        start=line.segment_start, end=line.segment_end, cutoff=row.cutoff_sequence, after=after
    )
    rows, following = walk(connection, organization_id, members, window, limit)
    spans = _by_series(members)
    return EventPage(tuple(_event(one, spans, history) for one in rows), following)


def walk(
    connection: Connection,
    organization_id: UUID,
    members: Sequence[Member],
    window: Window,
    limit: int,
) -> tuple[list[EventRow], Place | None]:
    """Return the next events of these series, one quarter of an hour after the other."""
    if not members:
        return [], None
    buckets, following = explain.buckets_of(
        connection, organization_id, members, window, BUCKETS_A_PAGE
    )
    spans = _by_series(members)
    rows: list[EventRow] = []
    # Where events are dense the first bucket fills the page, so few are looked through at first.
    for first, last in pairwise((0, 3, 9, BUCKETS_A_PAGE)):
        part = buckets[first:last]
        if not part:
            break
        wanted = limit - len(rows) + 1
        found = explain.events_in(
            connection,
            organization_id,
            window,
            wanted,
            buckets=[bucket for bucket, _ in part],
            series=list({one for _, series in part for one in series}),
        )
        rows += [one for one in found if _counting(one, spans)]
        if len(rows) > limit:
            return rows[:limit], Place(rows[limit - 1].time, rows[limit - 1].sequence)
        if len(found) == wanted:
            # Some were another customer's by then; the rest of the bucket is the next page's.
            return rows, Place(found[-1].time, found[-1].sequence)
    return rows, None if following is None else _edge(following, window)


def _edge(bucket: datetime, window: Window) -> Place:
    """Return the place just before the events of a bucket."""
    if window.order == "asc":
        return Place(bucket, -1)
    return Place(bucket + BUCKET, -1)


def _by_series(members: Sequence[Member]) -> Mapping[UUID, Sequence[Member]]:
    spans: dict[UUID, list[Member]] = defaultdict(list)
    for member in members:
        spans[member.series_id].append(member)
    return spans


def _counting(row: EventRow, spans: Mapping[UUID, Sequence[Member]]) -> list[tuple[str, Member]]:
    """Return the readings that count at that instant: a subject may have moved since."""
    return [
        (reading.value, member)
        for reading in row.readings
        for member in spans.get(reading.series_id, ())
        if member.start <= row.time < member.end
    ]


def _event(
    row: EventRow, spans: Mapping[UUID, Sequence[Member]], history: MeterHistory
) -> LineEvent:
    return LineEvent(
        sequence=row.sequence,
        source=row.source,
        id=row.id,
        type=row.type,
        time=row.time,
        received_at=row.received_at,
        subject=row.subject,
        voided=row.voided,
        readings=tuple(
            LineReading(value, named(member, history)) for value, member in _counting(row, spans)
        ),
    )


def named(series: Member | explain.SeriesRow, history: MeterHistory) -> dict[str, str]:
    """Return the dimension values of a series by name."""
    names = meter_dimensions(history.versions[series.meter_version])
    return dict(zip(names, series.dimensions, strict=True))
