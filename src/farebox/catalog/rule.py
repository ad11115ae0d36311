"""The rules that several objects of the catalog share, each yielding the problems it finds."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from zoneinfo import available_timezones

from farebox.catalog.code import CatalogCode
from farebox.catalog.country import COUNTRIES
from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.document import Document
from farebox.catalog.index import Catalog
from farebox.catalog.meter import SINGLE_USES, Meter
from farebox.catalog.plan import Charge, EntitlementLimit, Fee, Plan, Rate, RateCard
from farebox.catalog.price import Capacity, Dynamic, Matrix, Percentage, PerUnit, Price
from farebox.catalog.problem import Problem
from farebox.money.amount import EXPONENTS

KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}")
UNIT = re.compile(r"[A-Za-z0-9._:/ -]{1,64}")
"""What a pool holds is called like this."""
SUBJECT_LENGTH_MAX = 256

_RANK = {code: rank for rank, code in enumerate(CatalogCode)}


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems of one object in the order of `CatalogCode`."""
    return sorted(problems, key=lambda problem: _RANK[CatalogCode(problem.code)])


def key(text: str, pointer: str) -> Iterator[Problem]:
    """A key is the caller's own name of an object, safe in a URL and in a file name."""
    if KEY.fullmatch(text) is None:
        message = f"{text[:150]!r} is not a key: 1 to 128 of the characters A-Z a-z 0-9 . _ : -"
        yield Problem(CatalogCode.KEY_INVALID, f"{pointer}/key", message)


def reference(text: str, known: Collection[str], noun: str, pointer: str) -> Iterator[Problem]:
    """A reference leads to an object of the document or to one that is stored."""
    if text not in known:
        code = CatalogCode(f"unknown_{noun}")
        yield Problem(code, pointer, f"there is no {noun.replace('_', ' ')} {text!r}")


def twice(
    names: Sequence[str], code: CatalogCode, place: Callable[[int], str]
) -> Iterator[Problem]:
    """No name occurs twice; every occurrence after the first is a problem at `place`."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Problem(code, place(index), f"{name!r} is already there")
        seen.add(name)


def duplicate_keys(document: Document) -> Iterator[Problem]:
    """No key occurs twice in a section, no alias twice in a dimension."""
    sections: tuple[tuple[str, Iterable[str]], ...] = (
        ("meters", (meter.key for meter in document.meters)),
        ("features", (feature.key for feature in document.features)),
        ("rate_cards", (card.key for card in document.rate_cards)),
        ("plans", (plan.key for plan in document.plans)),
        ("partners", (partner.key for partner in document.partners)),
        ("customers", (customer.key for customer in document.customers)),
        ("subscriptions", (subscription.key for subscription in document.subscriptions)),
    )
    for section, keys in sections:
        yield from twice(
            list(keys),
            CatalogCode.KEY_DUPLICATE,
            lambda index, section=section: f"/{section}/{index}/key",  # type: ignore[misc]
        )
    # U+0000 occurs in no text of a catalog, so that the pair is one name.
    pairs = [f"{alias.dimension}\0{alias.alias}" for alias in document.aliases]
    for problem in twice(pairs, CatalogCode.ALIAS_DUPLICATE, lambda index: f"/aliases/{index}"):
        message = "the same alias of the same dimension is already there"
        yield Problem(problem.code, f"{problem.pointer}/alias", message)


def currency(code: str, pointer: str) -> Iterator[Problem]:
    """A currency is an active ISO 4217 code with a minor unit."""
    if code not in EXPONENTS:
        message = f"{code!r} is not a currency of ISO 4217 with a minor unit"
        yield Problem(CatalogCode.UNKNOWN_CURRENCY, f"{pointer}/currency", message)


def custom_unit(card: RateCard, catalog: Catalog, pointer: str) -> Iterator[Problem]:
    """A card in a custom unit says what each use burns, whatever was used before it."""
    code = CatalogCode.CUSTOM_UNIT_CONTRADICTORY
    if UNIT.fullmatch(card.currency) is None:
        message = f"{card.currency[:100]!r} is no unit: 1 to 64 letters, digits and . _ : / -"
        yield Problem(code, f"{pointer}/currency", message)
    if card.default:
        message = "a card in a custom unit prices no invoice, so it is not the default"
        yield Problem(code, f"{pointer}/default", message)
    for index, rate in enumerate(card.rates):
        place = f"{pointer}/rates/{index}"
        if not isinstance(rate.price, PerUnit | Matrix | Dynamic):
            message = (
                "what a use burns is per_unit, matrix or dynamic: it does not depend on others"
            )
            yield Problem(code, f"{place}/price", message)
        meter = catalog.meters.get(rate.meter)
        yield from single_uses(meter, code, f"{place}/meter")


def single_uses(meter: Meter | None, code: CatalogCode, pointer: str) -> Iterator[Problem]:
    """What burns a pool is read by a meter of which each single use says what it comes to."""
    if meter is not None and meter.aggregation not in SINGLE_USES:
        message = "only meters that count or sum say what a single use comes to"
        yield Problem(code, pointer, message)


def card_and_currency(
    card: str | None, currency: str | None, catalog: Catalog, pointer: str
) -> Iterator[Problem]:
    """A rate card exists and, for who charges in `currency`, has it."""
    if card is None:
        return
    place = f"{pointer}/rate_card"
    yield from reference(card, catalog.rate_cards, "rate_card", place)
    found = catalog.rate_cards.get(card)
    if found is not None and found.custom_unit:
        message = f"rate card {card} is in {found.currency}, a custom unit; only pools name it"
        yield Problem(CatalogCode.CUSTOM_UNIT_CONTRADICTORY, place, message)
    elif found is not None and currency not in (None, found.currency):
        message = f"rate card {card} is in {found.currency}, the plan charges in {currency}"
        yield Problem(CatalogCode.CURRENCY_MISMATCH, place, message)


def cards_and_plan(
    customer: Customer, plan: Plan, catalog: Catalog, pointer: str
) -> Iterator[Problem]:
    """The rate cards that go before the plan's own have the currency in which the plan charges."""
    partner = catalog.partners.get(customer.partner or "")
    for owner, name in (
        ("customer", customer.rate_card),
        ("partner", partner.rate_card if partner else None),
    ):
        card = catalog.rate_cards.get(name or "")
        if card is not None and card.currency != plan.currency:
            message = (
                f"the {owner}'s rate card {card.key} is in {card.currency}, "
                f"plan {plan.key} charges in {plan.currency}"
            )
            yield Problem(CatalogCode.CURRENCY_MISMATCH, pointer, message)


