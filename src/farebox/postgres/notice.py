"""Notices: what happened, written in the transaction in which it happened."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.catalog.plain_json import encode
from farebox.notices.type import NoticeType


class Notice(Struct, frozen=True, kw_only=True):
    """What is to be told. `data` becomes JSON: decimals as plain text, times in their offset.

    notice_id: a fresh uuidv7; receivers get notices in the order of these. customer: whom it is
    about, if it is about one.
    """

    notice_id: UUID
    type: NoticeType
    time: datetime
    customer: str | None
    data: Mapping[str, object]


class NoticeRow(Struct, frozen=True, kw_only=True):
    """A notice as it is stored; `data` is JSON text."""

    notice_id: UUID
    type: str
    time: datetime
    customer_key: str | None
    data: str


_COLUMNS = "notice_id, type, time, customer_key, data::text"


def add_notices(
    connection: Connection,
    organization_id: UUID,
    notices: Sequence[Notice],
    *,
    dispatched_at: datetime | None = None,
) -> None:
    """Write notices in the transaction of what they tell; they are sent soon after it commits.

    dispatched_at: for one that already has its deliveries.
    """
    if not notices:
        return
    # One parameter for all of them: a page of a billing run has a thousand.
    connection.execute(
        "insert into notice (organization_id, notice_id, type, time, customer_key, data,"
        "  dispatched_at)"
        " select %s, n.notice_id, n.type, n.time, n.customer, n.data, %s"
        " from json_to_recordset(%s::json) as n"
        "  (notice_id uuid, type text, time timestamptz, customer text, data json)",
        (organization_id, dispatched_at, encode(notices).decode()),
    )


def notices(
    connection: Connection,
    organization_id: UUID,
    *,
    customer_key: str | None = None,
    notice_type: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 100,
) -> list[NoticeRow]:
    """Return notices, the newest first, a page at a time."""
    time, identifier = after or (None, None)
    # Only what is asked for is in the statement, so that each has the index it needs.
    wanted = [
        condition
        for condition, given in (
            ("customer_key = %(customer)s", customer_key),
            ("type = %(type)s", notice_type),
            ("(time, notice_id) < (%(time)s, %(id)s)", time),
        )
        if given is not None
    ]
    cursor = connection.cursor(row_factory=class_row(NoticeRow))
    return cursor.execute(
        f"select {_COLUMNS} from notice where"
        f" {' and '.join(['organization_id = %(org)s', *wanted])}"
        " order by time desc, notice_id desc limit %(limit)s",
        {
            "org": organization_id,
            "customer": customer_key,
            "type": notice_type,
            "time": time,
            "id": identifier,
            "limit": limit,
        },
    ).fetchall()


def notices_between(
    connection: Connection,
    organization_id: UUID,
    since: datetime,
    until: datetime,
    types: Sequence[str],
    customer_key: str | None,
    limit: int,
) -> list[NoticeRow]:
    """Return notices of a span of time, `until` excluded: of these types (empty: all) and of one
    customer (None: of all).
    """
    cursor = connection.cursor(row_factory=class_row(NoticeRow))
    return cursor.execute(
        f"select {_COLUMNS} from notice"
        " where organization_id = %(org)s and time >= %(since)s and time < %(until)s"
        " and (%(types)s::text[] = '{}' or type = any(%(types)s))"
        " and (%(customer)s::text is null or customer_key = %(customer)s)"
        " order by time, notice_id limit %(limit)s",
        {
            "org": organization_id,
            "since": since,
            "until": until,
            "types": list(types),
            "customer": customer_key,
            "limit": limit,
        },
    ).fetchall()


def organizations_to_dispatch(connection: Connection) -> list[UUID]:
    """Return the organizations with notices that nobody has handed on; needs no organization."""
    return [
        row[0]
        for row in connection.execute("select organization_id from organizations_to_dispatch()")
    ]


def lock_undispatched(
    connection: Connection, organization_id: UUID, limit: int
) -> Sequence[NoticeRow]:
    """Return the oldest notices that nobody has handed on or is handing on, and hold them."""
    cursor = connection.cursor(row_factory=class_row(NoticeRow))
    return cursor.execute(
        f"select {_COLUMNS} from notice where organization_id = %s and dispatched_at is null"
        " order by notice_id limit %s for no key update skip locked",
        (organization_id, limit),
    ).fetchall()


def set_dispatched(
    connection: Connection, organization_id: UUID, notice_ids: Sequence[UUID], now: datetime
) -> None:
    connection.execute(
        "update notice set dispatched_at = %s where organization_id = %s and notice_id = any(%s)",
        (now, organization_id, list(notice_ids)),
    )


def drop_notices(connection: Connection, before: datetime) -> int:
    """Drop what was handed on before an instant, of every organization; return how many."""
    row = connection.execute("select drop_notices(%s)", (before,)).fetchone()
    assert row is not None
    return int(row[0])
