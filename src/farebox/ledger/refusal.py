"""Why a pool says no: stable codes in order of precedence, and what would help."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct


class RefusalCode(StrEnum):
    """Reasons to refuse, in order of precedence: of several that hold, the first is given."""

    POOL_UNKNOWN = "pool_unknown"
    CUSTOMER_UNKNOWN = "unknown_customer"
    LICENSE_UNKNOWN = "license_unknown"
    LICENSE_POOL_AMBIGUOUS = "license_pool_ambiguous"
    FEATURE_NOT_ENTITLED = "feature_not_entitled"
    AMOUNT_INVALID = "amount_invalid"
    UNIT_MISMATCH = "unit_mismatch"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CLOCK_WENT_BACK = "clock_went_back"
    POOL_CLOSED = "pool_closed"
    LICENSE_REVOKED = "license_revoked"
    LICENSE_NOT_BEGUN = "license_not_begun"
    LICENSE_OVER = "license_over"
    SUBJECT_NOT_SERVED = "subject_not_served"
    HOLD_UNKNOWN = "hold_unknown"
    HOLD_SETTLED = "hold_settled"
    HOLD_RELEASED = "hold_released"
    HOLD_EXPIRED = "hold_expired"
    HOLD_TOO_LONG = "hold_too_long"
    DRAW_UNKNOWN = "draw_unknown"
    DRAW_REVERSED = "draw_reversed"
    REVERSAL_TOO_LATE = "reversal_too_late"
    REVERSAL_EXCEEDS_DRAW = "reversal_exceeds_draw"
    GRANT_UNKNOWN = "grant_unknown"
    GRANT_KEY_REUSED = "grant_key_reused"
    GRANT_TIMES_INVALID = "grant_times_invalid"
    GRANT_ALREADY_EXPIRED = "grant_already_expired"
    GRANT_NOT_PENDING = "grant_not_pending"
    GRANT_REFILLS = "grant_refills"
    GRANT_CLOSED = "grant_closed"
    ALLOTMENT_UNKNOWN = "allotment_unknown"
    ALLOTMENT_MISSING = "allotment_missing"
    ALLOTMENT_NOT_IN_FORCE = "allotment_not_in_force"
    ALLOTMENT_CAP_EXCEEDED = "allotment_cap_exceeded"
    RATE_LIMITED = "rate_limited"
    GUARANTEE_RESERVED = "guarantee_reserved"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    OVERDRAFT_EXCEEDED = "overdraft_exceeded"
    OVERAGE_LIMIT_EXCEEDED = "overage_limit_exceeded"
    SPEND_CAP_EXCEEDED = "spend_cap_exceeded"


PRECEDENCE = {code: order for order, code in enumerate(RefusalCode)}


class Refusal(Struct, frozen=True):
    """A no: nothing moved.

    left: the most that this subject could take now, none where that was not the question.
    refills_at: when more comes by itself, none where nothing is planned. enough_at: when what is
    known to come would let the request through; none: never, as far as is looked ahead.
    """

    code: RefusalCode
    detail: str
    left: Decimal | None = None
    refills_at: datetime | None = None
    enough_at: datetime | None = None
