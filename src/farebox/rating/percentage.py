"""Percentage: a share of the value, plus a fixed fee for each event, beyond what is free.

The n-th event of the period, when R was the value before it, has the free part
min(R + value, free_amount) - min(R, free_amount) while n is within free_events; afterwards none.
It is free altogether, of the fixed fee too, when that is all of its value. The rule looks at n and
R only, so that a period rates the same however it is cut into segments.
"""

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct

from farebox.catalog.price import Percentage
from farebox.rating.rated import ONE, Part, PartKind, fee
from farebox.rating.usage import ZERO, Usage

HUNDRED = Decimal(100)


def rate_percentage(
    price: Percentage, usages: Sequence[Usage], before: Decimal, events_before: int
) -> list[Part]:
    """Return rows for the free value, the share, the fixed fees and what per-event bounds change.

    Usages are taken one after the other, the values of each in their order.
    """
    if not price.reads_each_event:
        return _rate_sum(price, usages, before)
    sums = _Sums()
    number, running = events_before, before
    for usage in usages:
        for value in usage.values:
            number += 1
            sums = _add_event(price, sums, number, running, value)
            running += value
    return _rows(price, sums)


class _Sums(Struct, frozen=True):
    free: Decimal = ZERO
    paid: Decimal = ZERO
    events: int = 0
    raised: Decimal = ZERO
    cut: Decimal = ZERO


def _rate_sum(price: Percentage, usages: Sequence[Usage], before: Decimal) -> list[Part]:
    quantity = sum((usage.quantity for usage in usages), ZERO)
    after = before + quantity
    limit = price.free_amount
    free = ZERO if limit is None else min(after, limit) - min(before, limit)
    events = sum(usage.events for usage in usages)
    return _rows(price, _Sums(free=free, paid=quantity - free, events=events))


def _add_event(
    price: Percentage, sums: _Sums, number: int, running: Decimal, value: Decimal
) -> _Sums:
    free, covered = _free_part(price, number, running, value)
    if covered:
        return _Sums(sums.free + free, sums.paid, sums.events, sums.raised, sums.cut)
    paid = value - free
    sign = -1 if value < 0 else 1
    cost = sign * paid * price.percent / HUNDRED + price.fixed
    bounded = cost
    if price.minimum is not None and bounded < price.minimum:
        bounded = price.minimum
    if price.maximum is not None and bounded > price.maximum:
        bounded = price.maximum
    change = sign * (bounded - cost)
    raised, cut = (change, ZERO) if bounded > cost else (ZERO, change)
    return _Sums(
        sums.free + free, sums.paid + paid, sums.events + sign, sums.raised + raised, sums.cut + cut
    )


def _free_part(
    price: Percentage, number: int, running: Decimal, value: Decimal
) -> tuple[Decimal, bool]:
    """Return the value that is free, and whether the event is free altogether."""
    if price.free_events is None and price.free_amount is None:
        return ZERO, False
    if price.free_events is not None and number > price.free_events:
        return ZERO, False
    if price.free_amount is None:
        return value, True
    after = running + value
    free = min(after, price.free_amount) - min(running, price.free_amount)
    return free, free == value and after <= price.free_amount


def _rows(price: Percentage, sums: _Sums) -> list[Part]:
    parts: list[Part] = []
    if sums.free:
        parts.append(Part(PartKind.FREE, "free value", sums.free, ZERO, ZERO))
    if sums.paid:
        amount = sums.paid * price.percent / HUNDRED
        parts.append(
            Part(PartKind.PERCENT, "share of value", sums.paid, amount, price.percent, HUNDRED)
        )
    if sums.events and price.fixed:
        parts.append(fee(PartKind.FIXED_PER_EVENT, "events", price.fixed, Decimal(sums.events)))
    if sums.raised:
        parts.append(Part(PartKind.EVENT_MINIMUM, "raised to minimum", ZERO, sums.raised, per=ONE))
    if sums.cut:
        parts.append(Part(PartKind.EVENT_MAXIMUM, "cut to maximum", ZERO, sums.cut, per=ONE))
    return parts
