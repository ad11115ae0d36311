"""What stands behind a line of a pool: its entries of the ledger, or the grant that was bought."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from msgspec import UNSET, Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.invoicing.pool_use import PoolUse, PoolUseKind


class LineEntry(Struct, frozen=True, kw_only=True):
    """An entry that a line counts; `units` are below zero where they were taken back.

    operation: its number in the pool. undoes: that of the operation that it settles or takes back.
    earlier: it takes back what another invoice counts, of an earlier period or of another
    subscription.
    """

    sequence: int
    operation: int
    reason: str
    units: Decimal
    time: datetime
    subject: str | None
    allotment: str | None
    key: str | None
    undoes: int | None
    used_at: datetime | None
    earlier: bool = False


class LinePeriod(Struct, frozen=True):
    """The invoice on which a line is, whose it is, and the period in which the units moved."""

    invoice_id: UUID
    subscription_key: str
    start: datetime
    end: datetime


class LineGrant(Struct, frozen=True, kw_only=True):
    """The grant that a line charges for or refunds, as it was bought."""

    number: int
    key: str | None
    amount: Decimal
    cost: Decimal
    basis: str
    issued_at: datetime


_LAST = 2**62
_UNITS = "case when t.target = 'used' then t.amount else -t.amount end"
# A key is looked for by its own index and given once, so the entries of an operation name it.
_ENTRY = """t.sequence, t.operation, t.reason, {units} as units, t.time, t.subject, t.allotment,
       case when t.operation = t.sequence then t.key else
         (select f.key from transfer f where f.pool_id = t.pool_id and f.sequence = t.operation)
       end as key, t.undoes, t.used_at"""
# The entries of a period that are charged to its subscription. Before that was kept, it was all of
# them; `whole` says so.
_SPAN = """
with period as materialized (
  select s.*, exists (
    select from invoice_whole w
    where w.organization_id = %(org)s and w.invoice_id = %(invoice)s) as whole
  from (select sequence_at(%(pool)s, %(start)s) as first,
               sequence_at(%(pool)s, %(end)s) as next offset 0) s
),
span as materialized (
  select greatest(s.first, r.first_sequence) as first, least(s.next, r.next_sequence) as next,
         r.priced_from
  from period s join pool_payer r on r.pool_id = %(pool)s
    and r.subscription_key = %(subscription)s and r.first_sequence < s.next
    and (r.next_sequence is null or r.next_sequence > s.first)
  union all select first, next, 0 from period where whole
)"""
_CREDITED = """(s.whole or %(subscription)s = (
      select c.credited from pool_charge(t.pool_id, {operation}, t.sequence) c))"""
# As in `pool_use`: what was voided counts against the use in its own period. The predicate of the
# partial index is repeated for it to be used.
_ENTRIES = f"""{_SPAN}
select {_ENTRY.format(units=_UNITS)}, t.source = 'used' and not exists (
         select from span s where t.undoes >= s.first and t.undoes < s.next) as earlier
from transfer t cross join period s
where t.organization_id = %(org)s and t.pool_id = %(pool)s
  and t.sequence >= greatest(s.first, %(from)s::bigint) and t.sequence <= %(upto)s::bigint
  and (t.source in ('overage', 'burst') or t.origin in ('overage', 'burst'))
  and coalesce(t.origin, t.source) = %(account)s and t.price is not distinct from %(price)s
  and (t.target = 'used' or t.source = 'used')
  and case
    when t.target = 'used' then exists (
      select from span s where t.sequence >= s.first and t.sequence < s.next
        and case when coalesce(t.undoes, t.sequence) >= s.priced_from then true
            else priced_at(t.pool_id, t.sequence) >= s.priced_from end)
    when t.reason = 'voided' then exists (
      select from span s where t.undoes >= s.first and t.undoes < s.next
        and case when s.priced_from <= (
              select coalesce(u.undoes, u.sequence) from transfer u
              where u.pool_id = t.pool_id and u.sequence = t.undoes) then true
            else priced_at(t.pool_id, t.sequence) >= s.priced_from end)
    else t.sequence < s.next and {_CREDITED.format(operation="t.undoes")} end
