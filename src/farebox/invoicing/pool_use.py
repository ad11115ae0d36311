"""What a pool costs in a period, as an invoice states it: overage, bursts, purchases, refunds."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from msgspec import UNSET, Struct, UnsetType

from farebox.money.amount import to_currency
from farebox.money.rounding import EXACT, exact_sum


class PoolUseKind(StrEnum):
    """For what a pool costs money."""

    PURCHASE = "purchase"
    REFUND = "refund"
    OVERAGE = "overage"
    BURST = "burst"


class Episode(Struct, frozen=True, omit_defaults=True):
    """Units beyond the grants in a row: from the first of them until the grants sufficed again.

    units: less what was taken back of them. first, last: between which numbers of operations its
    use lies. entries: how many entries of the ledger. count: how many episodes it stands for.
    earlier: taken back of use on another invoice, of an earlier period or another subscription.
    What was written before these were kept lacks them.
    """

    start: datetime
    end: datetime
    units: Decimal
    first: int = 0
    last: int = 0
    entries: int = 0
    count: int = 1
    earlier: bool = False


class PoolUse(Struct, frozen=True, kw_only=True):
    """Units of a pool with one price, or one purchase; from it alone its line is made.

    cost: of a purchase, below zero of a refund, as is the quantity: units of a purchase that were
    taken back; that of a refund has the decimals of its currency (see `refund_of`). price: of a
    unit otherwise, none where none was agreed. episodes: of what is beyond the grants, in the order
    of time. first_at, last_at: when the first and the last of them moved.
    upto: the last entry of the pool that counts; not on lines that were written before it was kept.
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
    upto: int | UnsetType = UNSET


def costed_episodes(use: PoolUse) -> list[tuple[Episode, Decimal]]:
    """Return the episodes with what each costs; they add up to the quantity and exact amount."""
    if use.grant is not None:
        return []
    episodes = use.episodes
    if exact_sum([one.units for one in episodes]) != use.quantity:
        # Of lines that were written before, overage had none and bursts held what was released.
        episodes = (Episode(use.first_at, use.last_at, use.quantity),)
    return [(one, cost_of(use, one.units)) for one in episodes]


def exact_amount(use: PoolUse) -> Decimal:
    """Return what the units cost, with all digits."""
    return use.cost if use.cost is not None else cost_of(use, use.quantity)


def cost_of(use: PoolUse, units: Decimal) -> Decimal:
    """Return what so many of the units cost at the line's price, with all digits."""
    return EXACT.multiply(units, use.price or Decimal(0))


def amount_of(use: PoolUse, currency: str) -> Decimal:
    """Return what the units cost, rounded half up to the currency: the line's amount."""
    return to_currency(exact_amount(use), currency)


def refund_of(
    cost: Decimal, bought: Decimal, earlier: Decimal, amount: Decimal, currency: str
) -> Decimal:
    """Return what comes back for `amount` of the units bought for `cost`, after `earlier` ones.

    It is what all units that came back so far are worth, rounded half up to the currency, less what
    the earlier ones were: so once all came back, all that was charged did, in however many parts.
    """

    def worth(units: Decimal) -> Decimal:
        return to_currency(Fraction(cost) * Fraction(units) / Fraction(bought), currency)

    return EXACT.subtract(worth(EXACT.add(earlier, amount)), worth(earlier))
