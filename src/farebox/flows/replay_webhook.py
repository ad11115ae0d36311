"""Send notices to an endpoint again: one delivery, or all of a span of time."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from farebox.catalog.problem import Problem
from farebox.flows.dispatch_notices import new_deliveries
from farebox.flows.webhook_endpoint import WebhookCode, disabled_problem
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.webhook_delivery import DeliveryRow
from farebox.postgres.webhook_endpoint import EndpointRow

NOTICES_MAX = 10_000


def replay_delivery_in(
    connection: Connection, organization_id: UUID, delivery_id: UUID, now: datetime
) -> DeliveryRow | Problem | None:
    """Send a delivery again, whatever became of it; None where there is none."""
    found = webhook_delivery.lock_delivery(connection, organization_id, delivery_id)
    if found is None:
        return None
    endpoint = webhook_endpoint.find_endpoint(connection, organization_id, found.endpoint_key)
    assert endpoint is not None, "deliveries are deleted with their endpoint"
    if not endpoint.enabled:
        return disabled_problem(endpoint)
    if found.leased_until is not None and found.leased_until > now:
        message = "it is being sent at this moment; look again in a few seconds"
        return Problem(WebhookCode.DELIVERY_UNDER_WAY, "", message)
    webhook_delivery.send_again(
        connection, organization_id, found.endpoint_key, [found.notice_id], now
    )
    return webhook_delivery.find_delivery(connection, organization_id, delivery_id)


def replay_span_in(
    connection: Connection,
    organization_id: UUID,
    endpoint: EndpointRow,
    since: datetime,
    until: datetime,
    types: Sequence[str],
    now: datetime,
    new_id: Callable[[], UUID],
) -> int | Problem:
    """Send all notices of a span to an endpoint that it wants, and return how many.

    Those that it was never sent are among them: from before it was there, or while it was disabled.
    """
    if since >= until:
        return Problem(WebhookCode.RANGE_EMPTY, "/until", "until does not lie after since")
    if not endpoint.enabled:
        return disabled_problem(endpoint)
    found = notice.notices_between(
        connection, organization_id, since, until, types, endpoint.customer_key, NOTICES_MAX + 1
    )
    if len(found) > NOTICES_MAX:
        message = f"the span holds more than {NOTICES_MAX:,} notices; take a shorter one"
        return Problem(WebhookCode.TOO_MANY_NOTICES, "/until", message)
    rows = new_deliveries(found, [endpoint], new_id)
    added = webhook_delivery.add_deliveries(connection, organization_id, rows, now)
    if added == len(rows):
        return added
    # What was added just now is set to what it is.
    return webhook_delivery.send_again(
        connection, organization_id, endpoint.key, [row.notice_id for row in rows], now
    )
