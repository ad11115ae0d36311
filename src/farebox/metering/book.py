"""The meters of one catalog revision, ready to read events: what admission looks up."""

from collections.abc import Sequence
from datetime import datetime

from farebox.metering.kind import Filed, Kind, MeterVersion
from farebox.metering.reading import ReadingRefusal


class MeterBook:
    """All meters of an organization at one catalog revision, by the event type they read."""

    def __init__(self, organization: bytes, revision: int, meters: Sequence[MeterVersion]) -> None:
        self.revision = revision
        versions: dict[str, list[MeterVersion]] = {}
        for version in meters:
            versions.setdefault(version.meter.event_type, []).append(version)
        self._kinds = {kind: Kind(organization, some) for kind, some in versions.items()}

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
        meters = self._kinds.get(kind)
        return None if meters is None else meters.read(data, kind, source, subject, time)
