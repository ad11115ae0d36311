"""One attempt to deliver a webhook: claimed in one transaction, its outcome written in another.

Nothing is sent here, and nothing is sent while a transaction is open: who calls these does that in
between. A lease keeps other workers away meanwhile; it ends by itself where this one is killed.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from farebox.access.id import Prefix, encode_id
from farebox.notices.delivery import Outcome, judge
from farebox.notices.message import message_body, message_headers
from farebox.postgres import webhook_delivery, webhook_endpoint
from farebox.postgres.session import Pool, transaction

LEASE = timedelta(seconds=30)
"""Longer than any attempt takes, so that it is lost only where its worker is."""


class Attempt(Struct, frozen=True, kw_only=True):
    """What to send, and as which attempt; `tries` is since the delivery was made or replayed."""

    organization_id: UUID
    endpoint_key: str
    delivery_id: UUID
    number: int
    tries: int
    url: str
    headers: Mapping[str, str]
    body: bytes


def begin_attempt(
    pool: Pool, organization_id: UUID, endpoint_key: str, now: datetime
) -> Attempt | None:
    """Claim the delivery that has been due longest; None where there is none for now.

    An endpoint has one attempt at a time, whoever makes it.
    """
    with transaction(pool, organization_id) as connection:
        target = webhook_endpoint.lock_target(connection, organization_id, endpoint_key, now)
        if target is None:
            return None
        claim = webhook_delivery.claim_delivery(
            connection, organization_id, endpoint_key, now, now + LEASE
        )
    if claim is None:
        return None
    body = message_body(claim.type, claim.time, claim.data)
    message_id = encode_id(Prefix.NOTICE, claim.notice_id)
    return Attempt(
        organization_id=organization_id,
        endpoint_key=endpoint_key,
        delivery_id=claim.delivery_id,
        number=claim.number,
        tries=claim.tries,
        url=target.url,
        headers=message_headers(message_id, body, target.secrets, now),
        body=body,
    )


def finish_attempt(
    pool: Pool, attempt: Attempt, outcome: Outcome, now: datetime, random: float
) -> None:
    """Write what became of an attempt: in the log, to its delivery and to its endpoint."""
    organization_id, key = attempt.organization_id, attempt.endpoint_key
    with transaction(pool, organization_id) as connection:
        health = webhook_endpoint.lock_health(connection, organization_id, key)
        if health is None:
            return  # deleted meanwhile, its deliveries with it
        failures, failing_since = health
        verdict = judge(
            outcome,
            tries=attempt.tries,
            failures=failures,
            failing_since=failing_since,
            now=now,
            random=random,
        )
        webhook_delivery.finish_attempt(
            connection,
            organization_id,
            attempt.delivery_id,
            attempt.number,
            outcome,
            verdict,
            now,
        )
        if outcome.succeeded:
            webhook_endpoint.note_success(connection, organization_id, key, now)
        else:
            webhook_endpoint.note_failure(connection, organization_id, key, verdict, now)
