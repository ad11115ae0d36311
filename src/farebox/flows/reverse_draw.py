"""Take back what was drawn, as long as the pool's policy allows it."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from psycopg import Connection

from farebox.flows.decide_pools import Asked, Outcome, Round, known_operations
from farebox.flows.put_license import shorten_license
from farebox.ledger.account import Account
from farebox.ledger.command import Answer, Reverse
from farebox.ledger.hold import Slice
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.release import split_last
from farebox.money.rounding import exact, exact_sum
from farebox.postgres import entitlement
from farebox.postgres.book import find_grants, read_books
from farebox.postgres.draft import lock_organization
from farebox.postgres.license import lock_pools
from farebox.postgres.posting import posted
from farebox.postgres.transfer import Entry, operation, undoing


def reverse_draw(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    number: int,
    amount: Decimal | None,
    now: datetime,
    *,
    key: str | None = None,
    digest: str | None = None,
    note: str | None = None,
) -> Outcome:
    """Take back `amount` units of an operation that used them, none: all that is left of it."""
    license = entitlement.find_license_bought(connection, organization_id, pool_id, number)
    if license is not None:  # its pools change too, and all are locked in one order
        lock_organization(connection, organization_id)
        lock_pools(connection, organization_id, license, pool_id)
    books = read_books(connection, organization_id, [pool_id], lock=True)
    unknown = Refusal(RefusalCode.DRAW_UNKNOWN, "there is no draw of this id")
    if pool_id not in books:
        return unknown
    entries = operation(connection, organization_id, pool_id, number)
    if not _taken(entries):
        return unknown
    left = left_of(entries, undoing(connection, organization_id, pool_id, number))
    book = books[pool_id].book
    numbers = [one.grant for one in left if one.grant is not None]
    for grant in find_grants(connection, organization_id, pool_id, numbers):
        book.adopt(grant)
    command = Reverse(
        operation=number,
        taken=left,
        taken_at=entries[0].time,
        taken_subject=entries[0].subject,
        taken_allotment=entries[0].allotment,
        amount=amount,
        subject=entries[0].subject,
        key=key,
        digest=digest,
        note=note,
    )
    wanted = [] if key is None else [(pool_id, key)]
    known = known_operations(connection, organization_id, wanted)
    decided = Round(books, [Asked(pool_id, command)], now, known)
    if decided.postings:
        statement, parameters = decided.call(organization_id)
        done = posted(connection.execute(statement, parameters).fetchone())
        assert done, "nobody else changes a pool that is locked"
    outcome = decided.outcomes[0]
    if isinstance(outcome, Answer) and (amount is None or amount == _total(left)):
        # What the draw had bought goes back with it.
        bought = entitlement.revoke_access(
            connection, organization_id, pool_id, number, outcome.time
        )
        if bought is not None and bought.license_key is not None:
            term = bought.ends_at - bought.starts_at
            shorten_license(connection, organization_id, bought.license_key, term, outcome.time)
    return outcome


def left_of(entries: Sequence[Entry], undoing: Sequence[Entry]) -> tuple[Slice, ...]:
    """Return what an operation used and what was not taken back since, by where it came from."""
    undone = [entry.amount for entry in undoing if entry.source == Account.USED]
    with exact():
        left, _ = split_last(_taken(entries), exact_sum(undone))
    return left


def _total(slices: Sequence[Slice]) -> Decimal:
    return exact_sum([one.amount for one in slices])


def _taken(entries: Sequence[Entry]) -> tuple[Slice, ...]:
    """Return what an operation used, in the order in which it was taken."""
    return tuple(
        Slice(
            Account(entry.source if entry.origin is None else entry.origin),
            entry.amount,
            entry.grant_number,
            entry.price,
        )
        for entry in entries
        if entry.target == Account.USED and entry.reason != Reason.REVERSED
    )
