"""Readings of an import that is undone: which draws they burned, and where they burned nothing."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.postgres import burn

DRAWS_A_PAGE = 5_000


class Voided(Struct, frozen=True):
    """What is voided of a part of a draw, and the units that the part comes to less without it.

    Of a part that is below zero, quantity and events are so too.
    """

    quantity: Decimal = Decimal(0)
    events: int = 0
    units: Decimal = Decimal(0)


Parts = Mapping[int, Voided]
"""By the place of a part in the note of its draw, from 0."""


class VoidedDraw(Struct, frozen=True):
    """A draw of which usage is voided: now, without units yet, and earlier.

    given: the units that it gave back for what was voided earlier.
    """

    pool_id: UUID
    operation: int
    parts: Parts
    earlier: Parts
    given: Decimal


_IMPORTED = "g.organization_id = %(org)s and g.import_id = %(import)s"

# What the steps have passed, and what backfills read, which burned with their switch. `offset 0`:
# the ranges come first, then an index look-up for each.
_READINGS = f"""
insert into burn_reading
with gone as (
  select e.sequence, e.time, u.series_id, u.quantity, e.draw
  from import_range g cross join lateral (
    select sequence, time, series, quantities, payload ->> 'fareboxdraw' as draw from event
    where organization_id = %(org)s and sequence >= g.first_sequence
      and sequence <= least(g.last_sequence, %(burned)s)
    offset 0) e
  cross join lateral unnest(e.series, e.quantities) u(series_id, quantity)
  where {_IMPORTED}
  union all
  select b.sequence, b.time, b.series_id, b.quantity,
         case when b.drawn then draw_named(%(org)s, b.sequence) end
  from import_range g cross join lateral (
    select * from backfill_reading where organization_id = %(org)s
      and sequence >= g.first_sequence and sequence <= g.last_sequence
      and kind = 'totals'
    offset 0) b
  join backfill f on f.organization_id = %(org)s and f.meter_key = b.meter_key
    and f.meter_version = b.meter_version and f.status = 'switched'
  where {_IMPORTED}
)
select r.sequence, r.time, r.quantity, s.subject, s.meter_key, s.meter_version, s.dimensions,
       coalesce(nullif(s.customer_key, ''), m.customer_key)
from gone r
join series s on s.organization_id = %(org)s and s.series_id = r.series_id
left join subject m on s.customer_key = '' and m.organization_id = %(org)s
  and m.subject = s.subject and m.valid_from <= r.time and r.time < m.valid_to
where draw_pays(%(org)s, r.draw, r.sequence, coalesce(nullif(s.customer_key, ''), m.customer_key),
                s.subject, r.time) is not true"""

_TABLES = (
    "create temporary table if not exists burn_voided ("
    " reading bigint generated always as identity, pool_id uuid, sequence bigint,"
    ' time timestamptz, quantity numeric, subject text collate "C", meter_key text collate "C",'
    " meter_version integer, dimensions jsonb, counts boolean) on commit delete rows",
    "create temporary table if not exists burn_part ("
    ' pool_id uuid, subject text collate "C", operation bigint, place integer,'
    ' first_sequence bigint, last_sequence bigint, meter_key text collate "C",'
    " meter_version integer, dimensions jsonb, first_time timestamptz, last_time timestamptz,"
    " sign integer, taken_back boolean) on commit delete rows",
    "create temporary table if not exists burn_back ("
    " pool_id uuid, operation bigint, place integer, quantity numeric, events bigint,"
    " primary key (pool_id, operation, place)) on commit delete rows",
    "create index if not exists burn_voided_place"
    " on burn_voided (pool_id, subject, meter_key, sequence)",
)

# Whose usage burns which pool at a time is as it was: usage that has burned does not move.
_VOIDED = """
insert into burn_voided (pool_id, sequence, time, quantity, subject, meter_key, meter_version,
  dimensions, counts)
with target as (
  select * from unnest(%(customers)s::text[], %(meters)s::text[], %(pools)s::uuid[],
                       %(since)s::timestamptz[], %(until)s::timestamptz[])
    t(customer_key, meter_key, pool_id, since, until)
),
named as (
  select * from json_to_recordset(%(names)s::json)
    n(meter_key text, meter_version integer, names text[])
)
select t.pool_id, p.sequence, p.time, p.quantity, p.subject, p.meter_key, p.meter_version,
       jsonb_strip_nulls(jsonb_object(n.names, p.dimensions)),
       not exists (select from superseded o
                   where o.organization_id = %(org)s and o.meter_key = p.meter_key
                     and o.meter_version = p.meter_version and o.counted_until <= p.time)
