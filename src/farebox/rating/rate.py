"""Rating: what usage costs under a price, exact to the last digit and explained row by row."""

from collections.abc import Sequence
from decimal import Decimal
from typing import assert_never

from farebox.catalog.price import (
    Capacity,
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Price,
    Stairstep,
    Volume,
)
from farebox.money.rounding import exact
from farebox.rating.capacity import rate_capacity
from farebox.rating.dynamic import rate_dynamic
from farebox.rating.flat import rate_flat
from farebox.rating.graduated import rate_graduated
from farebox.rating.graduated_percentage import rate_graduated_percentage
from farebox.rating.matrix import has_cell, rate_matrix
from farebox.rating.package import rate_package
from farebox.rating.per_unit import rate_per_unit
from farebox.rating.percentage import rate_percentage
from farebox.rating.rated import Rated, Unpriced, UnpricedReason, sum_parts
from farebox.rating.stairstep import rate_stairstep
from farebox.rating.usage import ZERO, Usage, total_quantity
from farebox.rating.volume import rate_volume


def rate(
    price: Price,
    usages: Sequence[Usage],
    *,
    before: Decimal = ZERO,
    total: Decimal | None = None,
    events_before: int = 0,
    fees: bool = True,
    period: Sequence[Usage] | None = None,
) -> Rated:
    """Return the exact amount for usage in one stretch of a billing period.

    before, events_before: what the same charge rated earlier in the period; tiers, packages and
        free amounts go on from there.
    total: the period's whole quantity, by which volume and stairstep choose (default: before
        and this usage together).
    fees: whether fees that are due once a period fall here (one stretch of a period says yes).
    period: all usage of the period, by which capacity chooses (default: this usage).

    Negative quantities are corrections: a running total below zero costs the mirror image of the
    same total above zero.
    """
    with exact():
        return rate_in_context(
            price,
            usages,
            before=before,
            total=total,
            events_before=events_before,
            fees=fees,
            period=period,
        )


def rate_in_context(
    price: Price,
    usages: Sequence[Usage],
    *,
    before: Decimal,
    total: Decimal | None,
    events_before: int,
    fees: bool,
    period: Sequence[Usage] | None,
) -> Rated:
    """Do what `rate` says, for callers that already run under the exact context."""
    if isinstance(price, Matrix):
        return sum_parts(*rate_matrix(price, usages))
    if isinstance(price, Percentage):
        usages, unpriced = split_unpriced(price, usages)
        return sum_parts(rate_percentage(price, usages, before, events_before), unpriced)
    quantity = total_quantity(usages)
    whole = before + quantity if total is None else total
    match price:
        case Flat():
            parts = rate_flat(price, fees)
        case PerUnit():
            parts = rate_per_unit(price, quantity)
        case Graduated():
            parts = rate_graduated(price, before, quantity, fees)
        case Volume():
            parts = rate_volume(price, before, quantity, whole, fees)
        case Package():
            parts = rate_package(price, before, quantity)
        case Stairstep():
            parts = rate_stairstep(price, quantity, whole, fees)
        case GraduatedPercentage():
            parts = rate_graduated_percentage(price, before, quantity, fees)
        case Capacity():
            parts = rate_capacity(price, usages if period is None else period, fees)
        case Dynamic():
            parts = rate_dynamic(price, quantity)
        case _:
            assert_never(price)
    return sum_parts(parts)


def split_unpriced(
    price: Price | None, usages: Sequence[Usage]
) -> tuple[tuple[Usage, ...], tuple[Unpriced, ...]]:
    """Part the usages into those that the price can rate and those it cannot, with the reason."""
    if price is not None and not isinstance(price, Matrix | Percentage):
        return tuple(usages), ()
    priced: list[Usage] = []
    unpriced: list[Unpriced] = []
    for usage in usages:
        reason = _unpriced_reason(price, usage)
        if reason is None:
            priced.append(usage)
        else:
            unpriced.append(Unpriced(usage, reason))
    return tuple(priced), tuple(unpriced)


def _unpriced_reason(price: Price | None, usage: Usage) -> UnpricedReason | None:
    if price is None:
        return UnpricedReason.NO_RATE
    if isinstance(price, Matrix) and not has_cell(price, usage):
        return UnpricedReason.NO_CELL
    if isinstance(price, Percentage) and price.reads_each_event and not _has_values(usage):
        return UnpricedReason.NO_VALUES
    return None


def _has_values(usage: Usage) -> bool:
    return len(usage.values) == usage.events and (usage.events > 0 or usage.quantity == 0)
