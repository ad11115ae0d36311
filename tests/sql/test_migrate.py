"""Migrations: from empty, twice, side by side, and never in other words than those that ran."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from farebox.flows.burn_usage import BurnNote
from farebox.postgres.migrate import (
    Migration,
    MigrationChanged,
    ensure_runtime_role,
    migrate,
    migrations,
)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_the_shipped_migrations_are_in_order_and_named() -> None:
    names = [migration.name for migration in migrations()]
    assert "0001_foundation.sql" == names[0]
    assert sorted(names) == names
    numbers = [name.split("_")[0] for name in names]
    assert len(set(numbers)) == len(numbers)
    assert {4} == {len(number) for number in numbers}


def test_from_empty_and_again(empty_url: str) -> None:
    assert [migration.name for migration in migrations()] == migrate(empty_url)
    before = rows(empty_url, "select name, digest, applied_at from schema_migration order by 1")
    assert [] == migrate(empty_url)
    assert before == rows(
        empty_url, "select name, digest, applied_at from schema_migration order by 1"
    )
    assert [(0,)] == rows(empty_url, "select count_organizations()")


def test_processes_that_start_together_migrate_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate, [empty_url] * 4))
    assert [len(migrations())] == [len(names) for names in applied if names]


def test_a_changed_text_is_refused_and_changes_nothing(empty_url: str) -> None:
    first = Migration("0001_one.sql", "create table one ()")
    migrate(empty_url, [first])
    changed = Migration("0001_one.sql", "create table one (); create table two ()")
    with pytest.raises(MigrationChanged, match=r"0001_one\.sql"):
        migrate(empty_url, [changed, Migration("0002_two.sql", "create table two ()")])
    assert [(None,)] == rows(empty_url, "select to_regclass('two')")


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    steps = [
        Migration("0001_one.sql", "create table one ()"),
        Migration("0002_two.sql", "create table two (); select 1 / 0"),
    ]
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url, steps)
    assert [("one", None)] == rows(
        empty_url, "select to_regclass('one')::text, to_regclass('two')::text"
    )
    assert [("0001_one.sql",)] == rows(empty_url, "select name from schema_migration")
    steps[1] = Migration("0002_two.sql", "create table two ()")
    assert ["0002_two.sql"] == migrate(empty_url, steps)


def test_a_percent_sign_is_text(empty_url: str) -> None:
    migrate(empty_url, [Migration("0001_percent.sql", "create view v as select '%s %'::text t")])
    assert [("%s %",)] == rows(empty_url, "select t from v")


def test_the_runtime_role_can_do_no_more_than_its_group(owner_url: str, runtime_url: str) -> None:
    assert [(False, False, False, False)] == rows(
        runtime_url,
        "select rolsuper, rolbypassrls, rolcreatedb, rolcreaterole from pg_roles"
        " where rolname = current_user",
    )
    for statement in (
        "create table public.mine ()",
        "alter table event disable row level security",
        "drop policy one_organization on event",
        "truncate event",
        "delete from event",
        "select from schema_migration",
    ):
        with (
            psycopg.connect(runtime_url) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())


def test_processes_that_start_together_make_one_runtime_role(
    empty_url: str, superuser_url: str
) -> None:
    """All of them set its password at once, as servers that start together do."""
    migrate(empty_url)
    try:
        with ThreadPoolExecutor(6) as threads:
            list(
                threads.map(
                    lambda _: ensure_runtime_role(empty_url, "together", "it's \\ secret"),
                    range(30),
                )
            )
        url = make_conninfo(empty_url, user="together", password="it's \\ secret")
        assert [(0,)] == rows(url, "select count(*) from organization")
    finally:
        with psycopg.connect(superuser_url, autocommit=True) as connection:
            connection.execute("drop role together")


def test_recurring_grants_of_entitlements_get_keys_that_are_nobody_elses(empty_url: str) -> None:
    steps = migrations()
    (voided,) = [step for step in steps if step.name == "0010_voided.sql"]
    migrate(empty_url, steps[: steps.index(voided)])
    keys = ("override#20261001T000000000000-1", "pro#20261001T000000000000-2", "monthly")
    with psycopg.connect(empty_url) as connection:
        connection.execute("insert into organization select gen_random_uuid(), 'o', 'O', now()")
        connection.execute(
            "insert into pool (organization_id, pool_id, key, unit, status, definition, opened_at,"
            " timezone, version, sequence, as_of, source, pending, granted, held, used, overdraft,"
            " overage, burst, expired, transit, counters)"
            " select organization_id, gen_random_uuid(), 'p', 'token', 'open', '{}', now(), 'UTC',"
            " 1, 0, now(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}' from organization"
        )
        for number, key in enumerate(keys):
            connection.execute(
                "insert into pool_recurrence (organization_id, pool_id, number, key, definition)"
                " select organization_id, pool_id, %s, %s, json_build_object('key', %s::text,"
                " 'amount', '1.50') from pool",
                (-number, key, key),
            )
    assert [step.name for step in steps[steps.index(voided) :]] == migrate(empty_url)
    expected = [
        "override/20261001T000000000000-1",
        "subscription/pro/20261001T000000000000-2",
        "monthly",
    ]
    found = rows(
        empty_url,
        "select key, definition ->> 'key', definition ->> 'amount', digest from pool_recurrence"
        " order by number desc",
    )
    assert [(key, key, "1.50", None) for key in expected] == found


@pytest.mark.parametrize(
    ("mode", "price", "planned", "override", "expected"),
    [
        ("overage", None, True, None, "unlimited"),
        ("overage", None, False, True, "unlimited"),
        ("overage", None, True, False, "overage"),
        ("overage", None, False, None, "overage"),
        ("overage", "0.01", True, None, "overage"),
        ("hard", None, True, None, "hard"),
    ],
)
def test_what_was_overage_without_a_price_is_unlimited_where_that_was_sold(
    empty_url: str,
    mode: str,
    price: str | None,
    planned: bool,
    override: bool | None,
    expected: str,
) -> None:
    steps = migrations()
    (entitled,) = [step for step in steps if step.name.endswith("_entitled.sql")]
    migrate(empty_url, steps[: steps.index(entitled)])
    policy = {"limit": {"mode": mode, "price": price, "units": None}, "undo_seconds": 7}
    entitlements = [{"feature": "calls", "unlimited": planned}]
    with psycopg.connect(empty_url) as connection:
        connection.execute("insert into organization values (%s, 'o', 'O', now())", (UUID(int=1),))
        connection.execute(
            "insert into catalog_version values (%s, 'plan', 'p', 1, %s, '', now(), now(), 0)",
            (UUID(int=1), json.dumps({"entitlements": entitlements})),
        )
        connection.execute(
            "insert into customer (organization_id, key, customer_id, name, timezone, definition,"
            " created_at, updated_at)"
            " values (%s, 'acme', gen_random_uuid(), '', 'UTC', '{}', now(), now())",
            (UUID(int=1),),
        )
        connection.execute(
            "insert into subscription (organization_id, key, subscription_id, customer_key,"
            " plan_key, plan_version, starts_at, timezone, definition, created_at)"
            " values (%s, 's', gen_random_uuid(), 'acme', 'p', 1, now(), 'UTC', '{}', now())",
            (UUID(int=1),),
        )
        if override is not None:
            connection.execute(
                "insert into entitlement_override values (%s, 'acme', 'calls', %s, null, now())",
                (UUID(int=1), json.dumps({"unlimited": override})),
            )
        connection.execute(
            "insert into pool (organization_id, pool_id, key, customer_key, feature_key, unit,"
            " status, definition, opened_at, timezone, version, sequence, as_of, source, pending,"
            " granted, held, used, overdraft, overage, burst, expired, transit, counters)"
            " values (%s, gen_random_uuid(), 'p', 'acme', 'calls', 'call', 'open', %s, now(),"
            " 'UTC', 1, 0, now(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}')",
            (UUID(int=1), json.dumps({"policy": policy})),
        )
    migrate(empty_url)
    limit = {"mode": "unlimited"} if expected == "unlimited" else policy["limit"]
    found = rows(empty_url, "select definition -> 'policy' from pool")
    assert [({**policy, "limit": limit},)] == found


def test_draws_of_before_tell_their_meters_version_and_times(empty_url: str) -> None:
    """A draw of two meters and one that is gone, one of another subject's, one without a note."""
    steps = migrations()
    (burned,) = [step for step in steps if step.name == "0011_burned.sql"]
    migrate(empty_url, steps[: steps.index(burned)])
    with psycopg.connect(empty_url) as connection:
        _use_meters(connection)
        for sequence, subject, reason, note in (
            (1, "ann", "metered", _note(("calls", "eu"), ("tokens", None), ("gone", None))),
            (2, "bob", "metered", _note(("calls", "eu"), ("calls", "us"))),
            (3, "ann", "metered", None),
            (4, "ann", "drawn", "{}"),
        ):
            connection.execute(
                "insert into transfer (organization_id, pool_id, sequence, operation, reason,"
                " source, target, amount, source_after, target_after, available_after, time,"
                " subject, note)"
                " values (%s, %s, %s, 1, %s, 'grant', 'used', 1, 0, 0, 0, '2026-10-02Z', %s, %s)",
                (UUID(int=1), UUID(int=2), sequence, reason, subject, note),
            )
    migrate(empty_url)
    notes = [row[0] for row in rows(empty_url, "select note::text from transfer order by sequence")]
    assert [None, "{}"] == notes[2:]
    told = [msgspec.json.decode(str(one), type=BurnNote) for one in notes[:2]]
    assert {(2, 5)} == {(one.first_sequence, one.last_sequence) for one in told}
    assert [
        ("calls", 3, _hour(1, 2), _hour(1, 4)),
        ("tokens", 1, _hour(1, 3), _hour(1, 3)),
        ("gone", 1, _hour(2, 0), _hour(2, 0)),
        ("calls", 4, _hour(1, 5), _hour(1, 5)),
        ("calls", 1, _hour(2, 0), _hour(2, 0)),
    ] == [
        (one.meter, one.meter_version, one.first_time, one.last_time)
        for each in told
        for one in each.uses
    ]


