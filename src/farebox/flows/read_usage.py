"""Read quantities of one meter for many customers at once, current to the last event."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.meter import Meter
from farebox.metering import quantity
from farebox.metering.quantity import Group, Grouping, Quantity, Target, level_ends
from farebox.metering.series import Keeping, keeping_of
from farebox.postgres import catalog, usage
from farebox.postgres.catalog import Kind
from farebox.postgres.usage import Range


class MeterHistory(Struct, frozen=True):
    """A meter as it is now, and each of its versions: older ones may have other dimensions.

    level_ends: when a level that a version read ends, by version.
    """

    current: Meter
    versions: Mapping[int, Meter]
    level_ends: Mapping[int, datetime]


def read_meters(
    connection: Connection, organization_id: UUID, key: str | None = None
) -> dict[str, MeterHistory]:
    """Return every meter of the organization by key, or the one that is asked for."""
    found: dict[str, dict[int, tuple[Meter, datetime]]] = {}
    for version in catalog.versions(connection, organization_id, Kind.METER, key):
        meter = msgspec.json.decode(version.definition, type=Meter)
        found.setdefault(version.key, {})[version.version] = (meter, version.effective_from)
    return {key: _history(versions) for key, versions in found.items()}


def _history(found: Mapping[int, tuple[Meter, datetime]]) -> MeterHistory:
    versions = {version: meter for version, (meter, _) in found.items()}
    return MeterHistory(versions[max(versions)], versions, level_ends(found))


def read_quantities(
    connection: Connection,
    organization_id: UUID,
    history: MeterHistory,
    targets: Sequence[Target],
    *,
    dimensions: Sequence[str] = (),
    windows: Sequence[tuple[datetime, datetime]] | None = None,
    cut: Range | None = None,
    filters: Mapping[str, frozenset[str]] | None = None,
) -> list[Quantity]:
    """Return the quantities of `targets`, all of this meter, by the chosen dimensions.

    windows: cut every target into these spans, ascending and without gap; none: one each.
    filters: the values of some dimensions to which the question is limited.
    Nothing is returned for a group without readings, which is not the same as a quantity of zero.
    """
    meter = history.current
    grouping = Grouping(history.versions, dimensions, ends=history.level_ends, filters=filters)
    cut = cut or Range()
    if windows is not None:
        cut = msgspec.structs.replace(cut, windows=tuple(start for start, _ in windows))
    match keeping_of(meter):
        case Keeping.TOTALS:
            rows = usage.totals(connection, organization_id, targets, cut)
            return quantity.from_totals(meter, grouping, rows)
        case Keeping.VALUES:
            values = usage.values(connection, organization_id, targets, cut)
            return quantity.from_values(meter, grouping, values)
        case Keeping.POINTS:
            points = usage.points(connection, organization_id, targets, cut)
            spans = [windows or ((target.start, target.end),) for target in targets]
            return quantity.from_points(meter, grouping, points, spans)


def read_single_values(
    connection: Connection,
    organization_id: UUID,
    history: MeterHistory,
    targets: Sequence[Target],
    dimensions: Sequence[str],
) -> dict[Group, list[Decimal]]:
    """Return each reading in the order of time, of a meter that keeps them (`per_event`)."""
    points = usage.points(connection, organization_id, targets, Range())
    return quantity.values_by_group(Grouping(history.versions, dimensions), points)
