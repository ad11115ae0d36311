"""Adjustments: what changes a charge beside its price, in one stated order, each with its reason.

Included units are taken off before rating. Then, over the lines of the period in the order of
time: the percentage discount on every line; the discount amount, until it or the period's amount
is used up; the maximum, against the money already billed by earlier lines. What the lines then
lack to the minimum is a line of its own.
"""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from farebox.catalog.number import plain_text
from farebox.rating.usage import ZERO, Usage, total_quantity

HUNDRED = Decimal(100)


class AppliedKind(StrEnum):
    """The adjustments, in the order in which they apply."""

    INCLUDED = "included"
    DISCOUNT_PERCENT = "discount_percent"
    DISCOUNT_AMOUNT = "discount_amount"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"


class Applied(Struct, frozen=True):
    """One adjustment on one line: what it added to the amount, or to the quantity (included)."""

    kind: AppliedKind
    amount: Decimal
    reason: str
    quantity: Decimal = ZERO


def take_included(
    usages: Sequence[Usage], included: Decimal
) -> tuple[tuple[Usage, ...], Applied | None]:
    """Take up to `included` units off the usages and say what was taken.

    Usages give way in the order of their dimensions, compared as (name, value) pairs, so that the
    result does not depend on the order of rows; negative ones are left alone, and no more is taken
    than their sum. Inside a usage the earliest events give way first; an event that is taken whole
    is gone, with its fixed fee.
    """
    left = available = min(included, max(total_quantity(usages), ZERO))
    if not available:
        return tuple(usages), None
    taken: dict[int, Usage] = {}
    for position in sorted(range(len(usages)), key=lambda at: _order(usages[at])):
        usage = usages[position]
        part = min(max(usage.quantity, ZERO), left)
        left -= part
        taken[position] = _reduce(usage, part) if part else usage
    rest = tuple(taken[position] for position in range(len(usages)))
    reason = f"{plain_text(available)} of {plain_text(included)} included units used"
    return rest, Applied(AppliedKind.INCLUDED, ZERO, reason, -available)


def _order(usage: Usage) -> list[tuple[str, str]]:
    return sorted(usage.dimensions.items())


def _reduce(usage: Usage, part: Decimal) -> Usage:
    if not usage.values:
        return replace(usage, quantity=usage.quantity - part)
    left = part
    values: list[Decimal] = []
    for value in usage.values:
        taken = min(max(value, ZERO), left)
        left -= taken
        if value > taken or taken == 0:
            values.append(value - taken)
    return replace(usage, quantity=usage.quantity - part, events=len(values), values=tuple(values))


def take_percent(amount: Decimal, percent: Decimal) -> Applied | None:
    """Return the share of the amount that is taken off; of a negative amount too."""
    if not percent or not amount:
        return None
    reason = f"discount of {plain_text(percent)} %"
    return Applied(AppliedKind.DISCOUNT_PERCENT, -amount * percent / HUNDRED, reason)


def take_discount(amount: Decimal, left: Decimal, whole: Decimal) -> Applied | None:
    """Return what is taken off of the `left` part of a discount of `whole`, at most the amount."""
    taken = min(left, amount)
    if taken <= 0:
        return None
    reason = f"discount of {plain_text(whole)} in the period"
    return Applied(AppliedKind.DISCOUNT_AMOUNT, -taken, reason)


def cap(amount: Decimal, billed: Decimal, maximum: Decimal) -> Applied | None:
    """Return what the maximum takes off, where earlier lines of the period came to `billed`."""
    if billed + amount <= maximum:
        return None
    reason = f"maximum of {plain_text(maximum)} a period, {plain_text(billed)} billed before"
    return Applied(AppliedKind.MAXIMUM, maximum - billed - amount, reason)


def true_up(billed: Decimal, minimum: Decimal) -> Applied | None:
    """Return what the period's lines lack to the minimum."""
    if billed >= minimum:
        return None
    reason = f"minimum of {plain_text(minimum)} a period, usage came to {plain_text(billed)}"
    return Applied(AppliedKind.MINIMUM, minimum - billed, reason)
