"""Look at pools: let rules fire and clear, and tell what happened since the last look.

A look holds the pool's mark, and moves it on in the transaction that writes alerts and notices. So
whoever looks at the same time, and whatever is killed, each crossing is told once. Of most pools
there is nothing to tell: a glance, which holds and writes nothing, finds those of which there is.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import count
from uuid import UUID

import psycopg
import structlog
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection

from farebox.access.id import RANDOM_BYTES, uuidv7
from farebox.alerts.measure import Seen
from farebox.alerts.rule import AlertKind
from farebox.flows.calm_pools import calm_above, calm_by
from farebox.flows.follow_pools import settle_pool
from farebox.flows.raise_alerts import Raising, Rules
from farebox.flows.tell_pools import Look, Told, tell_pool
from farebox.money.rounding import exact_sum
from farebox.postgres import alert_rule, pool_span, pool_watch, pool_window
from farebox.postgres.alert import AlertRow, firing_at, write_alerts
from farebox.postgres.notice import Notice, add_notices
from farebox.postgres.pool_span import Span, Summary
from farebox.postgres.pool_watch import PoolRow, WatchRow
from farebox.postgres.session import Pool, transaction

POOLS_A_LOOK = 100
ENTRIES_A_LOOK = 20_000
LOOKS_MAX = 50
"""So many times one call goes on with pools that are far behind; the next call continues."""
POOLS_A_GLANCE = 500
ENTRIES_A_GLANCE = 50
"""A mark so many entries behind is moved on, whether there is something to tell or not: those after
it are read each time."""

_log = structlog.get_logger()

_BURNING = frozenset({AlertKind.BURN_RATE_ABOVE, AlertKind.RUNS_OUT_BEFORE})
_REFUSING = frozenset({AlertKind.REFUSALS_ABOVE})
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def watch_pools(pool: Pool, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime) -> None:
    """Look at pools whose ledger grew: all but the rules that time alone may change.

    The mark of a pool of which there is nothing to tell stays where it was.
    """
    ordered = sorted(set(pool_ids))
    for start in range(0, len(ordered), POOLS_A_GLANCE):
        page = ordered[start : start + POOLS_A_GLANCE]
        stirred = _stirred(pool, organization_id, page, now)
        _look_at(pool, organization_id, stirred, now, timed=False)


def watch_all(pool: Pool, organization_id: UUID, now: datetime) -> None:
    """Post what is due on pools, then look at all of them that may have changed since."""
    after: UUID | None = None
    with transaction(pool, organization_id) as connection:
        rules = Rules(alert_rule.enabled_rules(connection, organization_id))
    by = calm_by(rules)
    while True:
        with transaction(pool, organization_id) as connection:
            page = pool_watch.pools_to_look_at(
                connection,
                organization_id,
                now,
                changed_at=rules.changed_at,
                burn_minutes=max(rules.windows(_BURNING), default=0),
                refusal_minutes=max(rules.windows(_REFUSING), default=0),
                expire_until=rules.expire_until(now),
                entries=ENTRIES_A_GLANCE,
                calm_by=by,
                after=after,
                limit=POOLS_A_LOOK,
            )
        for one in page:
            if one.due:
                _settle(pool, organization_id, one.pool_id, now)
        _look_at(pool, organization_id, [one.pool_id for one in page], now, timed=True)
        if len(page) < POOLS_A_LOOK:
            return
        after = page[-1].pool_id


def _look_at(
    pool: Pool, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime, *, timed: bool
) -> None:
    ordered = sorted(set(pool_ids))
    for start in range(0, len(ordered), POOLS_A_LOOK):
        page = ordered[start : start + POOLS_A_LOOK]
        for _ in range(LOOKS_MAX):
            page = _look_or_skip(pool, organization_id, page, now, timed=timed)
            if not page:
                break


def _look_or_skip(
    pool: Pool, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime, *, timed: bool
) -> list[UUID]:
    """As `_look`, pool by pool where it fails, so that the others need not wait for one.

    A pool that fails by itself is logged. Its mark stays where it was, so each look at all pools
    takes it again.
    """
    try:
        with transaction(pool, organization_id) as connection:
            return _look(connection, organization_id, pool_ids, now, timed=timed)
    except psycopg.OperationalError:
        raise  # the database is out of reach, for every pool
    except Exception as error:
        if len(pool_ids) == 1:
            _log.error("watch_failed", pool_id=str(pool_ids[0]), error=str(error))
            return []
    further: list[UUID] = []
    for pool_id in pool_ids:
        further += _look_or_skip(pool, organization_id, [pool_id], now, timed=timed)
    return further


def _settle(pool: Pool, organization_id: UUID, pool_id: UUID, now: datetime) -> None:
    try:
        settle_pool(pool, organization_id, pool_id, now)
    except psycopg.OperationalError:
        raise
    except Exception as error:
        _log.error("settle_failed", pool_id=str(pool_id), error=str(error))


def _stirred(
    pool: Pool, organization_id: UUID, pool_ids: Sequence[UUID], now: datetime
) -> Sequence[UUID]:
    """Return the pools that want a look; all of them where a glance does not tell.

    Most are calm, which one statement tells; of the others what a look would tell is worked out.
    """
    try:
        with transaction(pool, organization_id) as connection:
            scope = connection, organization_id
            rules = Rules(alert_rule.enabled_rules(*scope))
            calm = pool_watch.calm_pools(*scope, pool_ids, ENTRIES_A_GLANCE, calm_by(rules))
            pool_ids = [one for one in pool_ids if one not in calm]
            if not pool_ids:
                return []
            watches = pool_watch.read_watches(*scope, pool_ids)
            rows = pool_watch.pools_since(*scope, watches, ENTRIES_A_GLANCE)
            near = [one for one in watches if rows[one.pool_id].end == rows[one.pool_id].sequence]
            seen = _see(*scope, near, rows, rules, now, timed=False)
    except psycopg.OperationalError:
        raise  # the database is out of reach, for every pool
    except Exception as error:
        _log.warning("glance_failed", error=str(error))
        return pool_ids
    quiet = {one.watch.pool_id for one in seen if one.quiet}
    return [one for one in pool_ids if one not in quiet]


def _look(
    connection: Connection,
    organization_id: UUID,
    pool_ids: Sequence[UUID],
    now: datetime,
    *,
    timed: bool,
) -> list[UUID]:
    """Look at a page of pools in one transaction; return those that have further entries."""
    watches = pool_watch.lock_watches(connection, organization_id, pool_ids)
    rows = pool_watch.pools_since(connection, organization_id, watches, ENTRIES_A_LOOK)
    rules = Rules(alert_rule.enabled_rules(connection, organization_id))
    seen = _see(connection, organization_id, watches, rows, rules, now, timed=timed)
    write_alerts(connection, organization_id, [row for one in seen for row in one.alerts])
    add_notices(connection, organization_id, [row for one in seen for row in one.notices])
    pool_watch.write_watches(connection, organization_id, [one.moved for one in seen])
    return [row.pool_id for row in rows.values() if row.end < row.sequence]


class _Sight(Struct, frozen=True):
    """What came of seeing a pool: what is to be written, and its mark, moved on."""

    watch: WatchRow
    moved: WatchRow
    alerts: Sequence[AlertRow]
    notices: Sequence[Notice]
    summary: Summary | None

    @property
    def quiet(self) -> bool:
        """Whether whoever looks later from the same mark on sees all that there is to tell."""
        entries = self.summary
        rare = entries is not None and (entries.burst or entries.overage or entries.grants)
        same = replace(
            self.moved,
            sequence=self.watch.sequence,
            available=self.watch.available,
            looks=self.watch.looks,
            looked_at=self.watch.looked_at,
            calm_above=self.watch.calm_above,
            calm_by=self.watch.calm_by,
        )
        # One that has become calm is looked at once, to be passed over from then on.
        before = self.watch.calm_above, self.watch.calm_by
        now = self.moved.calm_above, self.moved.calm_by
        calmed = self.moved.calm_above is not None and now != before
        return not (self.alerts or self.notices or rare or calmed) and same == self.watch


def _see(
    connection: Connection,
    organization_id: UUID,
    watches: Sequence[WatchRow],
    rows: Mapping[UUID, PoolRow],
    rules: Rules,
    now: datetime,
    *,
    timed: bool,
) -> list[_Sight]:
    """Judge pools from their marks on; `rows` has how they stand now."""
    spans = [
        Span(one.pool_id, one.sequence, rows[one.pool_id].end)
        for one in watches
        if one.sequence < rows[one.pool_id].end
    ]
    summaries = pool_span.summaries(connection, organization_id, spans) if spans else {}
    standing = [rows[one.pool_id] for one in watches]
    seen = _seen(connection, organization_id, standing, rules if timed else Rules(()), now)
    firing = defaultdict[UUID, list[AlertRow]](list)
    for alert in firing_at(connection, organization_id, [one.pool_id for one in watches]):
        firing[alert.pool_id].append(alert)
    by = calm_by(rules)
    sights = []
    for watch in watches:
        # Who waited for the mark may come with an earlier time than who went before.
        time = max(now, watch.looked_at or now)
        look = Look(
            connection=connection,
            organization_id=organization_id,
            watch=watch,
            row=rows[watch.pool_id],
            seen=replace(seen[watch.pool_id], now=time),
            summary=summaries.get(watch.pool_id),
        )
        new_id = _ids_of(watch, time)
        raising = Raising(look, firing.get(watch.pool_id, ()), new_id)
        raising.consider(rules, timed=timed)
        told, moved = tell_pool(look)
        level = calm_above(look, moved, raising, rules)
        moved = replace(moved, calm_above=level, calm_by=by)
        notices = _notices(look.row, [*told, *raising.told], new_id)
        sights.append(_Sight(watch, moved, raising.rows, notices, look.summary))
    return sights


def _seen(
    connection: Connection,
    organization_id: UUID,
    rows: Sequence[PoolRow],
    rules: Rules,
    now: datetime,
) -> dict[UUID, Seen]:
    """Return what the rules measure; what none of them needs is not read."""
    burning, refusing = rules.windows(_BURNING), rules.windows(_REFUSING)
    until = rules.expire_until(now)
    scope = connection, organization_id
    burned = pool_window.burned(*scope, rows, burning, now) if burning else {}
    refusals = pool_window.refusal_counts(*scope, rows, refusing, now) if refusing else {}
    ids = [row.pool_id for row in rows]
    expiring = {} if until is None else pool_window.expiring(*scope, ids, until)
    return {
        row.pool_id: Seen(
            now=now,
            period=row.counters.period,
            available=row.available,
            used=exact_sum([row.counters.used, -row.counters.unlimited]),
            unlimited=row.unlimited,
            beyond=exact_sum([row.counters.overage, row.counters.burst, row.overdraft]),
            overage=row.counters.overage,
            spend=row.counters.spend,
            burned=dict(burned.get(row.pool_id, {})),
            refusals=dict(refusals.get(row.pool_id, {})),
            expiring=tuple(expiring.get(row.pool_id, ())),
        )
        for row in rows
    }


def _ids_of(watch: WatchRow, now: datetime) -> Callable[[], UUID]:
    """Return what makes the ids of one look at one pool: the same when it is done again.

    No two looks that commit have the same, because each counts up the pool's looks. Within a
    millisecond they sort by look and then as they were made: receivers get notices in that order.
    """
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    counter = count()

    def new_id() -> UUID:
        number = next(counter)
        digest = blake2b(f"{watch.pool_id} {watch.looks} {number}".encode(), digest_size=6).digest()
        # The version and the variant take the first 4 and the 2 bits after the next 12.
        order = (watch.looks % (1 << 12)) << 16 | number % (1 << 14)
        return uuidv7(milliseconds, order.to_bytes(RANDOM_BYTES - len(digest)) + digest)

    return new_id


def _notices(row: PoolRow, told: Sequence[Told], new_id: Callable[[], UUID]) -> list[Notice]:
    return [
        Notice(
            notice_id=new_id(),
            type=one.type,
            time=one.time,
            customer=row.customer,
            data=one.data,
        )
        for one in sorted(told, key=lambda one: one.time)
    ]
