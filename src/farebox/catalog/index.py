"""The catalog by key: what a reference leads to, and who refers to what."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from farebox.catalog.customer import Customer, Partner, Subscription
from farebox.catalog.document import Document
from farebox.catalog.meter import Meter
from farebox.catalog.plan import Feature, Plan, RateCard


@dataclass(frozen=True, slots=True)
class Catalog:
    """All objects by key, as they will stand; made by `catalog_of`."""

    meters: Mapping[str, Meter] = field(default_factory=dict)
    features: Mapping[str, Feature] = field(default_factory=dict)
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    rate_cards: Mapping[str, RateCard] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    partners: Mapping[str, Partner] = field(default_factory=dict)
    customers: Mapping[str, Customer] = field(default_factory=dict)
    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)
    subject_owners: dict[str, set[str]] = field(default_factory=dict)
    subscriptions_of: Mapping[str, list[Subscription]] = field(default_factory=dict)
    plans_with: Mapping[str, list[Plan]] = field(default_factory=dict)


def catalog_of(*documents: Document) -> Catalog:
    """Return the index of all documents; of two objects with one key the later stands."""
    catalog = Catalog(
        meters={meter.key: meter for each in documents for meter in each.meters},
        features={feature.key: feature for each in documents for feature in each.features},
        aliases={
            (alias.dimension, alias.alias): alias.canonical
            for each in documents
            for alias in each.aliases
        },
        rate_cards={card.key: card for each in documents for card in each.rate_cards},
        plans={plan.key: plan for each in documents for plan in each.plans},
        partners={partner.key: partner for each in documents for partner in each.partners},
        customers={customer.key: customer for each in documents for customer in each.customers},
        subscriptions={item.key: item for each in documents for item in each.subscriptions},
    )
    owners: dict[str, set[str]] = defaultdict(set)
    for customer in catalog.customers.values():
        for subject in (customer.key, *customer.subjects):
            owners[subject].add(customer.key)
    return with_users(replace(catalog, subject_owners=dict(owners)), Document())


def with_users(catalog: Catalog, without: Document) -> Catalog:
    """Index who uses a customer or a rate card, leaving out what `without` mentions."""
    plans, subscriptions = defaultdict(list), defaultdict(list)
    left_out = {plan.key for plan in without.plans}
    for plan in catalog.plans.values():
        if plan.rate_card is not None and plan.key not in left_out:
            plans[plan.rate_card].append(plan)
    left_out = {subscription.key for subscription in without.subscriptions}
    for subscription in catalog.subscriptions.values():
        if subscription.key not in left_out:
            subscriptions[subscription.customer].append(subscription)
    return replace(catalog, plans_with=dict(plans), subscriptions_of=dict(subscriptions))
