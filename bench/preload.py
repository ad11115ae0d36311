"""History made in SQL: keys, events and rollups as the product would have left them.

Rollups are made a day at a time, in the order of time, so that a customer's rows lie as scattered
over the table as a daily fold leaves them. Primary keys are dropped before and built after.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from msgspec import Struct

from bench.catalog import CUSTOMERS, EVENT_TYPE, METERS, customer_key, dimensions_of
from farebox.metering.series import Series, series_of

DAYS = 90
_INDEX_MEMORY = "512MB"
_DIMENSIONS = tuple(METERS[0].dimensions)

_KEYS = """
insert into event_key (organization_id, key, digest, sequence)
select %(org)s, md5(%(org)s::text || i)::uuid, md5('payload' || i)::uuid, i
from generate_series(1, %(events)s::bigint) i"""

# One row an event, without a table behind it: the event stream and the flat table are made of it.
_EVENT = f"""
select %(org)s::uuid as organization_id, g.i as sequence, g.time as received_at, g.time,
  'bench/gateway-1' as source, 'preloaded-' || g.i as id, '{EVENT_TYPE}' as type, u.subject,
  u.series, array[g.tokens, 1]::numeric[] as quantities, null::uuid[] as value_series,
  null::text[] as value_texts, null::uuid[] as point_series, null::numeric[] as point_quantities,
  ('{{"data":{{"model":"' || u.model || '","region":"' || u.region || '","status":"ok","tokens":'
    || g.tokens || '}}}}')::json as payload
from (select i, %(starts)s::timestamptz + (i - %(first)s) * %(step)s::interval as time,
        (hashint8(i)::bigint & 2147483647) %% %(users)s as n, 1 + i %% 4000 as tokens
      from generate_series(%(first)s::bigint, %(last)s::bigint) i) g
join usage_of u using (n)"""

_ROLLUP = """
insert into rollup (organization_id, series_id, bucket, count, total, minimum, maximum)
select %(org)s, u.series_id,
  date_bin('15 minutes', e.time, timestamptz '2000-01-01 00:00:00+00') as bucket,
  count(*), sum(u.value), min(u.value), max(u.value)