def entitlements(plan: Plan, catalog: Catalog, pointer: str) -> Iterator[Problem]:
    """A plan speaks of each feature once, and says one thing of it."""
    code = CatalogCode.ENTITLEMENT_CONTRADICTORY
    for index, one in enumerate(plan.entitlements):
        place = f"{pointer}/entitlements/{index}"
        yield from reference(one.feature, catalog.features, "feature", f"{place}/feature")
        if sum((one.value is not None, one.limit is not None, one.unlimited)) > 1:
            yield Problem(code, place, "one of value, limit and unlimited says what it is")
        if one.limit is not None and one.limit < 0:
            yield Problem(code, f"{place}/limit", "a limit is not negative")
        priced = one.beyond is EntitlementLimit.OVERAGE
        if priced != (one.price is not None) or (priced and one.limit is None):
            message = "use beyond a limit has a price if it is overage, and only then"
            yield Problem(code, f"{place}/price", message)
        if one.price is not None and one.price < 0:
            yield Problem(code, f"{place}/price", "a price is not negative")
        if not 0 <= one.rollover_percent <= 100:
            yield Problem(code, f"{place}/rollover_percent", "a percentage is 0 to 100")
    yield from twice(
        [*plan.features, *(one.feature for one in plan.entitlements)],
        CatalogCode.ENTITLEMENT_DUPLICATE,
        lambda index: (
            f"{pointer}/entitlements/{index - len(plan.features)}/feature"
            if index >= len(plan.features)
            else f"{pointer}/features/{index}"
        ),
    )


def one_default(card: RateCard, catalog: Catalog, pointer: str) -> Iterator[Problem]:
    """At most one rate card is the default."""
    if not card.default:
        return
    others = {other.key for other in catalog.rate_cards.values() if other.default} - {card.key}
    if others:
        message = f"{', '.join(sorted(others))} is the default already"
        yield Problem(CatalogCode.TWO_DEFAULTS, f"{pointer}/default", message)


