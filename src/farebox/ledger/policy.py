"""What a pool allows: its limit, its prices beyond the grants, how it refills and renews."""

from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.period.cycle import Unit


class LimitMode(StrEnum):
    """What happens to a draw for which the grants do not suffice."""

    HARD = "hard"
    SOFT = "soft"
    OVERDRAFT = "overdraft"
    OVERAGE = "overage"
    UNLIMITED = "unlimited"


class Limit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far beyond its grants a pool may go; what is not given does not bound.

    hard: not at all. soft: any amount, flagged. overdraft: borrowed from the next grant, which
    repays it; `units` and `percent` (of the units of the grants in force) bound what is owed at any
    moment. overage: any amount at `price` a unit; `units` bounds it within a period. unlimited: any
    amount, as if a grant had it: it comes from where grants come from, and is beyond nothing.
    customer_units: the bound that the customer's own administrator set. The least of all bounds
    holds. spend_cap: the most that overage and burst may cost within a period.
    """

    mode: LimitMode = LimitMode.HARD
    units: Decimal | None = None
    percent: Decimal | None = None
    customer_units: Decimal | None = None
    price: Decimal | None = None
    spend_cap: Decimal | None = None


class Burst(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under pressure the ceiling rises by up to `units` within a period, each at `price`."""

    units: Decimal
    price: Decimal


class Refill(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate limit: `amount` units flow in over every `seconds`, up to `capacity`."""

    amount: Decimal
    seconds: int
    capacity: Decimal


class Payment(StrEnum):
    """How a purchase is paid: before it may be used, or with the next invoice."""

    PREPAID = "prepaid"
    INVOICE = "invoice"


class TopUp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A purchase that the pool makes by itself: when a request leaves or finds fewer than `below`
    units, or asks for more than there is and goes through with what is bought.

    At most `times` within a period, never within `cool_off_seconds` of the last one, and never
    while one waits to be paid. expires_after_seconds: of what is bought; none: never.
    pay_within_seconds: how long a prepaid one waits before it is void.
    """

    below: Decimal
    amount: Decimal
    cost: Decimal
    payment: Payment = Payment.INVOICE
    times: int = 1
    cool_off_seconds: int = 0
    expires_after_seconds: int | None = None
    pay_within_seconds: int = 86_400


class BurnBy(StrEnum):
    """What decides which grant is taken first: lowest priority, soonest expiry, greatest age."""

    PRIORITY = "priority"
    EXPIRY = "expiry"
    AGE = "age"


class Renewal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The periods in which a pool counts: shares, bounds of a period and top-ups start anew.

    anchor_day: as in a billing period, none takes the day on which the pool began.
    """

    unit: Unit = Unit.MONTH
    count: int = 1
    anchor_day: int | None = None

    @property
    def length(self) -> tuple[Unit, int]:
        """How long its periods are, whenever they begin."""
        return self.unit, self.count


BURN_ORDER = (BurnBy.PRIORITY, BurnBy.EXPIRY, BurnBy.AGE)


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a pool allows; a change is in force from the next decision on.

    currency: of price, cost and spend cap. undo_seconds: how long after a draw it may be reversed.
    hold_seconds, hold_seconds_max: how long a hold lasts by itself, and at most.
    unallotted: whether subjects without a share may take what is not reserved for the others.
    """

    limit: Limit = Limit()
    currency: str | None = None
    burst: Burst | None = None
    refill: Refill | None = None
    top_up: TopUp | None = None
    renewal: Renewal = Renewal()
    burn_order: tuple[BurnBy, ...] = BURN_ORDER
    unallotted: bool = True
    undo_seconds: int = 86_400 * 30
    hold_seconds: int = 600
    hold_seconds_max: int = 86_400
