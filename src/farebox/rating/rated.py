"""What rating answers: an exact amount, the rows that explain it, and what had no price."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.rating.usage import ZERO, Usage

ONE = Decimal(1)


class PartKind(StrEnum):
    """What a row of the explanation charges for."""

    FREE = "free"
    UNIT = "unit"
    TIER = "tier"
    TIER_FLAT = "tier_flat"
    PACKAGE = "package"
    STEP = "step"
    PERCENT = "percent"
    FIXED_PER_EVENT = "fixed_per_event"
    EVENT_MINIMUM = "event_minimum"
    EVENT_MAXIMUM = "event_maximum"
    CELL = "cell"
    DEFAULT_CELL = "default_cell"
    CAPACITY = "capacity"
    DYNAMIC = "dynamic"
    FLAT = "flat"


class Part(Struct, frozen=True):
    """One row: `amount` is `unit_price` times `count`, or times `quantity` / `per` without count.

    quantity: the units the row covers; fees cover none.
    unit_price: none where the row is a difference (what a minimum per event added).
    above, up_to: the bounds of the tier (exclusive, inclusive; none: unbounded).
    """

    kind: PartKind
    label: str
    quantity: Decimal
    amount: Decimal
    unit_price: Decimal | None = None
    per: Decimal = ONE
    count: Decimal | None = None
    above: Decimal | None = None
    up_to: Decimal | None = None
    dimensions: Mapping[str, str] = {}
    original: Mapping[str, str] = {}


class UnpricedReason(StrEnum):
    """Why usage has no price, in order of precedence."""

    NO_RATE = "no_rate"
    NO_CELL = "no_cell"
    NO_VALUES = "no_values"


class Unpriced(Struct, frozen=True):
    """Usage that costs nothing only because nobody said what it costs."""

    usage: Usage
    reason: UnpricedReason


class Rated(Struct, frozen=True):
    """An exact, unrounded amount; it is the sum of its parts."""

    amount: Decimal
    parts: tuple[Part, ...]
    unpriced: tuple[Unpriced, ...] = ()


def sum_parts(parts: list[Part], unpriced: tuple[Unpriced, ...] = ()) -> Rated:
    """Return the parts with their sum."""
    return Rated(sum((part.amount for part in parts), ZERO), tuple(parts), unpriced)


def fee(kind: PartKind, label: str, unit_price: Decimal, count: Decimal = ONE) -> Part:
    """Return a row that charges `unit_price` `count` times, whatever the quantity."""
    return Part(kind, label, ZERO, unit_price * count, unit_price, ONE, count)
