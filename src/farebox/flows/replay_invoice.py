"""Rate a finalized invoice again, from what it stored and the catalog versions it names.

Quantities by dimension, prices and segments stand in the lines' details; adjustments, fees and
minimums in the plan version, which never changes. Aliases are not asked again: the breakdown says
what each value was resolved to. Single readings, for prices with terms for each event, would make
details as long as the usage; they are read again from the stream, up to the invoice's cutoff.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.plan import Charge, Plan, Timing
from farebox.catalog.price import Percentage, Price
from farebox.flows.bill import line_rows
from farebox.flows.read_usage import MeterHistory, read_meters
from farebox.invoicing.assemble import (
    InvoiceKind,
    InvoiceLineKind,
    LineDetail,
    RatedCharge,
    assemble,
)
from farebox.metering.quantity import Grouping, Target, values_by_group
from farebox.period.cycle import Period
from farebox.postgres import catalog, usage
from farebox.postgres.catalog import Kind
from farebox.postgres.invoice import InvoiceRow, LineRow, find_invoice, lines_of
from farebox.postgres.session import Pool, transaction
from farebox.postgres.usage import Range
from farebox.rating.charge import Breakdown, Segment, rate_charge
from farebox.rating.usage import Usage


class Difference(Struct, frozen=True):
    """What a line says and what it should say; position 0 is the invoice itself."""

    position: int
    field: str
    stored: str
    replayed: str


class _Stored(Struct, frozen=True):
    line: LineRow
    detail: LineDetail


def replay_invoice(
    pool: Pool, organization_id: UUID, invoice_id: UUID
) -> tuple[Difference, ...] | None:
    """Return how the replay differs from what is stored: not at all. None: no such invoice."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        row = find_invoice(connection, organization_id, invoice_id)
        if row is None:
            return None
        lines = lines_of(connection, organization_id, invoice_id)
        plan = _plan(connection, organization_id, row)
        stored = [
            _Stored(line, msgspec.json.decode(line.detail, type=LineDetail)) for line in lines
        ]
        charges = [
            _rate(connection, organization_id, row, plan, charge, stored) for charge in plan.charges
        ]
    kind = InvoiceKind(row.kind)
    period = Period(row.period_start, row.period_end)
    pools = [one.detail.pool for one in stored if one.detail.pool is not None]
    body = assemble(plan, kind, period, _following(kind, stored), charges, pools)
    found = list(_compare(lines, line_rows(invoice_id, body)))
    if body.total != row.total:
        found.append(Difference(0, "total", str(row.total), str(body.total)))
    return tuple(found)


def _plan(connection: Connection, organization_id: UUID, row: InvoiceRow) -> Plan:
    versions = catalog.versions(connection, organization_id, Kind.PLAN, row.plan_key)
    (found,) = [one for one in versions if one.version == row.plan_version]
    return msgspec.json.decode(found.definition, type=Plan)


def _following(kind: InvoiceKind, stored: Sequence[_Stored]) -> Period | None:
    """Return the period that fees in advance are for, as the lines name it.

    Whether the subscription went on was known then; it may have been ended since.
    """
    if kind is InvoiceKind.START:
        return None
    for one in stored:
        if one.line.kind == InvoiceLineKind.FEE and one.detail.timing is Timing.ADVANCE:
            return Period(one.line.segment_start, one.line.segment_end)
    return None


def _rate(
    connection: Connection,
    organization_id: UUID,
    row: InvoiceRow,
    plan: Plan,
    charge: Charge,
    stored: Sequence[_Stored],
) -> RatedCharge:
    lines = [one for one in stored if one.line.charge_key == charge.key]
    history = read_meters(connection, organization_id, charge.meter)[charge.meter]
    segments = _segments(
        row,
        [
            _segment(connection, organization_id, row, history, one)
            for one in lines
            if one.line.kind == InvoiceLineKind.USAGE
        ],
    )
    result = rate_charge(charge.key, segments, charge.adjustments, plan.currency)
    prices: Mapping[datetime, Price | None] = {
        segment.start: segment.price for segment in segments if segment.start is not None
    }
    return RatedCharge(charge.key, charge.name, charge.meter, result, prices)


def _segment(
    connection: Connection,
    organization_id: UUID,
    row: InvoiceRow,
    history: MeterHistory,
    stored: _Stored,
) -> Segment:
    charge, price = stored.detail.charge, stored.detail.price
    assert charge is not None, "a usage line keeps what it was rated from"
    values: Mapping[tuple[tuple[str, str], ...], Sequence[Decimal]] = {}
    if isinstance(price, Percentage) and price.reads_each_event and charge.breakdown:
        values = _single_values(connection, organization_id, row, history, stored, charge.breakdown)
    return Segment(
        price=price,
        usages=tuple(
            Usage(
                quantity=one.quantity,
                dimensions=one.dimensions,
                events=one.events,
                values=tuple(values.get(_as_reported(one), ())),
                original=one.original,
            )
            for one in charge.breakdown
        ),
        start=stored.line.segment_start,
        end=stored.line.segment_end,
        rate_card=charge.rate_card,
    )


def _as_reported(one: Breakdown) -> tuple[tuple[str, str], ...]:
    return tuple({**one.dimensions, **one.original}.items())


def _single_values(
    connection: Connection,
    organization_id: UUID,
    row: InvoiceRow,
    history: MeterHistory,
    stored: _Stored,
    breakdown: Sequence[Breakdown],
) -> dict[tuple[tuple[str, str], ...], list[Decimal]]:
    names = tuple(breakdown[0].dimensions)
    line = stored.line
    assert line.meter_key is not None, "a usage line has a meter"
    target = Target(row.customer_key, line.meter_key, line.segment_start, line.segment_end)
    points = [
        point
        for point in usage.points(connection, organization_id, [target], Range())
        if point.point.sequence <= row.cutoff_sequence
    ]
    found = values_by_group(Grouping(history.versions, names), points)
    return {
        tuple(zip(names, group.dimensions, strict=True)): values for group, values in found.items()
    }


def _segments(row: InvoiceRow, priced: Sequence[Segment]) -> list[Segment]:
    """Fill the stretches that gave no line, so that the segments cover the period again."""
    segments: list[Segment] = []
    at = row.period_start
    for segment in priced:
        assert segment.start is not None
        assert segment.end is not None
        if at < segment.start:
            segments.append(Segment(price=None, usages=(), start=at, end=segment.start))
        segments.append(segment)
        at = segment.end
    if at < row.period_end:
        segments.append(Segment(price=None, usages=(), start=at, end=row.period_end))
    return segments


def _compare(stored: Sequence[LineRow], replayed: Sequence[LineRow]) -> list[Difference]:
    found = []
    for number in range(max(len(stored), len(replayed))):
        before = stored[number] if number < len(stored) else None
        after = replayed[number] if number < len(replayed) else None
        for field in LineRow.__struct_fields__:
            left, right = getattr(before, field, None), getattr(after, field, None)
            if left != right:
                found.append(Difference(number + 1, field, str(left), str(right)))
    return found
