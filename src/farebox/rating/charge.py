"""A charge of one billing period: its lines, exact and rounded, and what had no price."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from farebox.catalog.price import (
    Adjustments,
    Capacity,
    Flat,
    Graduated,
    GraduatedPercentage,
    Price,
    Stairstep,
    Volume,
)
from farebox.money.amount import to_currency
from farebox.money.rounding import exact, exact_sum
from farebox.rating.adjust import (
    Applied,
    cap,
    take_discount,
    take_included,
    take_percent,
    true_up,
)
from farebox.rating.rate import rate_in_context, split_unpriced
from farebox.rating.rated import Part, Rated, UnpricedReason
from farebox.rating.usage import ZERO, Usage, resolve_aliases, total_quantity


class RateCardVersion(Struct, frozen=True):
    """The rate card version a price was taken from."""

    key: str
    version: int


class Segment(Struct, frozen=True, kw_only=True):
    """A stretch of the period with one price; none: nobody set a price for it.

    start, end: half open; none where time plays no part (a quote).
    """

    price: Price | None
    usages: tuple[Usage, ...]
    start: datetime | None = None
    end: datetime | None = None
    rate_card: RateCardVersion | None = None


class LineKind(StrEnum):
    """What a line charges for."""

    USAGE = "usage"
    MINIMUM = "minimum"


class Breakdown(Struct, frozen=True):
    """A quantity before included units were taken off, by dimension values."""

    quantity: Decimal
    dimensions: Mapping[str, str]
    original: Mapping[str, str]
    events: int


class ChargeLine(Struct, frozen=True, kw_only=True):
    """One line: `exact` is `rated` and the amounts of `applied`; `amount` is it, rounded half up.

    quantity: what was rated, after included units.
    breakdown: what was used, by dimension values; it sums to `quantity` plus included units.
    """

    charge: str
    kind: LineKind
    start: datetime | None
    end: datetime | None
    rate_card: RateCardVersion | None
    quantity: Decimal
    rated: Decimal
    parts: tuple[Part, ...]
    applied: tuple[Applied, ...]
    exact: Decimal
    amount: Decimal
    breakdown: tuple[Breakdown, ...] = ()


class UnpricedUsage(Struct, frozen=True, kw_only=True):
    """Usage of a segment that no price covers, to be listed with its reason."""

    charge: str
    start: datetime | None
    end: datetime | None
    usage: Usage
    reason: UnpricedReason


class ChargeResult(Struct, frozen=True):
    """All that a charge comes to in a period."""

    lines: tuple[ChargeLine, ...]
    unpriced: tuple[UnpricedUsage, ...]

    @property
    def amount(self) -> Decimal:
        """The sum of the rounded lines, which is what the charge costs."""
        return exact_sum(line.amount for line in self.lines)


def rate_charge(
    charge: str,
    segments: Sequence[Segment],
    adjustments: Adjustments,
    currency: str,
    aliases: Mapping[tuple[str, str], str] | None = None,
) -> ChargeResult:
    """Rate one charge of one period; `segments` are all of its stretches in the order of time.

    Tiers, packages and free amounts continue over the segments; volume and stairstep choose by
    the period's total, capacity by all usage of the period. A fee due once a period is charged by
    the first segment with usage among those of the same price model, or their first one. Usage
    without a price counts nowhere and is returned. A segment without usage and without amount
    gives no line. Raises UnknownCurrency.
    """
    with exact():
        stretches, unpriced = _prepare(charge, segments, adjustments.included, aliases or {})
        rated = _rate_stretches(stretches)
        lines = _adjust(charge, stretches, rated, adjustments, currency)
        if adjustments.minimum is not None:
            lines += _minimum(charge, segments, lines, adjustments.minimum, currency)
        return ChargeResult(tuple(lines), tuple(unpriced))


class _Stretch(Struct, frozen=True):
    """A segment that has a price, with what is to be rated and what was included."""

    segment: Segment
    price: Price
    used: tuple[Usage, ...]
    usages: tuple[Usage, ...]
    included: Applied | None


def _prepare(
    charge: str,
    segments: Sequence[Segment],
    included: Decimal,
    aliases: Mapping[tuple[str, str], str],
) -> tuple[list[_Stretch], list[UnpricedUsage]]:
    stretches: list[_Stretch] = []
    unpriced: list[UnpricedUsage] = []
    for segment in segments:
        usages = resolve_aliases(segment.usages, aliases)
        priced, without = split_unpriced(segment.price, usages)
        unpriced += [
            UnpricedUsage(
                charge=charge,
                start=segment.start,
                end=segment.end,
                usage=item.usage,
                reason=item.reason,
            )
            for item in without
        ]
        if segment.price is not None:
            stretches.append(_Stretch(segment, segment.price, priced, priced, None))
    return (_include(stretches, included) if included else stretches), unpriced


def _include(stretches: list[_Stretch], included: Decimal) -> list[_Stretch]:
    """Use the included units up in the order of time, no more than the period's net quantity."""
    net = sum((total_quantity(stretch.used) for stretch in stretches), ZERO)
    left = min(included, max(net, ZERO))
    result: list[_Stretch] = []
    for stretch in stretches:
        usages, applied = take_included(stretch.used, left)
        if applied is not None:
            left += applied.quantity
        result.append(replace(stretch, usages=usages, included=applied))
    return result


