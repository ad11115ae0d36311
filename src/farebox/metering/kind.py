"""The meters of one event type, and a memory of where events of the same make are filed.

Which meters take an event, and into which series, follows from few of its fields: those that
filters, dimensions and persons read. Where all of them are plain look-ups, what followed once
is remembered for every later event that has the same texts there; only values are read anew.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from msgspec import Struct

from farebox.catalog.meter import Meter
from farebox.catalog.path import MISSING, Data, Key, read_keys
from farebox.metering.reading import (
    CompiledMeter,
    Fields,
    Placement,
    ReadingRefusal,
    compile_meter,
)
from farebox.metering.series import Keeping, Series, keeping_of, series_of

_SERIES_REMEMBERED = 50_000
_PLACES_REMEMBERED = 20_000
_TEXT_REMEMBERED = 128
_SMALL = range(-1000, 1000)
"""Whole numbers that name something, as a status code does; others are seen too seldom."""

_NO_DATA: Data = {}


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
    __slots__ = ("compiled", "ends", "keeping", "known", "per_event", "starts", "version")

    def __init__(self, version: MeterVersion) -> None:
        self.version = version
        self.compiled: CompiledMeter = compile_meter(version.meter)
        self.keeping = keeping_of(version.meter)
        self.per_event = version.meter.per_event
        self.starts = version.effective_from
        self.ends = version.effective_to
        self.known: dict[tuple[str, str, tuple[str, ...]], Series] = {}


class _Place(Struct, frozen=True):
    """Into which series an entry files its reading, or each of a spread's by its name."""

    entry: _Entry
    series: Series | None
    spread: Mapping[str, Series]


class Kind:
    """Reads the events of one type by every meter that knows it."""

    def __init__(self, organization: bytes, versions: Sequence[MeterVersion]) -> None:
        self._organization = organization
        self._entries = [_Entry(version) for version in versions]
        self._fields: Fields | None = None
        self._look: Callable[[Data], tuple[Any, ...]] = _nothing
        reads = [entry.compiled.fields for entry in self._entries]
        if None not in reads:
            self._fields = frozenset().union(*filter(None, reads))
            self._look = _look_up(sorted(self._fields, key=str))
        self._reads_source = any(entry.compiled.reads_source for entry in self._entries)
        self._places: dict[Hashable, list[_Place]] = {}

    def read(
        self, content: object, kind: str, source: str, subject: str | None, time: datetime
    ) -> list[Filed] | ReadingRefusal:
        """Return what the meters read; one refused reading refuses the event."""
        data: Any = content if type(content) is dict else _NO_DATA
        if self._fields is not None:
            key = (subject, source if self._reads_source else "", *self._look(data))
            try:
                places = self._places.get(key)
            except TypeError:  # an array or an object, where a text would do
                places = None
            else:
                if places is None:
                    places = self._find_places(key, data, kind, source, subject)
            if places is not None:
                return _file(places, data, time)
        return self._read_anew(data, kind, source, subject, time)

    def _find_places(
        self, key: tuple[Any, ...], data: Data, kind: str, source: str, subject: str | None
    ) -> list[_Place] | None:
        """Return what is remembered under `key`, or will be; None where nothing can be."""
        remembered = _key_of_texts(key)
        if remembered is None:
            return None
        places = self._places.get(remembered)
        if places is not None:
            return places
        places = []
        for entry in self._entries:
            placement = entry.compiled.place(data, kind, source, subject)
            if isinstance(placement, ReadingRefusal):
                return None
            if placement is not None:
                places.append(self._place(entry, placement))
        if len(self._places) >= _PLACES_REMEMBERED:
            self._places.clear()
        self._places[remembered] = places
        return places

    def _place(self, entry: _Entry, placement: Placement) -> _Place:
        subject, customer, dimensions = placement
        spread = entry.version.meter.spread
        if spread is None:
            return _Place(entry, self._series(entry, subject, customer, dimensions), {})
        return _Place(
            entry,
            None,
            {
                name: self._series(entry, subject, customer, (*dimensions, name))
                for name in spread.values
            },
        )

    def _read_anew(
        self, data: Data, kind: str, source: str, subject: str | None, time: datetime
    ) -> list[Filed] | ReadingRefusal:
        filed: list[Filed] = []
        for entry in self._entries:
            if not entry.starts <= time < entry.ends:
                continue
            readings = entry.compiled.read(data, kind, source, subject)
            if isinstance(readings, ReadingRefusal):
                return readings
            for one in readings:
                series = self._series(entry, one.subject, one.customer, one.dimensions)
                filed.append(Filed(series, one.value, entry.keeping, entry.per_event))
        return filed

    def _series(
        self, entry: _Entry, subject: str, customer: str, dimensions: tuple[str, ...]
    ) -> Series:
        identity = (subject, customer, dimensions)
        series = entry.known.get(identity)
        if series is None:
            if len(entry.known) >= _SERIES_REMEMBERED:
                entry.known.clear()
            version = entry.version
            series = entry.known[identity] = series_of(
                self._organization,
                version.meter.key,
                version.version,
                subject,
                customer,
                dimensions,
            )
        return series


def _file(places: list[_Place], data: Data, time: datetime) -> list[Filed] | ReadingRefusal:
    """Read the values of an event whose places are known."""
    filed: list[Filed] = []
    for place in places:
        entry = place.entry
        if not entry.starts <= time < entry.ends:
            continue
        value = entry.compiled.value(data)
        if type(value) is ReadingRefusal:
            return value
        if place.series is not None:
            filed.append(Filed(place.series, value, entry.keeping, entry.per_event))
            continue
        for name, each in value:
            filed.append(Filed(place.spread[name], each, entry.keeping, entry.per_event))
    return filed


def _look_up(fields: Sequence[tuple[Key, ...]]) -> Callable[[Data], tuple[Any, ...]]:
    """Return what reads all of the fields at once; MISSING where nothing stands."""
    if not fields:
        return _nothing
    readers = [read_keys(keys) for keys in fields]

    def look(data: Data) -> tuple[Any, ...]:
        return tuple([read(data) for read in readers])

    if len(fields) == 1 or any(len(keys) > 1 for keys in fields):
        return look
    get_all = itemgetter(*[keys[0] for keys in fields])

    def look_at_once(data: Data) -> tuple[Any, ...]:
        try:
            return get_all(data)  # type: ignore[no-any-return]
        except KeyError:
            return look(data)

    return look_at_once


def _nothing(_: Data) -> tuple[Any, ...]:
    return ()


def _key_of_texts(key: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the key under which places may be remembered; None where they are not.

    A key of texts is itself: nothing that is no text is equal to one. What else may stand in a
    field comes with its type, because 1, 1.0 and true are equal too.
    """
    parts: list[Any] = []
    for part in key:
        if type(part) is str:
            if len(part) > _TEXT_REMEMBERED:
                return None
            parts.append(part)
        elif part is None or part is MISSING:
            parts.append(part)
        elif type(part) is bool or (type(part) is int and part in _SMALL):
            parts.append((type(part), part))
        else:
            return None
    return tuple(parts)
