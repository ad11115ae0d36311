"""Plans and rate cards as values: what a subscription is charged, and by which prices."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.catalog.price import Adjustments, Price


class TopUpOffer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units of a feature that may be bought at any time, for a price."""

    units: Decimal
    price: Decimal
    currency: str


class Feature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a customer may use.

    unit: what is counted where an entitlement to it has a limit. meter: what uses it up then, one
    unit for one; it counts or sums. top_ups: what may be bought more.
    """

    key: str
    name: str = ""
    meter: str | None = None
    unit: str = "use"
    top_ups: tuple[TopUpOffer, ...] = ()
    metadata: Mapping[str, str] = {}


class Interval(StrEnum):
    """The length of a billing period, times `interval_count`."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Timing(StrEnum):
    """Whether a fee is billed for the period that begins or the one that ends."""

    ADVANCE = "advance"
    ARREARS = "arrears"


class Fee(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed amount each period."""

    key: str
    name: str = ""
    amount: Decimal
    timing: Timing = Timing.ADVANCE


class Charge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Usage of a meter, priced in arrears: by its own price, or by the rate card in force."""

    key: str
    name: str = ""
    meter: str
    price: Price | None = None
    adjustments: Adjustments = Adjustments()


class EntitlementLimit(StrEnum):
    """What happens to use beyond the limit of a metered entitlement."""

    HARD = "hard"
    SOFT = "soft"
    OVERAGE = "overage"


class Entitlement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan lets a customer do with a feature.

    With a `limit` or `unlimited` it is metered: so many units each period of the subscription, from
    a pool of the customer. With a `value` it is a configuration. With neither it is on.
    beyond: what happens past the limit; overage costs `price` a unit. rollover_percent: how much of
    what is left goes into the next period.
    """

    feature: str
    value: str | None = None
    limit: Decimal | None = None
    unlimited: bool = False
    beyond: EntitlementLimit = EntitlementLimit.HARD
    price: Decimal | None = None
    rollover_percent: Decimal = Decimal(0)


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan version. `minimum` is the least the usage charges of a period come to.

    features: those that are simply on, in short. add_on: it is sold besides another plan, and its
    limits add to those of that plan.
    """

    key: str
    name: str = ""
    currency: str
    interval: Interval = Interval.MONTH
    interval_count: int = 1
    fees: tuple[Fee, ...] = ()
    charges: tuple[Charge, ...] = ()
    rate_card: str | None = None
    features: tuple[str, ...] = ()
    entitlements: tuple[Entitlement, ...] = ()
    add_on: bool = False
    minimum: Decimal | None = None
    metadata: Mapping[str, str] = {}


class Rate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price of a meter's usage on a rate card."""

    meter: str
    price: Price


class RateCard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate card version, in force from `effective_from`.

    Without one, the first version is in force for all time and a later one from its publication.

    `default`: used where neither customer, partner nor plan names a card with a rate for the meter;
    at most one rate card of an organization is the default.

    `custom_unit`: `currency` is a unit of pools, like credits, and the rates say how many of them a
    use burns. Pools name such a card; plans, customers and partners do not.
    """

    key: str
    name: str = ""
    currency: str
    rates: tuple[Rate, ...] = ()
    default: bool = False
    custom_unit: bool = False
    effective_from: datetime | None = None
    metadata: Mapping[str, str] = {}
