"""Hand notices to the endpoints that want them: from then on each is a delivery of its own."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from uuid import UUID

from farebox.notices.type import wants
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.notice import NoticeRow
from farebox.postgres.session import Pool, transaction
from farebox.postgres.webhook_delivery import NewDelivery
from farebox.postgres.webhook_endpoint import EndpointRow

NOTICES_A_STEP = 500


def dispatch_notices(
    pool: Pool, organization_id: UUID, now: datetime, new_id: Callable[[], UUID]
) -> int:
    """Hand on the oldest notices, each exactly once, and return how many there were."""
    with transaction(pool, organization_id) as connection:
        found = notice.lock_undispatched(connection, organization_id, NOTICES_A_STEP)
        if not found:
            return 0
        endpoints = webhook_endpoint.enabled_endpoints(connection, organization_id)
        rows = new_deliveries(found, endpoints, new_id)
        if rows:
            webhook_delivery.add_deliveries(connection, organization_id, rows, now)
        notice.set_dispatched(connection, organization_id, [row.notice_id for row in found], now)
    return len(found)


def new_deliveries(
    notices: Sequence[NoticeRow],
    endpoints: Sequence[EndpointRow],
    new_id: Callable[[], UUID],
) -> list[NewDelivery]:
    """Return a delivery for each notice and each endpoint that wants it, in their order."""
    pairs = list(_pairs(notices, endpoints))
    # Ids of one millisecond come in any order; lists show deliveries in that of their ids.
    ids = sorted(new_id() for _ in pairs)
    return [
        NewDelivery(delivery_id=identifier, endpoint_key=key, notice_id=notice_id)
        for identifier, (key, notice_id) in zip(ids, pairs, strict=True)
    ]


def _pairs(
    notices: Sequence[NoticeRow], endpoints: Sequence[EndpointRow]
) -> Iterator[tuple[str, UUID]]:
    for one in notices:
        for endpoint in endpoints:
            if wants(endpoint.types, endpoint.customer_key, one.type, one.customer_key):
                yield endpoint.key, one.notice_id
