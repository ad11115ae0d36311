"""What a customer may do with a feature: the answer, and where it comes from."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.catalog.plan import Entitlement, EntitlementLimit, Plan


class OriginKind(StrEnum):
    """Through what a customer is entitled, the strongest last; an override stands alone."""

    PLAN = "plan"
    ADD_ON = "add_on"
    PURCHASE = "purchase"
    LICENSE = "license"
    OVERRIDE = "override"


class Override(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a customer was given apart from its plans; `enabled` false takes the feature away.

    With a `limit` it replaces the limits of all plans, in months that turn when the plan's do, or,
    where no plan brings the feature, from when it was made.
    """

    enabled: bool = True
    value: str | None = None
    limit: Decimal | None = None
    unlimited: bool = False
    beyond: EntitlementLimit = EntitlementLimit.HARD
    ends_at: datetime | None = None
    reason: str = ""


class Origin(Struct, frozen=True, kw_only=True):
    """One source of an entitlement: which plan of which subscription, or who gave it."""

    kind: OriginKind
    name: str
    subscription: str | None = None
    limit: Decimal | None = None
    ends_at: datetime | None = None


class EntitledKind(StrEnum):
    """What an entitlement says: yes or no, a value, or how much."""

    BOOLEAN = "boolean"
    STATIC = "static"
    METERED = "metered"


class Source(Struct, frozen=True, kw_only=True):
    """What one subscription, purchase or override says of a feature."""

    origin: Origin
    entitlement: Entitlement


class Entitled(Struct, frozen=True, kw_only=True):
    """What all sources come to.

    limits: of the sources with one. beyond: the mildest of what the sources allow past the limit;
    price: of the first that says one for that, plans before add-ons.
    """

    feature: str
    kind: EntitledKind
    enabled: bool
    value: str | None = None
    unlimited: bool = False
    beyond: EntitlementLimit = EntitlementLimit.HARD
    price: Decimal | None = None
    origins: tuple[Origin, ...] = ()
    sources: tuple[Source, ...] = ()


_MILDER = (EntitlementLimit.HARD, EntitlementLimit.SOFT, EntitlementLimit.OVERAGE)


def sources_of(plan: Plan, subscription: str, ends_at: datetime | None) -> list[Source]:
    """Return what a plan says of each of its features."""
    kind = OriginKind.ADD_ON if plan.add_on else OriginKind.PLAN
    listed = [Entitlement(feature=key) for key in plan.features]
    return [
        Source(
            origin=Origin(
                kind=kind,
                name=plan.key,
                subscription=subscription,
                limit=one.limit,
                ends_at=ends_at,
            ),
            entitlement=one,
        )
        for one in [*listed, *plan.entitlements]
    ]


def combine(feature: str, sources: Sequence[Source], override: Override | None) -> Entitled:
    """Return the effective entitlement: an override alone, else all other sources.

    Limits add up; one source without a limit makes it unlimited. Of values, that of the last source
    counts, add-ons after plans and a license after both.
    """
    if override is not None:
        given = Entitlement(
            feature=feature,
            value=override.value,
            limit=override.limit,
            unlimited=override.unlimited,
            beyond=override.beyond,
        )
        origin = Origin(
            kind=OriginKind.OVERRIDE,
            name=override.reason,
            limit=override.limit,
            ends_at=override.ends_at,
        )
        sources = [Source(origin=origin, entitlement=given)] if override.enabled else []
        if not override.enabled:
            kind = EntitledKind.BOOLEAN
            return Entitled(feature=feature, kind=kind, enabled=False, origins=(origin,))
    order = list(OriginKind)
    ranked = sorted(sources, key=lambda one: order.index(one.origin.kind))
    said = [one.entitlement for one in ranked]
    values = [one.value for one in said if one.value is not None]
    metered = any(one.limit is not None or one.unlimited for one in said)
    beyond = max((one.beyond for one in said), key=_MILDER.index, default=EntitlementLimit.HARD)
    prices = [one.price for one in said if one.beyond is beyond and one.price is not None]
    return Entitled(
        feature=feature,
        kind=EntitledKind.METERED
        if metered
        else EntitledKind.STATIC
        if values
        else EntitledKind.BOOLEAN,
        enabled=bool(said),
        value=values[-1] if values else None,
        unlimited=any(one.unlimited for one in said),
        beyond=beyond,
        price=prices[0] if prices else None,
        origins=tuple(one.origin for one in ranked),
        sources=tuple(ranked),
    )
