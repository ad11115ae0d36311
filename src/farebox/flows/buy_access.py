"""Units of a pool buy a feature for a term: both in one transaction, and taken back together."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.flows.decide_pools import Asked, decide_locked
from farebox.ledger.command import Answer, Draw
from farebox.ledger.refusal import Refusal
from farebox.postgres import entitlement
from farebox.postgres.entitlement import AccessRow


class Bought(Struct, frozen=True):
    """The draw that paid, and the access it paid for."""

    answer: Answer
    access: AccessRow


def buy_access(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    customer_key: str,
    feature_key: str,
    amount: Decimal,
    seconds: int,
    now: datetime,
    access_id: UUID,
    *,
    subject: str | None = None,
    note: str | None = None,
) -> Bought | Refusal:
    """Draw `amount` units and give the customer, or one subject, the feature for `seconds`.

    When the term is over the access is, without anybody doing anything. Taking back all of the
    draw takes the access back in the same transaction (`flows/reverse_draw.py`).
    """
    command = Draw(amount=amount, subject=subject, note=note)
    (outcome,), _ = decide_locked(connection, organization_id, [Asked(pool_id, command)], now)
    if isinstance(outcome, Refusal):
        return outcome
    ends_at = outcome.time + timedelta(seconds=seconds)
    row = AccessRow(
        access_id,
        customer_key,
        subject,
        feature_key,
        pool_id,
        outcome.operation,
        outcome.time,
        ends_at,
        None,
    )
    entitlement.add_access(connection, organization_id, row)
    return Bought(outcome, row)
