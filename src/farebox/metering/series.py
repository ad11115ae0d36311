"""A series: one meter version, one user, one set of dimension values; where readings add up.

Its id is a digest of what it is, so every process makes the same id without asking a database.
"""

from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct

from farebox.catalog.meter import Aggregation, Meter


class Keeping(StrEnum):
    """What must be kept of a reading so that its window can be computed exactly later."""

    TOTALS = "totals"
    VALUES = "values"
    POINTS = "points"


_KEEPING = {
    Aggregation.COUNT: Keeping.TOTALS,
    Aggregation.SUM: Keeping.TOTALS,
    Aggregation.MIN: Keeping.TOTALS,
    Aggregation.MAX: Keeping.TOTALS,
    Aggregation.AVG: Keeping.TOTALS,
    Aggregation.UNIQUE_COUNT: Keeping.VALUES,
    Aggregation.PERCENTILE: Keeping.VALUES,
    Aggregation.LATEST: Keeping.POINTS,
    Aggregation.WEIGHTED_SUM: Keeping.POINTS,
    Aggregation.INCREASE: Keeping.POINTS,
}


class Series(Struct, frozen=True):
    """What readings with one `series_id` (32 hexadecimal digits) have in common."""

    series_id: str
    meter_key: str
    meter_version: int
    subject: str
    customer: str
    dimensions: tuple[str, ...]


def keeping_of(meter: Meter) -> Keeping:
    """Return how readings of `meter` are kept; sums may be kept as points too (`per_event`)."""
    return _KEEPING[meter.aggregation]


def series_of(
    organization: bytes,
    meter_key: str,
    meter_version: int,
    subject: str,
    customer: str,
    dimensions: tuple[str, ...],
) -> Series:
    """Name the series: a 128-bit BLAKE2b over its parts, each framed by its length."""
    parts = (meter_key, str(meter_version), subject, customer, *dimensions)
    framed = bytearray(organization)
    for part in parts:
        encoded = part.encode()
        framed += len(encoded).to_bytes(4, "big") + encoded
    digest = blake2b(framed, digest_size=16, person=b"farebox.series").hexdigest()
    return Series(digest, meter_key, meter_version, subject, customer, dimensions)
