"""Every refusal of a catalog, as the text that a person would have written."""

import importlib.resources
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from farebox.catalog.check import (
    check_customer,
    check_document,
    check_plan,
    check_rate_card,
    check_subscription,
)
from farebox.catalog.code import CatalogCode
from farebox.catalog.country import COUNTRIES
from farebox.catalog.document import Document, read_document
from farebox.catalog.index import catalog_of

STORED = """
meters:
- {key: tokens, event_type: llm.request, aggregation: sum, value: $.tokens,
   dimensions: {model: $.model}}
- {key: payments, event_type: payment, aggregation: sum, value: $.amount, per_event: true}
features:
- {key: chat, meter: tokens}
rate_cards:
- {key: list, currency: USD, default: true}
- {key: list-eur, currency: EUR}
plans:
- {key: team, currency: USD, rate_card: list}
- {key: team-eur, currency: EUR, rate_card: list-eur}
partners:
- {key: harbor, rate_card: list}
- {key: hafen, rate_card: list-eur}
customers:
- {key: northwind, subjects: [ada, grace]}
- {key: euro, rate_card: list-eur}
subscriptions:
- {key: northwind-team, customer: northwind, plan: team, start: 2026-01-01T00:00:00Z}
"""

ROWS = [
    (CatalogCode.MALFORMED, "", "plans: [", "/plans/0"),
    (CatalogCode.UNKNOWN_FIELD, "plans", "{key: a, currency: USD, colour: red}", "/plans/0/colour"),
    (CatalogCode.MISSING_FIELD, "plans", "{key: a}", "/plans/0/currency"),
    (
        CatalogCode.WRONG_TYPE,
        "plans",
        "{key: a, currency: USD, fees: [{key: base, amount: a lot}]}",
        "/plans/0/fees/0/amount",
    ),
    (
        CatalogCode.NUMBER_OUT_OF_RANGE,
        "plans",
        "{key: a, currency: USD, minimum: 1e20}",
        "/plans/0/minimum",
    ),
    (
        CatalogCode.OFFSET_MISSING,
        "subscriptions",
        "{key: a, customer: northwind, plan: team, start: 2026-01-01T00:00:00}",
        "/subscriptions/0/start",
    ),
    (
        CatalogCode.TIME_OUT_OF_RANGE,
        "subscriptions",
        "{key: a, customer: northwind, plan: team, start: 3026-01-01T00:00:00Z}",
        "/subscriptions/0/start",
    ),
    (CatalogCode.KEY_INVALID, "partners", "{key: Harbor Resale}", "/partners/0/key"),
    (CatalogCode.KEY_DUPLICATE, "partners", "{key: a}\n- {key: a}", "/partners/1/key"),
    (CatalogCode.UNKNOWN_METER, "features", "{key: a, meter: tokns}", "/features/0/meter"),
    (
        CatalogCode.UNKNOWN_FEATURE,
        "plans",
        "{key: a, currency: USD, features: [chat, chess]}",
        "/plans/0/features/1",
    ),
    (
        CatalogCode.UNKNOWN_RATE_CARD,
        "customers",
        "{key: a, rate_card: lists}",
        "/customers/0/rate_card",
    ),
    (
        CatalogCode.UNKNOWN_PLAN,
        "subscriptions",
        "{key: a, customer: northwind, plan: teem, start: 2026-01-01T00:00:00Z}",
        "/subscriptions/0/plan",
    ),
    (
        CatalogCode.UNKNOWN_CUSTOMER,
        "subscriptions",
        "{key: a, customer: southwind, plan: team, start: 2026-01-01T00:00:00Z}",
        "/subscriptions/0/customer",
    ),
    (CatalogCode.UNKNOWN_PARTNER, "customers", "{key: a, partner: port}", "/customers/0/partner"),
    (CatalogCode.CUSTOMER_CYCLE, "customers", "{key: a, parent: a}", "/customers/0/parent"),
    (CatalogCode.UNKNOWN_CURRENCY, "plans", "{key: a, currency: USX}", "/plans/0/currency"),
    (
        CatalogCode.CUSTOM_UNIT_CONTRADICTORY,
        "rate_cards",
        """
  key: a
  currency: credit
  custom_unit: true
  rates:
  - {meter: tokens, price: {model: flat, amount: 1}}""",
        "/rate_cards/0/rates/0/price",
    ),
    (
        CatalogCode.CURRENCY_MISMATCH,
        "plans",
        "{key: a, currency: EUR, rate_card: list}",
        "/plans/0/rate_card",
    ),
    (
        CatalogCode.TWO_DEFAULTS,
        "rate_cards",
        "{key: a, currency: USD, default: true}",
        "/rate_cards/0/default",
    ),
    (
        CatalogCode.RATE_DUPLICATE,
        "rate_cards",
        """
  key: a
  currency: USD
  rates:
  - {meter: tokens, price: {model: per_unit, unit: 1}}
  - {meter: tokens, price: {model: per_unit, unit: 2}}""",
        "/rate_cards/0/rates/1/meter",
    ),
    (
        CatalogCode.CHARGE_DUPLICATE,
        "plans",
        "{key: a, currency: USD, charges: [{key: x, meter: tokens}, {key: x, meter: payments}]}",
        "/plans/0/charges/1/key",
    ),
    (
        CatalogCode.FEE_DUPLICATE,
        "plans",
        "{key: a, currency: USD, fees: [{key: x, amount: 1}, {key: x, amount: 2}]}",
        "/plans/0/fees/1/key",
    ),
    (
        CatalogCode.ENTITLEMENT_DUPLICATE,
        "plans",
        "{key: a, currency: USD, features: [chat], entitlements: [{feature: chat}]}",
        "/plans/0/entitlements/0/feature",
    ),
    (
        CatalogCode.ENTITLEMENT_CONTRADICTORY,
        "plans",
        "{key: a, currency: USD, entitlements: [{feature: chat, limit: 5, unlimited: true}]}",
        "/plans/0/entitlements/0",
    ),
    (
        CatalogCode.NEGATIVE_FEE,
        "plans",
        "{key: a, currency: USD, fees: [{key: base, amount: -0.01}]}",
        "/plans/0/fees/0/amount",
    ),
    (
        CatalogCode.NEGATIVE_MINIMUM,
        "plans",
        "{key: a, currency: USD, minimum: -1}",
        "/plans/0/minimum",
    ),
    (
        CatalogCode.INTERVAL_COUNT_OUT_OF_RANGE,
        "plans",
        "{key: a, currency: USD, interval: year, interval_count: 4}",
        "/plans/0/interval_count",
    ),
    (
        CatalogCode.UNKNOWN_TIMEZONE,
        "customers",
        "{key: a, timezone: Europe/Bonn}",
        "/customers/0/timezone",
    ),
    (CatalogCode.COUNTRY_INVALID, "customers", "{key: a, country: UK}", "/customers/0/country"),
    (
        CatalogCode.SUBJECT_INVALID,
        "customers",
        "{key: a, subjects: ['']}",
        "/customers/0/subjects/0",
    ),
    (
        CatalogCode.SUBJECT_DUPLICATE,
        "customers",
        "{key: a, subjects: [alan, ada]}",
        "/customers/0/subjects/1",
    ),
    (
        CatalogCode.ALIAS_INVALID,
        "aliases",
        "{dimension: model, alias: '', canonical: gpt-4o}",
        "/aliases/0/alias",
    ),
    (
        CatalogCode.ALIAS_DUPLICATE,
        "aliases",
        """{dimension: model, alias: a, canonical: b}
- {dimension: region, alias: a, canonical: b}
- {dimension: model, alias: a, canonical: c}""",
        "/aliases/2/alias",
    ),
    (
        CatalogCode.ALIAS_CYCLE,
        "aliases",
        "{dimension: model, alias: a, canonical: a}",
        "/aliases/0/canonical",
    ),
    (
        CatalogCode.SUBSCRIPTION_ENDS_BEFORE_START,
        "subscriptions",
        "{key: a, customer: northwind, plan: team, start: 2026-01-01T00:00:00Z,"
        " end: 2026-01-01T01:00:00+01:00}",
        "/subscriptions/0/end",
    ),
    (
        CatalogCode.ANCHOR_DAY_OUT_OF_RANGE,
        "subscriptions",
        "{key: a, customer: northwind, plan: team, start: 2026-01-01T00:00:00Z, anchor_day: 32}",
        "/subscriptions/0/anchor_day",
    ),
    (
        CatalogCode.PLAN_VERSION_OUT_OF_RANGE,
        "subscriptions",
        "{key: a, customer: northwind, plan: team, start: 2026-01-01T00:00:00Z, plan_version: 0}",
        "/subscriptions/0/plan_version",
    ),
    (
        CatalogCode.PER_EVENT_REQUIRED,
        "rate_cards",
        """
  key: a
  currency: USD
  rates:
  - {meter: payments, price: {model: percentage, percent: 1, fixed: 0.3}}
  - {meter: tokens, price: {model: percentage, percent: 1, minimum: 0.3}}""",
        "/rate_cards/0/rates/1/price",
    ),
    (
        CatalogCode.DIMENSION_UNKNOWN,
        "plans",
        """
  key: a
  currency: USD
  charges:
  - key: tokens
    meter: tokens
    price: {model: matrix, dimensions: [model, region], default: 1, cells: []}""",
        "/plans/0/charges/0/price/dimensions/1",
    ),
]


