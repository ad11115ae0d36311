"""Share a pool among teams, projects and users: all its shares at once, from now on."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct, structs
from psycopg import Connection

from farebox.catalog.problem import Problem
from farebox.flows.change_pool import write_books
from farebox.ledger.account import ZERO
from farebox.ledger.allotment import Allotment, Shares
from farebox.ledger.book import Book
from farebox.ledger.decide import prepare
from farebox.ledger.pool_check import check_shares
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import exact
from farebox.postgres import allotment as store
from farebox.postgres.book import read_books


class Shared(Struct, frozen=True):
    """The shares of a pool as they stand."""

    allotments: Sequence[Allotment]


class Share(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of a pool as it is asked for; see `farebox.ledger.allotment.Allotment`."""

    key: str
    parent: str | None = None
    guarantee: Decimal = ZERO
    cap: Decimal | None = None
    weight: int = 0
    subjects: tuple[str, ...] = ()
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    lend_after_seconds: int | None = None
    overdraft: Decimal | None = None


def share_pool(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    shares: Sequence[Share],
    now: datetime,
) -> Shared | Refusal | list[Problem]:
    """Let a pool have these shares and no others, from the next decision on.

    What was used in this period is counted for the shares as they are now: a share that is moved
    takes its own along. That of one that is taken away stays with those that it was part of, and
    comes back with it. What it holds is settled as before.
    """
    wanted = [Allotment(**structs.asdict(one)) for one in shares]
    problems = check_shares(wanted)
    if problems:
        return problems
    books = read_books(connection, organization_id, [pool_id], lock=True)
    if pool_id not in books:
        return Refusal(RefusalCode.POOL_UNKNOWN, "there is no such pool")
    stated = books[pool_id]
    book = stated.book
    with exact():
        time = prepare(book, now)
    if isinstance(time, Refusal):
        return time
    before = book.shares.by_key
    for one in wanted:
        earlier = before.get(one.key)
        if earlier is None or earlier.removed:
            one.idle_since = time
        else:
            one.lent = earlier.lent
            one.used_at, one.idle_since = earlier.used_at, earlier.idle_since
    removed = [
        structs.replace(one, used=ZERO, beyond=ZERO, removed=True)
        for one in before.values()
        if one.key not in {each.key for each in wanted}
    ]
    book.shares = Shares([*wanted, *removed])
    book.pool_changed = True
    write_books(connection, organization_id, [stated])
    _recount(connection, organization_id, pool_id, book)
    store.put_allotments(connection, organization_id, pool_id, [*wanted, *removed])
    return Shared(wanted)


def _recount(connection: Connection, organization_id: UUID, pool_id: UUID, book: Book) -> None:
    """Count anew what each share has used in this period, those now within it included."""
    start = book.pool.counters.period_start or book.pool.opened_at
    shares = book.shares
    for key, (used, beyond) in store.uses_since(
        connection, organization_id, pool_id, start
    ).items():
        for one in shares.path(key):
            one.used += used
            one.beyond += beyond
