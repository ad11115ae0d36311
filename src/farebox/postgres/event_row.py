"""From an admitted event to the row that will hold it: readings taken, arrays and text made."""

from collections.abc import Sequence

import msgspec

from farebox.events.admit import Admitted
from farebox.events.event import Extension
from farebox.metering.book import MeterBook
from farebox.metering.kind import Filed
from farebox.metering.reading import ReadingRefusal
from farebox.metering.series import Keeping, Series
from farebox.postgres.stream import Row

_NO_READINGS = ("",) * 6
_NO_VALUES_AND_POINTS = ("",) * 4
_JSON = msgspec.json.Encoder()


class Prepared:
    """One event, ready to be appended.

    unread: no meter reads its type. draw: what it names as the draw that paid for it, if anything.
    """

    __slots__ = ("digest", "draw", "key", "kind", "row", "series", "unread")

    def __init__(
        self,
        row: Row,
        kind: str,
        series: Sequence[Series],
        unread: bool,
        draw: Extension | None = None,
    ) -> None:
        self.key = row[1]
        self.digest = row[2]
        self.row = row
        self.kind = kind
        self.series = series
        self.unread = unread
        self.draw = draw


def prepare(book: MeterBook, admitted: Admitted) -> Prepared | ReadingRefusal:
    """Read the event by every meter of the book; a refused reading refuses the event."""
    event = admitted.event
    filed = book.read(event.data, event.type, event.source, event.subject, admitted.time)
    if isinstance(filed, ReadingRefusal):
        return filed
    row = (
        admitted.time,
        admitted.key.hex(),
        admitted.digest.hex(),
        event.source,
        event.id,
        event.type,
        event.subject or "",
        *(_readings(filed) if filed else _NO_READINGS),
        admitted.payload,
    )
    series = [one.series for one in filed] if filed else ()
    draw = event.extensions.get("fareboxdraw")
    return Prepared(row, event.type, series, filed is None, draw)


def _readings(filed: list[Filed]) -> tuple[str, str, str, str, str, str]:
    """Return the six arrays of the row."""
    series: list[str] = []
    quantities: list[str] = []
    for one in filed:
        if one.keeping is not Keeping.TOTALS or one.per_event:
            return _readings_of_all_kinds(filed)
        series.append(one.series.series_id)
        quantities.append(str(one.value))
    # What nearly every event is, without a detour through six lists.
    return (_array(series), _array(quantities), *_NO_VALUES_AND_POINTS)


def _readings_of_all_kinds(filed: list[Filed]) -> tuple[str, str, str, str, str, str]:
    totals = [one for one in filed if one.keeping is Keeping.TOTALS]
    values = [one for one in filed if one.keeping is Keeping.VALUES]
    points = [one for one in filed if one.keeping is Keeping.POINTS or one.per_event]
    texts = [str(one.value) for one in values]
    return (
        _array([one.series.series_id for one in totals]),
        _array([str(one.value) for one in totals]),
        _array([one.series.series_id for one in values]),
        _JSON.encode(texts).decode() if texts else "",
        _array([one.series.series_id for one in points]),
        _array([str(one.value) for one in points]),
    )


def _array(elements: list[str]) -> str:
    return "{" + ",".join(elements) + "}" if elements else ""
