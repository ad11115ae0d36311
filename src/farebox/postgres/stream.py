"""The event stream: the head that orders it, the keys that make it exact, the rows themselves."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from re import compile as pattern
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.metering.series import Series

INCOMING = (
    "create temporary table if not exists incoming ("
    " position integer, key uuid, digest uuid, time timestamptz,"
    ' source text collate "C", id text collate "C", type text collate "C",'
    ' subject text collate "C", series uuid[], quantities numeric[],'
    " value_series uuid[], value_texts text[], point_series uuid[], point_quantities numeric[],"
    " payload json) on commit delete rows"
)
"""COPY is refused into a table under row-level security, so rows pass through this one."""

_ROW = (
    "source, id, type, subject, series, quantities, value_series, value_texts,"
    " point_series, point_quantities, payload"
)
_SPECIAL = pattern(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


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


def stage(connection: Connection, lines: Sequence[str]) -> None:
    """Copy rows to where they can be compared and appended from; a line is `copy_line`'s."""
    with connection.cursor().copy("copy incoming from stdin") as copy:
        copy.write("".join([f"{position}\t{line}" for position, line in enumerate(lines)]))


def find_staged(connection: Connection, organization_id: UUID) -> dict[int, str]:
    """Return which staged rows are in the stream already: position to digest there (32 hex)."""
    rows = connection.execute(
        "select i.position, k.digest from incoming i cross join lateral ("
        " select digest from event_key where organization_id = %s and key = i.key offset 0) k",
        (organization_id,),
    ).fetchall()
    return {position: digest.hex for position, digest in rows}


def drop_staged(connection: Connection, positions: Sequence[int]) -> None:
    """Take rows away and close the gaps they leave."""
    connection.execute("delete from incoming where position = any(%s)", (list(positions),))
    connection.execute(
        "update incoming set position = numbered.position from"
        " (select key, row_number() over (order by position) - 1 as position from incoming)"
        " numbered"
        " where incoming.key = numbered.key"
    )


def add_series(connection: Connection, organization_id: UUID, series: Sequence[Series]) -> None:
    connection.cursor().executemany(
        "insert into series values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
        [
            (
                organization_id,
                one.series_id,
                one.meter_key,
                one.meter_version,
                one.subject,
                one.customer,
                list(one.dimensions),
            )
            for one in series
        ],
    )


def append(
    connection: Connection,
    organization_id: UUID,
    head: Head,
    count: int,
    received_at: datetime,
) -> None:
    """Append the `count` staged rows, whose keys are new, and move the head.

    The caller holds the head; sequences follow it without a gap.
    """
    connection.execute(
        "with keys as ("
        " insert into event_key (organization_id, key, digest, sequence)"
        " select %(org)s, key, digest, %(first)s + position from incoming),"
        "rows as ("
        f" insert into event (organization_id, sequence, received_at, time, {_ROW})"
        f" select %(org)s, %(first)s + position, %(received_at)s, time, {_ROW} from incoming)"
        " update stream_head set last_sequence = last_sequence + %(count)s"
        " where organization_id = %(org)s and shard = 0",
        {
            "org": organization_id,
            "first": head.last_sequence + 1,
            "count": count,
            "received_at": received_at,
        },
    )


def copy_line(
    key: str,
    digest: str,
    time: datetime,
    attributes: tuple[str, str, str, str | None],
    readings: str,
    payload: str,
) -> str:
    """Format one row for COPY, without its sequence.

    attributes: source, id, type, subject. readings: the six arrays as PostgreSQL literals, in the
    order of the table, separated by tabs.
    """
    source, identifier, kind, subject = attributes
    if _SPECIAL.search(f"{source}{identifier}{kind}{subject}"):
        source, identifier, kind = escape(source), escape(identifier), escape(kind)
        subject = None if subject is None else escape(subject)
    if "\\" in payload:
        payload = payload.replace("\\", "\\\\")
    return (
        f"{key}\t{digest}\t{time.isoformat()}\t{source}\t{identifier}\t{kind}"
        f"\t{NULL if subject is None else subject}\t{readings}\t{payload}\n"
    )


NULL = "\\N"


def escape(text: str) -> str:
    """Escape what COPY's text format gives a meaning."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda match: _ESCAPES[match.group()], text)


def count_unread(
    connection: Connection,
    organization_id: UUID,
    unread: dict[str, tuple[int, datetime, datetime]],
    last_sequence: int,
) -> None:
    """Note events whose type no meter reads: how many, and from when to when."""
    connection.cursor().executemany(
        "insert into unread_type as u values (%s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, type) do update set"
        " events = u.events + excluded.events,"
        " first_time = least(u.first_time, excluded.first_time),"
        " last_time = greatest(u.last_time, excluded.last_time),"
        " last_sequence = excluded.last_sequence",
        [
            (organization_id, kind, events, first, last, last_sequence)
            for kind, (events, first, last) in sorted(unread.items())
        ],
    )


def ensure_partitions(connection: Connection, months: Iterable[date]) -> None:
    """Make the monthly partitions of the stream; needs no organization."""
    for month in months:
        connection.execute("select ensure_event_partition(%s)", (month,))
