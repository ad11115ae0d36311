"""Undo an import: its events stay, and count no more."""

from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct

from farebox.catalog.meter import Aggregation
from farebox.flows.bill import LEGAL_ENTITY, reach
from farebox.flows.import_events import ImportCode, ImportRefusal
from farebox.flows.read_usage import read_meters
from farebox.postgres import imports, invoice, rollup, void
from farebox.postgres.imports import ImportStatus
from farebox.postgres.session import Pool, transaction

_CARRYING = (Aggregation.WEIGHTED_SUM, Aggregation.INCREASE)


class Undone(Struct, frozen=True):
    """How many events count no more."""

    events: int


def undo_import(
    pool: Pool, organization_id: UUID, import_id: UUID, now: datetime
) -> Undone | ImportRefusal:
    """Void every event that the import brought, in one transaction.

    Refused where a final invoice may contain one. The keys of the events stay taken: whoever
    sends one again is told that it is a duplicate.
    """
    while True:
        with transaction(pool, organization_id) as connection:
            found = imports.lock_import(connection, organization_id, import_id)
            if found is None:
                return ImportRefusal(ImportCode.IMPORT_UNKNOWN, "there is no such import")
            if found.status == ImportStatus.UNDONE:
                message = f"{found.name!r} is undone already"
                return ImportRefusal(ImportCode.IMPORT_UNDONE, message)
            # No invoice becomes final from here to the commit.
            invoice.lock_numbers(connection, organization_id, LEGAL_ENTITY)
            carrying = [
                key
                for key, history in read_meters(connection, organization_id).items()
                if any(meter.aggregation in _CARRYING for meter in history.versions.values())
            ]
            if void.is_invoiced(connection, organization_id, import_id, carrying):
                message = f"a final invoice contains events of {found.name!r}; credit it instead"
                return ImportRefusal(ImportCode.IMPORT_INVOICED, message)
            span = imports.sequence_span(connection, organization_id, import_id)
            _, last = span or (0, 0)
            watermark = rollup.hold_watermark(connection, organization_id)
            if watermark >= last:
                reason = f"import {found.name} undone"
                events = void.void_import(
                    connection, organization_id, import_id, watermark, reason, now
                )
                undone = msgspec.structs.replace(found, status=ImportStatus.UNDONE, updated_at=now)
                imports.save_import(connection, organization_id, undone)
                rollup.note_rewritten(connection, organization_id)
                return Undone(events)
        # A void never lies above the watermark, so that nobody looks for one there.
        reach(pool, organization_id, last, lambda: now)
