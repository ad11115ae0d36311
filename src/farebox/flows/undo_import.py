"""Undo an import: its events stay, and count no more."""

from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.meter import Aggregation
from farebox.flows.bill import LEGAL_ENTITY, reach
from farebox.flows.import_events import ImportCode, ImportRefusal
from farebox.flows.read_usage import read_meters
from farebox.flows.return_burned import find_burned, return_burned, states_burned
from farebox.postgres import imports, invoice, rollup, void
from farebox.postgres.imports import ImportRow, ImportStatus
from farebox.postgres.session import Pool, transaction

_CARRYING = (Aggregation.WEIGHTED_SUM, Aggregation.INCREASE)


class Undone(Struct, frozen=True):
    """How many events count no more, and how many draws of pools gave back what they burned."""

    events: int
    draws: int = 0


def undo_import(
    pool: Pool, organization_id: UUID, import_id: UUID, now: datetime
) -> Undone | ImportRefusal:
    """Void every event that the import brought, in one transaction.

    Refused where a final invoice may contain one, or units that one burned. The keys of the events
    stay taken: whoever sends one again is told that it is a duplicate.
    """
    while True:
        with transaction(pool, organization_id) as connection:
            found = imports.lock_import(connection, organization_id, import_id)
            if found is None:
                return ImportRefusal(ImportCode.IMPORT_UNKNOWN, "there is no such import")
            if found.status == ImportStatus.UNDONE:
                message = f"{found.name!r} is undone already"
                return ImportRefusal(ImportCode.IMPORT_UNDONE, message)
            span = imports.sequence_span(connection, organization_id, import_id)
            _, last = span or (0, 0)
            # Before the numbers, as in a billing run: else each may wait for the other.
            watermark = rollup.hold_watermark(connection, organization_id)
            if watermark >= last:
                return _undo(connection, organization_id, found, watermark, now)
        # A void never lies above the watermark, so that nobody looks for one there.
        reach(pool, organization_id, last, lambda: now)


def _undo(
    connection: Connection,
    organization_id: UUID,
    found: ImportRow,
    watermark: int,
    now: datetime,
) -> Undone | ImportRefusal:
    # No invoice becomes final from here to the commit.
    invoice.lock_numbers(connection, organization_id, LEGAL_ENTITY)
    import_id = found.import_id
    carrying = [
        key
        for key, history in read_meters(connection, organization_id).items()
        if any(meter.aggregation in _CARRYING for meter in history.versions.values())
    ]
    if void.is_invoiced(connection, organization_id, import_id, carrying):
        message = f"a final invoice contains events of {found.name!r}; credit it instead"
        return ImportRefusal(ImportCode.IMPORT_INVOICED, message)
    terms = find_burned(connection, organization_id, import_id)
    if terms is not None and states_burned(connection, organization_id, terms):
        message = f"a final invoice contains units that {found.name!r} burned; credit it instead"
        return ImportRefusal(ImportCode.IMPORT_INVOICED, message)
    reason = f"import {found.name} undone"
    events = void.void_import(connection, organization_id, import_id, watermark, reason, now)
    undone = msgspec.structs.replace(found, status=ImportStatus.UNDONE, updated_at=now)
    imports.save_import(connection, organization_id, undone)
    rollup.note_rewritten(connection, organization_id)
    draws = 0
    if terms is not None:
        # At the end, for it locks pools.
        draws = return_burned(connection, organization_id, terms, reason, now)
    return Undone(events, draws)
