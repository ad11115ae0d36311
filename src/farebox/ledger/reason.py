"""Every reason for which value moves; docs/ledger.md has a row for each."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a transfer was made."""

    GRANT_ISSUED = "grant_issued"
    GRANT_PENDING = "grant_pending"
    GRANT_PAID = "grant_paid"
    GRANT_EFFECTIVE = "grant_effective"
    GRANT_UNPAID = "grant_unpaid"
    GRANT_VOIDED = "grant_voided"
    GRANT_EXPIRED = "grant_expired"
    GRANT_RENEWED = "grant_renewed"
    ROLLED_OVER = "rolled_over"
    TOPPED_UP = "topped_up"
    REFILLED = "refilled"
    OVERDRAFT_REPAID = "overdraft_repaid"
    DRAWN = "drawn"
    HELD = "held"
    HOLD_EXTENDED = "hold_extended"
    SETTLED = "settled"
    SETTLED_BEYOND = "settled_beyond"
    SETTLED_PAST_LIMIT = "settled_past_limit"
    RELEASED = "released"
    HOLD_EXPIRED = "hold_expired"
    REVERSED = "reversed"
    MOVED_OUT = "moved_out"
    MOVED_IN = "moved_in"
    METERED = "metered"
    VOIDED = "voided"
