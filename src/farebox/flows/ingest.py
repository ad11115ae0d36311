"""Append events to an organization's stream: each counts once, however often it is sent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, Connection

from farebox.events.answer import Outcome
from farebox.postgres import stream
from farebox.postgres.event_row import Prepared
from farebox.postgres.stream import NewSeries


class StaleCatalog(Exception):
    """The events were read by an older catalog than the stream's; read them again."""


class Ingested(Struct, frozen=True):
    """What became of each event, and what is committed with them."""

    outcomes: list[Outcome]
    first_sequence: int
    appended: int
    series: list[str]


class _Attempt:
    """The events of one call, ready for the database."""

    def __init__(
        self,
        organization_id: UUID,
        events: Sequence[Prepared],
        revision: int,
        now: datetime,
        known_series: set[str],
        may_know: bool,
    ) -> None:
        self._first_of, self._outcomes = _first_of_each_key(events)
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
        outcomes = [
            outcome if isinstance(outcome, Outcome) else _outcome(appended.known.get(outcome))
            for outcome in self._outcomes
        ]
        first = appended.last_before + 1
        committed = [
            one.series.series_id
            for one in self._new_series
            if not appended.known.keys() >= set(one.places)
        ]
        return Ingested(outcomes, first, appended.count, committed)


def ingest_in(
    connection: Connection,
    organization_id: UUID,
    events: Sequence[Prepared],
    revision: int,
    now: datetime,
    known_series: set[str],
    *,
    may_know: bool = True,
) -> Ingested:
    """Append the new ones among `events` and say of each what it was; order is kept.

    What is appended has gapless sequences; outside of a transaction it is one by itself.
    revision: of the catalog that read them; StaleCatalog is raised when a newer one is in force.
    known_series: ids that are committed already. may_know: whether events that are in the stream
    already are to be expected; when they are not, and there is one, it takes longer.
    """
    attempt = _Attempt(organization_id, events, revision, now, known_series, may_know)
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
    attempt = _Attempt(organization_id, events, revision, now, known_series, may_know)
    cursor = await connection.execute(attempt.statement, attempt.parameters)
    return attempt.result(await cursor.fetchone())


def _first_of_each_key(
    events: Sequence[Prepared],
) -> tuple[list[Prepared], list[Outcome | int]]:
    """Return the events to compare with the stream, and for each event its place among them.

    An event whose key came before in the same call is told at once: a duplicate or a conflict.
    """
    places: dict[str, int] = {}
    first_of: list[Prepared] = []
    outcomes: list[Outcome | int] = []
    for event in events:
        place = places.setdefault(event.key, len(first_of))
        if place == len(first_of):
            first_of.append(event)
            outcomes.append(place)
        else:
            same = first_of[place].digest == event.digest
            outcomes.append(Outcome.DUPLICATE if same else Outcome.CONFLICT)
    return first_of, outcomes


def _outcome(same: bool | None) -> Outcome:
    """Return what an event was that is in the stream already and says the same there, or not."""
    if same is None:
        return Outcome.ACCEPTED
    return Outcome.DUPLICATE if same else Outcome.CONFLICT


def _new_series(events: Sequence[Prepared], known: set[str]) -> list[NewSeries]:
    """Return the series not committed yet, in id order so that writers never deadlock."""
    found: dict[str, NewSeries] = {}
    for place, event in enumerate(events):
        for one in event.series:
            if one.series_id not in known:
                found.setdefault(one.series_id, NewSeries(one, [])).places.append(place)
    return [found[series_id] for series_id in sorted(found)]
