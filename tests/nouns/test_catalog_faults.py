"""Every refusal of a catalog, as the text that a person would have written."""

from pathlib import Path

import pytest
from farebox_catalog_desk import problems_of, read

from farebox.catalog.check import check_document
from farebox.catalog.code import CatalogCode
from farebox.catalog.document import Document

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
        CatalogCode.FEATURE_METER_UNFIT,
        "",
        """
meters:
- {key: peak, event_type: load, aggregation: max, value: $.load}
features:
- {key: a, meter: peak}""",
        "/features/0/meter",
    ),
    (
        CatalogCode.FEATURE_METER_TAKEN,
        "features",
        "{key: a, meter: tokens}",
        "/features/0/meter",
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


@pytest.mark.parametrize(
    ("code", "section", "text", "pointer"), ROWS, ids=[str(r[0]) for r in ROWS]
)
def test_each_fault_has_its_code_and_its_place(
    code: CatalogCode, section: str, text: str, pointer: str
) -> None:
    written = f"{section}:\n- {text}\n" if section else text
    assert [(str(code), pointer)] == problems_of(written)


TAKEN = str(CatalogCode.FEATURE_METER_TAKEN)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[{key: a, meter: payments}, {key: b, meter: payments}]", [(TAKEN, "/features/1/meter")]),
        ("[{key: a, meter: tokens}, {key: chat}]", []),
        ("[{key: chat, meter: payments}, {key: a, meter: tokens}]", []),
        ("[{key: chat, name: Chat, meter: tokens}]", []),
    ],
)
def test_a_meter_uses_up_one_feature_of_all_that_will_stand(
    text: str, found: list[tuple[str, str]]
) -> None:
    assert found == problems_of(f"features: {text}")


def test_features_that_shared_a_meter_before_it_was_refused_may_go_on() -> None:
    meter = "meters: [{key: tokens, event_type: llm, aggregation: count}]\n"
    stored = read(meter + "features: [{key: a, meter: tokens}, {key: b, meter: tokens}]")
    again = read("features: [{key: a, name: A, meter: tokens}, {key: b, meter: tokens}]")
    assert [] == check_document(again, stored)
    third = check_document(read("features: [{key: c, meter: tokens}]"), stored)
    assert [TAKEN] == [str(one.code) for one in third]


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
