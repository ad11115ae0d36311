"""Pools as a list for people, those that run low first; and how the balance of one went."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import LimitMode, Refill
from farebox.ledger.pool import Counters

# What is left of what there was in this period decides the order, and the key between equals. Pools
# into which units flow, and those that nothing bounds, come with those that are full, those without
# anything after them. A row's own next_due may be of what does not hold any more, as of a hold that
# was settled, so what is really next is looked for, in the pools that are shown.
_ITEMS = """
select n.*, d.next_due from (
select * from (
  select p.pool_id, p.key, p.definition ->> 'name' as name, p.customer_key, p.unit, p.status,
    coalesce(p.definition -> 'policy' -> 'limit' ->> 'mode', 'hard') as mode,
    p.granted as available, p.held, -p.overdraft as overdraft, p.counters::text as counters,
    p.definition -> 'policy' ->> 'refill' as refill,
    p.license_key, l.starts_at as license_starts_at, l.ends_at as license_ends_at, l.revoked_at,
    coalesce((p.counters ->> 'period_end')::timestamptz, p.opened_at) as turns_at,
    case when p.status <> 'open' then 3
      when p.definition -> 'policy' ->> 'refill' is not null then 1
      when p.definition -> 'policy' -> 'limit' ->> 'mode' = 'unlimited' then 1
      when p.granted + c.taken = 0 then 2 else p.granted / (p.granted + c.taken) end as level
  from pool p
  left join license l on l.organization_id = p.organization_id and l.key = p.license_key
  cross join lateral (select greatest(0, (p.counters ->> 'used')::numeric + p.overdraft
    - (p.counters ->> 'overage')::numeric - (p.counters ->> 'burst')::numeric
    - coalesce((p.counters ->> 'unlimited')::numeric, 0)) as taken) c
  where p.organization_id = %(org)s
    and (%(customer)s::text is null or p.customer_key = %(customer)s)
    and (%(search)s = '' or p.key ilike %(like)s or p.customer_key ilike %(like)s
      or p.definition ->> 'name' ilike %(like)s)
) n order by level, key limit %(limit)s offset %(offset)s
) n cross join lateral (select least(n.turns_at,
  (select min(h.expires_at) from hold h where h.pool_id = n.pool_id and h.status = 'open'),
  (select min(r.next_at) from pool_recurrence r where r.pool_id = n.pool_id),
  (select min(least(g.expires_at, case when g.status = 'pending' then g.pay_by end,
      case when g.status = 'scheduled' then g.effective_at end))
    from pool_grant g where g.pool_id = n.pool_id and g.status <> 'closed'
      and g.status <> 'voided')) as next_due) d
order by level, key
"""
_COURSE = """
select i.place, (select t.available_after from transfer t where t.organization_id = %(org)s
  and t.pool_id = %(pool)s and t.sequence = s.before)
from unnest(%(instants)s::timestamptz[]) with ordinality i(instant, place)
cross join lateral (select sequence_at(%(pool)s, i.instant) - 1 as before offset 0) s
order by i.place
"""
_CHANGES = """
select t.time, t.available_after from transfer t
where t.organization_id = %(org)s and t.pool_id = %(pool)s
  and t.sequence >= (select sequence_at(%(pool)s, %(since)s))
order by t.sequence limit %(limit)s
"""


class PoolItem(Struct, frozen=True):
    """A pool in a list; `level` is what is left of what there was, from 0 to 1, then the others.

    next_due: when something happens by itself next. license: the term of the one that it is of.
    """

    pool_id: UUID
    key: str
    name: str
    customer_key: str | None
    unit: str
    status: str
    mode: LimitMode
    available: Decimal
    held: Decimal
    overdraft: Decimal
    counters: Counters
    refill: Refill | None
    license: LicenseTerm | None
    next_due: datetime | None
    level: Decimal

    def is_due(self, now: datetime) -> bool:
        """Whether something happened by itself that the row does not tell yet."""
        return self.next_due is not None and self.next_due <= now


class _Item(Struct):
    pool_id: UUID
    key: str
    name: str | None
    customer_key: str | None
    unit: str
    status: str
    mode: str
    available: Decimal
    held: Decimal
    overdraft: Decimal
    counters: str
    refill: str | None
    license_key: str | None
    license_starts_at: datetime | None
    license_ends_at: datetime | None
    revoked_at: datetime | None
    turns_at: datetime
    level: Decimal
    next_due: datetime | None

    @property
    def license(self) -> LicenseTerm | None:
        if self.license_key is None or self.license_starts_at is None:
            return None
        return LicenseTerm(
            self.license_key, self.license_starts_at, self.license_ends_at, self.revoked_at
        )


def pool_items(
    connection: Connection,
    organization_id: UUID,
    *,
    customer: str | None = None,
    search: str = "",
    offset: int = 0,
    limit: int = 50,
) -> list[PoolItem]:
    """Return pools, those with the least left of what there was first, closed ones last."""
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    cursor = connection.cursor(row_factory=class_row(_Item))
    rows = cursor.execute(
        _ITEMS,
        {
            "org": organization_id,
            "customer": customer,
            "search": search,
            "like": f"%{escaped}%",
            "limit": limit,
            "offset": offset,
        },
    ).fetchall()
    return [
        PoolItem(
            row.pool_id,
            row.key,
            row.name or "",
            row.customer_key,
            row.unit,
            row.status,
            LimitMode(row.mode),
            row.available,
            row.held,
            row.overdraft,
            msgspec.json.decode(row.counters, type=Counters),
            None if row.refill is None else msgspec.json.decode(row.refill, type=Refill),
            row.license,
            row.next_due,
            row.level,
        )
        for row in rows
    ]


def balance_course(
    connection: Connection, organization_id: UUID, pool_id: UUID, instants: Sequence[datetime]
) -> list[Decimal | None]:
    """Return what all grants had left just before each instant, none before the first entry."""
    rows = connection.execute(
        _COURSE, {"org": organization_id, "pool": pool_id, "instants": list(instants)}
    ).fetchall()
    return [row[1] for row in rows]


def balance_changes(
    connection: Connection, organization_id: UUID, pool_id: UUID, since: datetime, limit: int
) -> list[tuple[datetime, Decimal]]:
    """Return what all grants had left after each entry since an instant, in order."""
    return connection.execute(
        _CHANGES, {"org": organization_id, "pool": pool_id, "since": since, "limit": limit}
    ).fetchall()
