"""What reaches no invoice line, why, and what would help."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from msgspec import Struct


class UnbilledReason(StrEnum):
    """Why usage reaches no invoice line, in order of precedence."""

    NO_METER = "no_meter"
    NO_CUSTOMER = "no_customer"
    NO_SUBSCRIPTION = "no_subscription"
    NO_CHARGE = "no_charge"
    NO_RATE = "no_rate"
    NO_CELL = "no_cell"
    NO_VALUES = "no_values"
    NO_OVERAGE_PRICE = "no_overage_price"
    NO_POOL_SUBSCRIPTION = "no_pool_subscription"
    NO_PURCHASE_INVOICE = "no_purchase_invoice"
    NO_CREDIT_INVOICE = "no_credit_invoice"


HELP: Mapping[UnbilledReason, str] = {
    UnbilledReason.NO_METER: "create a meter for this event type and backfill it",
    UnbilledReason.NO_CUSTOMER: "create the customer, or map the subject to one from that time",
    UnbilledReason.NO_SUBSCRIPTION: "subscribe the customer to a plan from that time",
    UnbilledReason.NO_CHARGE: "add a charge for this meter to the plan, in a new version",
    UnbilledReason.NO_RATE: "add a rate for this meter to a rate card, effective from that time",
    UnbilledReason.NO_CELL: "add a cell or a default to the price, or an alias of a known value",
    UnbilledReason.NO_VALUES: "set per_event on the meter and backfill it",
    UnbilledReason.NO_OVERAGE_PRICE: (
        "reverse the draws, or give the pool's limit the mode overage and a price for those to come"
    ),
    UnbilledReason.NO_POOL_SUBSCRIPTION: (
        "name in the pool a subscription of its customer that is in force at that time"
    ),
    UnbilledReason.NO_PURCHASE_INVOICE: (
        "name in the pool a subscription of its customer that is in force at that time"
    ),
    UnbilledReason.NO_CREDIT_INVOICE: (
        "credit it by hand: who paid for it has ended, and no other of that currency follows"
    ),
}


class Unbilled(Struct, frozen=True, kw_only=True):
    """Usage in [start, end) that reaches no line; what does not apply is None.

    start, end: of NO_METER and of pools, the times of the first and the last of it.
    events: of pools, how many draws and settled holds, purchases, or entries that came back.
    quantity: in the unit of the meter or the pool; none where the aggregation has none, and for
        NO_METER. Below zero what is to be credited.
    amount, currency: what it costs, with all digits; of pools alone, where there is a price.
    """

    reason: UnbilledReason
    start: datetime
    end: datetime
    events: int
    quantity: Decimal | None = None
    amount: Decimal | None = None
    currency: str | None = None
    event_type: str | None = None
    meter: str | None = None
    pool: str | None = None
    subject: str | None = None
    customer: str | None = None
    subscription: str | None = None
    charge: str | None = None
    invoice_id: UUID | None = None
    dimensions: Mapping[str, str] = {}

    @property
    def help(self) -> str:
        """What would bring it onto an invoice."""
        return HELP[self.reason]
