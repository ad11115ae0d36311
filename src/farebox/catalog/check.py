"""What a catalog says about itself: every reference leads somewhere, nothing is said twice.

Each object is checked against a `Catalog`, an index of all that will stand once it is stored. The
object itself may be in it or not: what has the same key is taken for its former self.
"""

from farebox.catalog.code import CatalogCode
from farebox.catalog.customer import Customer, Partner, Subscription
from farebox.catalog.document import Document, value_problems
from farebox.catalog.index import Catalog, catalog_of, with_users
from farebox.catalog.meter import Alias, Meter
from farebox.catalog.meter_check import check_meter
from farebox.catalog.plan import Feature, Interval, Plan, RateCard
from farebox.catalog.price_check import check_adjustments, check_price
from farebox.catalog.problem import Problem
from farebox.catalog.rule import (
    card_and_currency,
    cards_and_plan,
    country,
    currency,
    custom_unit,
    duplicate_keys,
    entitlements,
    fees,
    in_order,
    key,
    one_default,
    period_of,
    reference,
    single_uses,
    subjects,
    timezone,
    twice,
    usage,
)

INTERVAL_COUNT_MAX = {
    Interval.DAY: 1095,
    Interval.WEEK: 156,
    Interval.MONTH: 36,
    Interval.QUARTER: 12,
    Interval.YEAR: 3,
}
"""No billing period is longer than three years."""


def check_document(document: Document, known: Document) -> list[Problem]:
    """Return what is wrong with `document` where `known` is stored, in document order.

    The problems of one object come in the order of `CatalogCode`, those of meters and prices last.
    """
    whole = catalog_of(known, document)
    # A clash between two objects of the document is reported once, at the one that refers.
    catalog = with_users(whole, document)
    problems: list[Problem] = []
    for index, meter in enumerate(document.meters):
        problems += check_meter_object(meter, f"/meters/{index}")
    sharing = _sharing(document, known)
    for index, feature in enumerate(document.features):
        before = sharing.get(feature.key)
        problems += check_feature(feature, catalog, f"/features/{index}", before=before)
    for index, alias in enumerate(document.aliases):
        problems += check_alias(alias, catalog, f"/aliases/{index}")
    for index, card in enumerate(document.rate_cards):
        problems += check_rate_card(card, catalog, f"/rate_cards/{index}")
    for index, plan in enumerate(document.plans):
        problems += check_plan(plan, catalog, f"/plans/{index}")
    for index, partner in enumerate(document.partners):
        problems += check_partner(partner, catalog, f"/partners/{index}")
    for index, customer in enumerate(document.customers):
        problems += check_customer(customer, catalog, f"/customers/{index}")
    for index, subscription in enumerate(document.subscriptions):
        problems += check_subscription(subscription, catalog, f"/subscriptions/{index}")
    return [*duplicate_keys(document), *problems]


def check_meter_object(meter: Meter, pointer: str = "") -> list[Problem]:
    """Return what is wrong with a meter: its key, and all that `check_meter` knows."""
    return [*key(meter.key, pointer), *check_meter(meter, pointer)]


def check_feature(
    feature: Feature, catalog: Catalog, pointer: str = "", *, before: str | None = None
) -> list[Problem]:
    """Return what is wrong with a feature. before: another that its meter uses up already."""
    problems = [*key(feature.key, pointer)]
    if feature.meter is not None:
        place = f"{pointer}/meter"
        problems += reference(feature.meter, catalog.meters, "meter", place)
        code = CatalogCode.FEATURE_METER_UNFIT
        problems += single_uses(catalog.meters.get(feature.meter), code, place)
        if before is not None:
            message = f"meter {feature.meter} uses up feature {before} already"
            problems.append(Problem(CatalogCode.FEATURE_METER_TAKEN, place, message))
    return in_order(problems)


def _sharing(document: Document, known: Document) -> dict[str, str]:
    """Return the features that would join another on its meter, and that other.

    Those that stood so before this was refused may go on.
    """
    stored = {one.key: one.meter for one in known.features}
    after = {**stored, **{one.key: one.meter for one in document.features}}
    taken: dict[str | None, str] = {}
    for name, meter in stored.items():
        if after[name] == meter:
            taken.setdefault(meter, name)
    return {
        one.key: first
        for one in document.features
        if one.meter is not None and stored.get(one.key) != one.meter
        if (first := taken.setdefault(one.meter, one.key)) != one.key
    }


def check_alias(alias: Alias, catalog: Catalog, pointer: str = "") -> list[Problem]:
    """Return what is wrong with an alias: empty, or part of a circle of aliases."""
    for name in ("dimension", "alias", "canonical"):
        if not getattr(alias, name):
            message = "dimension, alias and canonical are not empty"
            return [Problem(CatalogCode.ALIAS_INVALID, f"{pointer}/{name}", message)]
    seen = [alias.alias]
    value: str | None = alias.canonical
    while value is not None and value not in seen:
        seen.append(value)
        value = catalog.aliases.get((alias.dimension, value))
    if value != alias.alias:
        return []
    message = f"the alias leads back to itself: {' -> '.join([*seen, value])}"
    return [Problem(CatalogCode.ALIAS_CYCLE, f"{pointer}/canonical", message)]