def fees(items: Sequence[Fee], pointer: str) -> Iterator[Problem]:
    """Fees have keys of their own and are not negative; a reduction is an adjustment."""
    yield from twice(
        [fee.key for fee in items],
        CatalogCode.FEE_DUPLICATE,
        lambda index: f"{pointer}/{index}/key",
    )
    for index, fee in enumerate(items):
        yield from key(fee.key, f"{pointer}/{index}")
        if fee.amount < 0:
            message = f"the fee {fee.key} is negative; a reduction is an adjustment of a charge"
            yield Problem(CatalogCode.NEGATIVE_FEE, f"{pointer}/{index}/amount", message)


def usage(item: Rate | Charge, catalog: Catalog, pointer: str) -> Iterator[Problem]:
    """The meter exists and gives what the price asks: dimensions, and single readings."""
    yield from reference(item.meter, catalog.meters, "meter", f"{pointer}/meter")
    meter = catalog.meters.get(item.meter)
    if meter is None or item.price is None:
        return
    if needs_events(item.price) and not meter.per_event:
        message = f"terms for each event need per_event: true on meter {meter.key}"
        yield Problem(CatalogCode.PER_EVENT_REQUIRED, f"{pointer}/price", message)
    known = {*meter.dimensions, *((meter.spread.dimension,) if meter.spread else ())}
    for name, place in _dimensions(item.price):
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            message = f"meter {meter.key} has no dimension {name!r} (it has {there})"
            yield Problem(CatalogCode.DIMENSION_UNKNOWN, f"{pointer}/price/{place}", message)


def timezone(name: str, pointer: str) -> Iterator[Problem]:
    """A time zone is a name of the IANA database."""
    if name not in _timezones():
        message = f"{name!r} is not a time zone of the IANA database, like Europe/Berlin"
        yield Problem(CatalogCode.UNKNOWN_TIMEZONE, f"{pointer}/timezone", message)


def country(code: str, pointer: str) -> Iterator[Problem]:
    """A country is an ISO 3166-1 alpha-2 code, or empty."""
    if code and code not in COUNTRIES:
        message = f"{code!r} is not a country code of two capitals (ISO 3166-1)"
        yield Problem(CatalogCode.COUNTRY_INVALID, pointer, message)


def subjects(customer: Customer, catalog: Catalog, pointer: str) -> Iterator[Problem]:
    """A subject belongs to one customer; every customer's key is a subject of its own."""
    seen: set[str] = set()
    for index, subject in enumerate(customer.subjects):
        place = f"{pointer}/subjects/{index}"
        if not 1 <= len(subject) <= SUBJECT_LENGTH_MAX:
            message = f"a subject has 1 to {SUBJECT_LENGTH_MAX} characters"
            yield Problem(CatalogCode.SUBJECT_INVALID, place, message)
        others = catalog.subject_owners.get(subject, set()) - {customer.key}
        if subject in seen or others:
            owner = ", ".join(sorted(others)) or "this customer, above"
            message = f"{subject!r} is already a subject of {owner}"
            yield Problem(CatalogCode.SUBJECT_DUPLICATE, place, message)
        seen.add(subject)
    others = catalog.subject_owners.get(customer.key, set()) - {customer.key}
    if others:
        message = f"{customer.key!r} is already a subject of {', '.join(sorted(others))}"
        yield Problem(CatalogCode.SUBJECT_DUPLICATE, f"{pointer}/key", message)


def period_of(subscription: Subscription, pointer: str) -> Iterator[Problem]:
    """A subscription ends after it starts."""
    if subscription.end is not None and subscription.end <= subscription.start:
        message = "the end is the first instant that is not covered, so it comes after the start"
        code = CatalogCode.SUBSCRIPTION_ENDS_BEFORE_START
        yield Problem(code, f"{pointer}/end", message)


def needs_events(price: Price) -> bool:
    """Whether the price needs the reading of every event, which only `per_event` meters keep."""
    return isinstance(price, Percentage) and price.reads_each_event


def _dimensions(price: Price) -> Iterator[tuple[str, str]]:
    match price:
        case Matrix(dimensions=names):
            for index, name in enumerate(names):
                yield name, f"dimensions/{index}"
        case Capacity(dimension=name):
            yield name, "dimension"
        case _:
            return


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())
