"""The meters of one catalog revision, ready to read events: what admission looks up."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from farebox.catalog.meter import Meter
from farebox.metering.reading import CompiledMeter, Reading, ReadingRefusal, compile_meter
from farebox.metering.series import Keeping, Series, keeping_of, series_of

_SERIES_REMEMBERED = 50_000


class MeterVersion(Struct, frozen=True):
    """A published meter; it reads events of the times from (inclusive) to (exclusive)."""

    meter: Meter
    version: int
    effective_from: datetime
    effective_to: datetime


class Filed(Struct, frozen=True):
    """One reading with the series it belongs to and how it is kept."""

    series: Series
    value: object
    keeping: Keeping
    per_event: bool


class _Entry:
    __slots__ = ("compiled", "ends", "keeping", "known", "starts", "version")

    def __init__(self, version: MeterVersion) -> None:
        self.version = version
        self.compiled: CompiledMeter = compile_meter(version.meter)
        self.keeping = keeping_of(version.meter)
        self.starts = version.effective_from
        self.ends = version.effective_to
        self.known: dict[tuple[str, str, tuple[str, ...]], Series] = {}


class MeterBook:
    """All meters of an organization at one catalog revision, by the event type they read."""

    def __init__(self, organization: bytes, revision: int, meters: Sequence[MeterVersion]) -> None:
        self.revision = revision
        self._organization = organization
        entries: dict[str, list[_Entry]] = {}
        for version in meters:
            entries.setdefault(version.meter.event_type, []).append(_Entry(version))
        self._entries: Mapping[str, list[_Entry]] = entries

    def read(
        self,
        data: object,
        kind: str,
        source: str,
        subject: str | None,
        time: datetime,
    ) -> list[Filed] | ReadingRefusal | None:
        """Return what the meters read from an event; None where no meter knows its type.

        One refused reading refuses the event: half of it must not be billed.
        """
        entries = self._entries.get(kind)
        if entries is None:
            return None
        filed: list[Filed] = []
        for entry in entries:
            if not entry.starts <= time < entry.ends:
                continue
            readings = entry.compiled.read(data, kind, source, subject)
            if isinstance(readings, ReadingRefusal):
                return readings
            meter = entry.version.meter
            for reading in readings:
                series = self._series(entry, reading)
                filed.append(Filed(series, reading.value, entry.keeping, meter.per_event))
        return filed

    def _series(self, entry: _Entry, reading: Reading) -> Series:
        identity = (reading.subject, reading.customer, reading.dimensions)
        series = entry.known.get(identity)
        if series is None:
            if len(entry.known) >= _SERIES_REMEMBERED:
                entry.known.clear()
            version = entry.version
            series = entry.known[identity] = series_of(
                self._organization,
                version.meter.key,
                version.version,
                reading.subject,
                reading.customer,
                reading.dimensions,
            )
        return series