def read(text: str) -> Document:
    document = read_document(text.encode())
    assert isinstance(document, Document), document
    return document


def problems_of(text: str, known: str = STORED) -> list[tuple[str, str]]:
    document = read_document(text.encode())
    if isinstance(document, Document):
        assert [] == check_document(read(known), Document())
        document = check_document(document, read(known))
    assert all(problem.message for problem in document)
    return [(str(problem.code), problem.pointer) for problem in document]


@pytest.mark.parametrize(
    ("code", "section", "text", "pointer"), ROWS, ids=[str(r[0]) for r in ROWS]
)
def test_each_fault_has_its_code_and_its_place(
    code: CatalogCode, section: str, text: str, pointer: str
) -> None:
    written = f"{section}:\n- {text}\n" if section else text
    assert [(str(code), pointer)] == problems_of(written)


def test_every_code_has_its_row_in_order() -> None:
    assert list(CatalogCode) == [row[0] for row in ROWS]


def test_every_code_has_its_heading_in_the_docs_in_order() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text("utf-8")
    headings = [line[4:] for line in docs.splitlines() if line.startswith("### ")]
    assert list(CatalogCode) == headings


def test_the_example_in_the_docs_is_a_catalog_without_fault() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text("utf-8")
    text = docs.split("```yaml\n")[1].split("```")[0]
    assert [] == check_document(read(text), Document())


