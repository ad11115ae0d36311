"""What would cover a need: the cheapest plan or top-up, with its price."""

import math
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from msgspec import Struct

from farebox.catalog.plan import Entitlement, Feature, Interval, Plan


class CoverKind(StrEnum):
    """What may be bought."""

    TOP_UP = "top_up"
    PLAN = "plan"


class Cover(Struct, frozen=True, kw_only=True):
    """Something to buy that covers a need; `price` is each period's for a plan, once for a top-up.

    units: what it brings each period, or once; none: without bound. interval: how long the period
    of a plan is, times `interval_count`.
    """

    kind: CoverKind
    key: str
    name: str
    price: Decimal
    currency: str
    units: Decimal | None
    interval: Interval | None = None
    interval_count: int | None = None


_PERIODS_A_YEAR = {
    Interval.DAY: 365,
    Interval.WEEK: 52,
    Interval.MONTH: 12,
    Interval.QUARTER: 4,
    Interval.YEAR: 1,
}


def cheapest(
    feature: Feature,
    plans: Iterable[Plan],
    *,
    missing: Decimal | None,
    needed: Decimal | None,
    currency: str | None,
    plain: bool = False,
) -> list[Cover]:
    """Return the cheapest top-up and the plan that is cheapest by the year, the lower price first.

    missing: the units that are wanted and not there; a top-up may be bought several times. needed:
    what the whole period needs; a plan covers if its limit is at least that. Where one is none,
    nothing of its kind would cover. currency: of the customer's plans; what is sold in another is
    left out. plain: whether a plan does in which the feature is on without being counted.
    """
    top_ups = [] if missing is None else _top_up(feature, missing, currency)
    found = top_ups if needed is None else top_ups + _plan(feature, plans, needed, currency, plain)
    return sorted(found, key=lambda one: (one.price, one.kind, one.key))


def _top_up(feature: Feature, missing: Decimal, currency: str | None) -> list[Cover]:
    covers = [
        Cover(
            kind=CoverKind.TOP_UP,
            key=feature.key,
            name=f"{count} x {one.units:f} {feature.unit}",
            price=one.price * count,
            currency=one.currency,
            units=one.units * count,
        )
        for one in feature.top_ups
        if currency in (None, one.currency) and one.units > 0
        for count in [max(1, math.ceil(Fraction(missing) / Fraction(one.units)))]
    ]
    return [min(covers, key=lambda one: (one.price, one.name))] if covers else []


def _plan(
    feature: Feature, plans: Iterable[Plan], needed: Decimal, currency: str | None, plain: bool
) -> list[Cover]:
    covers: list[tuple[Fraction, str, Cover]] = []
    for plan in plans:
        said = _entitlement(plan, feature.key)
        if said is None or plan.add_on or currency not in (None, plan.currency):
            continue
        if said.limit is None and not said.unlimited and not plain:
            continue
        if said.limit is None or said.limit >= needed:
            cover = Cover(
                kind=CoverKind.PLAN,
                key=plan.key,
                name=plan.name,
                price=sum((fee.amount for fee in plan.fees), Decimal(0)),
                currency=plan.currency,
                units=said.limit,
                interval=plan.interval,
                interval_count=plan.interval_count,
            )
            periods = Fraction(_PERIODS_A_YEAR[plan.interval], plan.interval_count)
            covers.append((Fraction(cover.price) * periods, plan.key, cover))
    return [min(covers)[-1]] if covers else []


def _entitlement(plan: Plan, feature: str) -> Entitlement | None:
    listed = Entitlement(feature=feature) if feature in plan.features else None
    return next((one for one in plan.entitlements if one.feature == feature), listed)
