"""One price or adjustment for every code that refuses it, in the order of precedence."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from farebox.catalog.price import Adjustments, Price
from farebox.catalog.price_check import PriceCode, check_adjustments, check_price

CELL = {"match": {"a": "x"}, "unit": "1"}
OPEN = {"unit": "1"}
LIMITS = {"amount": "1", "limits": {"a": "5"}}

ROWS: list[tuple[PriceCode, str, dict[str, Any]]] = [
    (PriceCode.NUMBER_OUT_OF_RANGE, "/unit", {"model": "per_unit", "unit": "1e20"}),
    (PriceCode.NUMBER_OUT_OF_RANGE, "/unit", {"model": "per_unit", "unit": "NaN"}),
    (PriceCode.NUMBER_OUT_OF_RANGE, "/unit", {"model": "per_unit", "unit": "1e-19"}),
    (PriceCode.NUMBER_OUT_OF_RANGE, "/unit", {"model": "per_unit", "unit": "-Infinity"}),
    (PriceCode.NEGATIVE_PRICE, "/amount", {"model": "flat", "amount": "-1"}),
    (PriceCode.NEGATIVE_PRICE, "/tiers/0/flat", {"model": "volume", "tiers": [{"flat": "-1"}]}),
    (
        PriceCode.NEGATIVE_PRICE,
        "/cells/0/unit",
        {"model": "matrix", "dimensions": ["a"], "cells": [{"match": {}, "unit": "-1"}]},
    ),
    (
        PriceCode.NEGATIVE_QUANTITY,
        "/free",
        {"model": "package", "amount": "1", "size": "3", "free": "-1"},
    ),
    (
        PriceCode.NEGATIVE_QUANTITY,
        "/tiers/0/limits/a~1b",
        {
            "model": "capacity",
            "dimension": "d",
            "tiers": [{"amount": "1", "limits": {"a/b": "-5"}}, {"amount": "2"}],
        },
    ),
    (PriceCode.PERCENT_OUT_OF_RANGE, "/percent", {"model": "percentage", "percent": "100.1"}),
    (PriceCode.PERCENT_OUT_OF_RANGE, "/percent", {"model": "percentage", "percent": "-1"}),
    (PriceCode.SIZE_NOT_POSITIVE, "/size", {"model": "package", "amount": "1", "size": "0"}),
    (PriceCode.SIZE_NOT_POSITIVE, "/per", {"model": "per_unit", "unit": "1", "per": "-10"}),
    (PriceCode.PER_NOT_EXACT, "/per", {"model": "per_unit", "unit": "1", "per": "3600"}),
    (
        PriceCode.PER_NOT_EXACT,
        "/tiers/0/per",
        {"model": "graduated", "tiers": [{"unit": "1", "per": "7"}]},
    ),
    (
        PriceCode.FREE_NOT_POSITIVE,
        "/free_events",
        {"model": "percentage", "percent": "1", "free_events": 0},
    ),
    (
        PriceCode.FREE_NOT_POSITIVE,
        "/free_amount",
        {"model": "percentage", "percent": "1", "free_amount": "0"},
    ),
    (
        PriceCode.MINIMUM_ABOVE_MAXIMUM,
        "/minimum",
        {"model": "percentage", "percent": "1", "minimum": "3", "maximum": "2"},
    ),
    (PriceCode.NO_TIERS, "/tiers", {"model": "graduated", "tiers": []}),
    (PriceCode.NO_TIERS, "/tiers", {"model": "capacity", "dimension": "d", "tiers": []}),
    (
        PriceCode.TIER_GAP,
        "/tiers/1/above",
        {"model": "volume", "tiers": [{"up_to": "10"}, {"above": "11"}]},
    ),
    (PriceCode.TIER_GAP, "/tiers/0/above", {"model": "volume", "tiers": [{"above": "1"}]}),
    (
        PriceCode.TIER_OVERLAP,
        "/tiers/1/above",
        {"model": "graduated", "tiers": [{"up_to": "10"}, {"above": "9"}]},
    ),
    (PriceCode.TIER_OVERLAP, "/tiers/1", {"model": "graduated", "tiers": [OPEN, OPEN]}),
    (
        PriceCode.TIER_OVERLAP,
        "/tiers/1",
        {"model": "capacity", "dimension": "d", "tiers": [{"amount": "1"}, {"amount": "2"}]},
    ),
    (
        PriceCode.TIERS_NOT_ASCENDING,
        "/tiers/1/up_to",
        {"model": "volume", "tiers": [{"up_to": "10"}, {"up_to": "10"}, OPEN]},
    ),
    (
        PriceCode.TIERS_NOT_ASCENDING,
        "/tiers/0/up_to",
        {"model": "stairstep", "tiers": [{"up_to": "0", "amount": "1"}, {"amount": "2"}]},
    ),
    (
        PriceCode.TIERS_NOT_ASCENDING,
        "/tiers/1/limits/a",
        {
            "model": "capacity",
            "dimension": "d",
            "tiers": [LIMITS, {"amount": "2", "limits": {"a": "4"}}, {"amount": "3"}],
        },
    ),
    (
        PriceCode.LAST_TIER_BOUNDED,
        "/tiers/0/up_to",
        {"model": "graduated_percentage", "tiers": [{"up_to": "10", "percent": "1"}]},
    ),
    (
        PriceCode.LAST_TIER_BOUNDED,
        "/tiers/0/limits",
        {"model": "capacity", "dimension": "d", "tiers": [LIMITS]},
    ),
    (
        PriceCode.NO_DIMENSIONS,
        "/dimensions",
        {"model": "matrix", "dimensions": [], "cells": [], "default": "1"},
    ),
    (
        PriceCode.NO_DIMENSIONS,
        "/dimension",
        {"model": "capacity", "dimension": "", "tiers": [{"amount": "1"}]},
    ),
    (
        PriceCode.DIMENSION_DUPLICATE,
        "/dimensions/1",
        {"model": "matrix", "dimensions": ["a", "a"], "cells": [CELL]},
    ),
    (PriceCode.NO_CELLS, "/cells", {"model": "matrix", "dimensions": ["a"], "cells": []}),
    (
        PriceCode.CELL_UNKNOWN_DIMENSION,
        "/cells/0/match/a",
        {"model": "matrix", "dimensions": ["b"], "cells": [CELL]},
    ),
    (
        PriceCode.CELL_DUPLICATE,
        "/cells/1/match",
        {
            "model": "matrix",
            "dimensions": ["a", "b"],
            "cells": [CELL, {"match": {"a": "x", "b": "*"}, "unit": "2"}],
        },
    ),
]


@pytest.mark.parametrize(("code", "pointer", "raw"), ROWS, ids=lambda value: str(value)[:40])
def test_refused_price(code: PriceCode, pointer: str, raw: dict[str, Any]) -> None:
    problems = check_price(msgspec.convert(raw, Price), "")
    assert [(code, pointer)] == [(problem.code, problem.pointer) for problem in problems]


def test_every_code_has_a_row_in_order_of_precedence() -> None:
    assert list(PriceCode) == list(dict.fromkeys(code for code, _, _ in ROWS))


def test_problems_come_in_order_of_precedence_with_their_pointers() -> None:
    raw = {
        "model": "graduated",
        "tiers": [{"up_to": "10", "unit": "1", "per": "3"}, {"up_to": "5", "flat": "-1"}],
    }
    assert [
        (each.code, each.pointer) for each in check_price(msgspec.convert(raw, Price), "/p")
    ] == [
        (PriceCode.NEGATIVE_PRICE, "/p/tiers/1/flat"),
        (PriceCode.PER_NOT_EXACT, "/p/tiers/0/per"),
        (PriceCode.TIERS_NOT_ASCENDING, "/p/tiers/1/up_to"),
        (PriceCode.LAST_TIER_BOUNDED, "/p/tiers/1/up_to"),
    ]


ADJUSTMENTS: list[tuple[PriceCode, str, dict[str, str]]] = [
    (PriceCode.NUMBER_OUT_OF_RANGE, "/included", {"included": "sNaN"}),
    (PriceCode.NEGATIVE_PRICE, "/discount_amount", {"discount_amount": "-1"}),
    (PriceCode.NEGATIVE_PRICE, "/maximum", {"maximum": "-1"}),
    (PriceCode.NEGATIVE_PRICE, "/minimum", {"minimum": "-1"}),
    (PriceCode.NEGATIVE_QUANTITY, "/included", {"included": "-1"}),
    (PriceCode.PERCENT_OUT_OF_RANGE, "/discount_percent", {"discount_percent": "101"}),
    (PriceCode.MINIMUM_ABOVE_MAXIMUM, "/minimum", {"minimum": "3", "maximum": "2"}),
]


@pytest.mark.parametrize(("code", "pointer", "raw"), ADJUSTMENTS)
def test_refused_adjustment(code: PriceCode, pointer: str, raw: dict[str, str]) -> None:
    problems = check_adjustments(msgspec.convert(raw, Adjustments), "")
    assert [(code, pointer)] == [(problem.code, problem.pointer) for problem in problems]


@pytest.mark.parametrize(
    "raw",
    [
        {"model": "graduated", "tiers": [{"above": "0", "up_to": "10"}, {"above": "10"}]},
        {"model": "graduated", "tiers": [{"unit": "1", "per": "60", "round_up": True}]},
        {"model": "package", "amount": "1", "size": "7"},
        {"model": "per_unit", "unit": "1", "per": "0.25"},
        {"model": "matrix", "dimensions": ["a"], "cells": [], "default": "0"},
        {"model": "percentage", "percent": "0"},
        {"model": "dynamic"},
    ],
)
def test_sound_price(raw: dict[str, Any]) -> None:
    assert check_price(msgspec.convert(raw, Price), "") == []


def test_sound_adjustments() -> None:
    sound = Adjustments(
        included=Decimal(1), discount_percent=Decimal(100), minimum=Decimal(2), maximum=Decimal(2)
    )
    assert check_adjustments(sound, "") == []