from burn_reading p
join target t on t.customer_key = p.customer_key and t.meter_key = p.meter_key
  and t.since <= p.time and p.time < t.until
join named n on n.meter_key = p.meter_key and n.meter_version = p.meter_version"""

# The parts of draws around these readings. No draw is older than its events are here, but for
# clocks that differ. taken_back: whether all of the draw was; its usage may have burned again.
_PARTS = """
insert into burn_part
with pool as materialized (
  select pool_id, min(sequence) as first, max(sequence) as last from burn_voided group by 1
),
received as materialized (
  select received_at - interval '1 hour' as since from event
  where organization_id = %(org)s and sequence = (select min(sequence) from burn_voided)
),
draw as materialized (
  select t.pool_id, coalesce(t.subject, '') as subject, t.operation, t.note,
         (t.note ->> 'first_sequence')::bigint as first_sequence,
         (t.note ->> 'last_sequence')::bigint as last_sequence
  from pool p cross join received r
  join transfer t on t.pool_id = p.pool_id and t.sequence >= sequence_at(p.pool_id, r.since)
  where t.organization_id = %(org)s and t.reason = 'metered' and t.note is not null
    and (t.note ->> 'first_sequence')::bigint <= p.last
    and (t.note ->> 'last_sequence')::bigint >= p.first
)
select d.pool_id, d.subject, d.operation, n.place - 1, d.first_sequence, d.last_sequence,
       n.part ->> 'meter', (n.part ->> 'meter_version')::integer,
       (n.part -> 'dimensions')::jsonb, (n.part ->> 'first_time')::timestamptz,
       (n.part ->> 'last_time')::timestamptz,
       case when (n.part ->> 'events')::bigint < 0 then -1 else 1 end,
       coalesce((select sum(u.amount) from transfer u
                 where u.pool_id = d.pool_id and u.undoes = d.operation and u.source = 'used'), 0)
         >= (select sum((o.part ->> 'units')::numeric)
             from json_array_elements(d.note -> 'uses') o(part))
from draw d cross join lateral json_array_elements(d.note -> 'uses') with ordinality n(part, place)
where exists (
  select from burn_voided v where v.pool_id = d.pool_id and v.subject = d.subject
    and v.meter_key = n.part ->> 'meter'
    and v.sequence between d.first_sequence and d.last_sequence)"""

# Each reading that is not below zero was counted once by a part, and at most once taken from one
# when a newer version of its meter read the event instead. Of several parts around it, the one that
# is closest around it; what stays here has burned nothing.
_BACK = """
with chosen as materialized (
  select distinct on (v.reading, b.sign) v.reading, v.quantity, b.pool_id, b.operation, b.place,
         b.sign
  from burn_part b join burn_voided v on v.pool_id = b.pool_id and v.subject = b.subject
    and v.meter_key = b.meter_key and v.meter_version = b.meter_version
    and v.dimensions = b.dimensions
    and v.sequence between b.first_sequence and b.last_sequence
    and v.time between b.first_time and b.last_time
  where v.quantity >= 0
  order by v.reading, b.sign, b.taken_back, b.last_time - b.first_time,
           b.last_sequence - b.first_sequence, b.operation desc
),
covered as (
  delete from burn_voided v using chosen c where c.reading = v.reading and c.sign > 0
)
insert into burn_back
select pool_id, operation, place, sum(sign * quantity), sum(sign) from chosen group by 1, 2, 3"""

# The span of time stays: it says between when there was such usage, not that there was no other.
_UNBURNED = """
with chosen as materialized (
  select distinct on (v.reading) v.quantity, u.pool_id, u.meter_key, u.dimensions, u.reason
  from burn_voided v join unburned u on u.organization_id = %(org)s and u.pool_id = v.pool_id
    and u.meter_key = v.meter_key and u.dimensions::jsonb = v.dimensions
    and v.time between u.first_time and u.last_time and u.events > 0
  where v.counts and (v.quantity < 0 or u.reason <> 'below_zero')
  order by v.reading, u.reason <> 'below_zero', u.last_time - u.first_time, u.reason
),
gone as (
  select pool_id, meter_key, dimensions, reason, count(*) as events, sum(quantity) as quantity
  from chosen group by 1, 2, 3, 4
)
update unburned u set events = greatest(0, u.events - g.events),
  quantity = case when u.events > g.events then u.quantity - g.quantity else 0 end
