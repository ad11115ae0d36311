"""What the entries of a pool's ledger say between two of them, read by their numbers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.alerts.judge import Point


class Span(Struct, frozen=True):
    """The entries of a pool after one and up to another."""

    pool_id: UUID
    after: int
    to: int


class Summary(Struct, frozen=True):
    """What the entries of a span have among them; the balances are also those within operations."""

    least: Decimal
    most: Decimal
    burst: bool
    overage: bool
    grants: bool


class GrantEntry(Struct, frozen=True, kw_only=True):
    """What happened to a grant in one operation, with what the grant is."""

    sequence: int
    time: datetime
    reason: str
    target: str
    units: Decimal
    number: int
    key: str | None
    amount: Decimal
    basis: str
    cost: Decimal | None
    effective_at: datetime
    expires_at: datetime | None
    pay_by: datetime | None


_GRANT_REASONS = (
    "('grant_issued', 'grant_pending', 'grant_paid', 'grant_expired', 'grant_voided', 'topped_up')"
)


def summaries(
    connection: Connection, organization_id: UUID, spans: Sequence[Span]
) -> Mapping[UUID, Summary]:
    """Return what the entries of each span have among them; nothing of one without entries."""
    rows = connection.execute(
        "select s.pool_id, x.*"
        " from unnest(%(pools)s::uuid[], %(after)s::bigint[], %(to)s::bigint[])"
        "  s(pool_id, after, upto)"
        " cross join lateral ("
        "  select min(t.available_after), max(t.available_after),"
        "   coalesce(bool_or(t.source = 'burst'), false),"
        "   coalesce(bool_or(t.source = 'overage'), false),"
        f"   coalesce(bool_or(t.reason in {_GRANT_REASONS}), false)"
        "  from transfer t where t.organization_id = %(org)s and t.pool_id = s.pool_id"
        "   and t.sequence > s.after and t.sequence <= s.upto having count(*) > 0) x",
        {
            "org": organization_id,
            "pools": [one.pool_id for one in spans],
            "after": [one.after for one in spans],
            "to": [one.to for one in spans],
        },
    ).fetchall()
    return {row[0]: Summary(*row[1:]) for row in rows}


_SPAN = (
    "t.organization_id = %(org)s and t.pool_id = %(pool)s"
    " and t.sequence > %(after)s and t.sequence <= %(to)s"
)


def _span(organization_id: UUID, span: Span, **more: object) -> dict[str, object]:
    return {
        "org": organization_id,
        "pool": span.pool_id,
        "after": span.after,
        "to": span.to,
        **more,
    }


def balance_points(
    connection: Connection, organization_id: UUID, span: Span, below: Decimal, back_at: Decimal
) -> Sequence[Point]:
    """Return after which operations the balance was on another side than before.

    The sides are below the one level, and at the other or above; the first point is always told.
    """
    cursor = connection.cursor(row_factory=class_row(Point))
    return cursor.execute(
        "with entry as (select t.sequence, t.time, t.available_after,"
        "  lead(t.operation) over (order by t.sequence) is distinct from t.operation as ends"
        f" from transfer t where {_SPAN}),"
        " sided as (select e.*, e.available_after < %(below)s as low,"
        "  lag(e.available_after < %(below)s) over (order by e.sequence) as was_low"
        " from entry e where e.ends"
        "  and (e.available_after < %(below)s or e.available_after >= %(back_at)s))"
        " select sequence, time, available_after as available from sided"
        " where low is distinct from was_low order by sequence",
        _span(organization_id, span, below=below, back_at=back_at),
    ).fetchall()


def grant_entries(
    connection: Connection, organization_id: UUID, span: Span
) -> Sequence[GrantEntry]:
    """Return what happened to grants, in the order of the ledger."""
    cursor = connection.cursor(row_factory=class_row(GrantEntry))
    return cursor.execute(
        "select x.sequence, x.time, x.reason, x.target, x.units, g.number, g.key, g.amount,"
        "  g.basis, g.cost, g.effective_at, g.expires_at, g.pay_by"
        " from (select min(t.sequence) as sequence, min(t.time) as time, t.reason, t.target,"
        "   t.grant_number, sum(t.amount) as units"
        f"  from transfer t where {_SPAN} and t.reason in {_GRANT_REASONS}"
        "   and t.grant_number is not null"
        "  group by t.operation, t.reason, t.target, t.grant_number) x"
        " join pool_grant g on g.organization_id = %(org)s and g.pool_id = %(pool)s"
        "  and g.number = x.grant_number"
        " order by x.sequence",
        _span(organization_id, span),
    ).fetchall()


class BurstPoint(Struct, frozen=True):
    """An operation that took burst where the last one did not, or the other way round."""

    time: datetime
    burst: bool


def burst_points(connection: Connection, organization_id: UUID, span: Span) -> Sequence[BurstPoint]:
    """Return where draws began to take burst, and where one took from grants without it again.

    So an episode on an invoice ends, too. The first point is always told.
    """
    cursor = connection.cursor(row_factory=class_row(BurstPoint))
    return cursor.execute(
        "with drawn as (select t.operation, min(t.time) as time,"
        "  bool_or(t.source = 'burst') as burst"
        f" from transfer t where {_SPAN} and (t.source = 'burst'"
        "   or (t.source = 'grant' and t.target in ('used', 'held')))"
        " group by t.operation),"
        " turned as (select d.*, lag(d.burst) over (order by d.operation) as before from drawn d)"
        " select time, burst from turned where burst is distinct from before order by operation",
        _span(organization_id, span),
    ).fetchall()


def first_overage(
    connection: Connection, organization_id: UUID, span: Span, period_start: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return when overage was first taken before the running period, and when in it."""
    row = connection.execute(
        "select min(t.time) filter (where t.time < %(start)s),"
        "  min(t.time) filter (where t.time >= %(start)s)"
        f" from transfer t where {_SPAN} and t.source = 'overage'",
        _span(organization_id, span, start=period_start),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def available_at(connection: Connection, organization_id: UUID, span: Span) -> Decimal:
    """Return what a pool had left at the end of a span."""
    row = connection.execute(
        "select available_after from transfer where organization_id = %s and pool_id = %s"
        " and sequence = %s",
        (organization_id, span.pool_id, span.to),
    ).fetchone()
    assert row is not None
    available: Decimal = row[0]
    return available
