"""Public cases of billing arithmetic, stated as facts, come out to the last digit."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farebox.catalog.meter import Conversion
from farebox.catalog.price import Adjustments, Price
from farebox.catalog.price_check import check_adjustments, check_price
from farebox.money.amount import to_currency
from farebox.money.rounding import divide
from farebox.rating.adjust import AppliedKind
from farebox.rating.charge import ChargeResult, LineKind, Segment, rate_charge
from farebox.rating.rate import rate
from farebox.rating.usage import ZERO, Usage

FOLDER = Path(__file__).parent.parent / "cases" / "pricing"

RUN = {
    "ai_tokens": 4,
    "bucketed": 5,
    "capacity": 5,
    "coupon": 13,
    "flat": 3,
    "graduated": 34,
    "graduated_percentage": 4,
    "maximum": 6,
    "minimum": 9,
    "package": 18,
    "per_unit": 11,
    "percentage": 9,
    "unit_conversion": 2,
    "volume": 38,
}
"""How many cases each file holds, pinned so that none can vanish in silence."""

BY_LEDGER = 22
"""Cases of credits, which `test_ledger_cases.py` runs."""
LEFT_OUT = 54
PUBLIC = 237


def read_cases(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())["cases"]


CASES = [case for name in RUN for case in read_cases(name)]


def price_of(raw: Any) -> Price:
    price = msgspec.convert(raw, Price)
    assert check_price(price, "") == []
    return price


def usages_of(raw: list[dict[str, Any]]) -> tuple[Usage, ...]:
    usages = []
    for item in raw:
        values = tuple(Decimal(value) for value in item.get("values", ()))
        usages.append(
            Usage(
                quantity=Decimal(item["quantity"]) if "quantity" in item else sum(values, ZERO),
                dimensions=item.get("dimensions", {}),
                events=item.get("events", len(values)),
                values=values,
            )
        )
    return tuple(usages)


def run_charge(case: dict[str, Any]) -> ChargeResult:
    adjustments = msgspec.convert(case.get("adjustments", {}), Adjustments)
    assert check_adjustments(adjustments, "") == []
    segments = []
    for raw in case["segments"]:
        usages = usages_of(raw["usage"])
        if "conversion" in case:
            step = msgspec.convert(case["conversion"], Conversion)
            usages = tuple(
                Usage(quantity=divide(each.quantity, step.divide_by, step.decimals, step.mode))
                for each in usages
            )
        segments.append(Segment(price=price_of(raw["price"]), usages=usages))
    return rate_charge("usage", segments, adjustments, case["currency"])


def facts_of(result: ChargeResult, wanted: dict[str, Any], currency: str) -> dict[str, Any]:
    """Return of the result what the case speaks of, under the names of the case."""
    usage = [line.amount for line in result.lines if line.kind is LineKind.USAGE]
    minimum = sum((line.amount for line in result.lines if line.kind is LineKind.MINIMUM), ZERO)
    discounts = {AppliedKind.DISCOUNT_PERCENT, AppliedKind.DISCOUNT_AMOUNT}
    applied = [step for line in result.lines for step in line.applied if step.kind in discounts]
    facts: dict[str, Any] = {
        "lines": usage,
        "minimum": minimum,
        "last": usage[-1] if usage else None,
        "last_and_minimum": usage[-1] + minimum if usage else None,
        "before": sum(usage[:-1], ZERO),
        "discount": to_currency(-sum((step.amount for step in applied), ZERO), currency),
    }
    return {name: facts[name] for name in wanted}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_public_case(case: dict[str, Any]) -> None:
    if "segments" in case:
        wanted = {
            name: [Decimal(each) for each in value] if isinstance(value, list) else Decimal(value)
            for name, value in case["expected"].items()
        }
        assert wanted == facts_of(run_charge(case), wanted, case["currency"])
        return
    price = price_of(case["price"])
    if "windows" in case:
        windows = [rate(price, [Usage(quantity=Decimal(each))]) for each in case["windows"]]
        assert Decimal(case["expected"]) == sum((each.amount for each in windows), ZERO)
        return
    rated = rate(
        price,
        usages_of(case["usage"]),
        before=Decimal(case.get("before", 0)),
        total=Decimal(case["total"]) if "total" in case else None,
        fees=case.get("fees", True),
    )
    assert Decimal(case["expected"]) == rated.amount
    assert rated.unpriced == ()


def test_no_case_vanished(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = read_cases("left_out")
    counted = {name: len(read_cases(name)) for name in RUN}
    files = {path.stem for path in FOLDER.glob("*.json")} - {"left_out"}
    reasons: Counter[str] = Counter()
    for item in left_out:
        reasons[item["reason"]] += item["cases"]
    with capsys.disabled():
        ran = f"{len(CASES)} ran, {BY_LEDGER} as credits, {reasons.total()} left out"
        print(f"\npublic pricing cases: {ran}")
        for reason, count in reasons.most_common():
            print(f"  {count:3} {reason}")
    assert set(RUN) == files
    assert counted == RUN
    assert reasons.total() == LEFT_OUT
    by_ledger = [json.loads(path.read_text()) for path in (FOLDER.parent / "credits").iterdir()]
    assert BY_LEDGER == sum(len(each["cases"]) for each in by_ledger)
    assert len(CASES) + BY_LEDGER + LEFT_OUT == PUBLIC
    assert len(CASES) == len({case["id"] for case in CASES})