def _note(*used: tuple[str, str | None]) -> str:
    """Return the note of a draw as it was kept: of meters, in a region or none."""
    part = {"quantity": "5", "events": 2, "units": "5", "rate_card": "c", "version": 1}
    uses = [
        {"meter": meter, "dimensions": {"region": region} if region else {}, **part}
        for meter, region in used
    ]
    return json.dumps({"first_sequence": 2, "last_sequence": 5, "uses": uses})


def _use_meters(connection: psycopg.Connection) -> None:
    """Write an event an hour: ann's calls, but tokens at 03:00 and bob's call at 05:00."""
    connection.execute("insert into organization values (%s, 'o', 'O', now())", (UUID(int=1),))
    for number, meter, version, subject, region in (
        (11, "calls", 3, "ann", "eu"),
        (12, "tokens", 1, "ann", None),
        (13, "calls", 4, "bob", "eu"),
    ):
        connection.execute(
            "insert into series values (%s, %s, %s, %s, %s, '', %s)",
            (UUID(int=1), UUID(int=number), meter, version, subject, [region]),
        )
    for hour, number in ((1, 11), (2, 11), (3, 12), (4, 11), (5, 13), (6, 11)):
        connection.execute(
            "insert into event (organization_id, sequence, received_at, time, source, id, type,"
            " series, quantities, payload)"
            " values (%s, %s, now(), %s, 's', %s, 't', %s, '{1}', '{}')",
            (UUID(int=1), hour, _hour(1, hour), str(hour), [UUID(int=number)]),
        )