def _rate_stretches(stretches: Sequence[_Stretch]) -> list[Rated]:
    quantities = [total_quantity(stretch.usages) for stretch in stretches]
    total = sum(quantities, ZERO)
    period = [usage for stretch in stretches for usage in stretch.usages]
    payers = _fee_payers(stretches)
    before, events_before = ZERO, 0
    result: list[Rated] = []
    for position, stretch in enumerate(stretches):
        result.append(
            rate_in_context(
                stretch.price,
                stretch.usages,
                before=before,
                total=total,
                events_before=events_before,
                fees=position in payers,
                period=period,
            )
        )
        before += quantities[position]
        events_before += sum(usage.events for usage in stretch.usages)
    return result


def _fee_payers(stretches: Sequence[_Stretch]) -> set[int]:
    """Return which stretches charge a fee due once a period: one for each price model."""
    payers: dict[type[Price], int] = {}
    for position, stretch in enumerate(stretches):
        if not _owes_once(stretch.price):
            continue
        model = type(stretch.price)
        known = payers.setdefault(model, position)
        if not stretches[known].used and stretch.used:
            payers[model] = position
    return set(payers.values())


def _owes_once(price: Price) -> bool:
    if isinstance(price, Graduated | GraduatedPercentage):
        return price.flat_at_zero
    return isinstance(price, Flat | Volume | Stairstep | Capacity)


def _adjust(
    charge: str,
    stretches: Sequence[_Stretch],
    rated: Sequence[Rated],
    adjustments: Adjustments,
    currency: str,
) -> list[ChargeLine]:
    shares = [take_percent(each.amount, adjustments.discount_percent) for each in rated]
    net = [_plus(each.amount, share) for each, share in zip(rated, shares, strict=True)]
    left = min(adjustments.discount_amount, sum(net, ZERO))
    limit = None if adjustments.maximum is None else to_currency(adjustments.maximum, currency)
    billed = ZERO
    lines: list[ChargeLine] = []
    for stretch, each, share, amount in zip(stretches, rated, shares, net, strict=True):
        discount = take_discount(amount, left, adjustments.discount_amount)
        left = _plus(left, discount)
        discounted = _plus(amount, discount)
        capped = None if limit is None else cap(discounted, billed, limit)
        if stretch.used or each.amount:
            steps = (stretch.included, share, discount, capped)
            line = _usage_line(charge, stretch, each, steps, _plus(discounted, capped), currency)
            billed += line.amount
            lines.append(line)
    return lines


def _plus(amount: Decimal, applied: Applied | None) -> Decimal:
    return amount if applied is None else amount + applied.amount


def _usage_line(
    charge: str,
    stretch: _Stretch,
    rated: Rated,
    steps: Sequence[Applied | None],
    exact: Decimal,
    currency: str,
) -> ChargeLine:
    return ChargeLine(
        charge=charge,
        kind=LineKind.USAGE,
        start=stretch.segment.start,
        end=stretch.segment.end,
        rate_card=stretch.segment.rate_card,
        quantity=total_quantity(stretch.usages),
        rated=rated.amount,
        parts=rated.parts,
        applied=tuple(step for step in steps if step is not None),
        exact=exact,
        amount=to_currency(exact, currency),
        breakdown=tuple(
            Breakdown(usage.quantity, usage.dimensions, usage.original, usage.events)
            for usage in stretch.used
        ),
    )


def _minimum(
    charge: str,
    segments: Sequence[Segment],
    lines: Sequence[ChargeLine],
    minimum: Decimal,
    currency: str,
) -> list[ChargeLine]:
    billed = sum((line.amount for line in lines), ZERO)
    applied = true_up(billed, to_currency(minimum, currency))
    if applied is None:
        return []
    line = ChargeLine(
        charge=charge,
        kind=LineKind.MINIMUM,
        start=segments[0].start if segments else None,
        end=segments[-1].end if segments else None,
        rate_card=None,
        quantity=ZERO,
        rated=ZERO,
        parts=(),
        applied=(applied,),
        exact=applied.amount,
        amount=applied.amount,
    )
    return [line]
