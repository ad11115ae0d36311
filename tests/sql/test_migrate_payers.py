"""Who pays for pools of the last release: what was invoiced to whom stays so."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from farebox.postgres.migrate import migrate, migrations

ORGANIZATION = UUID(int=1)
FIRST = datetime(2026, 9, 1, tzinfo=UTC)
ENTRIES = 30

Invoiced = tuple[str, str, int, str, str]
"""Subscription, currency, with the day before which the period ended; kind and status."""
Row = tuple[int, str | None, str, int]


def final(subscription: str, end: int, currency: str = "USD") -> Invoiced:
    return subscription, currency, end, "period", "final"


def day(number: int) -> datetime:
    return FIRST + timedelta(days=number - 1)


def before(url: str) -> None:
    """Bring a database to where the last release left it."""
    steps = migrations()
    (added,) = [step for step in steps if step.name.endswith("_pool_subscription.sql")]
    migrate(url, steps[: steps.index(added)])
    with psycopg.connect(url) as connection:
        connection.execute("insert into organization values (%s, 'o', 'O', now())", (ORGANIZATION,))


def add_pool(connection: psycopg.Connection, status: str = "open", **fields: object) -> UUID:
    """Add a pool in which something moved on each of the first days."""
    pool_id = UUID(int=2)
    values = {"key": "tokens", "subscription": None, "as_of": day(ENTRIES), **fields}
    connection.execute(
        "insert into pool (organization_id, pool_id, key, subscription_key, unit, status,"
        " definition, opened_at, timezone, version, sequence, as_of, source, pending, granted,"
        " held, used, overdraft, overage, burst, expired, transit, counters)"
        " values (%(org)s, %(pool)s, %(key)s, %(subscription)s, 'token', %(status)s,"
        """ '{"policy": {"currency": "USD"}}', %(first)s, 'UTC', 1, %(entries)s, %(as_of)s,"""
        " 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}')",
        {
            "org": ORGANIZATION,
            "pool": pool_id,
            "status": status,
            "first": FIRST,
            "entries": ENTRIES,
            **values,
        },
    )
    connection.execute(
        "insert into transfer (organization_id, pool_id, sequence, operation, reason, source,"
        " target, amount, source_after, target_after, available_after, time)"
        " select %s, %s, n, n, 'drawn', 'overage', 'used', 1, 0, 0, 0, %s + (n - 1) * interval"
        " '1 day' from generate_series(1, %s) n",
        (ORGANIZATION, pool_id, FIRST, ENTRIES),
    )
    return pool_id


def add_invoice(
    connection: psycopg.Connection, number: int, invoiced: Invoiced, line: str = "overage"
) -> None:
    subscription, currency, end, kind, status = invoiced
    final_at = day(end) + timedelta(hours=number) if status == "final" else None
    connection.execute(
        "insert into invoice values (%s, %s, %s, %s, %s, 'acme', %s, 'p', 1, %s, %s, %s, 1, 0,"
        " null, now(), %s, '[]')",
        (
            ORGANIZATION,
            UUID(int=number),
            None if final_at is None else str(number),
            kind,
            status,
            subscription,
            day(end - 10),
            day(end),
            currency,
            final_at,
        ),
    )
    pool = {"pool": "tokens"} if line != "usage" else None
    for position in (1, 2):
        connection.execute(
            "insert into invoice_line values (%s, %s, %s, 'c', %s, '', 1, 1, now(), now(), null,"
            " %s)",
            (ORGANIZATION, UUID(int=number), position, line, json.dumps({"pool": pool})),
        )


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.parametrize(
    ("named", "invoiced", "expected"),
    [
        ("a", [final("a", 11), final("a", 21)], [(1, "a", "USD", 1)]),
        ("b", [final("a", 11), final("a", 21)], [(1, "a", "USD", 1), (21, "b", "USD", 1)]),
        (
            "a",
            [final("b", 16), final("a", 11), final("a", 21)],
            [(1, "a", "USD", 1), (11, "b", "USD", 1), (16, "a", "USD", 1)],
        ),
        ("b", [final("a", 11, "EUR")], [(1, "a", "EUR", 1), (11, "b", "USD", 11)]),
        (None, [final("a", 11)], [(1, "a", "USD", 1), (11, None, "USD", 1)]),
        (
            "b",
            [("a", "USD", 11, "period", "draft"), ("a", "USD", 11, "correction", "final")],
            [(1, "b", "USD", 1)],
        ),
        # Nothing moved between the ends of these periods.
        (
            "c",
            [final("a", 11), final("b", 40), final("a", 50)],
            [(1, "a", "USD", 1), (11, "b", "USD", 1), (31, "c", "USD", 1)],
        ),
    ],
)
def test_what_a_pool_cost_was_paid_by_whose_invoices_have_it_and_then_by_whom_it_names(
    empty_url: str, named: str | None, invoiced: list[Invoiced], expected: list[Row]
) -> None:
    before(empty_url)
    with psycopg.connect(empty_url) as connection:
        add_pool(connection, subscription=named)
        for number, one in enumerate(invoiced, 1):
            add_invoice(connection, number, one)
        add_invoice(connection, 9, final("z", 30), "usage")
    migrate(empty_url)
    kept = "first_sequence, subscription_key, currency, priced_from"
    assert expected == rows(empty_url, f"select {kept} from pool_subscription order by 1")
    whole = rows(empty_url, "select invoice_id from invoice_whole order by 1")
    assert [(UUID(int=number),) for number, _ in enumerate(invoiced, 1)] == whole


@pytest.mark.parametrize("ahead", [timedelta(minutes=30), None])
def test_a_pool_that_was_closed_burns_no_more_once_all_that_it_may_have_burned_is_over(
    empty_url: str, ahead: timedelta | None
) -> None:
    """An event may be dated ahead, and so may the pool's last decision."""
    before(empty_url)
    now = datetime.now(UTC)
    as_of, later = now + timedelta(minutes=10), now + timedelta(days=1)
    with psycopg.connect(empty_url) as connection:
        pool_id = add_pool(connection, status="closed", as_of=as_of)
        for since, until in ((1, 2), (3, None)):
            connection.execute(
                "insert into pool_burn values (%s, %s, %s, %s, 'card', false)",
                (ORGANIZATION, pool_id, day(since), until and day(until)),
            )
        for number, time in ((1, now + (ahead or timedelta())), (2, later)):
            connection.execute(
                "insert into event (organization_id, sequence, received_at, time, source, id, type,"
                " payload) values (%s, %s, now(), %s, 's', %s, 't', '{}')",
                (ORGANIZATION, number, time, str(number)),
            )
    migrate(empty_url)
    end = as_of if ahead is None else now + ahead + timedelta(microseconds=1)
    spans = rows(empty_url, "select since, until from pool_burn order by 1")
    assert [(day(1), day(2)), (day(3), end)] == spans


def test_a_pool_that_is_open_burns_on(empty_url: str) -> None:
    before(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            "insert into pool_burn values (%s, %s, %s, null, 'card', false)",
            (ORGANIZATION, add_pool(connection), day(1)),
        )
    migrate(empty_url)
    assert [(None,)] == rows(empty_url, "select until from pool_burn")