from gone g
where u.pool_id = g.pool_id and u.meter_key = g.meter_key and u.dimensions = g.dimensions
  and u.reason = g.reason"""


def read_voided(
    connection: Connection, organization_id: UUID, import_id: UUID, burned: int
) -> list[str]:
    """As `burn.read_step`: set aside what events of an import may have burned.

    burned: up to which event the steps have burned pools.
    """
    burn.open_readings(connection)
    parameters = {"org": organization_id, "import": import_id, "burned": burned}
    # As in `void_import`: whatever the planner believes, sets are hashed.
    connection.execute("set local enable_nestloop = off")
    connection.execute(_READINGS, parameters)
    connection.execute("set local enable_nestloop to default")
    return burn.customers_aside(connection)


def find_draws(
    connection: Connection,
    organization_id: UUID,
    targets: Sequence[tuple[str, str, UUID, datetime, datetime]],
    names: Mapping[tuple[str, int], Sequence[str]],
) -> bool:
    """Find the draws of the readings that were set aside, for `page_of_draws`.

    names: of the dimensions, by meter and version. Returns whether any may have burned.
    """
    for statement in _TABLES:
        connection.execute(statement)
    parameters: dict[str, Any] = {
        "org": organization_id,
        "customers": [one[0] for one in targets],
        "meters": [one[1] for one in targets],
        "pools": [one[2] for one in targets],
        "since": [one[3] for one in targets],
        "until": [one[4] for one in targets],
        "names": json.dumps(
            [
                {"meter_key": meter, "meter_version": version, "names": list(some)}
                for (meter, version), some in names.items()
            ]
        ),
    }
    if connection.execute(_VOIDED, parameters).rowcount == 0:
        return False
    connection.execute("analyze burn_voided")
    connection.execute(_PARTS, parameters)
    connection.execute("analyze burn_part")
    connection.execute(_BACK)
    return True


def shrink_unburned(connection: Connection, organization_id: UUID) -> None:
    """Count no more, among usage that burned nothing, the readings that were found in no draw."""
    connection.execute(_UNBURNED, {"org": organization_id})


def page_of_draws(
    connection: Connection, organization_id: UUID, after: tuple[UUID, int]
) -> list[VoidedDraw]:
    """Return the draws that were found after this one, in the order of pools and operations."""
    rows = connection.execute(
        "select b.*, coalesce(w.given, 0), coalesce(w.parts::text, '{}') from ("
        "  select pool_id, operation, array_agg(place), array_agg(quantity), array_agg(events)"
        "  from burn_back where (pool_id, operation) > (%s, %s)"
        "  group by 1, 2 order by 1, 2 limit %s) b"
        " left join draw_voided w on w.organization_id = %s and w.pool_id = b.pool_id"
        "  and w.operation = b.operation order by 1, 2",
        (*after, DRAWS_A_PAGE, organization_id),
    ).fetchall()
    return [
        VoidedDraw(
            pool_id,
            operation,
            {
                place: Voided(quantity, events)
                for place, quantity, events in zip(*parts, strict=True)
            },
            msgspec.json.decode(earlier, type=dict[int, Voided]),
            given,
        )
        for pool_id, operation, *parts, given, earlier in rows
    ]


def save_voided(connection: Connection, organization_id: UUID, draws: Sequence[VoidedDraw]) -> None:
    """Keep what was voided of draws so far, which is all that `earlier` says now."""
    connection.execute(
        "insert into draw_voided (organization_id, pool_id, operation, given, parts)"
        " select %s, n.pool_id, n.operation, n.given, n.parts::json"
        " from unnest(%s::uuid[], %s::bigint[], %s::numeric[], %s::text[])"
        "  n(pool_id, operation, given, parts)"
        " on conflict (pool_id, operation) do update set"
        " given = excluded.given, parts = excluded.parts",
        (
            organization_id,
            [one.pool_id for one in draws],
            [one.operation for one in draws],
            [one.given for one in draws],
            [msgspec.json.encode(one.earlier).decode() for one in draws],
        ),
    )


def invoiced_spans(connection: Connection, organization_id: UUID) -> list[tuple[UUID, int, int]]:
    """Return the pools of these draws, from which entry and before which a final invoice has them.

    An invoice states what was taken in its period while its subscription paid for the pool.
    """
    return connection.execute(
        "select r.pool_id, greatest(r.first_sequence, sequence_at(r.pool_id, i.period_start)),"
        " least(r.next_sequence, sequence_at(r.pool_id, i.period_end))"
        " from (select pool_id, min(operation) as first from burn_back group by 1) b"
        " join pool_payer r on r.pool_id = b.pool_id"
        " join transfer t on t.pool_id = b.pool_id and t.sequence = b.first"
        " join invoice i on i.organization_id = %(org)s"
        "  and i.subscription_key = r.subscription_key"
        "  and i.status = 'final' and i.kind = 'period' and i.period_end > t.time",
        {"org": organization_id},
    ).fetchall()
