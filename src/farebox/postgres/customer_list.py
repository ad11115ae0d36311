"""Customers as lists show them: found by metadata, with the subjects that are theirs now."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.customer import Customer
from farebox.period.instant import END


def search_customers(
    connection: Connection,
    organization_id: UUID,
    *,
    after: str = "",
    limit: int = 1000,
    key: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Customer]:
    """Return customers by key, a page at a time: those with all of `metadata`, or only `key`."""
    wanted = metadata or {}
    found = " and definition -> 'metadata' ->> %s = %s" * len(wanted)
    rows = connection.execute(
        "select definition::text from customer where organization_id = %s and key > %s"
        f" and (%s::text is null or key = %s){found} order by key limit %s",
        (
            organization_id,
            after,
            key,
            key,
            *(part for pair in wanted.items() for part in pair),
            limit,
        ),
    ).fetchall()
    customers = [msgspec.json.decode(row[0], type=Customer) for row in rows]
    return with_subjects(connection, organization_id, customers)


def with_subjects(
    connection: Connection, organization_id: UUID, customers: Sequence[Customer]
) -> list[Customer]:
    """Return the customers with the subjects mapped to them now, their own key left out.

    Subjects live in their table alone, because they move between customers.
    """
    rows = connection.execute(
        "select customer_key, array_agg(subject order by subject) from subject"
        " where organization_id = %s and customer_key = any(%s) and valid_to = %s"
        " and subject <> customer_key group by customer_key",
        (organization_id, [customer.key for customer in customers], END),
    ).fetchall()
    subjects = {key: tuple(found) for key, found in rows}
    return [
        msgspec.structs.replace(customer, subjects=subjects.get(customer.key, ()))
        for customer in customers
    ]