def check_rate_card(card: RateCard, catalog: Catalog, pointer: str = "") -> list[Problem]:
    """Return what is wrong with a rate card version; its prices' problems come last."""
    problems = [*key(card.key, pointer)]
    if card.custom_unit:
        problems += custom_unit(card, catalog, pointer)
    else:
        problems += currency(card.currency, pointer)
    problems += value_problems(card.effective_from, f"{pointer}/effective_from")
    for plan in catalog.plans_with.get(card.key, ()):
        if plan.currency != card.currency:
            message = f"plan {plan.key} names this rate card and charges in {plan.currency}"
            problems.append(Problem(CatalogCode.CURRENCY_MISMATCH, f"{pointer}/currency", message))
    problems += one_default(card, catalog, pointer)
    problems += twice(
        [rate.meter for rate in card.rates],
        CatalogCode.RATE_DUPLICATE,
        lambda index: f"{pointer}/rates/{index}/meter",
    )
    prices: list[Problem] = []
    for index, rate in enumerate(card.rates):
        prices += check_price(rate.price, f"{pointer}/rates/{index}/price")
        problems += usage(rate, catalog, f"{pointer}/rates/{index}")
    return in_order(problems) + prices


def check_plan(plan: Plan, catalog: Catalog, pointer: str = "") -> list[Problem]:
    """Return what is wrong with a plan version; its prices' problems come last."""
    problems = [*key(plan.key, pointer), *currency(plan.currency, pointer)]
    unkept = [*value_problems(plan.minimum, f"{pointer}/minimum")]
    unkept += value_problems(plan.fees, f"{pointer}/fees")
    if unkept:
        return in_order([*unkept, *problems])
    for index, feature in enumerate(plan.features):
        place = f"{pointer}/features/{index}"
        problems += reference(feature, catalog.features, "feature", place)
    problems += entitlements(plan, catalog, pointer)
    problems += card_and_currency(plan.rate_card, plan.currency, catalog, pointer)
    if not 1 <= plan.interval_count <= INTERVAL_COUNT_MAX[plan.interval]:
        message = f"a period is 1 to {INTERVAL_COUNT_MAX[plan.interval]} times {plan.interval}"
        place = f"{pointer}/interval_count"
        problems.append(Problem(CatalogCode.INTERVAL_COUNT_OUT_OF_RANGE, place, message))
    if plan.minimum is not None and plan.minimum < 0:
        message = "a minimum commitment is not negative"
        problems.append(Problem(CatalogCode.NEGATIVE_MINIMUM, f"{pointer}/minimum", message))
    problems += fees(plan.fees, f"{pointer}/fees")
    problems += twice(
        [charge.key for charge in plan.charges],
        CatalogCode.CHARGE_DUPLICATE,
        lambda index: f"{pointer}/charges/{index}/key",
    )
    prices: list[Problem] = []
    for index, charge in enumerate(plan.charges):
        place = f"{pointer}/charges/{index}"
        problems += [*key(charge.key, place), *usage(charge, catalog, place)]
        if charge.price is not None:
            prices += check_price(charge.price, f"{place}/price")
        prices += check_adjustments(charge.adjustments, f"{place}/adjustments")
    return in_order(problems) + prices


def check_partner(partner: Partner, catalog: Catalog, pointer: str = "") -> list[Problem]:
    """Return what is wrong with a partner."""
    return in_order(
        [*key(partner.key, pointer), *card_and_currency(partner.rate_card, None, catalog, pointer)]
    )


def check_customer(customer: Customer, catalog: Catalog, pointer: str = "") -> list[Problem]:
    """Return what is wrong with a customer, its standing subscriptions considered."""
    problems = [*key(customer.key, pointer), *timezone(customer.timezone, pointer)]
    problems += card_and_currency(customer.rate_card, None, catalog, pointer)
    if customer.partner is not None:
        place = f"{pointer}/partner"
        problems += reference(customer.partner, catalog.partners, "partner", place)
    if customer.parent == customer.key:
        message = "a customer is no part of itself"
        problems.append(Problem(CatalogCode.CUSTOMER_CYCLE, f"{pointer}/parent", message))
    problems += country(customer.country, f"{pointer}/country")
    for subscription in catalog.subscriptions_of.get(customer.key, ()):
        plan = catalog.plans.get(subscription.plan)
        if plan is not None:
            problems += cards_and_plan(customer, plan, catalog, f"{pointer}/rate_card")
    problems += subjects(customer, catalog, pointer)
    return in_order(problems)


def check_subscription(
    subscription: Subscription, catalog: Catalog, pointer: str = ""
) -> list[Problem]:
    """Return what is wrong with a subscription."""
    problems = [*key(subscription.key, pointer)]
    unkept = [*value_problems(subscription, pointer)]
    if unkept:
        return in_order([*unkept, *problems])
    problems += reference(subscription.plan, catalog.plans, "plan", f"{pointer}/plan")
    place = f"{pointer}/customer"
    problems += reference(subscription.customer, catalog.customers, "customer", place)
    plan = catalog.plans.get(subscription.plan)
    customer = catalog.customers.get(subscription.customer)
    if plan is not None and customer is not None:
        problems += cards_and_plan(customer, plan, catalog, f"{pointer}/plan")
    if subscription.timezone is not None:
        problems += timezone(subscription.timezone, pointer)
    problems += period_of(subscription, pointer)
    if subscription.anchor_day is not None and not 1 <= subscription.anchor_day <= 31:
        message = "an anchor day is a day of the month, 1 to 31"
        place = f"{pointer}/anchor_day"
        problems.append(Problem(CatalogCode.ANCHOR_DAY_OUT_OF_RANGE, place, message))
    if subscription.plan_version is not None and subscription.plan_version < 1:
        message = "plan versions are numbered from 1"
        place = f"{pointer}/plan_version"
        problems.append(Problem(CatalogCode.PLAN_VERSION_OUT_OF_RANGE, place, message))
    return in_order(problems)
