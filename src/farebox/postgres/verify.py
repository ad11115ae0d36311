"""Prove the ledger from its transfers: each check is a statement that returns what is not so.

They compute what pools, grants, holds, shares and counters must be, in another way than the ledger
does when it decides, and run in one snapshot, a page of pools at a time.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.ledger.account import Account
from farebox.ledger.grant import Recurrence
from farebox.postgres.pool_subscription import WRONG as SUBSCRIPTION_WRONG
from farebox.postgres.posting import COLUMN_OF

FINDINGS_MAX = 1000
"""So many findings of one check in one page of pools are told."""


class FaultCode(StrEnum):
    """What can be found wrong; docs/run.md has a row for each."""

    SEQUENCE_BROKEN = "sequence_broken"
    TIME_WENT_BACK = "time_went_back"
    OPERATION_BROKEN = "operation_broken"
    KEY_TWICE = "key_twice"
    POOL_NOT_ZERO = "pool_not_zero"
    BALANCE_WRONG = "balance_wrong"
    CHAIN_BROKEN = "chain_broken"
    GRANT_WRONG = "grant_wrong"
    GRANT_BELOW_ZERO = "grant_below_zero"
    GRANT_NOT_CLOSED = "grant_not_closed"
    HOLD_WRONG = "hold_wrong"
    COUNTER_WRONG = "counter_wrong"
    ALLOTMENT_WRONG = "allotment_wrong"
    SUBSCRIPTION_WRONG = "subscription_wrong"
    RECURRENCE_WRONG = "recurrence_wrong"
    TRANSIT_NOT_ZERO = "transit_not_zero"


class Finding(Struct, frozen=True):
    """Something that is not as it must be. pool: its key; for what spans pools, a unit."""

    pool: str
    code: FaultCode
    place: str
    expected: str
    found: str


class VerifiedPool(Struct, frozen=True):
    """A pool that is to be looked at, and how many transfers it says it has."""

    pool_id: UUID
    sequence: int


class RecurrenceRow(Struct, frozen=True):
    """A recurring grant as stored, and the grants that came of it; first_at: the first of them."""

    pool: str
    recurrence: Recurrence
    next_at: datetime | None
    grants: int
    last_grant: int | None
    first_at: datetime | None


_PAGE = "p.organization_id = %(org)s and p.pool_id = any(%(pools)s)"
_TRANSFERS = "t.organization_id = %(org)s and t.pool_id = any(%(pools)s)"


def _gained(account: str) -> str:
    """Return what an account gained by a transfer, below zero where it lost units."""
    return f"case '{account}' when t.target then t.amount when t.source then -t.amount else 0 end"


def _running(account: str) -> str:
    """Return the balance of the account that a transfer names; a grant's is its own."""
    others = [f"when '{one}' then r.{one}" for one in Account if one is not Account.GRANT]
    return f"case {account} {' '.join(others)} end"


_SUM = " + ".join(f"p.{COLUMN_OF[account]}" for account in Account)
_SUMS = ", ".join(f"sum({_gained(account)}) as {account}" for account in Account)
_BALANCES = ", ".join(
    f"('{account}', coalesce(m.{account}, 0), p.{COLUMN_OF[account]})" for account in Account
)
# The balances of all accounts after each transfer, where one is not what stands there.
_BROKEN = f"""
    select r.pool_id, r.sequence, r.available_after, r.grant as available, r.source_account,
           r.source_after, {_running("source_account")} as source_running, r.target_account,
           r.target_after, {_running("target_account")} as target_running
    from (select t.pool_id, t.sequence, t.source as source_account, t.target as target_account,
                 t.source_after, t.target_after, t.available_after,
                 {_SUMS.replace(") as", ") over follows as")}
          from transfer t where {_TRANSFERS}
          window follows as (partition by t.pool_id order by t.sequence)) r
    where r.available_after <> r.grant or r.source_after <> {_running("source_account")}
        or r.target_after <> {_running("target_account")}"""

