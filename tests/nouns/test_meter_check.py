"""What is wrong with a meter: one row for each code, in the order of the codes."""

from decimal import Decimal
from typing import Any

import pytest

from farebox.catalog.meter import Aggregation, Conversion, Meter, Spread
from farebox.catalog.meter_check import MeterCode, check_meter
from farebox.metering.reading import compile_meter


def meter(**changes: Any) -> Meter:
    sound = {"key": "m", "event_type": "t", "aggregation": Aggregation.SUM, "value": "$.n"}
    return Meter(**{**sound, **changes})


MANY = {f"d{number}": "$.x" for number in range(17)}
TOO_MANY_VALUES = {f"v{number}": "$.x" for number in range(65)}
WRONG = [
    (MeterCode.EVENT_TYPE_REQUIRED, "event_type", {"event_type": ""}),
    (MeterCode.VALUE_REQUIRED, "value", {"value": None}),
    (MeterCode.VALUE_NOT_READ, "value", {"aggregation": Aggregation.COUNT}),
    (
        MeterCode.VALUE_AND_SPREAD,
        "spread",
        {"spread": Spread(dimension="kind", values={"input": "$.i"})},
    ),
    (
        MeterCode.SPREAD_NEEDS_SUM,
        "spread",
        {
            "value": None,
            "aggregation": Aggregation.MAX,
            "spread": Spread(dimension="kind", values={"input": "$.i"}),
        },
    ),
    (
        MeterCode.SPREAD_EMPTY,
        "spread/values",
        {"value": None, "spread": Spread(dimension="kind", values={})},
    ),
    (MeterCode.BAD_PATH, "dimensions/model", {"dimensions": {"model": "model"}}),
    (MeterCode.BAD_EXPRESSION, "value", {"value": "input +"}),
    (MeterCode.BAD_FILTER, "filter", {"filter": "data.a =="}),
    (MeterCode.DIMENSION_NAME_INVALID, "dimensions/a~1b", {"dimensions": {"a/b": "$.x"}}),
    (
        MeterCode.DIMENSION_DUPLICATE,
        "spread/dimension",
        {
            "value": None,
            "dimensions": {"kind": "$.k"},
            "spread": Spread(dimension="kind", values={"input": "$.i"}),
        },
    ),
    (MeterCode.TOO_MANY_DIMENSIONS, "dimensions", {"dimensions": MANY}),
    (MeterCode.PERCENTILE_REQUIRED, "percentile", {"aggregation": Aggregation.PERCENTILE}),
    (
        MeterCode.PERCENTILE_OUT_OF_RANGE,
        "percentile",
        {"aggregation": Aggregation.PERCENTILE, "percentile": Decimal("100.1")},
    ),
    (MeterCode.COUNTER_REQUIRED, "counter", {"aggregation": Aggregation.INCREASE}),
    (
        MeterCode.COUNTER_UNKNOWN,
        "counter",
        {"aggregation": Aggregation.INCREASE, "counter": "device"},
    ),
    (MeterCode.OPTION_NOT_USED, "percentile", {"percentile": Decimal(50)}),
    (MeterCode.WEIGHT_OUT_OF_RANGE, "weight_seconds", {"weight_seconds": 0}),
    (
        MeterCode.NUMBER_OUT_OF_RANGE,
        "conversion/multiply_by",
        {"conversion": Conversion(multiply_by=Decimal("1e20"))},
    ),
    (
        MeterCode.DIVIDE_BY_ZERO,
        "conversion/divide_by",
        {"conversion": Conversion(divide_by=Decimal(0))},
    ),
    (
        MeterCode.DECIMALS_OUT_OF_RANGE,
        "conversion/decimals",
        {"conversion": Conversion(decimals=19)},
    ),
]


@pytest.mark.parametrize(("code", "field", "changes"), WRONG)
def test_each_fault_has_its_code_and_place(
    code: MeterCode, field: str, changes: dict[str, Any]
) -> None:
    problems = check_meter(meter(**changes), "/meters/0")
    assert [(code, f"/meters/0/{field}")] == [(each.code, each.pointer) for each in problems]
    assert all(problem.message for problem in problems)


def test_every_code_has_its_row_in_order() -> None:
    assert list(MeterCode) == [code for code, _, _ in WRONG]


SOUND = [
    meter(),
    meter(aggregation=Aggregation.COUNT, value=None),
    meter(value="input + 4 * output", filter="data.kind in ['a', 'b']"),
    meter(value=None, spread=Spread(dimension="kind", values={"in": "$.i", "out": "out * 2"})),
    meter(aggregation=Aggregation.UNIQUE_COUNT, value="user.id"),
    meter(aggregation=Aggregation.PERCENTILE, percentile=Decimal("99.9")),
    meter(aggregation=Aggregation.INCREASE, counter="device", dimensions={"device": "$.device"}),
    meter(
        aggregation=Aggregation.WEIGHTED_SUM, weight_seconds=86400, subject="$.u", customer="$.c"
    ),
    meter(dimensions=dict(list(MANY.items())[:16]), conversion=Conversion(divide_by=Decimal(1000))),
]


@pytest.mark.parametrize("sound", SOUND)
def test_a_sound_meter_has_no_problem_and_compiles(sound: Meter) -> None:
    assert check_meter(sound, "/meters/0") == []
    compile_meter(sound)


@pytest.mark.parametrize(
    "changes",
    [
        {"percentile": Decimal("NaN"), "aggregation": Aggregation.PERCENTILE},
        {"percentile": Decimal("-1"), "aggregation": Aggregation.PERCENTILE},
        {"conversion": Conversion(divide_by=Decimal("Infinity"))},
        {"conversion": Conversion(multiply_by=Decimal(-1))},
        {"subject": "user"},
        {"customer": "$["},
        {"aggregation": Aggregation.UNIQUE_COUNT, "value": "a + 1"},
        {"value": None, "spread": Spread(dimension="", values={"a": "$.a"})},
        {"value": None, "spread": Spread(dimension="k", values={"a": "1 +"})},
        {"value": None, "spread": Spread(dimension="k", values=TOO_MANY_VALUES)},
        {"counter": "model", "dimensions": {"model": "$.m"}},
        {"weight_seconds": 10**9},
    ],
)  # fmt: skip
def test_further_faults(changes: dict[str, Any]) -> None:
    assert len(check_meter(meter(**changes), "/m")) == 1


def test_a_meter_that_was_not_checked_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="check_meter"):
        compile_meter(meter(value="1 +"))
