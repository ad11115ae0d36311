"""Import a file of usage, and undo that: what `farebox import` runs."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.cli.reading.file import FileUnreadable, Numbered, RowFile, format_of, open_rows
from farebox.cli.reading.mapping import FileMapping, columns_of
from farebox.cli.reading.row import RowFault, RowReader
from farebox.events.admit import TimePolicy, admit
from farebox.events.refusal import Rejection
from farebox.flows.import_events import (
    ImportCode,
    ImportRefusal,
    NumberedRow,
    RowTaker,
    begin_import,
    finish_import,
)
from farebox.flows.undo_import import Undone, undo_import
from farebox.postgres import imports
from farebox.postgres.imports import ImportRow, ImportStatus
from farebox.postgres.session import Pool, transaction

ROWS_A_BATCH = 5_000
IMPORT_TIME_POLICY = TimePolicy(late=None)
"""What is imported may be of any age; a time to come is a mistake here too."""

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_REJECTIONS_A_PAGE = 1_000


class FileCode(StrEnum):
    """Why a file is not read, in order of precedence."""

    NAME_INVALID = "name_invalid"
    FORMAT_UNKNOWN = "format_unknown"
    FILE_UNREADABLE = "file_unreadable"
    COLUMN_UNKNOWN = "column_unknown"


class FileRefusal(Struct, frozen=True):
    """An expected no, and what would help."""

    code: FileCode
    message: str


class ImportReport(Struct, frozen=True, kw_only=True):
    """What became of the rows, over all the times the import was run.

    rows: those of the file; each is accepted, a duplicate, a conflict or rejected. resumed_after:
    the row after which this run began.
    """

    import_id: UUID
    name: str
    status: str
    rows: int
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    resumed_after: int


class Progress(Struct, frozen=True):
    """How far an import is: rows so far, and which part of the file's size was read."""

    rows: int
    done: int
    size: int


def import_file(
    pool: Pool,
    organization_id: UUID,
    path: Path,
    mapping: FileMapping,
    name: str,
    clock: Callable[[], datetime],
    new_id: Callable[[], UUID],
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport | ImportRefusal | FileRefusal:
    """Import a file under a name, or go on where that import was left.

    A name stands for one file and one mapping. Run again, an import that is finished changes
    nothing and reports what it was.
    """
    kind = format_of(path, mapping)
    if _NAME.fullmatch(name) is None:
        message = "a name is 1 to 128 letters, digits and . _ : -"
        return FileRefusal(FileCode.NAME_INVALID, message)
    if kind is None:
        message = f"{path.name} ends in no known format; name it in the mapping (format: csv)"
        return FileRefusal(FileCode.FORMAT_UNKNOWN, message)
    try:
        digests = (_digest(path), hashlib.sha256(msgspec.json.encode(mapping)).hexdigest())
        with open_rows(path, kind, mapping) as file:
            missing = sorted((columns_of(mapping) or frozenset()) - (file.columns() or frozenset()))
            if missing and file.columns() is not None:
                message = f"the file has no column {missing[0]!r}"
                return FileRefusal(FileCode.COLUMN_UNKNOWN, message)
            record = begin_import(pool, organization_id, new_id(), name, digests, clock())
            if isinstance(record, ImportRefusal):
                return record
            done = _take_all(pool, organization_id, record, file, mapping, clock, progress)
    except (FileUnreadable, OSError) as error:
        return FileRefusal(FileCode.FILE_UNREADABLE, str(error))
    return done if isinstance(done, ImportRefusal) else _report(done, record.last_row)


def _take_all(
    pool: Pool,
    organization_id: UUID,
    record: ImportRow,
    file: RowFile,
    mapping: FileMapping,
    clock: Callable[[], datetime],
    progress: Callable[[Progress], None] | None,
) -> ImportRow | ImportRefusal:
    if record.status != ImportStatus.RUNNING:
        return record
    taker = RowTaker(pool, organization_id)
    reader = RowReader(mapping, record.name)
    for batch in _batches(file.rows(record.last_row)):
        now = clock()
        rows = [_admitted(reader, organization_id, one, now) for one in batch]
        taken = taker.take(record, rows, batch[-1][0], now)
        if isinstance(taken, ImportRefusal):
            return taken
        record = taken
        if progress is not None:
            progress(Progress(_rows(record), file.done(), file.size))
    return finish_import(pool, organization_id, record, clock())


def _batches(rows: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    while batch := list(itertools.islice(rows, ROWS_A_BATCH)):
        yield batch


def _admitted(
    reader: RowReader, organization_id: UUID, numbered: Numbered, now: datetime
) -> NumberedRow:
    row, values = numbered
    if isinstance(values, RowFault):
        return NumberedRow(row, Rejection(row, values.code, values.pointer, values.message))
    event = reader.read(row, values)
    if isinstance(event, Rejection):
        return NumberedRow(row, event)
    return NumberedRow(row, admit(row, event, organization_id.bytes, now, IMPORT_TIME_POLICY))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rows(record: ImportRow) -> int:
    return record.accepted + record.duplicates + record.conflicts + record.rejected


def _report(record: ImportRow, resumed_after: int) -> ImportReport:
    return ImportReport(
        import_id=record.import_id,
        name=record.name,
        status=record.status,
        rows=_rows(record),
        accepted=record.accepted,
        duplicates=record.duplicates,
        conflicts=record.conflicts,
        rejected=record.rejected,
        resumed_after=resumed_after,
    )


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[Progress], None]]:
    """Show how far an import is, on standard error, while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, rows=0)

        def show(progress: Progress) -> None:
            bar.update(task, total=progress.size, completed=progress.done, rows=progress.rows)

        yield show


def write_rejections(pool: Pool, organization_id: UUID, import_id: UUID, path: Path) -> int:
    """Write the rows that did not become an event as JSON lines, and return how many they are."""
    count = after = 0
    with path.open("wb") as file:
        while True:
            with transaction(pool, organization_id) as connection:
                page = imports.read_rejections(
                    connection, organization_id, import_id, after=after, limit=_REJECTIONS_A_PAGE
                )
            for one in page:
                file.write(msgspec.json.encode(one) + b"\n")
            count += len(page)
            if len(page) < _REJECTIONS_A_PAGE:
                return count
            after = page[-1].row


def undo_by_name(
    pool: Pool, organization_id: UUID, name: str, now: datetime
) -> Undone | ImportRefusal:
    """Undo the import of that name."""
    with transaction(pool, organization_id) as connection:
        found = imports.find_import(connection, organization_id, name)
    if found is None:
        return ImportRefusal(ImportCode.IMPORT_UNKNOWN, f"there is no import {name!r}")
    return undo_import(pool, organization_id, found.import_id, now)