def _hour(day: int, hour: int) -> datetime:
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def test_what_pools_of_before_cost_stays_with_the_subscription_that_they_name(
    empty_url: str,
) -> None:
    """In the currency of the pool, or of the subscription's plan."""
    steps = migrations()
    (added,) = [step for step in steps if step.name.endswith("_pool_subscription.sql")]
    migrate(empty_url, steps[: steps.index(added)])
    with psycopg.connect(empty_url) as connection:
        connection.execute("insert into organization values (%s, 'o', 'O', now())", (UUID(int=1),))
        connection.execute(
            "insert into customer values (%s, 'acme', %s, '', 'UTC', '{}', now(), now())",
            (UUID(int=1), UUID(int=2)),
        )
        connection.execute(
            "insert into catalog_version values (%s, 'plan', 'p', 1, %s, '', now(), now(), 0)",
            (UUID(int=1), '{"currency": "JPY"}'),
        )
        connection.execute(
            "insert into subscription values (%s, 'base', %s, 'acme', 'p', 1, now(), null, 'UTC',"
            " null, '{}', now())",
            (UUID(int=1), UUID(int=3)),
        )
        for number, subscription, currency in (
            (2, "base", None),
            (3, None, '"EUR"'),
            (4, None, None),
        ):
            connection.execute(
                "insert into pool (organization_id, pool_id, key, subscription_key, unit, status,"
                " definition, opened_at, timezone, version, sequence, as_of, source, pending,"
                " granted, held, used, overdraft, overage, burst, expired, transit, counters)"
                " values (%s, %s, %s, %s, 'token', 'open', %s, now(), 'UTC', 1, 7, now(), 0, 0,"
                " 0, 0, 0, 0, 0, 0, 0, 0, '{}')",
                (
                    UUID(int=1),
                    UUID(int=number),
                    str(number),
                    subscription,
                    f'{{"policy": {{"currency": {currency}}}}}' if currency else "{}",
                ),
            )
    assert added.name in migrate(empty_url)
    assert [
        (UUID(int=2), 1, "base", "JPY", 1),
        (UUID(int=3), 1, None, "EUR", 1),
        (UUID(int=4), 1, None, None, 1),
    ] == rows(
        empty_url,
        "select pool_id, first_sequence, subscription_key, currency, priced_from"
        " from pool_subscription order by pool_id",
    )


