"""Catalog, customer and subject rows: what is kept of them, and in which order it comes back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from farebox.catalog.customer import Customer, Subscription
from farebox.period.instant import BEGINNING, END
from farebox.postgres import catalog, customer
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.customer import SubjectRow, SubscriptionRow
from farebox.postgres.session import Pool, transaction

NOW = datetime(2026, 10, 2, 12, 0, 0, 1, tzinfo=UTC)


def version(kind: Kind, key: str, number: int, text: str = "{}") -> Version:
    return Version(kind, key, number, text, "digest", BEGINNING, NOW, 7)


def test_versions_come_by_key_and_oldest_first(pool: Pool, organization_id: UUID) -> None:
    text = '{"filter":"a == \\"\\\\N\\"","name":"ü"}'
    rows = [
        version(Kind.METER, "Z", 1),
        version(Kind.METER, "a", 10, text),
        version(Kind.METER, "a", 9),
        version(Kind.PLAN, "a", 1),
    ]
    with transaction(pool, organization_id) as connection:
        for row in rows:
            catalog.add_version(connection, organization_id, row)
        assert [rows[0], rows[2], rows[1]] == catalog.versions(
            connection, organization_id, Kind.METER
        )
        assert [rows[2], rows[1]] == catalog.versions(connection, organization_id, Kind.METER, "a")
        assert [rows[0], rows[1], rows[3]] == catalog.latest_versions(connection, organization_id)
        assert 4 == catalog.count_versions(connection, organization_id)


def test_a_version_is_published_once(pool: Pool, organization_id: UUID) -> None:
    with transaction(pool, organization_id) as connection:
        catalog.add_version(connection, organization_id, version(Kind.METER, "a", 1))
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        transaction(pool, organization_id) as connection,
    ):
        catalog.add_version(connection, organization_id, version(Kind.METER, "a", 1, '{"b":1}'))


def test_versions_are_those_of_the_organization(
    pool: Pool, new_organization: Callable[[], UUID]
) -> None:
    one, two = new_organization(), new_organization()
    with transaction(pool, one) as connection:
        catalog.add_version(connection, one, version(Kind.METER, "a", 1))
    with transaction(pool, two) as connection:
        assert [] == catalog.versions(connection, two, Kind.METER)
        assert 0 == catalog.count_versions(connection, two)
        assert [] == catalog.versions(connection, one, Kind.METER)


def test_a_customer_put_again_is_changed_and_keeps_its_id(
    pool: Pool, organization_id: UUID
) -> None:
    first = Customer(key="acme", name="Ácme \\N", address=("1, Main St", "\tCork"))
    second = Customer(key="acme", name="Acme", timezone="Europe/Dublin")
    with transaction(pool, organization_id) as connection:
        assert None is customer.find_customer(connection, organization_id, "acme")
        customer.put_customer(connection, organization_id, first, uuid4(), NOW)
        assert first == customer.find_customer(connection, organization_id, "acme")
        before = connection.execute("select customer_id, created_at from customer").fetchall()
        later = NOW + timedelta(days=1)
        customer.put_customer(connection, organization_id, second, uuid4(), later)
        assert second == customer.find_customer(connection, organization_id, "acme")
        assert (
            before == connection.execute("select customer_id, created_at from customer").fetchall()
        )
        assert [("Europe/Dublin", later)] == connection.execute(
            "select timezone, updated_at from customer"
        ).fetchall()


def test_customers_come_in_pages_by_the_bytes_of_their_key(
    pool: Pool, organization_id: UUID
) -> None:
    keys = ["a", "B", "b", "Ä".lower(), "a.b", "a_b"]
    with transaction(pool, organization_id) as connection:
        for key in keys:
            customer.put_customer(connection, organization_id, Customer(key=key), uuid4(), NOW)
        found: list[str] = []
        while page := customer.customers(
            connection, organization_id, after=found[-1] if found else "", limit=2
        ):
            found += [one.key for one in page]
        assert sorted(keys, key=str.encode) == found
        some = customer.customers_by_key(connection, organization_id, ["b", "nobody", "b"])
        assert {"b": Customer(key="b")} == some


def test_a_subject_is_ended_or_taken_back(pool: Pool, organization_id: UUID) -> None:
    with transaction(pool, organization_id) as connection:
        for row in (
            SubjectRow("u", "acme", BEGINNING, NOW),
            SubjectRow("u", "beta", NOW, END),
            SubjectRow("w", "beta", BEGINNING, END),
        ):
            customer.add_subject(connection, organization_id, row)
        assert ["u", "w"] == customer.current_subjects(connection, organization_id, "beta")
        later = NOW + timedelta(days=1)
        customer.end_subject(connection, organization_id, "u", later)
        assert [
            SubjectRow("u", "acme", BEGINNING, NOW),
            SubjectRow("u", "beta", NOW, later),
            SubjectRow("w", "beta", BEGINNING, END),
        ] == customer.subject_rows(connection, organization_id, ["u", "w", "nobody"])
        customer.add_subject(connection, organization_id, SubjectRow("u", "gamma", later, END))
        customer.end_subject(connection, organization_id, "u", NOW)
        assert ["w"] == customer.current_subjects(connection, organization_id, "beta")
        assert [] == customer.current_subjects(connection, organization_id, "gamma")


def test_a_mapping_has_a_length(pool: Pool, organization_id: UUID) -> None:
    with (
        pytest.raises(psycopg.errors.CheckViolation),
        transaction(pool, organization_id) as connection,
    ):
        customer.add_subject(connection, organization_id, SubjectRow("u", "acme", NOW, NOW))


def subscribe(key: str, customer_key: str, ends_at: datetime | None = None) -> SubscriptionRow:
    return SubscriptionRow(
        key, uuid4(), customer_key, "basic", 3, NOW, ends_at, "Asia/Tokyo", 31, "{}"
    )


def put(pool: Pool, organization_id: UUID, row: SubscriptionRow) -> None:
    described = Subscription(key=row.key, customer=row.customer_key, plan="basic", start=NOW)
    with transaction(pool, organization_id) as connection:
        customer.put_subscription(connection, organization_id, described, row, NOW)


def test_a_subscription_put_again_changes_its_end_and_nothing_else(
    pool: Pool, organization_id: UUID
) -> None:
    with transaction(pool, organization_id) as connection:
        for key in ("acme", "beta"):
            customer.put_customer(connection, organization_id, Customer(key=key), uuid4(), NOW)
    first = subscribe("s", "acme")
    put(pool, organization_id, first)
    later = NOW + timedelta(days=1)
    put(pool, organization_id, subscribe("s", "beta", later))
    with transaction(pool, organization_id) as connection:
        found = customer.find_subscription(connection, organization_id, "s")
        assert None is customer.find_subscription(connection, organization_id, "t")
    assert found is not None
    assert (first.subscription_id, "acme", NOW, later, "Asia/Tokyo", 31) == (
        found.subscription_id,
        found.customer_key,
        found.starts_at,
        found.ends_at,
        found.timezone,
        found.anchor_day,
    )


def test_subscriptions_come_in_pages_and_of_one_customer(pool: Pool, organization_id: UUID) -> None:
    with transaction(pool, organization_id) as connection:
        for key in ("acme", "beta"):
            customer.put_customer(connection, organization_id, Customer(key=key), uuid4(), NOW)
    for number in range(5):
        put(pool, organization_id, subscribe(f"s{number}", "acme" if number % 2 else "beta"))
    with transaction(pool, organization_id) as connection:
        page = customer.subscriptions(connection, organization_id, after="s1", limit=2)
        assert ["s2", "s3"] == [row.key for row in page]
        of_one = customer.subscriptions(connection, organization_id, customer_key="acme")
        assert ["s1", "s3"] == [row.key for row in of_one]


def test_a_subscription_needs_its_customer(pool: Pool, organization_id: UUID) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        put(pool, organization_id, subscribe("s", "nobody"))
