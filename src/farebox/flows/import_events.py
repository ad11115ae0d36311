"""Take in the rows of a file: each once, in batches whose events and progress commit together."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.events.admit import Admitted
from farebox.events.answer import Outcome
from farebox.events.refusal import Rejection
from farebox.flows.ingest import StaleCatalog, ingest_in
from farebox.flows.load_book import load_book
from farebox.flows.refuse_draw import POINTER, DrawRefusal
from farebox.metering.book import MeterBook
from farebox.metering.reading import ReadingRefusal
from farebox.postgres import imports
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.imports import ImportRow, ImportStatus, RejectionRow
from farebox.postgres.session import Pool, transaction

_SERIES_REMEMBERED = 1_000_000
_CONFLICT = "an event with this source and id but other content is stored; it counts, this does not"


class ImportCode(StrEnum):
    """Why an import is not begun, not continued or not undone, in order of precedence."""

    IMPORT_UNKNOWN = "import_unknown"
    IMPORT_UNDONE = "import_undone"
    FILE_CHANGED = "file_changed"
    MAPPING_CHANGED = "mapping_changed"
    IMPORT_UNDER_WAY = "import_under_way"
    IMPORT_INVOICED = "import_invoiced"


class ImportRefusal(Struct, frozen=True):
    """An expected no, and what would help."""

    code: ImportCode
    message: str


class NumberedRow(Struct, frozen=True):
    """One row of the file, from 1, and what it says."""

    row: int
    content: Admitted | Rejection


def begin_import(
    pool: Pool,
    organization_id: UUID,
    import_id: UUID,
    name: str,
    digests: tuple[str, str],
    now: datetime,
) -> ImportRow | ImportRefusal:
    """Record an import, or return the one of this name, to be continued from its last row.

    digests: of the file and of its mapping; a name stands for one of each, for ever.
    """
    file_digest, mapping_digest = digests
    fresh = ImportRow(
        import_id=import_id,
        name=name,
        file_digest=file_digest,
        mapping_digest=mapping_digest,
        status=ImportStatus.RUNNING,
        last_row=0,
        accepted=0,
        duplicates=0,
        conflicts=0,
        rejected=0,
        started_at=now,
        updated_at=now,
    )
    with transaction(pool, organization_id) as connection:
        if imports.add_import(connection, organization_id, fresh):
            return fresh
        found = imports.find_import(connection, organization_id, name)
    assert found is not None, "an import is never deleted"
    if found.status == ImportStatus.UNDONE:
        return _undone(name)
    if found.file_digest != file_digest:
        message = f"{name!r} imported another file; give this one a name of its own"
        return ImportRefusal(ImportCode.FILE_CHANGED, message)
    if found.mapping_digest != mapping_digest:
        message = f"{name!r} began with another mapping; undo it and import under a new name"
        return ImportRefusal(ImportCode.MAPPING_CHANGED, message)
    return found


class RowTaker:
    """Takes the rows of one import; keeps what it knows of the catalog between batches."""

    def __init__(self, pool: Pool, organization_id: UUID) -> None:
        self._pool = pool
        self._organization_id = organization_id
        self._book: MeterBook | None = None
        self._known_series: set[str] = set()

    def take(
        self, record: ImportRow, rows: Sequence[NumberedRow], last_row: int, now: datetime
    ) -> ImportRow | ImportRefusal:
        """Commit a batch: its events, its rejections, and that the file is done to `last_row`.

        rows: those after `record.last_row`. Returns the import as it is then.
        """
        while True:
            if self._book is None:
                self._book = load_book(self._pool, self._organization_id)
            try:
                return self._commit(self._book, record, rows, last_row, now)
            except StaleCatalog:
                self._book = None

    def _commit(
        self,
        book: MeterBook,
        record: ImportRow,
        rows: Sequence[NumberedRow],
        last_row: int,
        now: datetime,
    ) -> ImportRow | ImportRefusal:
        prepared, rejections = _prepare(book, rows)
        if len(self._known_series) > _SERIES_REMEMBERED:
            self._known_series.clear()
        organization_id = self._organization_id
        with transaction(self._pool, organization_id) as connection:
            # Whoever undoes the import, or imports the same file elsewhere, waits here.
            current = imports.lock_import(connection, organization_id, record.import_id)
            refusal = _refuse_batch(current, record)
            if refusal is not None:
                return refusal
            events = [one for _, one in prepared]
            ingested = ingest_in(
                connection, organization_id, events, book.revision, now, self._known_series
            )
            outcomes = ingested.outcomes
            rejections += _refused([number for number, _ in prepared], outcomes)
            if rejections:
                imports.add_rejections(connection, organization_id, record.import_id, rejections)
            if ingested.appended:
                first = ingested.first_sequence
                imports.add_range(
                    connection,
                    organization_id,
                    record.import_id,
                    first,
                    first + ingested.appended - 1,
                )
            after = msgspec.structs.replace(
                record,
                last_row=last_row,
                accepted=record.accepted + ingested.appended,
                duplicates=record.duplicates + outcomes.count(Outcome.DUPLICATE),
                conflicts=record.conflicts + outcomes.count(Outcome.CONFLICT),
                rejected=record.rejected + len(rows) - len(prepared) + _without_draw(outcomes),
                updated_at=now,
            )
            imports.save_import(connection, organization_id, after)
        self._known_series.update(ingested.series)
        return after


def finish_import(
    pool: Pool, organization_id: UUID, record: ImportRow, now: datetime
) -> ImportRow | ImportRefusal:
    """Record that every row of the file was dealt with."""
    with transaction(pool, organization_id) as connection:
        current = imports.lock_import(connection, organization_id, record.import_id)
        refusal = _refuse_batch(current, record)
        if refusal is not None:
            return refusal
        after = msgspec.structs.replace(record, status=ImportStatus.FINISHED, updated_at=now)
        imports.save_import(connection, organization_id, after)
        return after


def _prepare(
    book: MeterBook, rows: Sequence[NumberedRow]
) -> tuple[list[tuple[int, Prepared]], list[RejectionRow]]:
    prepared: list[tuple[int, Prepared]] = []
    rejections: list[RejectionRow] = []
    for one in rows:
        content = one.content
        if isinstance(content, Rejection):
            rejections.append(
                RejectionRow(one.row, content.code.value, content.pointer, content.message)
            )
            continue
        found = prepare(book, content)
        if isinstance(found, ReadingRefusal):
            rejections.append(_unreadable(one.row, found))
        else:
            prepared.append((one.row, found))
    return prepared, rejections


def _refused(
    numbers: Sequence[int], outcomes: Sequence[Outcome | DrawRefusal]
) -> Iterator[RejectionRow]:
    """Yield the rows that were read and are not in the stream as they say."""
    for number, outcome in zip(numbers, outcomes, strict=True):
        if outcome is Outcome.CONFLICT:
            yield RejectionRow(number, outcome.value, "", _CONFLICT)
        elif isinstance(outcome, DrawRefusal):
            yield RejectionRow(number, outcome.code.value, POINTER, outcome.message)


def _without_draw(outcomes: Sequence[Outcome | DrawRefusal]) -> int:
    return sum(isinstance(outcome, DrawRefusal) for outcome in outcomes)


def _unreadable(row: int, refusal: ReadingRefusal) -> RejectionRow:
    path = refusal.path
    pointer = "/data" + path[1:].replace(".", "/") if path.startswith("$.") else "/data"
    message = f"the meter {refusal.meter} cannot read its {refusal.field} by {path}"
    return RejectionRow(row, refusal.code.value, pointer, message)


def _refuse_batch(current: ImportRow | None, record: ImportRow) -> ImportRefusal | None:
    assert current is not None, "an import is never deleted"
    if current.status == ImportStatus.UNDONE:
        return _undone(current.name)
    if current.last_row != record.last_row or current.status != record.status:
        message = f"{current.name!r} is being imported by another process"
        return ImportRefusal(ImportCode.IMPORT_UNDER_WAY, message)
    return None


def _undone(name: str) -> ImportRefusal:
    message = f"{name!r} was undone; import under a new name, so that its events get new ids"
    return ImportRefusal(ImportCode.IMPORT_UNDONE, message)
