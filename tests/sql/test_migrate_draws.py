"""What is kept of the last release, that usage which burned or was paid for then stays so."""

import json
from datetime import UTC, datetime
from uuid import UUID

import psycopg

from farebox.period.instant import BEGINNING
from farebox.postgres.migrate import migrate, migrations


def hour(at: int) -> datetime:
    return datetime(2026, 10, 1, at, tzinfo=UTC)


def test_whom_pools_of_before_served_is_known_from_the_times_at_which_usage_burned_them(
    empty_url: str,
) -> None:
    """Of others what stands, for all time; and what an event of before names is believed."""
    steps = migrations()
    (named,) = [step for step in steps if step.name.endswith("_draw_paid.sql")]
    migrate(empty_url, steps[: steps.index(named)])
    spans = {  # of a pool, with whether it serves children now: (from, until, serves)
        (1, True): [],
        (2, False): [],
        (3, False): [(1, 3, True), (3, 3, False), (4, None, False)],
        (4, True): [(1, 2, False), (5, 6, False)],
        (5, False): [(1, 2, False)],
        (6, False): [(1, 2, True), (2, 4, False), (4, 5, True)],
        (7, False): [(1, 1, True)],
    }
    with psycopg.connect(empty_url) as connection:
        for organization, last_sequence in ((1, 17), (2, 0)):
            connection.execute(
                "insert into organization values (%s, %s, '', now())",
                (UUID(int=organization), str(organization)),
            )
            connection.execute(
                "insert into stream_head values (%s, 0, %s, 0)",
                (UUID(int=organization), last_sequence),
            )
        for (number, serves), some in spans.items():
            connection.execute(
                "insert into pool (organization_id, pool_id, key, unit, status, definition,"
                " opened_at, timezone, version, sequence, as_of, source, pending, granted, held,"
                " used, overdraft, overage, burst, expired, transit, counters)"
                " values (%s, %s, %s, 'token', 'open', %s, now(), 'UTC', 1, 7, now(), 0, 0, 0, 0,"
                " 0, 0, 0, 0, 0, 0, '{}')",
                (
                    UUID(int=1),
                    UUID(int=number),
                    str(number),
                    json.dumps({"serves_children": serves}),
                ),
            )
            for since, until, served in some:
                connection.execute(
                    "insert into pool_burn values (%s, %s, %s, %s, 'card', %s)",
                    (
                        UUID(int=1),
                        UUID(int=number),
                        hour(since),
                        None if until is None else hour(until),
                        served,
                    ),
                )
    assert named.name in migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        children = connection.execute(
            "select pool_id, since, serves from pool_children order by 1, 2"
        ).fetchall()
        believed = connection.execute("select * from draw_believed").fetchall()
    assert [
        (1, BEGINNING, True),
        (3, BEGINNING, True),
        (3, hour(4), False),
        (4, BEGINNING, False),
        (4, hour(5), False),
        (4, hour(6), True),
        (6, BEGINNING, True),
        (6, hour(2), False),
        (6, hour(4), True),
        (6, hour(5), False),
    ] == [(pool_id.int, since, serves) for pool_id, since, serves in children]
    assert [(UUID(int=1), 17)] == believed
