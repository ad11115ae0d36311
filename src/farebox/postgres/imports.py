"""Imports: what each brought, how far it came, and the rows that did not become an event."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class ImportStatus(StrEnum):
    """Where an import stands."""

    RUNNING = "running"
    FINISHED = "finished"
    UNDONE = "undone"


class ImportRow(Struct, frozen=True, kw_only=True):
    """One import; `last_row` is the number of the last row of the file that was dealt with."""

    import_id: UUID
    name: str
    file_digest: str
    mapping_digest: str
    status: str
    last_row: int
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    started_at: datetime
    updated_at: datetime


class RejectionRow(Struct, frozen=True):
    """A row of a file that did not become an event; `pointer` is into the event it would be."""

    row: int
    code: str
    pointer: str
    message: str


_IMPORT = ", ".join(ImportRow.__struct_fields__)


def add_import(connection: Connection, organization_id: UUID, row: ImportRow) -> bool:
    """Record an import that begins; False where its name is taken."""
    cursor = connection.execute(
        f"insert into import (organization_id, {_IMPORT})"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (organization_id, name) do nothing",
        (organization_id, *(getattr(row, field) for field in ImportRow.__struct_fields__)),
    )
    return cursor.rowcount == 1


def find_import(connection: Connection, organization_id: UUID, name: str) -> ImportRow | None:
    cursor = connection.cursor(row_factory=class_row(ImportRow))
    return cursor.execute(
        f"select {_IMPORT} from import where organization_id = %s and name = %s",
        (organization_id, name),
    ).fetchone()


def lock_import(connection: Connection, organization_id: UUID, import_id: UUID) -> ImportRow | None:
    """Return the import as it is, and keep it so until the transaction ends."""
    cursor = connection.cursor(row_factory=class_row(ImportRow))
    return cursor.execute(
        f"select {_IMPORT} from import where organization_id = %s and import_id = %s for update",
        (organization_id, import_id),
    ).fetchone()


def list_imports(connection: Connection, organization_id: UUID, limit: int) -> list[ImportRow]:
    """Return imports, the latest first."""
    cursor = connection.cursor(row_factory=class_row(ImportRow))
    return cursor.execute(
        f"select {_IMPORT} from import where organization_id = %s"
        " order by started_at desc, name limit %s",
        (organization_id, limit),
    ).fetchall()


def save_import(connection: Connection, organization_id: UUID, row: ImportRow) -> None:
    """Write how far an import came; the caller has locked it."""
    connection.execute(
        "update import set status = %s, last_row = %s, accepted = %s, duplicates = %s,"
        " conflicts = %s, rejected = %s, updated_at = %s"
        " where organization_id = %s and import_id = %s",
        (
            row.status,
            row.last_row,
            row.accepted,
            row.duplicates,
            row.conflicts,
            row.rejected,
            row.updated_at,
            organization_id,
            row.import_id,
        ),
    )


def add_range(
    connection: Connection, organization_id: UUID, import_id: UUID, first: int, last: int
) -> None:
    """Note the sequences of events that the import brought; they join the range before them."""
    key = (organization_id, import_id)
    grown = connection.execute(
        "update import_range set last_sequence = %s"
        " where organization_id = %s and import_id = %s and last_sequence = %s",
        (last, *key, first - 1),
    )
    if grown.rowcount == 0:
        connection.execute("insert into import_range values (%s, %s, %s, %s)", (*key, first, last))


def sequence_span(
    connection: Connection, organization_id: UUID, import_id: UUID
) -> tuple[int, int] | None:
    """Return the first and the last sequence that the import brought; None where it is none."""
    row = connection.execute(
        "select min(first_sequence), max(last_sequence) from import_range"
        " where organization_id = %s and import_id = %s",
        (organization_id, import_id),
    ).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


def add_rejections(
    connection: Connection,
    organization_id: UUID,
    import_id: UUID,
    rejections: Sequence[RejectionRow],
) -> None:
    connection.execute(
        "insert into import_rejection (organization_id, import_id, row, code, pointer, message)"
        " select %s, %s, * from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[])",
        (
            organization_id,
            import_id,
            *(
                [getattr(one, field) for one in rejections]
                for field in RejectionRow.__struct_fields__
            ),
        ),
    )


def read_rejections(
    connection: Connection, organization_id: UUID, import_id: UUID, *, after: int, limit: int
) -> list[RejectionRow]:
    """Return rows that did not become an event, in the order of the file, a page at a time."""
    rows = connection.execute(
        "select row, code, pointer, message from import_rejection"
        " where organization_id = %s and import_id = %s and row > %s order by row limit %s",
        (organization_id, import_id, after, limit),
    ).fetchall()
    return [RejectionRow(*row) for row in rows]