order by t.sequence limit %(limit)s"""


def line_entries(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    use: PoolUse,
    period: LinePeriod,
    *,
    after: int = 0,
    limit: int = 100,
) -> list[LineEntry]:
    """Return the entries after a sequence that a line of overage or burst counts, in order."""
    cursor = connection.cursor(row_factory=class_row(LineEntry))
    return cursor.execute(
        _ENTRIES,
        {
            "org": organization_id,
            "pool": pool_id,
            "invoice": period.invoice_id,
            "subscription": period.subscription_key,
            "start": period.start,
            "end": period.end,
            "account": use.kind.value,
            "price": use.price,
            "from": min(after, _LAST) + 1,
            "upto": _LAST if use.upto is UNSET else use.upto,
            "limit": limit,
        },
    ).fetchall()


_GRANT = """
with named as (
  select p.* from pool_grant p where p.pool_id = %(pool)s and p.key = %(name)s
  union all
  select p.* from pool_grant p
  where p.pool_id = %(pool)s and p.number = %(number)s and p.key is null
)
select number, key, amount, cost, basis, issued_at from named p
where p.organization_id = %(org)s and p.on_invoice and p.cost is not null and {entry} limit 1"""
# A key may look like the number of another grant; what came or went back at that time is the one.
# The predicate of the partial index is repeated for it to be used.
_GRANT_BOUGHT = _GRANT.format(entry="p.issued_at = %(time)s")
_GRANT_BACK = _GRANT.format(
    entry="exists (select from transfer t where t.pool_id = p.pool_id and t.sequence > p.number"
    " and t.reason in ('grant_voided', 'grant_unpaid') and t.grant_number = p.number"
    " and t.time = %(time)s)"
)


def line_grant(
    connection: Connection, organization_id: UUID, pool_id: UUID, use: PoolUse
) -> LineGrant:
    """Return the grant of a purchase or refund, which a line names by its key or its number."""
    name = use.grant or ""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
    cursor = connection.cursor(row_factory=class_row(LineGrant))
    found = cursor.execute(
        (_GRANT_BOUGHT if use.kind is PoolUseKind.PURCHASE else _GRANT_BACK).encode(),
        {
            "org": organization_id,
            "pool": pool_id,
            "name": name,
            "number": number,
            "time": use.first_at,
        },
    ).fetchone()
    assert found is not None, "a grant stays"
    return found


# The first entry of a grant has its number. The predicate of the partial index is repeated for it
# to be used. `before` of an entry: how many units were taken back of the grant until then.
_BOUGHT = f"""
select {_ENTRY.format(units="t.amount")}, 0::numeric as before
from transfer t
where t.organization_id = %(org)s and t.pool_id = %(pool)s and t.sequence = %(grant)s
  and t.sequence >= %(from)s::bigint limit %(limit)s"""
_TAKEN_BACK = f"""{_SPAN},
back as (
  select t.*, sum(t.amount) over (order by t.sequence) - t.amount as before
  from transfer t
  where t.organization_id = %(org)s and t.pool_id = %(pool)s and t.sequence > %(grant)s
    and t.reason in ('grant_voided', 'grant_unpaid') and t.grant_number = %(grant)s
)
select {_ENTRY.format(units="-t.amount")}, t.before
from back t cross join period s
where t.time >= %(first_at)s and t.time <= %(last_at)s and t.sequence >= %(from)s::bigint
  and t.sequence >= s.first and t.sequence < s.next and {_CREDITED.format(operation="%(grant)s")}
order by t.sequence limit %(limit)s"""


class GrantEntry(LineEntry, frozen=True, kw_only=True):
    """An entry that bought a grant, or took units of it back after `before` others."""

    before: Decimal


def grant_entries(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    use: PoolUse,
    grant: LineGrant,
    period: LinePeriod,
    *,
    after: int = 0,
    limit: int = 100,
) -> list[GrantEntry]:
    """Return the entries after a sequence of which a purchase or refund consists, in order."""
    cursor = connection.cursor(row_factory=class_row(GrantEntry))
    return cursor.execute(
        _BOUGHT if use.kind is PoolUseKind.PURCHASE else _TAKEN_BACK,
        {
            "org": organization_id,
            "pool": pool_id,
            "grant": grant.number,
            "invoice": period.invoice_id,
            "subscription": period.subscription_key,
            "start": period.start,
            "end": period.end,
            "first_at": use.first_at,
            "last_at": use.last_at,
            "from": min(after, _LAST) + 1,
            "limit": limit,
        },
    ).fetchall()
