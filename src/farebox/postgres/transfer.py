"""The entries of the ledger: a pool's statement, and what a request moved."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class Entry(Struct, frozen=True):
    """A transfer as it is stored; see `farebox.ledger.transfer`. `note` is JSON text."""

    pool_id: UUID
    sequence: int
    operation: int
    reason: str
    source: str
    target: str
    amount: Decimal
    source_after: Decimal
    target_after: Decimal
    available_after: Decimal
    time: datetime
    grant_number: int | None
    origin: str | None
    subject: str | None
    allotment: str | None
    price: Decimal | None
    key: str | None
    digest: UUID | None
    undoes: int | None
    used_at: datetime | None
    note: str | None


_FIELDS = [f for f in Entry.__struct_fields__ if f != "note"]
_ENTRY = ", ".join([*(f"t.{field}" for field in _FIELDS), "t.note::text"])


# The entries of the operation that begins with the entry `f`; they follow each other, so that the
# next other one ends them. Found before they are read: a pool may have millions after them.
_ENTRIES = f"""
    cross join lateral (
        select {_ENTRY} from transfer t where t.pool_id = f.pool_id and t.sequence >= f.sequence
            and t.sequence < (select min(e.next) from (
                (select n.sequence as next from transfer n
                 where n.pool_id = f.pool_id and n.sequence > f.sequence
                     and n.operation <> f.operation
                 order by n.sequence limit 1)
                union all select 9223372036854775807) e)
        offset 0) t"""


def operations_by_key(
    connection: Connection, organization_id: UUID, wanted: Sequence[tuple[UUID, str]]
) -> list[Entry]:
    """Return all entries of the operations that were asked for by (pool, key)."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    return cursor.execute(
        "select t.* from unnest(%s::uuid[], %s::text[]) w(pool_id, key)"
        f" join transfer f on f.pool_id = w.pool_id and f.key = w.key {_ENTRIES}"
        " where f.organization_id = %s order by t.pool_id, t.sequence",
        ([pool_id for pool_id, _ in wanted], [key for _, key in wanted], organization_id),
    ).fetchall()


def operation(
    connection: Connection, organization_id: UUID, pool_id: UUID, number: int
) -> list[Entry]:
    """Return the entries of one operation, none if there is none of this number."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    return cursor.execute(
        f"select t.* from transfer f {_ENTRIES} where f.organization_id = %s and f.pool_id = %s"
        " and f.sequence = %s and f.operation = f.sequence order by t.sequence",
        (organization_id, pool_id, number),
    ).fetchall()


def operations(
    connection: Connection, organization_id: UUID, wanted: Sequence[tuple[UUID, int]]
) -> list[Entry]:
    """Return the entries of operations by (pool, number), in this order."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    return cursor.execute(
        "select t.* from unnest(%s::uuid[], %s::bigint[]) w(pool_id, number)"
        f" join transfer f on f.pool_id = w.pool_id and f.sequence = w.number {_ENTRIES}"
        " where f.organization_id = %s and f.operation = f.sequence"
        " order by t.pool_id, t.sequence",
        ([pool_id for pool_id, _ in wanted], [number for _, number in wanted], organization_id),
    ).fetchall()


def undoing_each(
    connection: Connection, organization_id: UUID, wanted: Sequence[tuple[UUID, int]]
) -> list[Entry]:
    """As `undoing`, for operations by (pool, number)."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    return cursor.execute(
        f"select {_ENTRY} from unnest(%s::uuid[], %s::bigint[]) w(pool_id, number)"
        " join transfer t on t.pool_id = w.pool_id and t.undoes = w.number"
        " where t.organization_id = %s order by t.pool_id, t.sequence",
        ([pool_id for pool_id, _ in wanted], [number for _, number in wanted], organization_id),
    ).fetchall()


def undoing(
    connection: Connection, organization_id: UUID, pool_id: UUID, number: int
) -> list[Entry]:
    """Return the entries of operations that settle, release, extend or take back this one."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    return cursor.execute(
        f"select {_ENTRY} from transfer t where t.organization_id = %s and t.pool_id = %s"
        " and t.undoes = %s order by t.sequence",
        (organization_id, pool_id, number),
    ).fetchall()


def statement(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    *,
    before: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    subject: str | None = None,
    limit: int = 100,
) -> list[Entry]:
    """Return a pool's entries, the latest first, a page at a time."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    return cursor.execute(
        f"select {_ENTRY} from transfer t"
        " where t.organization_id = %(org)s and t.pool_id = %(pool)s"
        " and (%(before)s::bigint is null or t.sequence < %(before)s)"
        " and (%(since)s::timestamptz is null"
        "      or t.sequence >= (select sequence_at(%(pool)s, %(since)s)))"
        " and (%(until)s::timestamptz is null"
        "      or t.sequence < (select sequence_at(%(pool)s, %(until)s)))"
        " and (%(subject)s::text is null or t.subject = %(subject)s)"
        " order by t.sequence desc limit %(limit)s",
        {
            "org": organization_id,
            "pool": pool_id,
            "before": before,
            "since": since,
            "until": until,
            "subject": subject,
            "limit": limit,
        },
    ).fetchall()