from event e cross join lateral unnest(e.series, e.quantities) as u(series_id, value)
where e.organization_id = %(org)s and e.sequence between %(first)s and %(last)s
group by 2, 3 order by 2, 3"""

_FLAT_COLUMNS = """
  organization_id uuid not null, sequence bigint not null, received_at timestamptz not null,
  key uuid not null, digest uuid not null, time timestamptz not null,
  source text collate "C" not null, id text collate "C" not null, type text collate "C" not null,
  subject text collate "C", series uuid[], quantities numeric[], value_series uuid[],
  value_texts text[], point_series uuid[], point_quantities numeric[], payload json not null"""


class History(Struct, frozen=True):
    """Events spread evenly over the `DAYS` days before `ends` (a midnight)."""

    organization_id: UUID
    events_a_day: int
    ends: datetime

    @property
    def events(self) -> int:
        return self.events_a_day * DAYS

    @property
    def starts(self) -> datetime:
        return self.ends - timedelta(days=DAYS)


def preload(
    connection: psycopg.Connection, histories: Sequence[History], tick: Callable[[], None]
) -> None:
    """Fill keys, events, series and rollups of empty organizations; `tick` is called each day."""
    connection.execute(f"set maintenance_work_mem = '{_INDEX_MEMORY}'")
    connection.execute("set work_mem = '128MB'")
    connection.execute("alter table event_key drop constraint event_key_pkey")
    connection.execute("alter table rollup drop constraint rollup_pkey")
    for month in sorted({_month(one, day) for one in histories for day in range(DAYS + 1)}):
        connection.execute("select ensure_event_partition(%s)", (month,))
    for history in histories:
        _one(connection, history, tick)
    connection.execute("alter table event_key add primary key (key)")
    connection.execute("alter table rollup add primary key (organization_id, series_id, bucket)")
    for table in ("event_key", "event", "series", "rollup"):
        connection.execute(f"vacuum (analyze) {table}")


def _one(connection: psycopg.Connection, history: History, tick: Callable[[], None]) -> None:
    organization_id = history.organization_id
    connection.execute(_KEYS, {"org": organization_id, "events": history.events})
    parameters = _prepare_users(connection, history)
    for day in range(DAYS):
        span = {**parameters, **_span(history, day)}
        connection.execute(f"insert into event {_EVENT}", span)
        connection.execute(_ROLLUP, span)
        tick()
    connection.execute(
        "update stream_head set last_sequence = %s where organization_id = %s",
        (history.events, organization_id),
    )
    connection.execute(
        "update watermark set sequence = %s where organization_id = %s",
        (history.events, organization_id),
    )


def preload_flat(connection: psycopg.Connection, history: History) -> None:
    """Fill table `flat`: the columns and indexes of event and event_key in one table."""
    connection.execute(f"set maintenance_work_mem = '{_INDEX_MEMORY}'")
    connection.execute(f"create table flat ({_FLAT_COLUMNS})")
    parameters = _prepare_users(connection, history)
    for day in range(DAYS):
        connection.execute(
            "insert into flat select organization_id, sequence, received_at,"
            " md5('flat' || sequence)::uuid, md5('payload' || sequence)::uuid, time, source, id,"
            " type, subject, series, quantities, value_series, value_texts, point_series,"
            f" point_quantities, payload from ({_EVENT}) event",
            {**parameters, **_span(history, day)},
        )
    connection.execute("alter table flat add primary key (key)")
    connection.execute("create index on flat (organization_id, sequence)")
    connection.execute("create index on flat (organization_id, time)")
    connection.execute("vacuum (analyze) flat")


def series_of_user(organization_id: UUID, number: int, values: tuple[str, ...]) -> list[Series]:
    """Return the series of a customer's events with these dimension values, a meter each."""
    return [
        series_of(organization_id.bytes, meter.key, 1, customer_key(number), "", values)
        for meter in METERS
    ]


def add_series(connection: psycopg.Connection, organization_id: UUID, made: list[Series]) -> None:
    with connection.cursor().copy("copy series from stdin") as copy:
        for one in made:
            copy.write_row(
                (
                    organization_id,
                    one.series_id,
                    one.meter_key,
                    one.meter_version,
                    one.subject,
                    one.customer,
                    list(one.dimensions),
                )
            )


def _prepare_users(connection: psycopg.Connection, history: History) -> dict[str, object]:
    connection.execute("drop table if exists usage_of")
    connection.execute(
        "create temporary table usage_of (n bigint primary key, subject text, series uuid[],"
        " model text, region text)"
    )
    known = connection.execute(
        "select 1 from series where organization_id = %s limit 1", (history.organization_id,)
    ).fetchone()
    made: list[Series] = []
    users = 0
    with connection.cursor() as cursor:
        for number in range(CUSTOMERS):
            for values in dimensions_of(number):
                series = series_of_user(history.organization_id, number, values)
                made += series
                cursor.execute(
                    "insert into usage_of values (%s, %s, %s::uuid[], %s, %s)",
                    (users, customer_key(number), [one.series_id for one in series], *values),
                )
                users += 1
    if known is None:
        add_series(connection, history.organization_id, made)
    connection.execute("analyze usage_of")
    return {
        "org": history.organization_id,
        "users": users,
        "step": timedelta(days=1) / history.events_a_day,
    }


def _span(history: History, day: int) -> dict[str, object]:
    """Return the sequences of a day's events and the instant of the first."""
    return {
        "first": history.events_a_day * day + 1,
        "last": history.events_a_day * (day + 1),
        "starts": history.starts + timedelta(days=day),
    }


def _month(history: History, day: int) -> str:
    return f"{history.starts + timedelta(days=day):%Y-%m-01}"
