"""Who used what of a pool and when: sums by the hour up to a mark, and the entries after it."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

FOLD_AT = 500
"""So many entries are read one by one before they are worth a row in the sums."""

_BEHIND = """
select p.pool_id from pool p left join pool_usage_mark m on m.pool_id = p.pool_id
where p.organization_id = %(org)s and p.pool_id = any(%(pools)s)
  and p.sequence - coalesce(m.sequence, 0) >= %(entries)s
"""
_BEGIN = """
insert into pool_usage_mark (organization_id, pool_id, sequence)
select %(org)s, p.pool_id, 0 from unnest(%(pools)s::uuid[]) p(pool_id)
on conflict do nothing
"""
_LOCK = """
select pool_id from pool_usage_mark
where organization_id = %(org)s and pool_id = any(%(pools)s) order by pool_id for update
"""
# One statement has one snapshot: what it reads as a pool's last entry is there, as are all before.
_FOLD = """
with step as materialized (
  select p.pool_id, p.timezone, m.sequence as after, p.sequence as up_to
  from pool_usage_mark m join pool p on p.pool_id = m.pool_id
  where m.organization_id = %(org)s and m.pool_id = any(%(pools)s) and m.sequence < p.sequence
), marked as (
  update pool_usage_mark m set sequence = s.up_to from step s where m.pool_id = s.pool_id
)
insert into pool_usage as u (organization_id, pool_id, hour, subject, allotment, used, covered,
  beyond, operations)
select %(org)s, s.pool_id, n.hour, n.subject, n.allotment, n.used, n.covered, n.beyond, n.operations
from step s cross join lateral pool_use(s.pool_id, s.timezone, s.after, s.up_to) n
on conflict (pool_id, hour, subject, allotment) do update set used = u.used + excluded.used,
  covered = u.covered + excluded.covered, beyond = u.beyond + excluded.beyond,
  operations = u.operations + excluded.operations
"""
_USE = """
select hour, subject, allotment, used, covered, beyond, operations from pool_usage
where organization_id = %(org)s and pool_id = %(pool)s and hour >= %(since)s and hour < %(until)s
  and (%(subject)s::text is null or subject = %(subject)s)
union all
select n.* from pool p
left join pool_usage_mark m on m.pool_id = p.pool_id
cross join lateral pool_use(p.pool_id, p.timezone, coalesce(m.sequence, 0), p.sequence) n
where p.organization_id = %(org)s and p.pool_id = %(pool)s
  and n.hour >= %(since)s and n.hour < %(until)s
  and (%(subject)s::text is null or n.subject = %(subject)s)
"""
_SUMS = (
    "coalesce(sum(used), 0), coalesce(sum(covered), 0), coalesce(sum(beyond), 0),"
    " coalesce(sum(operations), 0)::bigint"
)


class Used(Struct, frozen=True, kw_only=True):
    """Units used less those taken back: covered by grants, beyond them. operations: how many."""

    used: Decimal
    covered: Decimal
    beyond: Decimal
    operations: int


class Teller(StrEnum):
    """Whose use is told apart."""

    SUBJECT = "subject"
    ALLOTMENT = "allotment"


def fold_use(connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]) -> None:
    """Add what the ledgers of pools say after their marks, and move the marks to their ends.

    Of pools whose marks lie fewer entries behind nothing is done: those are read one by one.
    """
    parameters = {"org": organization_id, "pools": list(pool_ids), "entries": FOLD_AT}
    behind = [row[0] for row in connection.execute(_BEHIND, parameters)]
    if not behind:
        return
    parameters["pools"] = sorted(behind)
    connection.execute(_BEGIN, parameters)
    # Who folds a pool holds its mark until the end, so that each entry is counted by one.
    connection.execute(_LOCK, parameters)
    connection.execute(_FOLD, parameters)


def total_use(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    since: datetime,
    until: datetime,
    subject: str | None = None,
) -> Used:
    """Return what was used in hours that begin from `since` on and before `until`."""
    row = connection.execute(
        f"select {_SUMS} from ({_USE}) n",
        _parameters(organization_id, pool_id, since, until, subject),
    ).fetchone()
    assert row is not None, "a sum is one row"
    return _used(row)


def use_by_name(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    teller: Teller,
    since: datetime,
    until: datetime,
    *,
    subject: str | None = None,
    after: tuple[Decimal, str] | None = None,
    limit: int = 100,
) -> list[tuple[str, Used]]:
    """Return what each subject or allotment used ("" for none), the greatest users first.

    after: use and name of the last one of the page before.
    """
    least, name = (None, None) if after is None else after
    rows = connection.execute(
        f"select * from (select {teller} as name, sum(used) as used, sum(covered), sum(beyond),"
        f" sum(operations)::bigint from ({_USE}) n group by {teller}) g"
        " where %(least)s::numeric is null or used < %(least)s"
        '  or (used = %(least)s and name > %(name)s collate "C")'
        ' order by used desc, name collate "C" limit %(limit)s',
        {
            **_parameters(organization_id, pool_id, since, until, subject),
            "least": least,
            "name": name,
            "limit": limit,
        },
    ).fetchall()
    return [(row[0], _used(row[1:])) for row in rows]


def use_by_window(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    starts: Sequence[datetime],
    until: datetime,
    *,
    subject: str | None = None,
) -> list[tuple[int, Used]]:
    """Return what was used in windows that begin at `starts`, ascending, the last ends at `until`.

    A window is named by its place; one in which nothing happened is left out.
    """
    rows = connection.execute(
        f"select width_bucket(hour, %(starts)s::timestamptz[]) - 1, {_SUMS} from ({_USE}) n"
        " group by 1 order by 1",
        {
            **_parameters(organization_id, pool_id, starts[0], until, subject),
            "starts": list(starts),
        },
    ).fetchall()
    return [(row[0], _used(row[1:])) for row in rows]


def _parameters(
    organization_id: UUID, pool_id: UUID, since: datetime, until: datetime, subject: str | None
) -> dict[str, object]:
    return {
        "org": organization_id,
        "pool": pool_id,
        "since": since,
        "until": until,
        "subject": subject,
    }


def _used(row: Sequence[object]) -> Used:
    used, covered, beyond, operations = row
    assert isinstance(used, Decimal)
    assert isinstance(covered, Decimal)
    assert isinstance(beyond, Decimal)
    assert isinstance(operations, int)
    return Used(used=used, covered=covered, beyond=beyond, operations=operations)
