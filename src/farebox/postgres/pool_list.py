"""Pools as a list for people, those that run low first; and how the balance of one went."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.ledger.policy import LimitMode, Refill
from farebox.ledger.pool import Counters

# What is left of what there was in this period decides the order, and the key between equals. Pools
# into which units flow come with those that are full, those without anything after them.
_ITEMS = """
select * from (
  select p.pool_id, p.key, p.definition ->> 'name' as name, p.customer_key, p.unit, p.status,
    coalesce(p.definition -> 'policy' -> 'limit' ->> 'mode', 'hard') as mode,
    p.granted as available, p.held, -p.overdraft as overdraft, p.counters::text as counters,
    p.definition -> 'policy' ->> 'refill' as refill, p.next_due,
    case when p.status <> 'open' then 3
      when p.definition -> 'policy' ->> 'refill' is not null then 1
      when p.granted + c.taken = 0 then 2 else p.granted / (p.granted + c.taken) end as level
  from pool p
  cross join lateral (select greatest(0, (p.counters ->> 'used')::numeric + p.overdraft
    - (p.counters ->> 'overage')::numeric - (p.counters ->> 'burst')::numeric
    - coalesce((p.counters ->> 'unlimited')::numeric, 0)) as taken) c
  where p.organization_id = %(org)s
    and (%(customer)s::text is null or p.customer_key = %(customer)s)
    and (%(search)s = '' or p.key ilike %(like)s or p.customer_key ilike %(like)s
      or p.definition ->> 'name' ilike %(like)s)
) n order by level, key limit %(limit)s offset %(offset)s
"""
_COURSE = """
select i.place, (select t.available_after from transfer t where t.organization_id = %(org)s
  and t.pool_id = %(pool)s and t.sequence = s.before)
from unnest(%(instants)s::timestamptz[]) with ordinality i(instant, place)
cross join lateral (select sequence_at(%(pool)s, i.instant) - 1 as before offset 0) s
order by i.place
"""


class PoolItem(Struct, frozen=True):
    """A pool in a list; `level` is what is left of what there was, from 0 to 1, then the others."""

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
    next_due: datetime | None
    level: Decimal


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
