"""Books of pools, as their rows stand: to decide on, or to look at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.ledger.account import Account
from farebox.ledger.allotment import Allotment
from farebox.ledger.book import Book
from farebox.ledger.grant import Basis, Grant, GrantStatus, Recurrence
from farebox.ledger.hold import Hold, HoldStatus, Slice
from farebox.ledger.license import LicenseTerm
from farebox.ledger.pool import Counters, Pool, PoolDefinition, PoolStatus, Terms
from farebox.postgres.posting import COLUMN_OF

Row = TypeVar("Row")

UNRESOLVED_MAX = 1_000

_BALANCES = ", ".join(COLUMN_OF[account] for account in Account)
_POOL = (
    "pool_id, version, key, customer_key, subject, license_key, unit, status, definition::text,"
    f" terms::text, opened_at, timezone, sequence, as_of, counters::text, {_BALANCES}"
)
_GRANT = (
    "number, key, amount, available, held, status, basis, priority, issued_at, effective_at,"
    " expires_at, cost, on_invoice, pay_by, recurrence, metadata::text"
)
_HOLD = (
    "number, amount, slices::text, subject, allotment, held_at, expires_at, status, settled,"
    " closed_at"
)


# From each subject to the next, through the index: a subject may have many rows.
_UNRESOLVED = """
with recursive wanted as (select unnest(%s::uuid[]) as pool_id), found as (
  select w.pool_id, 1 as number, (
    select r.subject from refusal r where r.pool_id = w.pool_id and r.resolved_at is null
    order by r.subject limit 1) as subject
  from wanted w
  union all
  select f.pool_id, f.number + 1, (
    select r.subject from refusal r where r.pool_id = f.pool_id and r.resolved_at is null
      and r.subject > f.subject order by r.subject limit 1)
  from found f where f.subject is not null and f.number <= %s
)
select pool_id, subject from found where subject is not null
"""


class Stated(Struct):
    """A book with what its pool stood at when it was read or last committed.

    unresolved: the subjects whose last refusal was not followed by a grant yet, "" for none. Where
    they are more than UNRESOLVED_MAX it is None, and any subject may be one.
    """

    pool_id: UUID
    version: int
    sequence: int
    book: Book
    unresolved: set[str] | None

    def note_refused(self, subject: str) -> None:
        """Remember that a subject was refused something."""
        if self.unresolved is not None:
            self.unresolved.add(subject)
            if len(self.unresolved) > UNRESOLVED_MAX:
                self.unresolved = None

    def take_unresolved(self, subject: str) -> bool:
        """Whether refusals of a subject may wait for a grant to it; by now they do no more."""
        if self.unresolved is None:
            return True
        if subject not in self.unresolved:
            return False
        self.unresolved.discard(subject)
        return True


def read_books(
    connection: Connection,
    organization_id: UUID,
    pool_ids: Sequence[UUID],
    *,
    lock: bool = False,
) -> dict[UUID, Stated]:
    """Return the books of pools; `lock` keeps everybody else from changing them.

    Without a lock the connection must be in a snapshot, or parts of a book may not fit.
    """
    pools = connection.execute(
        f"select {_POOL} from pool where organization_id = %s and pool_id = any(%s)"
        f" order by pool_id{' for update' if lock else ''}",
        (organization_id, list(pool_ids)),
    ).fetchall()
    found = [row[0] for row in pools]
    # After the lock, for whoever changes a license locks its pools; a join would see what was.
    licenses = _licenses(connection, organization_id, sorted({row[5] for row in pools if row[5]}))
    grants = _by_pool(
        connection.execute(
            f"select pool_id, {_GRANT} from pool_grant"
            " where organization_id = %s and pool_id = any(%s) and status <> 'closed'"
            " and (status <> 'voided' or held > 0)",
            (organization_id, found),
        ).fetchall(),
        _grant_of,
    )
    holds = _by_pool(
        connection.execute(
            f"select pool_id, {_HOLD} from hold"
            " where organization_id = %s and pool_id = any(%s) and status = 'open'",
            (organization_id, found),
        ).fetchall(),
        _hold_of,
    )
    allotments = _by_pool(
        connection.execute(
            "select pool_id, definition::text, used, beyond, lent, used_at, idle_since, removed"
            " from allotment"
            " where organization_id = %s and pool_id = any(%s) and (not removed or used > 0)",
            (organization_id, found),
        ).fetchall(),
        _allotment_of,
    )
    recurrences = _by_pool(
        connection.execute(
            "select pool_id, definition::text from pool_recurrence"
            " where organization_id = %s and pool_id = any(%s)",
            (organization_id, found),
        ).fetchall(),
        lambda row: msgspec.json.decode(row[0], type=Recurrence),
    )
    unresolved = _by_pool(
        connection.execute(_UNRESOLVED, (found, UNRESOLVED_MAX)).fetchall(),
        lambda row: str(row[0]),
    )
    books = {}
    for row in pools:
        pool_id, pool = row[0], _pool_of(row, licenses)
        book = Book(
            pool,
            grants.get(pool_id, ()),
            holds.get(pool_id, ()),
            allotments.get(pool_id, ()),
            recurrences.get(pool_id, ()),
        )
        refused = set(unresolved.get(pool_id, ()))
        known = refused if len(refused) <= UNRESOLVED_MAX else None
        books[pool_id] = Stated(pool_id, row[1], pool.sequence, book, known)
    return books


def _by_pool(
    rows: Sequence[tuple[Any, ...]], of: Callable[[tuple[Any, ...]], Row]
) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(of(row[1:]))
    return found


def _licenses(
    connection: Connection, organization_id: UUID, keys: Sequence[str]
) -> dict[str, LicenseTerm]:
    if not keys:
        return {}
    rows = connection.execute(
        "select key, starts_at, ends_at, revoked_at from license"
        " where organization_id = %s and key = any(%s)",
        (organization_id, list(keys)),
    ).fetchall()
    return {row[0]: LicenseTerm(*row) for row in rows}


def _pool_of(row: tuple[Any, ...], licenses: Mapping[str, LicenseTerm]) -> Pool:
    policy = msgspec.json.decode(row[8], type=PoolDefinition).policy
    terms = None if row[9] is None else msgspec.json.decode(row[9], type=Terms)
    return Pool(
        key=row[2],
        customer=row[3],
        subject=row[4],
        license=None if row[5] is None else licenses[row[5]],
        unit=row[6],
        status=PoolStatus(row[7]),
        policy=policy if terms is None or terms.at > row[13] else terms.over(policy),
        terms=terms,
        opened_at=row[10],
        timezone=row[11],
        sequence=row[12],
        as_of=row[13],
        counters=msgspec.json.decode(row[14], type=Counters),
        balances=dict(zip(Account, row[15:], strict=True)),
    )


def _grant_of(row: tuple[Any, ...]) -> Grant:
    return Grant(
        number=row[0],
        key=row[1],
        amount=row[2],
        available=row[3],
        held=row[4],
        status=GrantStatus(row[5]),
        basis=Basis(row[6]),
        priority=row[7],
        issued_at=row[8],
        effective_at=row[9],
        expires_at=row[10],
        cost=row[11],
        on_invoice=row[12],
        pay_by=row[13],
        recurrence=row[14],
        metadata=msgspec.json.decode(row[15]),
    )


def _hold_of(row: tuple[Any, ...]) -> Hold:
    return Hold(
        number=row[0],
        amount=row[1],
        slices=msgspec.json.decode(row[2], type=tuple[Slice, ...]),
        subject=row[3],
        allotment=row[4],
        held_at=row[5],
        expires_at=row[6],
        status=HoldStatus(row[7]),
        settled=row[8],
        closed_at=row[9],
    )


def _allotment_of(row: tuple[Any, ...]) -> Allotment:
    one = msgspec.json.decode(row[0], type=Allotment)
    one.used, one.beyond, one.lent, one.used_at, one.idle_since, one.removed = row[1:]
    return one


def find_holds(
    connection: Connection, organization_id: UUID, wanted: Sequence[tuple[UUID, int]]
) -> dict[tuple[UUID, int], Hold]:
    """Return holds by pool and number, ended ones too."""
    rows = connection.execute(
        "select h.pool_id, h.number, h.amount, h.slices::text, h.subject, h.allotment, h.held_at,"
        " h.expires_at, h.status, h.settled, h.closed_at"
        " from unnest(%s::uuid[], %s::bigint[]) w(pool_id, number)"
        " join hold h on h.pool_id = w.pool_id and h.number = w.number"
        " where h.organization_id = %s",
        ([pool_id for pool_id, _ in wanted], [number for _, number in wanted], organization_id),
    ).fetchall()
    return {(row[0], row[1]): _hold_of(row[1:]) for row in rows}


def find_grants(
    connection: Connection, organization_id: UUID, pool_id: UUID, numbers: Sequence[int]
) -> list[Grant]:
    """Return grants of a pool by number, closed ones too."""
    rows = connection.execute(
        f"select {_GRANT} from pool_grant"
        " where organization_id = %s and pool_id = %s and number = any(%s) order by number",
        (organization_id, pool_id, list(numbers)),
    ).fetchall()
    return [_grant_of(row) for row in rows]


def grant_by_key(
    connection: Connection, organization_id: UUID, pool_id: UUID, key: str
) -> Grant | None:
    row = connection.execute(
        f"select {_GRANT} from pool_grant where organization_id = %s and pool_id = %s and key = %s",
        (organization_id, pool_id, key),
    ).fetchone()
    return None if row is None else _grant_of(row)


def list_grants(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    *,
    before: int | None = None,
    limit: int = 100,
) -> list[Grant]:
    """Return the grants of a pool, the latest first, a page at a time."""
    rows = connection.execute(
        f"select {_GRANT} from pool_grant where organization_id = %(org)s and pool_id = %(pool)s"
        " and (%(before)s::bigint is null or number < %(before)s)"
        " order by number desc limit %(limit)s",
        {"org": organization_id, "pool": pool_id, "before": before, "limit": limit},
    ).fetchall()
    return [_grant_of(row) for row in rows]
