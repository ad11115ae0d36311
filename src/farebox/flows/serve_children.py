"""Whom a pool serves: its own customer, and with `serves_children` those that are part of it."""

from datetime import datetime
from uuid import UUID

from psycopg import Connection

from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.customer import ancestors
from farebox.postgres.pool import PoolKey, find_definition


def is_served(
    connection: Connection, organization_id: UUID, pool: PoolKey, customer: str, now: datetime
) -> bool:
    """Tell whether units of a pool may be asked for on behalf of a customer at `now`."""
    if customer == pool.customer:
        return True
    stored = find_definition(connection, organization_id, pool.key)
    if stored is None or not stored[1].serves_children:
        return False
    above = ancestors(connection, organization_id, [customer]).get(customer, ())
    return any(one.key == pool.customer and one.since <= now < one.until for one in above)


def not_served(pool: PoolKey, customer: str) -> Refusal:
    """Return the refusal of whoever names a pool and a customer that it does not serve."""
    detail = f"pool {pool.key!r} does not serve customer {customer[:150]!r}"
    return Refusal(RefusalCode.SUBJECT_NOT_SERVED, detail)
