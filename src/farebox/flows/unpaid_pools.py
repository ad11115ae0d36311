"""What pools cost that nobody pays, and what came back of it that is credited to nobody."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from farebox.flows.unbilled import Unbilled, UnbilledReason
from farebox.postgres.unpaid_beyond import UnpaidBeyond, unpaid_beyond
from farebox.postgres.unpaid_purchase import UnpaidPurchase, uncredited, unpaid_purchases


def unpaid_pools(
    connection: Connection,
    organization_id: UUID,
    pools: Sequence[str],
    start: datetime,
    end: datetime,
) -> list[Unbilled]:
    """Return what is unpaid of [start, end), by pool and then in the order of reasons."""
    asked = connection, organization_id, pools, start, end
    items = [
        *(_beyond(one) for one in unpaid_beyond(*asked)),
        *(_item(UnbilledReason.NO_PURCHASE_INVOICE, one) for one in unpaid_purchases(*asked)),
        *(_item(UnbilledReason.NO_CREDIT_INVOICE, one) for one in uncredited(*asked)),
    ]
    return sorted(items, key=lambda one: one.pool or "")


def _beyond(one: UnpaidBeyond) -> Unbilled:
    priced = UnbilledReason.NO_POOL_SUBSCRIPTION
    return Unbilled(
        reason=priced if one.priced else UnbilledReason.NO_OVERAGE_PRICE,
        start=one.first_time,
        end=one.last_time,
        events=one.operations,
        quantity=one.units,
        amount=one.cost,
        currency=one.currency,
        pool=one.pool,
        customer=one.customer,
    )


def _item(reason: UnbilledReason, one: UnpaidPurchase) -> Unbilled:
    return Unbilled(
        reason=reason,
        start=one.first_time,
        end=one.last_time,
        events=one.count,
        quantity=one.units,
        amount=one.cost,
        currency=one.currency,
        pool=one.pool,
        customer=one.customer,
    )
