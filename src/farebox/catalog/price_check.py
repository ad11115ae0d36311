"""What is wrong with a price: negative, out of range, or tiers and cells that contradict."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import assert_never

from msgspec import Struct

from farebox.catalog.number import NumberCode, within_limits
from farebox.catalog.price import (
    Adjustments,
    Capacity,
    CapacityTier,
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PercentageTier,
    PerUnit,
    Price,
    Stairstep,
    StairstepTier,
    Tier,
    Volume,
)
from farebox.catalog.problem import Problem
from farebox.catalog.yaml_text import escape_pointer
from farebox.money.rounding import QUANTITY_DECIMALS

HUNDRED = Decimal(100)


class PriceCode(StrEnum):
    """Why a price or an adjustment is refused, in order of precedence."""

    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    NEGATIVE_PRICE = "negative_price"
    NEGATIVE_QUANTITY = "negative_quantity"
    PERCENT_OUT_OF_RANGE = "percent_out_of_range"
    SIZE_NOT_POSITIVE = "size_not_positive"
    PER_NOT_EXACT = "per_not_exact"
    FREE_NOT_POSITIVE = "free_not_positive"
    MINIMUM_ABOVE_MAXIMUM = "minimum_above_maximum"
    NO_TIERS = "no_tiers"
    TIER_GAP = "tier_gap"
    TIER_OVERLAP = "tier_overlap"
    TIERS_NOT_ASCENDING = "tiers_not_ascending"
    LAST_TIER_BOUNDED = "last_tier_bounded"
    NO_DIMENSIONS = "no_dimensions"
    DIMENSION_DUPLICATE = "dimension_duplicate"
    NO_CELLS = "no_cells"
    CELL_UNKNOWN_DIMENSION = "cell_unknown_dimension"
    CELL_DUPLICATE = "cell_duplicate"


_RANK = {code: rank for rank, code in enumerate(PriceCode)}

_AMOUNTS = {"amount", "unit", "flat", "fixed", "minimum", "maximum", "multiplier", "default"}
_AMOUNTS |= {"discount_amount"}
_QUANTITIES = {"free", "included", "limits"}
_PERCENTS = {"percent", "discount_percent"}
_SIZES = {"per", "size"}
_FREE = {"free_events", "free_amount"}


def check_price(price: Price, pointer: str) -> list[Problem]:
    """Return what is wrong with the price at `pointer`, in the order of `PriceCode`.

    Numbers that cannot be compared (NaN) or kept hide what else may be wrong.
    """
    numbers = [*_check_numbers(price, pointer)]
    if any(problem.code is PriceCode.NUMBER_OUT_OF_RANGE for problem in numbers):
        return _sorted(numbers)
    return _sorted([*numbers, *_check_model(price, pointer)])


def check_adjustments(adjustments: Adjustments, pointer: str) -> list[Problem]:
    """Return what is wrong with the adjustments at `pointer`, in the order of `PriceCode`."""
    numbers = [*_check_numbers(adjustments, pointer)]
    if any(problem.code is PriceCode.NUMBER_OUT_OF_RANGE for problem in numbers):
        return _sorted(numbers)
    return _sorted([*numbers, *_check_bounds(adjustments, pointer)])


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: _RANK[PriceCode(problem.code)])


def _check_numbers(value: Struct, pointer: str) -> Iterator[Problem]:
    """Judge every number by what its field means; the names mean the same in all models."""
    for name in value.__struct_fields__:
        item = getattr(value, name)
        place = f"{pointer}/{name}"
        if isinstance(item, Decimal):
            yield from _check_number(name, item, place, _rounds_up(value))
        elif isinstance(item, int) and name in _FREE and item <= 0:
            yield _free_not_positive(place)
        elif name == "limits":
            for key, limit in item.items():
                yield from _check_number(name, limit, f"{place}/{escape_pointer(key)}", False)
        elif name in ("tiers", "cells"):
            for index, part in enumerate(item):
                yield from _check_numbers(part, f"{place}/{index}")


def _rounds_up(value: Struct) -> bool:
    """Whether blocks are counted whole, so that nothing is divided by their size."""
    return isinstance(value, Package) or (isinstance(value, Tier) and value.round_up)


def _check_number(name: str, value: Decimal, place: str, whole: bool) -> Iterator[Problem]:
    if isinstance(within_limits(value), NumberCode):
        message = "numbers are finite, below 10^20 and have at most 18 decimals"
        yield Problem(PriceCode.NUMBER_OUT_OF_RANGE, place, message)
    elif name in _AMOUNTS and value < 0:
        yield Problem(PriceCode.NEGATIVE_PRICE, place, f"{value} is negative")
    elif name in _QUANTITIES and value < 0:
        yield Problem(PriceCode.NEGATIVE_QUANTITY, place, f"{value} is negative")
    elif name in _PERCENTS and not 0 <= value <= HUNDRED:
        message = f"{value} is not between 0 and 100; a dynamic price can multiply by more"
        yield Problem(PriceCode.PERCENT_OUT_OF_RANGE, place, message)
    elif name in _SIZES and value <= 0:
        yield Problem(PriceCode.SIZE_NOT_POSITIVE, place, f"{value} is not above zero")
    elif name in _SIZES and not whole and not _divides_exactly(value):
        message = f"dividing by {value} does not end; use a product of 2s and 5s, such as 1000"
        yield Problem(PriceCode.PER_NOT_EXACT, place, message)
    elif name in _FREE and value <= 0:
        yield _free_not_positive(place)


def _free_not_positive(place: str) -> Problem:
    return Problem(PriceCode.FREE_NOT_POSITIVE, place, "leave it out where nothing is free")


def _divides_exactly(per: Decimal) -> bool:
    """Whether 1/per ends within 18 decimals, so that every amount fits the exact context."""
    scale: int = 10**QUANTITY_DECIMALS
    return (Fraction(scale) / Fraction(per)).denominator == 1


def _check_model(price: Price, pointer: str) -> Iterator[Problem]:
    match price:
        case Graduated() | Volume() | Stairstep() | GraduatedPercentage():
            yield from _check_tiers(price.tiers, f"{pointer}/tiers")
        case Capacity():
            yield from _check_capacity(price, pointer)
        case Matrix():
            yield from _check_matrix(price, pointer)
        case Percentage():
            yield from _check_bounds(price, pointer)
        case Flat() | PerUnit() | Package() | Dynamic():
            return
        case _:
            assert_never(price)


def _check_bounds(value: Percentage | Adjustments, pointer: str) -> Iterator[Problem]:
    if value.minimum is None or value.maximum is None or value.minimum <= value.maximum:
        return
    message = f"the minimum of {value.minimum} is above the maximum of {value.maximum}"
    yield Problem(PriceCode.MINIMUM_ABOVE_MAXIMUM, f"{pointer}/minimum", message)


def _check_tiers(
    tiers: Sequence[Tier | StairstepTier | PercentageTier], pointer: str
) -> Iterator[Problem]:
    if not tiers:
        yield Problem(PriceCode.NO_TIERS, pointer, "there must be at least one tier")
        return
    end: Decimal | None = Decimal(0)
    for index, tier in enumerate(tiers):
        place = f"{pointer}/{index}"
        if end is None:
            message = "the tier before has no up_to and covers this one"
            yield Problem(PriceCode.TIER_OVERLAP, place, message)
            return
        yield from _check_begin(tier.above, end, place)
        if tier.up_to is not None and tier.up_to <= end:
            message = f"ends at {tier.up_to}, not above {end} where it begins"
            yield Problem(PriceCode.TIERS_NOT_ASCENDING, f"{place}/up_to", message)
        end = tier.up_to
    if end is not None:
        message = f"quantities above {end} have no price; leave up_to out of the last tier"
        yield Problem(PriceCode.LAST_TIER_BOUNDED, f"{pointer}/{len(tiers) - 1}/up_to", message)


def _check_begin(above: Decimal | None, end: Decimal, place: str) -> Iterator[Problem]:
    if above is None or above == end:
        return
    if above > end:
        message = f"quantities above {end} and up to {above} have no price"
        yield Problem(PriceCode.TIER_GAP, f"{place}/above", message)
    else:
        message = f"quantities above {above} and up to {end} have two prices"
        yield Problem(PriceCode.TIER_OVERLAP, f"{place}/above", message)


def _check_capacity(price: Capacity, pointer: str) -> Iterator[Problem]:
    if not price.dimension:
        message = "name the dimension whose values the limits are for"
        yield Problem(PriceCode.NO_DIMENSIONS, f"{pointer}/dimension", message)
    if not price.tiers:
        message = "there must be at least one tier"
        yield Problem(PriceCode.NO_TIERS, f"{pointer}/tiers", message)
        return
    before: CapacityTier | None = None
    for index, tier in enumerate(price.tiers):
        place = f"{pointer}/tiers/{index}"
        if before is not None and not before.limits:
            message = "the tier before has no limits and covers this one"
            yield Problem(PriceCode.TIER_OVERLAP, place, message)
            return
        if before is not None:
            yield from _check_limits(before.limits, tier.limits, place)
        before = tier
    if before is not None and before.limits:
        place = f"{pointer}/tiers/{len(price.tiers) - 1}/limits"
        message = "usage beyond these limits has no price; leave limits out of the last tier"
        yield Problem(PriceCode.LAST_TIER_BOUNDED, place, message)


def _check_limits(
    before: Mapping[str, Decimal], limits: Mapping[str, Decimal], place: str
) -> Iterator[Problem]:
    """A later tier allows no less than an earlier one, and a value once unbounded stays so."""
    for key, limit in limits.items():
        if key not in before or limit < before[key]:
            message = f"the tier before allows more of {key}"
            pointer = f"{place}/limits/{escape_pointer(key)}"
            yield Problem(PriceCode.TIERS_NOT_ASCENDING, pointer, message)


def _check_matrix(price: Matrix, pointer: str) -> Iterator[Problem]:
    if not price.dimensions:
        message = "name the dimensions by which the cells differ"
        yield Problem(PriceCode.NO_DIMENSIONS, f"{pointer}/dimensions", message)
    for index, name in enumerate(price.dimensions):
        if name in price.dimensions[:index]:
            place = f"{pointer}/dimensions/{index}"
            yield Problem(PriceCode.DIMENSION_DUPLICATE, place, f"{name} is named twice")
    if not price.cells and price.default is None:
        message = "with neither cells nor a default nothing has a price"
        yield Problem(PriceCode.NO_CELLS, f"{pointer}/cells", message)
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    for index, cell in enumerate(price.cells):
        place = f"{pointer}/cells/{index}/match"
        for name in cell.match:
            if name not in price.dimensions:
                message = f"{name} is not among the dimensions of this price"
                unknown = f"{place}/{escape_pointer(name)}"
                yield Problem(PriceCode.CELL_UNKNOWN_DIMENSION, unknown, message)
        # A dimension left out and one that matches anything say the same.
        fixed = tuple(sorted(item for item in cell.match.items() if item[1] != "*"))
        first = seen.setdefault(fixed, index)
        if first != index:
            message = f"cell {first} matches the same"
            yield Problem(PriceCode.CELL_DUPLICATE, place, message)
