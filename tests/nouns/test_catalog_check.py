"""How a catalog is checked: against what is stored, against itself, one object at a time."""

import importlib.resources
from decimal import Decimal

import pytest
from farebox_catalog_desk import STORED, problems_of, read
from msgspec.structs import replace

from farebox.catalog.check import (
    check_customer,
    check_document,
    check_plan,
    check_rate_card,
    check_subscription,
)
from farebox.catalog.country import COUNTRIES
from farebox.catalog.index import catalog_of


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
