"""What a pool costs in a period, as an invoice states it: overage, bursts, purchases, refunds."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.money.amount import to_currency
from farebox.money.rounding import EXACT


class PoolUseKind(StrEnum):
    """For what a pool costs money."""

    PURCHASE = "purchase"
    REFUND = "refund"
    OVERAGE = "overage"
    BURST = "burst"


class Episode(Struct, frozen=True):
    """One burst: from when its ceiling was first passed until the grants sufficed again."""

    start: datetime
    end: datetime
    units: Decimal


class PoolUse(Struct, frozen=True, kw_only=True):
    """Units of a pool with one price, or one purchase; from it alone its line is made.

    cost: of a purchase, below zero of a refund, as is the quantity: units of a purchase that were
    taken back. price: of a unit otherwise, none where none was agreed. episodes: of a burst, in the
    order of time. first_at, last_at: when the first and the last of them moved.
    """

    pool: str
    name: str
    unit: str
    kind: PoolUseKind
    quantity: Decimal
    price: Decimal | None = None
    cost: Decimal | None = None
    grant: str | None = None
    first_at: datetime
    last_at: datetime
    episodes: tuple[Episode, ...] = ()


def amount_of(use: PoolUse, currency: str) -> Decimal:
    """Return what the units cost, rounded half up to the currency: the line's amount."""
    exact = use.cost
    if exact is None:
        exact = EXACT.multiply(use.quantity, use.price or Decimal(0))
    return to_currency(exact, currency)
