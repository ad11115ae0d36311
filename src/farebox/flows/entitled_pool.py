"""What the pool of a metered feature should be: its terms and its recurring grants, as sold."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from farebox.catalog.entitled import Entitled, EntitledKind, OriginKind
from farebox.catalog.plan import EntitlementLimit, Plan
from farebox.flows.renew_entitlement import OVERRIDE, SUBSCRIPTION
from farebox.ledger.administer import NewRecurrence
from farebox.ledger.grant import Rollover
from farebox.ledger.policy import Limit, LimitMode, Renewal
from farebox.ledger.pool import PoolDefinition, Terms
from farebox.period.calendar import day_at
from farebox.period.cycle import Unit
from farebox.postgres.customer import SubscriptionRow

Running = Mapping[str, tuple[SubscriptionRow, Plan]]
"""The subscriptions of a customer that run at an instant, by key."""

_MODES = {
    EntitlementLimit.HARD: LimitMode.HARD,
    EntitlementLimit.SOFT: LimitMode.SOFT,
    EntitlementLimit.OVERAGE: LimitMode.OVERAGE,
}


class Sold(Struct, frozen=True):
    """What a customer has at an instant: by which subscriptions, and what that comes to."""

    at: datetime
    running: Running
    entitled: Mapping[str, Entitled]

    def metered(self, feature: str) -> Entitled | None:
        """Return what it has of a feature of which so much may be used, none if nothing."""
        one = self.entitled.get(feature)
        return one if one is not None and one.kind is EntitledKind.METERED else None


def definition_of(
    definition: PoolDefinition, entitled: Entitled | None, running: Running
) -> PoolDefinition:
    """Return the pool as it should be: its limit, and on whose invoice its overage stands."""
    limit, subscription, renewal = Limit(), None, definition.policy.renewal
    plans = [plan for _, (_, plan) in sorted(running.items())]
    currency = plans[0].currency if plans else definition.policy.currency
    if entitled is not None:
        limit = Limit(mode=_MODES[entitled.beyond], price=entitled.price)
        if entitled.unlimited:
            limit = Limit(mode=LimitMode.UNLIMITED)
        subscription = owner_of(entitled, running)
        if subscription is not None:
            row, plan = running[subscription]
            currency, renewal = plan.currency, _renewal(row, plan)
        elif any(one.kind is OriginKind.OVERRIDE for one in entitled.origins):
            before = _goes_before(entitled.feature, running)
            renewal = Renewal(anchor_day=renewal.anchor_day) if before is None else _months(before)
    policy = msgspec.structs.replace(
        definition.policy, limit=limit, currency=currency, renewal=renewal
    )
    return msgspec.structs.replace(definition, policy=policy, subscription=subscription)


def owner_of(entitled: Entitled | None, running: Running) -> str | None:
    """Return the subscription that pays, none where none entitles: the one that says the price."""
    if entitled is None:
        return None
    brings = [one for one in entitled.sources if one.origin.subscription in running]
    said = [one for one in brings if one.entitlement.beyond is entitled.beyond]
    prices = [one for one in said if one.entitlement.price is not None]
    return next((one.origin.subscription for one in (*prices, *brings)), None)


def plans_since(sold: Sold, feature: str) -> datetime | None:
    """Return when the first of the plans began that entitle to a feature, none where none does.

    Where all of them began at one instant they took the place of what was before: what is used
    counts anew from then on.
    """
    entitled = sold.metered(feature)
    starts = []
    for one in () if entitled is None else entitled.sources:
        key = one.origin.subscription
        if one.origin.kind is OriginKind.PLAN and key in sold.running:
            starts.append(sold.running[key or ""][0].starts_at)
    return min(starts, default=None)


def _renewal(row: SubscriptionRow, plan: Plan) -> Renewal:
    anchor = row.anchor_day or _local_day(row)
    return Renewal(unit=Unit(plan.interval.value), count=plan.interval_count, anchor_day=anchor)


def _months(row: SubscriptionRow) -> Renewal:
    """Return the months of an override, which turn when those of a subscription do."""
    return Renewal(anchor_day=row.anchor_day or _local_day(row))


def _local_day(row: SubscriptionRow) -> int:
    return day_at(row.starts_at, row.timezone).day


def recurrences_of(sold: Sold, feature: str) -> dict[str, NewRecurrence]:
    """Return the grants of a feature that should recur, by whose they are."""
    entitled, running = sold.metered(feature), sold.running
    wanted: dict[str, NewRecurrence] = {}
    for source in () if entitled is None else entitled.sources:
        limit = source.entitlement.limit
        if limit is None or limit == 0:
            continue
        percent = source.entitlement.rollover_percent
        rollover = Rollover(percent=percent) if percent else None
        subscription = source.origin.subscription
        if subscription is None:
            asked = NewRecurrence(
                key=OVERRIDE, amount=limit, starts_at=sold.at, ends_at=source.origin.ends_at
            )
            wanted[OVERRIDE] = _in_step(asked, feature, running)
            continue
        row, plan = running[subscription]
        key = f"{SUBSCRIPTION}{subscription}"
        wanted[key] = NewRecurrence(
            key=key,
            amount=limit,
            renewal=_renewal(row, plan),
            timezone=row.timezone,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            rollover=rollover,
        )
    return wanted


def _in_step(asked: NewRecurrence, feature: str, running: Running) -> NewRecurrence:
    """Let the months of an override turn when those of the plan that it goes before do."""
    row = _goes_before(feature, running)
    if row is None:
        return asked
    return msgspec.structs.replace(
        asked, renewal=_months(row), timezone=row.timezone, starts_at=row.starts_at
    )


def _goes_before(feature: str, running: Running) -> SubscriptionRow | None:
    """Return the subscription whose limit of a feature an override replaces, a plan's first."""
    brings = (
        row
        for row, plan in sorted(running.values(), key=lambda one: one[1].add_on)
        if any(
            one.feature == feature and (one.limit is not None or one.unlimited)
            for one in plan.entitlements
        )
    )
    return next(brings, None)


def upcoming_of(sold: Sold, then: Sold | None, feature: str) -> dict[str, NewRecurrence]:
    """Return the grants that will recur once a subscription begins that has not, by whose."""
    coming = {} if then is None else recurrences_of(then, feature)
    return {
        key: one
        for key, one in coming.items()
        if one.starts_at is not None and key != OVERRIDE and one.starts_at > sold.at
    }


def terms_of(
    definition: PoolDefinition, sold: Sold, then: Sold | None, feature: str
) -> Terms | None:
    """Return what of a pool changes by itself when a subscription begins or ends, next.

    Where an override ends by then, what takes its place depends on what will have been used: it
    comes with the next sync.
    """
    now = sold.metered(feature)
    overrides = () if now is None else now.origins
    if then is None or any(
        one.kind is OriginKind.OVERRIDE and one.ends_at is not None and one.ends_at <= then.at
        for one in overrides
    ):
        return None
    policy = definition_of(definition, then.metered(feature), then.running).policy
    terms = Terms(
        at=then.at,
        limit=policy.limit,
        currency=policy.currency,
        renewal=policy.renewal,
        anew=plans_since(then, feature) == then.at,
    )
    return terms if terms.anew or policy != definition.policy else None
