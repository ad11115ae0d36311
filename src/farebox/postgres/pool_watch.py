"""Up to which entry each pool was looked at, and which pools somebody should look at."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.ledger.pool import Counters

# Of a pool p and its mark w. Limited, so that an entry is looked up by its key and the ledger is
# never joined.
_CALM = """(
 w.calm_by = %(calm_by)s and p.granted >= w.calm_above
 and p.sequence - w.sequence <= %(entries)s and (
  select t.sequence from transfer t where t.pool_id = w.pool_id and t.sequence > w.sequence
   and not (t.available_after >= w.calm_above and (t.source, t.target) in
    (('grant', 'used'), ('grant', 'held'), ('held', 'used'), ('held', 'grant'),
     ('source', 'used'), ('source', 'held'), ('held', 'source')))
  order by t.sequence limit 1) is null)"""


class WatchRow(Struct, frozen=True, kw_only=True):
    """Up to where a pool was looked at; see the table. looked_at: none for one that never was.

    calm_above, calm_by: `calm_pools` says what they are for.
    """

    pool_id: UUID
    sequence: int
    available: Decimal
    bursting: bool
    limit_near_period: int | None
    overage_period: int | None
    looks: int
    looked_at: datetime | None
    calm_above: Decimal | None
    calm_by: UUID | None


class PoolRow(Struct, frozen=True, kw_only=True):
    """A pool as it stands after its entry `sequence`.

    end: up to where this look reads entries, the end of an operation. refilled: a rate limit.
    unlimited: nothing bounds it. overdraft: what is owed, as a positive number.
    """

    pool_id: UUID
    key: str
    customer: str | None
    unit: str
    currency: str | None
    refilled: bool
    unlimited: bool
    sequence: int
    end: int
    available: Decimal
    used: Decimal
    overdraft: Decimal
    counters: Counters


def lock_watches(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]
) -> Sequence[WatchRow]:
    """Return up to where pools were looked at, and let nobody else look until the end."""
    parameters = {"org": organization_id, "pools": list(pool_ids)}
    # In the order of ids, here as below, so that two who look never wait for each other.
    connection.execute(
        "insert into pool_watch (organization_id, pool_id, sequence, available, bursting, looks)"
        " select %(org)s, p.pool_id, 0, 0, false, 0 from pool p"
        " where p.organization_id = %(org)s and p.pool_id = any(%(pools)s)"
        "  and not exists (select from pool_watch w where w.pool_id = p.pool_id)"
        " order by p.pool_id on conflict do nothing",
        parameters,
    )
    return read_watches(connection, organization_id, pool_ids, lock=True)


def read_watches(
    connection: Connection,
    organization_id: UUID,
    pool_ids: Sequence[UUID],
    *,
    lock: bool = False,
) -> Sequence[WatchRow]:
    """Return up to where pools were looked at; none of a pool that never was."""
    cursor = connection.cursor(row_factory=class_row(WatchRow))
    return cursor.execute(
        f"select {', '.join(WatchRow.__struct_fields__)} from pool_watch"
        " where organization_id = %s and pool_id = any(%s)"
        f" order by pool_id{' for update' if lock else ''}",
        (organization_id, list(pool_ids)),
    ).fetchall()


def calm_pools(
    connection: Connection,
    organization_id: UUID,
    pool_ids: Sequence[UUID],
    entries: int,
    calm_by: UUID,
) -> set[UUID]:
    """Return which pools were but used since they were looked at, and have enough left.

    calm_by: what levels must have been worked out by. A pool that was looked at more than
    `entries` entries ago is not among them.
    """
    rows = connection.execute(
        "select w.pool_id from pool_watch w join pool p on p.pool_id = w.pool_id"
        f" where w.organization_id = %(org)s and w.pool_id = any(%(pools)s) and {_CALM}",
        {
            "org": organization_id,
            "pools": list(pool_ids),
            "entries": entries,
            "calm_by": calm_by,
        },
    ).fetchall()
    return {row[0] for row in rows}


def pools_since(
    connection: Connection, organization_id: UUID, watches: Sequence[WatchRow], entries: int
) -> Mapping[UUID, PoolRow]:
    """Return pools as they stand; `end` lies about `entries` entries on at most.

    One statement, so that what is said of a pool belongs to one version of it.
    """
    rows = connection.execute(
        "select p.pool_id, p.key, p.customer_key, p.unit, p.definition #>> '{policy,currency}',"
        " p.definition #>> '{policy,refill}' is not null,"
        " coalesce(p.definition #>> '{policy,limit,mode}' = 'unlimited', false), p.sequence,"
        # An operation is not cut; one that is longer than a look is read with all that follows.
        " case when p.sequence <= w.after + %(entries)s or t.operation <= w.after + 1"
        "  then p.sequence else t.operation - 1 end,"
        " p.granted, p.used, -p.overdraft, p.counters::text"
        " from unnest(%(pools)s::uuid[], %(after)s::bigint[]) w(pool_id, after)"
        " join pool p on p.pool_id = w.pool_id"
        # Lateral and limited, so that it is looked up by its key and the ledger is never joined.
        " left join lateral (select t.operation from transfer t where t.pool_id = w.pool_id"
        "  and t.sequence = w.after + %(entries)s + 1 limit 1) t on true"
        " where p.organization_id = %(org)s",
        {
            "org": organization_id,
            "pools": [one.pool_id for one in watches],
            "after": [one.sequence for one in watches],
            "entries": entries,
        },
    ).fetchall()
    return {
        row[0]: PoolRow(
            pool_id=row[0],
            key=row[1],
            customer=row[2],
            unit=row[3],
            currency=row[4],
            refilled=row[5],
            unlimited=row[6],
            sequence=row[7],
            end=row[8],
            available=row[9],
            used=row[10],
            overdraft=row[11],
            counters=msgspec.json.decode(row[12], type=Counters),
        )
        for row in rows
    }


def write_watches(connection: Connection, organization_id: UUID, rows: Sequence[WatchRow]) -> None:
    """Move on the marks of pools, whose locks are held."""
    connection.execute(
        "update pool_watch w set sequence = n.sequence, available = n.available,"
        "  bursting = n.bursting, limit_near_period = n.limit_near_period,"
        "  overage_period = n.overage_period, looks = n.looks, looked_at = n.looked_at,"
        "  calm_above = n.calm_above, calm_by = n.calm_by"
        " from json_to_recordset(%s::json) as n (pool_id uuid, sequence bigint, available numeric,"
        "  bursting boolean, limit_near_period bigint, overage_period bigint, looks bigint,"
        "  looked_at timestamptz, calm_above numeric, calm_by uuid)"
        " where w.organization_id = %s and w.pool_id = n.pool_id",
        (msgspec.json.encode(rows).decode(), organization_id),
    )


class Candidate(Struct, frozen=True):
    """A pool that somebody should look at; due: something falls due by itself on it first."""

    pool_id: UUID
    due: bool


def pools_to_look_at(
    connection: Connection,
    organization_id: UUID,
    now: datetime,
    *,
    changed_at: datetime | None,
    burn_minutes: int,
    refusal_minutes: int,
    expire_until: datetime | None,
    entries: int,
    calm_by: UUID,
    after: UUID | None,
    limit: int,
) -> list[Candidate]:
    """Return pools for which time alone may have changed something, by id, a page at a time.

    Those on which something is due or fires, that were not looked at since a rule changed
    (changed_at) or since their last entry, unless they are calm (see `calm_pools`), that moved or
    refused within the longest windows of the rules (0: no rule has one), or have a grant that
    expires until then.
    """
    rows = connection.execute(
        "select p.pool_id, coalesce(p.next_due <= %(now)s, false) and p.status = 'open'"
        " from pool p left join pool_watch w on w.pool_id = p.pool_id"
        " where p.organization_id = %(org)s and (%(after)s::uuid is null or p.pool_id > %(after)s)"
        "  and ((p.next_due <= %(now)s and p.status = 'open')"
        f"   or (coalesce(w.sequence, 0) < p.sequence and coalesce(not {_CALM}, true))"
        "   or w.looked_at <= %(changed_at)s"
        "   or (%(burn)s > 0 and p.as_of >= %(now)s - %(burn)s * interval '1 minute')"
        "   or exists (select from alert a where a.pool_id = p.pool_id and a.cleared_at is null)"
        "   or (%(refusals)s > 0 and exists (select from refusal r where r.pool_id = p.pool_id"
        "    and r.last_at > %(now)s - %(refusals)s * interval '1 minute'"
        # Rows of a minute; this bound lets the key be searched.
        "    and r.minute > %(now)s - (%(refusals)s + 1) * interval '1 minute'))"
        "   or (%(expire)s::timestamptz is not null and exists (select from pool_grant g"
        "    where g.pool_id = p.pool_id and g.status <> 'closed'"
        "     and g.status <> 'voided' and g.expires_at <= %(expire)s)))"
        " order by p.pool_id limit %(limit)s",
        {
            "org": organization_id,
            "now": now,
            "after": after,
            "changed_at": changed_at,
            "burn": burn_minutes,
            "refusals": refusal_minutes,
            "expire": expire_until,
            "entries": entries,
            "calm_by": calm_by,
            "limit": limit,
        },
    ).fetchall()
    return [Candidate(*row) for row in rows]
