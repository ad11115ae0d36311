"""Append events to an organization's stream: each counts once, however often it is sent."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from farebox.events.answer import Outcome
from farebox.metering.series import Series
from farebox.postgres import stream
from farebox.postgres.event_row import Prepared
from farebox.postgres.session import Pool, transaction


class StaleCatalog(Exception):
    """The events were read by an older catalog than the stream's; read them again."""


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
        head = stream.lock_head(connection, organization_id)
        if head.catalog_revision != revision:
            raise StaleCatalog
        known = stream.known_keys(connection, organization_id, (event.key for event in events))
        outcomes, fresh = _sort_out(events, known)
        added = _unknown_series(fresh, known_series)
        if fresh:
            if added:
                stream.add_series(connection, organization_id, added)
            first = head.last_sequence + 1
            stream.append(connection, organization_id, first, [event.line for event in fresh], now)
            unread = _unread(fresh)
            if unread:
                stream.count_unread(
                    connection, organization_id, unread, head.last_sequence + len(fresh)
                )
    known_series.update(one.series_id for one in added)
    return outcomes


def _sort_out(
    events: Sequence[Prepared], known: dict[str, str]
) -> tuple[list[Outcome], list[Prepared]]:
    outcomes: list[Outcome] = []
    fresh: list[Prepared] = []
    for event in events:
        digest = known.get(event.key)
        if digest is None:
            known[event.key] = event.digest
            outcomes.append(Outcome.ACCEPTED)
            fresh.append(event)
        else:
            same = digest == event.digest
            outcomes.append(Outcome.DUPLICATE if same else Outcome.CONFLICT)
    return outcomes, fresh


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
