"""The types of notices, each with the sentence that the documentation has under its heading."""

from collections.abc import Mapping
from enum import StrEnum


class NoticeType(StrEnum):
    """What a notice tells; a dotted name that never changes its meaning."""

    INVOICE_FINALIZED = "invoice.finalized"
    POOL_LIMIT_NEAR = "pool.limit_near"
    POOL_EXHAUSTED = "pool.exhausted"
    POOL_OVERAGE_STARTED = "pool.overage_started"
    POOL_TOPPED_UP = "pool.topped_up"
    POOL_BURST_STARTED = "pool.burst_started"
    POOL_BURST_ENDED = "pool.burst_ended"
    GRANT_PENDING = "grant.pending"
    GRANT_PAID = "grant.paid"
    GRANT_EXPIRED = "grant.expired"
    GRANT_VOIDED = "grant.voided"
    ALERT_FIRED = "alert.fired"
    ALERT_CLEARED = "alert.cleared"
    ENTITLEMENT_LIMIT_NEAR = "entitlement.limit_near"
    WEBHOOK_TEST = "webhook.test"


SAYS: Mapping[NoticeType, str] = {
    NoticeType.INVOICE_FINALIZED: "An invoice became final: it has its number and never changes.",
    NoticeType.POOL_LIMIT_NEAR: "Of what a pool had for its period 80 percent are used or held.",
    NoticeType.POOL_EXHAUSTED: "Nothing is left of a pool.",
    NoticeType.POOL_OVERAGE_STARTED: "A pool is used beyond what it holds, at the overage price.",
    NoticeType.POOL_TOPPED_UP: "A grant filled a pool up, by hand or by itself.",
    NoticeType.POOL_BURST_STARTED: "A pool lends more for a while than it usually may.",
    NoticeType.POOL_BURST_ENDED: "A pool is back within its usual limit.",
    NoticeType.GRANT_PENDING: "A grant was made and waits for its payment.",
    NoticeType.GRANT_PAID: "A grant was paid for.",
    NoticeType.GRANT_EXPIRED: "A grant expired; what was left of it is gone.",
    NoticeType.GRANT_VOIDED: "A grant was taken back, or units came back to one that was.",
    NoticeType.ALERT_FIRED: "What an alert watches crossed its threshold.",
    NoticeType.ALERT_CLEARED: "What an alert watches is back on the other side of its threshold.",
    NoticeType.ENTITLEMENT_LIMIT_NEAR: "As `pool.limit_near`, and `help` says what would cover it.",
    NoticeType.WEBHOOK_TEST: "Somebody asked for a test; only the endpoint under test gets it.",
}


def wants(
    types: tuple[str, ...] | list[str],
    customer: str | None,
    notice_type: str,
    notice_customer: str | None,
) -> bool:
    """Whether an endpoint for these types (empty: all) and customer (none: all) gets a notice.

    A test goes to the endpoint under test and is wanted by nobody else.
    """
    if notice_type == NoticeType.WEBHOOK_TEST:
        return False
    if types and notice_type not in types:
        return False
    return customer is None or customer == notice_customer