def test_a_document_may_refer_to_what_is_stored_and_to_itself() -> None:
    text = """
rate_cards:
- {key: partner-list, currency: USD, rates: [{meter: tokens, price: {model: per_unit, unit: 1}}]}
partners:
- {key: harbor, rate_card: partner-list}
customers:
- {key: new, partner: harbor, subjects: [alan]}
subscriptions:
- {key: new-team, customer: new, plan: team, start: 2026-01-01T00:00:00Z}
"""
    assert [] == problems_of(text)


def test_what_is_stored_may_be_applied_again() -> None:
    assert [] == check_document(read(STORED), read(STORED))


def test_faults_of_meters_and_prices_are_found_too() -> None:
    text = """
meters:
- {key: m, event_type: t, aggregation: sum}
rate_cards:
- {key: a, currency: USD, rates: [{meter: tokens, price: {model: per_unit, unit: -1}}]}
"""
    assert [
        ("value_required", "/meters/0/value"),
        ("negative_price", "/rate_cards/0/rates/0/price/unit"),
    ] == problems_of(text)


def test_one_object_tells_its_faults_in_the_order_of_the_codes() -> None:
    text = "customers:\n- {key: a b, timezone: Mars, country: XX, partner: p, subjects: [ada]}\n"
    codes = [code for code, _ in problems_of(text)]
    assert [
        "key_invalid",
        "unknown_partner",
        "unknown_timezone",
        "country_invalid",
        "subject_duplicate",
    ] == codes


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (
            "subscriptions:\n- {key: a, customer: euro, plan: team, start: 2026-01-01T00:00:00Z}\n",
            "/subscriptions/0/plan",
        ),
        ("customers:\n- {key: northwind, rate_card: list-eur}\n", "/customers/0/rate_card"),
        ("customers:\n- {key: northwind, partner: hafen}\n", "/customers/0/rate_card"),
        ("rate_cards:\n- {key: list-eur, currency: GBP}\n", "/rate_cards/0/currency"),
    ],
)
def test_no_door_lets_in_a_card_of_another_currency(text: str, pointer: str) -> None:
    assert [("currency_mismatch", pointer)] == problems_of(text)