# What counts in the running period: what is held now, what was used since it began, and less what
# of that was taken back.
_USE = f"""
    period as (
        select p.pool_id, p.key, p.counters,
               sequence_at(p.pool_id, (p.counters->>'period_start')::timestamptz) as start
        from pool p where {_PAGE}),
    use as (
        select h.pool_id, h.allotment, s.value->>0 as account, (s.value->>1)::numeric as amount,
               (s.value->>3)::numeric as price
        from period p join hold h on h.pool_id = p.pool_id and h.status = 'open',
             json_array_elements(h.slices) s
        union all
        select t.pool_id, t.allotment, coalesce(t.origin, t.source), t.amount, t.price
        from period p join transfer t on t.pool_id = p.pool_id and t.sequence >= p.start
        where t.target = 'used'
        union all
        select t.pool_id, t.allotment, t.origin, -t.amount, t.price
        from period p join transfer t on t.pool_id = p.pool_id and t.sequence >= p.start
        join transfer u on u.pool_id = t.pool_id and u.sequence = t.undoes and u.sequence >= p.start
        where t.source = 'used')"""

_CHECKS = {
    FaultCode.SEQUENCE_BROKEN: f"""
        select p.key, 'transfers', '1 to ' || p.sequence,
               count(t.sequence) || ' transfers, '
                   || coalesce(min(t.sequence) || ' to ' || max(t.sequence), 'none')
        from pool p left join transfer t on t.pool_id = p.pool_id
        where {_PAGE} group by p.pool_id
        having count(t.sequence) <> p.sequence or coalesce(min(t.sequence), 1) <> 1
            or coalesce(max(t.sequence), 0) <> p.sequence""",
    FaultCode.TIME_WENT_BACK: f"""
        select p.key, 'transfer ' || o.sequence, 'not before ' || o.before, o.time::text
        from (select t.pool_id, t.sequence, t.time,
                     lag(t.time) over (partition by t.pool_id order by t.sequence) as before
              from transfer t where {_TRANSFERS}) o join pool p on p.pool_id = o.pool_id
        where o.time < o.before""",
    # The transfers of an operation follow each other, and its key stands at the first.
    FaultCode.OPERATION_BROKEN: f"""
        select p.key, 'transfer ' || o.sequence,
               case when o.operation = o.before then 'no key: it is not the first of its operation'
                    else 'operation ' || o.sequence || coalesce(' or ' || o.before, '') end,
               'operation ' || o.operation || coalesce(', key ' || o.request_key, '')
        from (select t.pool_id, t.sequence, t.operation, t.key as request_key,
                     lag(t.operation) over (partition by t.pool_id order by t.sequence) as before
              from transfer t where {_TRANSFERS}) o join pool p on p.pool_id = o.pool_id
        where o.operation <> o.sequence
            and (o.operation is distinct from o.before or o.request_key is not null)""",
    FaultCode.KEY_TWICE: f"""
        select p.key, 'key ' || k.key, '1 operation', k.times || ' operations'
        from (select t.pool_id, t.key, count(*) as times from transfer t
              where {_TRANSFERS} and t.key is not null group by 1, 2 having count(*) > 1) k
        join pool p on p.pool_id = k.pool_id""",
    FaultCode.POOL_NOT_ZERO: f"""
        select p.key, 'all accounts', '0', trim_scale({_SUM})::text
        from pool p where {_PAGE} and {_SUM} <> 0""",
    FaultCode.BALANCE_WRONG: f"""
        select p.key, 'account ' || b.account, trim_scale(b.moved)::text,
               trim_scale(b.balance)::text
        from pool p left join (
            select t.pool_id, {_SUMS} from transfer t where {_TRANSFERS} group by 1) m
            on m.pool_id = p.pool_id
        cross join lateral (values {_BALANCES}) b(account, moved, balance)
        where {_PAGE} and b.balance <> b.moved""",
    # The first break of each account and grant; what follows it is off by as much.
    FaultCode.CHAIN_BROKEN: f"""
        (select distinct on (p.key, c.account) p.key,
                'transfer ' || b.sequence || ', ' || c.account, trim_scale(c.running)::text,
                trim_scale(c.after)::text
         from ({_BROKEN}) b join pool p on p.pool_id = b.pool_id cross join lateral (values
            ('account ' || b.source_account, b.source_running, b.source_after),
            ('account ' || b.target_account, b.target_running, b.target_after),
            ('available_after', b.available, b.available_after)) c(account, running, after)
         where c.after <> c.running order by p.key, c.account, b.sequence)
        union all
        (select distinct on (p.key, c.grant_number) p.key,
                'transfer ' || c.sequence || coalesce(', grant ' || c.grant_number, ', no grant'),
                trim_scale(c.running)::text, trim_scale(c.after)::text
         from (select t.pool_id, t.grant_number, t.sequence,
                      case 'grant' when t.source then t.source_after else t.target_after end
                          as after,
                      sum({_gained("grant")}) over (partition by t.pool_id, t.grant_number
                                                    order by t.sequence) as running
               from transfer t where {_TRANSFERS} and 'grant' in (t.source, t.target)) c
         join pool p on p.pool_id = c.pool_id
         where c.after <> c.running order by p.key, c.grant_number, c.sequence)""",
    # `waiting` is what of a grant stands on the pending account.
    FaultCode.GRANT_WRONG: f"""
        with moved as (
            select t.pool_id, t.grant_number as number,
                   sum({_gained("grant")}) as available,
                   sum({_gained("held")}) as held,
                   sum({_gained("pending")}) as waiting
            from transfer t where {_TRANSFERS} and (t.grant_number is not null
                or 'grant' in (t.source, t.target) or 'pending' in (t.source, t.target))
            group by 1, 2),
        stored as (
            select g.pool_id, g.number, g.available, g.held, g.amount,
                   case when g.status in ('pending', 'scheduled') then g.amount else 0 end
                       as waiting
            from pool_grant g where g.organization_id = %(org)s and g.pool_id = any(%(pools)s))
        select p.key, coalesce('grant ' || number, 'no grant'),
               concat_ws(', ', trim_scale(m.available) || ' available',
                   trim_scale(m.held) || ' held', trim_scale(m.waiting) || ' waiting',
                   trim_scale(f.amount) || ' issued'),
               coalesce(concat_ws(', ', trim_scale(s.available) || ' available',
                   trim_scale(s.held) || ' held', trim_scale(s.waiting) || ' waiting',
                   trim_scale(s.amount) || ' issued'), 'nothing')
        from moved m full join stored s using (pool_id, number)
        join pool p using (pool_id)
        left join transfer f on f.pool_id = p.pool_id and f.sequence = number
            and f.grant_number = number
        where (m.available, m.held, m.waiting, f.amount)
            is distinct from (s.available, s.held, s.waiting, s.amount)""",
    FaultCode.GRANT_BELOW_ZERO: f"""
        select distinct on (p.key, t.grant_number) p.key,
               'transfer ' || t.sequence || ', grant ' || t.grant_number, 'not below 0',
               trim_scale(t.source_after)::text
        from transfer t join pool p on p.pool_id = t.pool_id
        where {_TRANSFERS} and t.source = 'grant' and t.source_after < 0
        order by p.key, t.grant_number, t.sequence""",
    FaultCode.GRANT_NOT_CLOSED: f"""
        select p.key, 'grant ' || g.number, g.status || ' and empty',
               g.status || ' with ' || trim_scale(g.available) || ' available and '
                   || trim_scale(g.held) || ' held'
        from pool_grant g join pool p on p.pool_id = g.pool_id
        where {_PAGE} and g.status in ('closed', 'voided')
            and (g.available <> 0 or (g.held <> 0 and g.status = 'closed'))""",
    # A hold is what its transfers left on the held account, account by account, grant by grant.
    FaultCode.HOLD_WRONG: f"""
        with moved as (
            select t.pool_id, coalesce(t.undoes, t.operation) as number,
                   coalesce(t.origin, t.source) as account, coalesce(t.grant_number, 0) as grant_,
                   coalesce(t.price, -1) as price, sum({_gained("held")}) as amount
            from transfer t where {_TRANSFERS} and 'held' in (t.source, t.target)
            group by 1, 2, 3, 4, 5 having sum({_gained("held")}) <> 0),
        kept as (
            select h.pool_id, h.number, s.value->>0 as account,
                   coalesce((s.value->>2)::bigint, 0) as grant_,
                   coalesce((s.value->>3)::numeric, -1) as price,
                   sum((s.value->>1)::numeric) as amount
            from hold h cross join lateral json_array_elements(h.slices) s
            where h.organization_id = %(org)s and h.pool_id = any(%(pools)s)
                and h.slices::text <> '[]'
            group by 1, 2, 3, 4, 5)
        select p.key, 'hold ' || number || ', account ' || account
                   || coalesce(' ' || nullif(grant_, 0), ''),
               trim_scale(coalesce(m.amount, 0))::text, trim_scale(coalesce(k.amount, 0))::text
        from moved m full join kept k using (pool_id, number, account, grant_, price)
        join pool p using (pool_id)
        where coalesce(m.amount, 0) <> coalesce(k.amount, 0)
        union all
        select p.key, 'hold ' || h.number,
               'what its slices are, nothing where it ended',
               trim_scale(h.amount) || ', ' || h.status
        from hold h join pool p on p.pool_id = h.pool_id
        where {_PAGE} and ((h.amount = 0) = (h.status = 'open')
            or h.amount <> case when h.slices::text = '[]' then 0 else (
                select sum((value->>1)::numeric) from json_array_elements(h.slices)) end)
        union all
        select p.key, 'hold ' || t.operation, 'a hold', 'nothing'
        from transfer t join pool p on p.pool_id = t.pool_id
        where {_TRANSFERS} and t.reason = 'held' and t.sequence = t.operation and not exists (
            select from hold h where h.pool_id = t.pool_id and h.number = t.operation)""",
    FaultCode.COUNTER_WRONG: f"""
        with {_USE}
        select p.key, 'counter ' || c.name, trim_scale(c.expected)::text,
               trim_scale(c.found)::text
        from period p left join (
            select pool_id, sum(amount) as used, sum(amount * price) as spend,
                   sum(amount) filter (where account = 'overage') as overage,
                   sum(amount) filter (where account = 'burst') as burst,
                   sum(amount) filter (where account = 'source') as unlimited
            from use group by 1) u on u.pool_id = p.pool_id
        left join (
            select t.pool_id, count(*) as top_ups
            from period p join transfer t on t.pool_id = p.pool_id and t.sequence >= p.start
            where t.reason = 'topped_up' group by 1) b on b.pool_id = p.pool_id
        cross join lateral (values
            ('used', coalesce(u.used, 0), (p.counters->>'used')::numeric),
            ('overage', coalesce(u.overage, 0), (p.counters->>'overage')::numeric),
            ('burst', coalesce(u.burst, 0), (p.counters->>'burst')::numeric),
            ('unlimited', coalesce(u.unlimited, 0),
                coalesce((p.counters->>'unlimited')::numeric, 0)),
            ('spend', coalesce(u.spend, 0), (p.counters->>'spend')::numeric),
            ('top_ups', coalesce(b.top_ups, 0), (p.counters->>'top_ups')::numeric))
            c(name, expected, found)
        where c.expected <> c.found""",
    # A share counts what the shares below it used as well, and those that were taken away.
    FaultCode.ALLOTMENT_WRONG: f"""
        with recursive {_USE},
        share as (
            select a.pool_id, a.key, a.definition->>'parent' as parent, a.used, a.beyond
            from allotment a
            where a.organization_id = %(org)s and a.pool_id = any(%(pools)s)
            and (not a.removed or a.used > 0)),
        below as (
            select pool_id, key, key as inside from share
            union
            select b.pool_id, b.key, s.key
            from below b join share s on s.pool_id = b.pool_id and s.parent = b.inside)
        select p.key, 'allotment ' || s.key,
               trim_scale(u.used) || ' used, ' || trim_scale(u.beyond) || ' beyond',
               trim_scale(s.used) || ' used, ' || trim_scale(s.beyond) || ' beyond'
        from share s join pool p on p.pool_id = s.pool_id cross join lateral (
            select coalesce(sum(amount), 0) as used,
                   coalesce(sum(amount) filter (where account not in ('grant', 'source')), 0)
                       as beyond
            from below b left join use u on u.pool_id = b.pool_id and u.allotment = b.inside
            where b.pool_id = s.pool_id and b.key = s.key) u
        where (s.used, s.beyond) <> (u.used, u.beyond)""",
    FaultCode.SUBSCRIPTION_WRONG: SUBSCRIPTION_WRONG,
}