def test_access_of_before_stays_that_of_its_feature(empty_url: str) -> None:
    steps = migrations()
    (license,) = [step for step in steps if step.name.endswith("_license.sql")]
    migrate(empty_url, steps[: steps.index(license)])
    with psycopg.connect(empty_url) as connection:
        connection.execute("insert into organization values (%s, 'o', 'O', now())", (UUID(int=1),))
        connection.execute(
            "insert into customer values (%s, 'acme', %s, '', 'UTC', '{}', now(), now())",
            (UUID(int=1), UUID(int=2)),
        )
        connection.execute(
            "insert into pool (organization_id, pool_id, key, customer_key, unit, status,"
            " definition, opened_at, timezone, version, sequence, as_of, source, pending, granted,"
            " held, used, overdraft, overage, burst, expired, transit, counters)"
            " values (%s, %s, 'p', 'acme', 'token', 'open', '{}', now(), 'UTC', 1, 0, now(), 0, 0,"
            " 0, 0, 0, 0, 0, 0, 0, 0, '{}')",
            (UUID(int=1), UUID(int=3)),
        )
        connection.execute(
            "insert into access values (%s, %s, 'acme', null, 'sso', %s, 1, now(), now(), null)",
            (UUID(int=1), UUID(int=4), UUID(int=3)),
        )
    assert license.name in migrate(empty_url)
    kept = rows(
        empty_url,
        "select a.feature_key, a.license_key, p.license_key from access a join pool p using"
        " (pool_id)",
    )
    assert [("sso", None, None)] == kept
