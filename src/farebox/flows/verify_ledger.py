"""Prove the ledger of an organization, pool by pool, in one snapshot that stops nobody."""

from collections.abc import Callable, Iterator
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.ledger.pool import cycle_of
from farebox.period.cycle import boundary, index_at
from farebox.postgres import verify as store
from farebox.postgres.session import Pool, transaction
from farebox.postgres.verify import FaultCode, Finding, RecurrenceRow, VerifiedPool

POOLS_A_PAGE = 500
TRANSFERS_A_PAGE = 1_000_000


class Verified(Struct):
    """How far it is, of `total` transfers, or at the end what was looked at.

    The `findings` were told one by one.
    """

    pools: int = 0
    transfers: int = 0
    total: int = 0
    findings: int = 0


Tell = Callable[[Finding], None]
Progress = Callable[[Verified], None]


def verify_ledger(
    pool: Pool, organization_id: UUID, tell: Tell, progress: Progress | None = None
) -> Verified:
    """Tell all that is not as the transfers say; memory is bounded, whatever the ledger holds."""
    with transaction(pool, organization_id, snapshot=True) as connection:
        store.prepare_to_verify(connection)
        done = Verified(total=store.count_transfers(connection, organization_id))
        for page in _pages(connection, organization_id):
            for finding in _faults(connection, organization_id, page):
                tell(finding)
                done.findings += 1
            done.pools += len(page)
            done.transfers += sum(one.sequence for one in page)
            if progress is not None:
                progress(done)
        for finding in store.find_transit_faults(connection, organization_id):
            tell(finding)
            done.findings += 1
    return done


def _pages(connection: Connection, organization_id: UUID) -> Iterator[list[VerifiedPool]]:
    """Yield pools, as many at a time as have some number of transfers; one may have more."""
    after: UUID | None = None
    while found := store.pools_to_verify(connection, organization_id, after, POOLS_A_PAGE):
        after = found[-1].pool_id
        page: list[VerifiedPool] = []
        transfers = 0
        for one in found:
            if page and transfers + one.sequence > TRANSFERS_A_PAGE:
                yield page
                page, transfers = [], 0
            page.append(one)
            transfers += one.sequence
        yield page


def _faults(
    connection: Connection, organization_id: UUID, page: list[VerifiedPool]
) -> Iterator[Finding]:
    pool_ids = [one.pool_id for one in page]
    yield from store.find_faults(connection, organization_id, pool_ids)
    for row in store.recurrences_to_verify(connection, organization_id, pool_ids):
        yield from _recurrence_faults(row)


def _recurrence_faults(row: RecurrenceRow) -> Iterator[Finding]:
    """Yield where a recurrence does not stand at the grants that came of it."""
    one = row.recurrence
    cycle = cycle_of(one.renewal, one.starts_at, one.timezone)
    # Periods that were over when it was asked for brought nothing.
    before = 0 if row.first_at is None else index_at(cycle, row.first_at) or 0
    checks: list[tuple[str, object, object]] = [("grants", row.grants, one.index - before)]
    if one.grant is not None:
        checks.append(("running grant", row.last_grant, one.grant))
    if one.next_at is not None:
        due = boundary(cycle, one.index) if one.index else one.starts_at
        checks.append(("next grant at", due.isoformat(), one.next_at.isoformat()))
    stored = row.next_at and row.next_at.isoformat()
    checks.append(("next_at", one.next_at and one.next_at.isoformat(), stored))
    for name, expected, found in checks:
        if expected != found:
            place = f"recurring grant {one.key}, {name}"
            code = FaultCode.RECURRENCE_WRONG
            yield Finding(row.pool, code, place, str(expected), str(found))
