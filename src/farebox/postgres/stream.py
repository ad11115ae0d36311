"""The event stream: the head that orders it, the keys that make it exact, the rows themselves."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.metering.series import Series

SEPARATOR = "\x1f"
"""Stands between the values of a column; neither a name nor JSON text contains it."""

Row = tuple[datetime, str, str, str, str, str, str, str, str, str, str, str, str, str]
"""An event: its time, then as text key, digest, source, id, type, subject, the readings (series,
quantities, value_series, value_texts, point_series, point_quantities; value_texts as a JSON array,
the others as array literals), and the payload. "" is null."""

_COLUMNS = 14
_APPEND = f"select * from append_events({', '.join(['%s'] * (_COLUMNS + 6))})"
_JSON = msgspec.json.Encoder()


class Head(Struct, frozen=True):
    """The end of an organization's stream, as its lock holder sees it."""

    last_sequence: int
    catalog_revision: int


def lock_head(connection: Connection, organization_id: UUID) -> Head:
    """Lock the stream until the transaction ends: whoever holds it is the only one to append."""
    row = connection.execute(
        "select last_sequence, catalog_revision from stream_head"
        " where organization_id = %s and shard = 0 for update",
        (organization_id,),
    ).fetchone()
    assert row is not None, "an organization is created with its stream head"
    return Head(*row)


def read_head(connection: Connection, organization_id: UUID) -> Head:
    row = connection.execute(
        "select last_sequence, catalog_revision from stream_head"
        " where organization_id = %s and shard = 0",
        (organization_id,),
    ).fetchone()
    assert row is not None, "an organization is created with its stream head"
    return Head(*row)


def raise_catalog_revision(connection: Connection, organization_id: UUID) -> Head:
    """Let every later event be read by the catalog as it is now; returns the head before it."""
    head = lock_head(connection, organization_id)
    connection.execute(
        "update stream_head set catalog_revision = catalog_revision + 1"
        " where organization_id = %s and shard = 0",
        (organization_id,),
    )
    return head


class NewSeries(Struct, frozen=True):
    """A series, and the places (from 0) of the events that were read into it."""

    series: Series
    places: list[int]


class Appended(Struct, frozen=True):
    """What `append_events` did.

    last_before: the last sequence before these events. known: places (from 0) of those that were
    in the stream already, and their digests there (32 hexadecimal digits).
    """

    last_before: int
    count: int
    known: dict[int, str]


def append_call(
    organization_id: UUID,
    rows: Sequence[Row],
    revision: int,
    received_at: datetime,
    *,
    may_know: bool,
    series: Sequence[NewSeries],
    unread_types: Sequence[str],
) -> tuple[str, tuple[object, ...]]:
    """Return the statement and its parameters that append the rows whose keys are new.

    It is a transaction by itself, or part of one. revision: of the catalog that read the events.
    may_know: look for the keys before trying to insert them; either way nothing counts twice.
    series: those not committed yet, in the order of their ids. `appended` reads the answer.
    """
    columns: list[str | None] = [None] * _COLUMNS
    if rows:
        times, *texts = zip(*rows, strict=True)
        columns = [_times(times), *[SEPARATOR.join(one) if any(one) else None for one in texts]]
    new_series = _series_json(series) if series else None
    types = list(unread_types) or None
    return _APPEND, (organization_id, revision, received_at, may_know, *columns, new_series, types)


def _times(times: Sequence[datetime]) -> str:
    # The encoder prints an array of times far faster than isoformat prints each.
    return _JSON.encode(times)[2:-2].replace(b'","', SEPARATOR.encode()).decode()


def appended(answer: tuple[Any, ...] | None) -> Appended | None:
    """Read what the statement of `append_call` answered; None: another revision is in force."""
    assert answer is not None, "the function answers one row"
    last_before, count, known, digests = answer
    if last_before is None:
        return None
    places = [place - 1 for place in known]
    return Appended(last_before, count, dict(zip(places, digests or (), strict=True)))


def _series_json(series: Sequence[NewSeries]) -> str:
    rows = [
        {
            "series_id": new.series.series_id,
            "meter_key": new.series.meter_key,
            "meter_version": new.series.meter_version,
            "subject": new.series.subject,
            "customer_key": new.series.customer,
            "dimensions": new.series.dimensions,
            "places": [place + 1 for place in new.places],
        }
        for new in series
    ]
    return _JSON.encode(rows).decode()


def ensure_partitions(connection: Connection, months: Iterable[date]) -> None:
    """Make the monthly partitions of the stream; needs no organization."""
    for month in months:
        connection.execute("select ensure_event_partition(%s)", (month,))
