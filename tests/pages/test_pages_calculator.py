"""The calculator shows what the rater says, whatever is typed; its curve is the rater's too."""

import json
import re
from decimal import Decimal
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog.price import Price
from farebox.http.pages.calculator import calculate_fields
from farebox.http.pages.calculator_examples import EXAMPLES, Example
from farebox.rating.quote import rate_quote

FIELDS = {"currency": "USD", "price": "{model: per_unit, unit: 2}", "usage": "3", "adjustments": ""}


def test_there_is_an_example_of_every_model() -> None:
    models = {
        msgspec.structs.fields(each) and each.__struct_config__.tag for each in get_args(Price)
    }
    assert models == {example.key for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.key)
def test_an_example_is_rated(vendor: Any, example: Example) -> None:
    text = vendor.page(f"/console/calculator?example={example.key}")
    assert "Comes to" in text
    assert "This cannot be rated" not in text


@pytest.mark.parametrize(
    ("changed", "amount"),
    [
        ({}, "6.00"),
        ({"usage": "0"}, "0"),
        ({"usage": "[{quantity: 1.5}, {quantity: '0.005'}]"}, "3.01"),
        ({"adjustments": "{included: 1}"}, "4.00"),
        ({"adjustments": "minimum: 10"}, "10.00"),
        ({"currency": "JPY", "price": '{"model": "flat", "amount": 12.5}'}, "13"),
        ({"price": "model: graduated\ntiers:\n- {up_to: 2, unit: 1}\n- {unit: '0.5'}"}, "2.50"),
    ],
)
def test_fields_are_rated(changed: dict[str, str], amount: str) -> None:
    calculation = calculate_fields({**FIELDS, **changed})
    assert Decimal(amount) == calculation.amount
    assert () == calculation.quote.problems


@pytest.mark.parametrize(
    ("changed", "code", "pointer"),
    [
        ({"currency": "XXL"}, "unknown_currency", "/currency"),
        ({"price": "{model: per_unit"}, "malformed", "/price"),
        ({"price": "{model: per_unit, unit: -1}"}, None, "/price/unit"),
        ({"usage": "many"}, "wrong_type", "/usage/0/quantity"),
        ({"adjustments": "{maximal: 1}"}, "unknown_field", "/adjustments/maximal"),
        ({"price": "", "usage": ""}, "charge_missing", ""),
        ({"usage": "1e30"}, "number_out_of_range", "/usage/0/quantity"),
    ],
)
def test_what_is_wrong_points_to_its_field(
    changed: dict[str, str], code: str | None, pointer: str
) -> None:
    problem = calculate_fields({**FIELDS, **changed}).quote.problems[0]
    assert (code or problem.code, pointer) == (problem.code, problem.pointer)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=60)))
@settings(max_examples=150)
def test_whatever_is_typed_has_an_answer(changed: dict[str, str]) -> None:
    calculation = calculate_fields({**FIELDS, **changed})
    assert calculation.quote.problems or calculation.quote.results


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.key)
def test_every_point_of_the_curve_is_a_quote(example: Example) -> None:
    fields = {
        "currency": example.currency,
        "price": example.price,
        "usage": example.usage,
        "adjustments": "",
    }
    curve = calculate_fields(fields).curve
    if curve is None:
        assert "values" in example.usage
        return
    single = example.usage.strip().isdigit()
    for at, amount in zip(curve.x, curve.series[0].values, strict=True):
        if single:
            document = {
                "currency": example.currency,
                "price": "PRICE",
                "usage": [{"quantity": str(at)}],
            }
            price = "\n".join(f"  {line}" for line in example.price.splitlines())
            text = f"price:\n{price}\n" + "\n".join(
                f"{name}: {json.dumps(value)}"
                for name, value in document.items()
                if name != "price"
            )
            assert rate_quote(text.encode()).amount == amount
    if not single:
        whole = calculate_fields(fields)
        middle = len(curve.x) // 2
        assert whole.amount == curve.series[0].values[middle]


def test_a_tiers_end_is_on_the_curve() -> None:
    price = "model: volume\ntiers:\n- {up_to: 7, unit: 2}\n- {unit: 1}"
    curve = calculate_fields({**FIELDS, "price": price, "usage": "100"}).curve
    assert curve is not None
    by_quantity = dict(zip(curve.x, curve.series[0].values, strict=True))
    assert (Decimal(14), Decimal(8)) == (by_quantity[Decimal(7)], by_quantity[Decimal(8)])


def test_the_island_gets_the_result_alone(vendor: Any) -> None:
    answer = vendor.post("/console/calculator", data=FIELDS, headers={"x-fragment": "result"})
    assert (200, True) == (answer.status_code, answer.text.lstrip().startswith('<div id="result"'))
    assert "<html" not in answer.text
    assert "$6.00" in answer.text


def test_without_the_island_the_form_answers_with_the_page(vendor: Any) -> None:
    answer = vendor.post("/console/calculator", data={**FIELDS, "usage": "4"})
    assert "$8.00" in answer.text
    assert re.search(r'<textarea name="usage"[^>]*>4</textarea>', answer.text)


def test_a_price_of_the_catalog_opens_in_the_calculator(vendor: Any) -> None:
    page = vendor.page("/console/plans/team")
    (link,) = re.findall(r'href="(/console/calculator\?[^"]+)"', page)
    shown = vendor.page(link.replace("&amp;", "&"))
    # 2 at 0.50 and 998 at 0.25.
    assert "$250.50" in shown