def prepare_to_verify(connection: Connection) -> None:
    """Let the statements of this transaction sort in memory, each planned for what it is given."""
    connection.execute(
        "set local work_mem = '64MB'; set local jit = off;"
        " set local plan_cache_mode = force_custom_plan"
    )


def organizations_with_pools(connection: Connection) -> list[tuple[UUID, str]]:
    """Return the organizations that have pools, with their keys; needs no organization."""
    return connection.execute("select * from organizations_with_pools() order by 2").fetchall()


def count_transfers(connection: Connection, organization_id: UUID) -> int:
    """Return how many transfers the pools say they have."""
    row = connection.execute(
        "select coalesce(sum(sequence), 0) from pool where organization_id = %s", (organization_id,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def pools_to_verify(
    connection: Connection, organization_id: UUID, after: UUID | None, limit: int
) -> list[VerifiedPool]:
    """Return pools by id, a page at a time."""
    cursor = connection.cursor(row_factory=class_row(VerifiedPool))
    return cursor.execute(
        "select pool_id, sequence from pool where organization_id = %s and pool_id > %s"
        " order by pool_id limit %s",
        (organization_id, after or UUID(int=0), limit),
    ).fetchall()


def find_faults(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]
) -> Iterator[Finding]:
    """Yield what is wrong in these pools; at most `FINDINGS_MAX` for each check."""
    parameters = {"org": organization_id, "pools": list(pool_ids), "most": FINDINGS_MAX}
    for code, statement in _CHECKS.items():
        limited = f"{statement} limit %(most)s"
        for pool, place, expected, found in connection.execute(limited, parameters):
            yield Finding(pool, code, place, expected, found)


def recurrences_to_verify(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]
) -> list[RecurrenceRow]:
    """Return the recurring grants of pools, with what came of them."""
    rows = connection.execute(
        "select p.key, r.definition::text, r.next_at, count(t.sequence), max(g.number),"
        " min(t.time)"
        " from pool_recurrence r join pool p on p.pool_id = r.pool_id"
        " left join pool_grant g on g.pool_id = r.pool_id and g.recurrence = r.number"
        " left join transfer t on t.pool_id = g.pool_id and t.sequence = g.number"
        "  and t.reason = 'grant_renewed'"
        f" where {_PAGE} group by p.key, r.pool_id, r.number order by 1",
        {"org": organization_id, "pools": list(pool_ids)},
    ).fetchall()
    return [
        RecurrenceRow(pool, msgspec.json.decode(text, type=Recurrence), *rest)
        for pool, text, *rest in rows
    ]


def find_transit_faults(connection: Connection, organization_id: UUID) -> list[Finding]:
    """Return the units of which more left pools than arrived in others, or less."""
    rows = connection.execute(
        "select 'unit ' || unit, trim_scale(sum(transit))::text from pool"
        " where organization_id = %s group by unit having sum(transit) <> 0 order by 1",
        (organization_id,),
    ).fetchall()
    code = FaultCode.TRANSIT_NOT_ZERO
    return [Finding(unit, code, "transit of all pools", "0", found) for unit, found in rows]
