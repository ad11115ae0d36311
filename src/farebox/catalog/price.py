"""Price models as values: what a price says, with no arithmetic (that is `farebox.rating`).

Amounts are in major units of the currency of the rate card or plan that holds the price.
A tier reaches up to and including `up_to`; the last tier of a list has none. `above` may say where
a tier begins, for readers and for price lists that come with both ends; it is checked against the
tier before and never used to rate.
"""

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

ZERO = Decimal(0)
ONE = Decimal(1)


class Tier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`unit` per `per` units inside the tier, and `flat` once when the tier is reached.

    In proportion by default; with `round_up` every started `per` units cost a whole `unit`.
    """

    above: Decimal | None = None
    up_to: Decimal | None = None
    unit: Decimal = ZERO
    flat: Decimal = ZERO
    per: Decimal = ONE
    round_up: bool = False


class StairstepTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `amount` for any quantity that ends in this tier."""

    above: Decimal | None = None
    up_to: Decimal | None = None
    amount: Decimal


class PercentageTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`percent` of the value inside the tier, and `flat` once when the tier is reached."""

    above: Decimal | None = None
    up_to: Decimal | None = None
    percent: Decimal = ZERO
    flat: Decimal = ZERO


class CapacityTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `amount` while every named quantity is within its limit; no limits: without bound."""

    amount: Decimal
    limits: Mapping[str, Decimal] = {}


class Cell(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The unit price where every named dimension has the given value; `*` matches any value."""

    match: Mapping[str, str]
    unit: Decimal
    per: Decimal | None = None


class _Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="model"): ...


class Flat(_Model, tag="flat", frozen=True):
    """`amount` once a period, whatever was used."""

    amount: Decimal


class PerUnit(_Model, tag="per_unit", frozen=True):
    """`unit` for every `per` units, in proportion."""

    unit: Decimal
    per: Decimal = ONE


class Graduated(_Model, tag="graduated", frozen=True):
    """Each unit costs what the tier it falls in says.

    `flat_at_zero`: whether the first tier's flat fee is due when nothing was used (default no).
    """

    tiers: tuple[Tier, ...]
    flat_at_zero: bool = False


class Volume(_Model, tag="volume", frozen=True):
    """All units cost what the tier of the period's total says."""

    tiers: tuple[Tier, ...]
    flat_at_zero: bool = False


class Package(_Model, tag="package", frozen=True):
    """`amount` for every started package of `size` units beyond the `free` ones."""

    amount: Decimal
    size: Decimal
    free: Decimal = ZERO


class Stairstep(_Model, tag="stairstep", frozen=True):
    """One amount by where the period's total falls; nothing used costs nothing."""

    tiers: tuple[StairstepTier, ...]


class Percentage(_Model, tag="percentage", frozen=True):
    """`percent` of the value, plus `fixed` for each event; both only beyond what is free.

    `minimum` and `maximum` bound what one event costs. `free_events` and `free_amount` are used up
    by the events in the order of their time; whichever ends first ends both.
    """

    percent: Decimal
    fixed: Decimal = ZERO
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    free_events: int | None = None
    free_amount: Decimal | None = None

    @property
    def reads_each_event(self) -> bool:
        """Whether it needs the value of every event, where sum and count would not do."""
        return (
            self.minimum is not None
            or self.maximum is not None
            or self.free_events is not None
            or (self.free_amount is not None and self.fixed != 0)
        )


class GraduatedPercentage(_Model, tag="graduated_percentage", frozen=True):
    """Each part of the value costs the percentage of the tier it falls in."""

    tiers: tuple[PercentageTier, ...]
    flat_at_zero: bool = False


class Capacity(_Model, tag="capacity", frozen=True):
    """One amount by the first tier whose limits hold for every quantity (by dimension value)."""

    dimension: str
    tiers: tuple[CapacityTier, ...]


class Matrix(_Model, tag="matrix", frozen=True):
    """A unit price by dimensions, for example model by token kind.

    The cell with most exact matches wins; among equals the first in the list. `default` is the
    unit price where no cell matches; without it such usage stays unpriced and is listed.
    """

    dimensions: tuple[str, ...]
    cells: tuple[Cell, ...]
    per: Decimal = ONE
    default: Decimal | None = None


class Dynamic(_Model, tag="dynamic", frozen=True):
    """The metered value is itself an amount of money, carried by the events, times `multiplier`."""

    multiplier: Decimal = ONE


Price = (
    Flat
    | PerUnit
    | Graduated
    | Volume
    | Package
    | Stairstep
    | Percentage
    | GraduatedPercentage
    | Capacity
    | Matrix
    | Dynamic
)


class Adjustments(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes a charge, applied in the order of these fields.

    `included` units are free before rating; `discount_percent` and then `discount_amount` reduce
    the rated amount, never below zero; `maximum` caps it; `minimum` is a commitment, trued up.
    """

    included: Decimal = ZERO
    discount_percent: Decimal = ZERO
    discount_amount: Decimal = ZERO
    maximum: Decimal | None = None
    minimum: Decimal | None = None