def test_a_circle_of_aliases_is_found_through_those_that_are_stored() -> None:
    stored = f"{STORED}aliases:\n- {{dimension: model, alias: b, canonical: c}}\n"
    text = """aliases:
- {dimension: model, alias: c, canonical: a}
- {dimension: model, alias: a, canonical: b}
- {dimension: model, alias: z, canonical: a}
- {dimension: region, alias: c, canonical: b}
"""
    expected = [("alias_cycle", f"/aliases/{index}/canonical") for index in (0, 1)]
    assert expected == problems_of(text, stored)


def test_a_customers_key_is_a_subject_of_its_own() -> None:
    assert [("subject_duplicate", "/customers/0/key")] == problems_of("customers: [{key: ada}]")
    assert [("subject_duplicate", "/customers/0/subjects/0")] == problems_of(
        "customers: [{key: a, subjects: [northwind]}]"
    )
    assert [] == problems_of("customers: [{key: a, subjects: [a]}]")
    assert [("subject_duplicate", "/customers/0/subjects/2")] == problems_of(
        "customers: [{key: a, subjects: [b, c, b]}]"
    )


def test_a_subject_may_move_within_one_document() -> None:
    text = "customers: [{key: northwind, subjects: [ada]}, {key: a, subjects: [grace]}]"
    assert [] == problems_of(text)


def test_a_number_that_no_text_carries_is_refused_before_it_is_compared() -> None:
    catalog = catalog_of(read(STORED))
    for number in ("NaN", "sNaN", "Infinity", "-Infinity", "1E+400"):
        plan = replace(catalog.plans["team"], minimum=Decimal(number))
        problems = check_plan(plan, catalog)
        assert [("number_out_of_range", "/minimum")] == [(p.code, p.pointer) for p in problems]


def test_single_objects_are_checked_against_their_former_selves() -> None:
    catalog = catalog_of(read(STORED))
    assert [] == check_rate_card(catalog.rate_cards["list"], catalog)
    assert [] == check_plan(catalog.plans["team"], catalog)
    assert [] == check_customer(catalog.customers["northwind"], catalog)
    assert [] == check_subscription(catalog.subscriptions["northwind-team"], catalog)


def test_countries_are_those_of_the_time_zone_database() -> None:
    table = (importlib.resources.files("tzdata") / "zoneinfo" / "iso3166.tab").read_text("utf-8")
    codes = {line[:2] for line in table.splitlines() if line and not line.startswith("#")}
    assert codes == COUNTRIES


@pytest.mark.parametrize(
    ("term", "needed"),
    [
        ("fixed: 0.1", False),  # the count of events is kept for every meter
        ("free_amount: 5", False),  # the sum alone tells what is beyond it
        ("minimum: 1", True),
        ("maximum: 1", True),
        ("free_events: 5", True),
        ("fixed: 0.1, free_amount: 5", True),  # which events stay below it, only they tell
    ],
)
def test_terms_that_look_at_single_events_need_them(term: str, needed: bool) -> None:
    refused = [("per_event_required", "/rate_cards/0/rates/0/price")] if needed else []
    for meter, expected in (("payments", []), ("tokens", refused)):
        price = f"{{model: percentage, percent: 1, {term}}}"
        text = f"""
rate_cards:
- {{key: a, currency: USD, rates: [{{meter: {meter}, price: {price}}}]}}
"""
        assert expected == problems_of(text)


def test_a_clash_within_one_document_is_told_once() -> None:
    text = """
rate_cards:
- {key: pounds, currency: GBP}
plans:
- {key: british, currency: USD, rate_card: pounds}
customers:
- {key: a, rate_card: list-eur}
subscriptions:
- {key: a-team, customer: a, plan: team, start: 2026-01-01T00:00:00Z}
"""
    expected = [
        ("currency_mismatch", "/plans/0/rate_card"),
        ("currency_mismatch", "/subscriptions/0/plan"),
    ]
    assert expected == problems_of(text)
