"""Read the meters in force, with the revision of the catalog they belong to."""

from uuid import UUID

import msgspec

from farebox.catalog.meter import Meter
from farebox.metering.book import MeterBook
from farebox.metering.kind import MeterVersion
from farebox.period.instant import END
from farebox.postgres import catalog, stream
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.session import Pool, transaction


def load_book(pool: Pool, organization_id: UUID) -> MeterBook:
    """Return the book of the current catalog revision; both are read in one snapshot."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        head = stream.read_head(connection, organization_id)
        versions = catalog.versions(connection, organization_id, Kind.METER)
    return MeterBook(organization_id.bytes, head.catalog_revision, meter_versions(versions))


def meter_versions(versions: list[Version]) -> list[MeterVersion]:
    """Give each version the time at which the next one of its meter takes over.

    Where a later version starts no later than an earlier one, the earlier reads nothing more.
    """
    result: list[MeterVersion] = []
    for position, version in enumerate(versions):
        later = [v.effective_from for v in versions[position + 1 :] if v.key == version.key]
        ends = min(later, default=END)
        if version.effective_from < ends:
            meter = msgspec.json.decode(version.definition, type=Meter)
            result.append(MeterVersion(meter, version.version, version.effective_from, ends))
    return result
