"""From an admitted event to the row that will hold it: readings taken, arrays and text made."""

from collections.abc import Sequence
from datetime import datetime

from farebox.events.admit import Admitted
from farebox.metering.book import Filed, MeterBook
from farebox.metering.reading import ReadingRefusal
from farebox.metering.series import Keeping, Series
from farebox.postgres.stream import NULL, copy_line, escape

_NO_VALUES_AND_POINTS = f"\t{NULL}" * 4
_NO_READINGS = f"{NULL}\t{NULL}{_NO_VALUES_AND_POINTS}"


class Prepared:
    """One event, ready to be appended: its identity, its series and its row without a sequence."""

    __slots__ = ("digest", "key", "kind", "line", "series", "time", "unread")

    def __init__(
        self,
        key: str,
        digest: str,
        kind: str,
        time: datetime,
        line: str,
        series: Sequence[Series],
        unread: bool,
    ) -> None:
        self.key = key
        self.digest = digest
        self.kind = kind
        self.time = time
        self.line = line
        self.series = series
        self.unread = unread


def prepare(book: MeterBook, admitted: Admitted) -> Prepared | ReadingRefusal:
    """Read the event by every meter of the book; a refused reading refuses the event."""
    event = admitted.event
    filed = book.read(event.data, event.type, event.source, event.subject, admitted.time)
    if isinstance(filed, ReadingRefusal):
        return filed
    key, digest = admitted.key.hex(), admitted.digest.hex()
    line = copy_line(
        key,
        digest,
        admitted.time,
        (event.source, event.id, event.type, event.subject),
        _arrays(filed) if filed else _NO_READINGS,
        admitted.payload,
    )
    series = [one.series for one in filed] if filed else ()
    return Prepared(key, digest, event.type, admitted.time, line, series, filed is None)


def _arrays(filed: list[Filed]) -> str:
    """Return the six arrays of the row, separated by tabs."""
    if all(one.keeping is Keeping.TOTALS and not one.per_event for one in filed):
        # What nearly every event is, without a detour through six lists.
        series = ",".join([one.series.series_id for one in filed])
        quantities = ",".join([str(one.value) for one in filed])
        return f"{{{series}}}\t{{{quantities}}}{_NO_VALUES_AND_POINTS}"
    totals = [one for one in filed if one.keeping is Keeping.TOTALS]
    values = [one for one in filed if one.keeping is Keeping.VALUES]
    points = [one for one in filed if one.keeping is Keeping.POINTS or one.per_event]
    return "\t".join(
        (
            _array([one.series.series_id for one in totals]),
            _array([str(one.value) for one in totals]),
            _array([one.series.series_id for one in values]),
            _array([escape(_quoted(str(one.value))) for one in values]),
            _array([one.series.series_id for one in points]),
            _array([str(one.value) for one in points]),
        )
    )


def _array(elements: list[str]) -> str:
    return "{" + ",".join(elements) + "}" if elements else NULL


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
