"""Plans and rate cards as values: what a subscription is charged, and by which prices."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.catalog.price import Adjustments, Price


class Feature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a customer may use; with a meter it has a quantity."""

    key: str
    name: str = ""
    meter: str | None = None
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


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan version. `minimum` is the least the usage charges of a period come to."""

    key: str
    name: str = ""
    currency: str
    interval: Interval = Interval.MONTH
    interval_count: int = 1
    fees: tuple[Fee, ...] = ()
    charges: tuple[Charge, ...] = ()
    rate_card: str | None = None
    features: tuple[str, ...] = ()
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
    """

    key: str
    name: str = ""
    currency: str
    rates: tuple[Rate, ...] = ()
    default: bool = False
    effective_from: datetime | None = None
    metadata: Mapping[str, str] = {}
