"""Append events to an organization's stream: each counts once, however often it is sent."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection

from farebox.events.answer import Outcome
from farebox.flows.refuse_draw import DrawRefusal, as_refusals, naming
from farebox.postgres import draw_paid, stream
from farebox.postgres.event_row import Prepared
from farebox.postgres.stream import NewSeries


class StaleCatalog(Exception):
    """The events were read by an older catalog than the stream's; read them again."""


class Ingested(Struct, frozen=True):
    """What became of each event, and what is committed with them."""

    outcomes: list[Outcome | DrawRefusal]
    first_sequence: int
    appended: int
    series: list[str]


class _Attempt:
    """The events of one call, but for those at the places of `refused`, ready for the database."""

    def __init__(
        self,
        organization_id: UUID,
        events: Sequence[Prepared],
        refused: Mapping[int, DrawRefusal],
        revision: int,
        now: datetime,
        known_series: set[str],
        may_know: bool,
    ) -> None:
        self._refused = refused
        if refused:
            events = [event for place, event in enumerate(events) if place not in refused]
        self._events = events
        self._first_of, self._places = _first_of_each_key(events)
        self._new_series = _new_series(self._first_of, known_series)
        self.statement, self.parameters = stream.append_call(
            organization_id,
            [event.row for event in self._first_of],
            revision,
            now,
            may_know=may_know,
            series=self._new_series,
            unread_types=sorted({event.kind for event in self._first_of if event.unread}),
        )

    def result(self, answer: tuple[Any, ...] | None) -> Ingested:
        appended = stream.appended(answer)
        if appended is None:
            raise StaleCatalog
        outcomes = [Outcome.ACCEPTED] * len(self._events)
        if appended.count < len(outcomes):
            outcomes = self._compare(appended.known)
        first = appended.last_before + 1
        committed = [
            one.series.series_id
            for one in self._new_series
            if not appended.known.keys() >= set(one.places)
        ]
        return Ingested(self._with_refused(outcomes), first, appended.count, committed)

    def _with_refused(self, outcomes: Sequence[Outcome]) -> list[Outcome | DrawRefusal]:
        """Put what was refused back to its places."""
        every: list[Outcome | DrawRefusal] = list(outcomes)
        for place in sorted(self._refused):
            every.insert(place, self._refused[place])
        return every

    def _compare(self, known: Mapping[int, str]) -> list[Outcome]:
        """Compare each event with what is stored of its key by now, known or just appended."""
        fresh = set(range(len(self._first_of))) - known.keys()
        outcomes = []
        for event, place in zip(self._events, self._places, strict=True):
            if place in fresh:
                fresh.remove(place)
                outcomes.append(Outcome.ACCEPTED)
            else:
                stored = known.get(place) or self._first_of[place].digest
                same = event.digest == stored
                outcomes.append(Outcome.DUPLICATE if same else Outcome.CONFLICT)
        return outcomes


def ingest_in(
    connection: Connection,
    organization_id: UUID,
    events: Sequence[Prepared],
    revision: int,
    now: datetime,
    known_series: set[str],
    *,
    may_know: bool = True,
    own_draws: bool = False,
) -> Ingested:
    """Append the new ones among `events` and say of each what it was; order is kept.

    What is appended has gapless sequences; outside of a transaction it is one by itself.
    revision: of the catalog that read them; StaleCatalog is raised when a newer one is in force.
    known_series: ids that are committed already. may_know: whether events that are in the stream
    already are to be expected; when they are not, and there is one, it takes longer. own_draws: the
    draws that events name were made for them in this transaction, and need not be looked up.
    """
    named = [] if own_draws else naming(events)
    refused: Mapping[int, DrawRefusal] = {}
    if named:
        call = draw_paid.refuse_call(organization_id, [events[place] for place in named])
        refused = as_refusals(named, connection.execute(*call).fetchall())
    attempt = _Attempt(organization_id, events, refused, revision, now, known_series, may_know)
    cursor = connection.execute(attempt.statement, attempt.parameters)
    return attempt.result(cursor.fetchone())


async def ingest(
    connection: AsyncConnection,
    organization_id: UUID,
    events: Sequence[Prepared],
    revision: int,
    now: datetime,
    known_series: set[str],
    *,
    may_know: bool,
) -> Ingested:
    """As `ingest_in`, on a connection of an event loop, in a transaction by itself."""
    named = naming(events)
    refused: Mapping[int, DrawRefusal] = {}
    if named:
        call = draw_paid.refuse_call(organization_id, [events[place] for place in named])
        looked_up = await connection.execute(*call)
        refused = as_refusals(named, await looked_up.fetchall())
    attempt = _Attempt(organization_id, events, refused, revision, now, known_series, may_know)
    cursor = await connection.execute(attempt.statement, attempt.parameters)
    return attempt.result(await cursor.fetchone())


def _first_of_each_key(events: Sequence[Prepared]) -> tuple[list[Prepared], list[int]]:
    """Return one event of each key, and for each event the place of its key among them."""
    place_of: dict[str, int] = {}
    first_of: list[Prepared] = []
    places: list[int] = []
    for event in events:
        place = place_of.setdefault(event.key, len(first_of))
        if place == len(first_of):
            first_of.append(event)
        places.append(place)
    return first_of, places


def _new_series(events: Sequence[Prepared], known: set[str]) -> list[NewSeries]:
    """Return the series not committed yet, in id order so that writers never deadlock."""
    found: dict[str, NewSeries] = {}
    for place, event in enumerate(events):
        for one in event.series:
            if one.series_id not in known:
                found.setdefault(one.series_id, NewSeries(one, [])).places.append(place)
    return [found[series_id] for series_id in sorted(found)]
