"""What is asked of a pool all the time costs as much however long the pool has been used.

See `ledgers.py` beside this file for how that is counted.
"""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_ledgers import START, Ask, cost, fill_ledgers
from farebox_pools import Pools

from farebox.access.id import Prefix, encode_numbered
from farebox.flows.decide_pools import Asked, decide_locked
from farebox.ledger.command import Draw
from farebox.postgres import book, draw_paid, pool, pool_due, transfer
from farebox.postgres.event_row import Prepared
from farebox.postgres.session import Pool

OLD, NEW = 200, 20_000
"""How many operations of two transfers the short and the long ledger have."""
ROWS_MORE = 60
"""So many rows more may be read of the long ledger: a page's edge, a halving by time."""

# Holds that were settled, one a minute, each of its own grant; one refusal each that was resolved.
FILL = """
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
  source_after, target_after, available_after, time, grant_number, origin, subject, key, undoes)
select %(org)s, %(pool)s, 2 * n + x.place, 2 * n + x.place, x.reason, x.source, x.target, 1, 0, 0,
  0, %(start)s + n * interval '1 minute', 1, x.origin, 's' || n %% 10, n || '/' || x.place, x.undoes
from generate_series(1, %(count)s) n cross join lateral (values
  (0, 'held', 'grant', 'held', null, null), (1, 'settled', 'held', 'used', 'grant', 2 * n))
  x(place, reason, source, target, origin, undoes);
insert into hold (organization_id, pool_id, number, status, amount, slices, held_at, expires_at)
select %(org)s, %(pool)s, 2 * n, 'settled', 0, '[]', %(start)s, %(start)s
from generate_series(1, %(count)s) n;
insert into pool_grant (organization_id, pool_id, number, key, status, amount, available, held,
  basis, priority, issued_at, effective_at, on_invoice, metadata)
select %(org)s, %(pool)s, 2 * n, 'g' || n, 'closed', 1, 0, 0, 'promotional', 0, %(start)s,
  %(start)s, false, '{}'
from generate_series(1, %(count)s) n;
insert into refusal (organization_id, pool_id, subject, code, minute, count, first_at, last_at,
  asked, resolved_at)
select %(org)s, %(pool)s, 's' || n %% 10, 'insufficient_balance',
  %(start)s + n * interval '1 minute', 1, %(start)s, %(start)s, 1, %(start)s
from generate_series(1, %(count)s) n;
insert into customer values
  (%(org)s, %(pool)s::text, %(pool)s, '', 'UTC', '{}', %(start)s, %(start)s);
update pool set sequence = 2 * %(count)s + 1, customer_key = pool_id::text where pool_id = %(pool)s
"""
TABLES = "transfer, hold, pool_grant, refusal, pool, allotment, pool_recurrence"


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a pool that was used for hours and one that was for weeks."""
    organization_id = UUID("01a1fde5-0000-7000-8000-000000000002")
    counts = {"short": OLD, "long": NEW}
    return fill_ledgers(pool, owner_url, organization_id, counts, FILL, TABLES)


SINCE, UNTIL = START + timedelta(minutes=20), START + timedelta(minutes=40)


def event_naming(pool_id: UUID, number: int) -> Prepared:
    """Return an event that names the draw of this number; nothing else is said of it."""
    row = (START, "0" * 32, *[""] * 12)
    return Prepared(row, "", (), False, encode_numbered(Prefix.DRAW, pool_id, number))


QUESTIONS: dict[str, Ask] = {
    "a book": lambda c, org, one: book.read_books(c, org, [one]),
    "a book to decide on": lambda c, org, one: book.read_books(c, org, [one], lock=True),
    "a hold that ended": lambda c, org, one: book.find_holds(c, org, [(one, 20)]),
    "a grant that closed": lambda c, org, one: book.find_grants(c, org, one, [20]),
    "a grant by its key": lambda c, org, one: book.grant_by_key(c, org, one, "g10"),
    "the newest page of grants": lambda c, org, one: book.list_grants(c, org, one, limit=20),
    "an old page of grants": lambda c, org, one: book.list_grants(c, org, one, before=50, limit=20),
    "whether anything is due": lambda c, org, one: pool_due.lock_behind(c, org, [one], START),
    "an old operation by its key": lambda c, org, one: transfer.operations_by_key(
        c, org, [(one, "10/0"), (one, "11/1")]
    ),
    "an old operation": lambda c, org, one: transfer.operation(c, org, one, 20),
    "an old draw that an event names": lambda c, org, one: c.execute(
        *draw_paid.refuse_call(org, [event_naming(one, 21)])
    ).fetchall(),
    "what undoes an old operation": lambda c, org, one: transfer.undoing(c, org, one, 20),
    "the newest page of a statement": lambda c, org, one: transfer.statement(c, org, one, limit=20),
    "an old page of a statement": lambda c, org, one: transfer.statement(
        c, org, one, before=50, limit=20
    ),
    "a page of an old time": lambda c, org, one: transfer.statement(
        c, org, one, since=SINCE, until=UNTIL, limit=10
    ),
    "a page of an old time to its end": lambda c, org, one: transfer.statement(
        c, org, one, since=SINCE, until=UNTIL
    ),
    "refusals of an old time": lambda c, org, one: pool.refusals(
        c, org, pool_id=one, since=SINCE, until=UNTIL
    ),
    "refusals of a customer": lambda c, org, one: pool.refusals(
        c, org, customer=str(one), since=SINCE, until=UNTIL
    ),
    "a draw": lambda c, org, one: decide_locked(
        c, org, [Asked(one, Draw(amount=Decimal(1), key="fresh"))], START + timedelta(days=60)
    ),
    "a refusal": lambda c, org, one: decide_locked(
        c, org, [Asked(one, Draw(amount=Decimal(10**9), subject="s1"))], START + timedelta(days=60)
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_long_ledger_costs_no_more_than_a_short_one(ledgers: Pools, question: str) -> None:
    short, long = (cost(ledgers, key, QUESTIONS[question]) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
