"""Append events to an organization's stream: each counts once, however often it is sent."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.events.answer import Outcome
from farebox.metering.series import Series
from farebox.postgres import stream
from farebox.postgres.event_row import Prepared
from farebox.postgres.session import Pool, transaction


class StaleCatalog(Exception):
    """The events were read by an older catalog than the stream's; read them again."""


class Ingested(Struct, frozen=True):
    """What became of each event, and what is new once the transaction commits."""

    outcomes: list[Outcome]
    first_sequence: int
    appended: int
    series: list[Series]


def ingest(
    pool: Pool,
    organization_id: UUID,
    events: Sequence[Prepared],
    revision: int,
    now: datetime,
    known_series: set[str],
) -> list[Outcome]:
    """Commit the new ones among `events` and say of each what it was; order is kept.

    revision: of the catalog that read them; StaleCatalog is raised when a newer one is in force.
    known_series: ids that are committed already; it grows by what this call commits.
    """
    with transaction(pool, organization_id) as connection:
        ingested = ingest_in(connection, organization_id, events, revision, now, known_series)
    known_series.update(one.series_id for one in ingested.series)
    return ingested.outcomes


def ingest_in(
    connection: Connection,
    organization_id: UUID,
    events: Sequence[Prepared],
    revision: int,
    now: datetime,
    known_series: set[str],
) -> Ingested:
    """As `ingest`, inside a transaction that does more; what is new has gapless sequences."""
    first_of, outcomes = _first_of_each_key(events)
    stream.stage(connection, [event.line for event in first_of])
    # From here to the commit nobody else appends, and the catalog stays as it is.
    head = stream.lock_head(connection, organization_id)
    if head.catalog_revision != revision:
        raise StaleCatalog
    known = stream.find_staged(connection, organization_id)
    if known:
        stream.drop_staged(connection, list(known))
    fresh = [event for place, event in enumerate(first_of) if place not in known]
    if not fresh:
        return Ingested(_answer(first_of, known, outcomes), head.last_sequence + 1, 0, [])
    added = _unknown_series(fresh, known_series)
    if added:
        stream.add_series(connection, organization_id, added)
    stream.append(connection, organization_id, head, len(fresh), now)
    unread = _unread(fresh)
    if unread:
        last = head.last_sequence + len(fresh)
        stream.count_unread(connection, organization_id, unread, last)
    answers = _answer(first_of, known, outcomes)
    return Ingested(answers, head.last_sequence + 1, len(fresh), added)


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


def _answer(
    first_of: Sequence[Prepared], known: dict[int, str], outcomes: Sequence[Outcome | int]
) -> list[Outcome]:
    answers: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, Outcome):
            answers.append(outcome)
        elif outcome not in known:
            answers.append(Outcome.ACCEPTED)
        else:
            same = known[outcome] == first_of[outcome].digest
            answers.append(Outcome.DUPLICATE if same else Outcome.CONFLICT)
    return answers


def _unknown_series(events: Sequence[Prepared], known: set[str]) -> list[Series]:
    """Return the series not committed yet, in id order so that writers never deadlock."""
    unknown = {
        one.series_id: one for event in events for one in event.series if one.series_id not in known
    }
    return [unknown[series_id] for series_id in sorted(unknown)]


def _unread(events: Sequence[Prepared]) -> dict[str, tuple[int, datetime, datetime]]:
    unread: dict[str, tuple[int, datetime, datetime]] = {}
    for event in events:
        if event.unread:
            count, first, last = unread.get(event.kind, (0, event.time, event.time))
            unread[event.kind] = (count + 1, min(first, event.time), max(last, event.time))
    return unread
