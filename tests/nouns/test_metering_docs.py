"""docs/metering.md cannot lie: its examples are run, its codes are all of them."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.meter_check import MeterCode, check_meter
from farebox.catalog.yaml_text import TextFault, read_yaml
from farebox.metering.fold import Point, convert, fold
from farebox.metering.reading import Reading, ReadingCode, compile_meter
from farebox.metering.window import WindowSize

PAGE = (Path(__file__).parents[2] / "docs" / "metering.md").read_text()
START, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)


def blocks() -> list[dict[str, Any]]:
    found = []
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        tree = read_yaml(text.encode())
        assert not isinstance(tree, TextFault), tree
        found.append(tree.value)
    return found


EXAMPLES = {block["example"]: block for block in blocks() if "example" in block}


def meter_of(tree: dict[str, Any]) -> Meter:
    meter = msgspec.convert(tree, Meter, strict=False)
    assert check_meter(meter, "") == []
    return meter


def readings_of(meter: Meter, event: dict[str, Any]) -> tuple[Reading, ...]:
    outcome = compile_meter(meter).read(event.get("data"), meter.event_type, "s", None)
    assert isinstance(outcome, tuple), outcome
    return outcome


def point_of(meter: Meter, event: dict[str, Any], sequence: int) -> Point:
    (reading,) = readings_of(meter, event)
    return Point(datetime.fromisoformat(event["time"]), sequence, reading.value)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "spread"])
def test_an_example_gives_its_quantity(name: str) -> None:
    example = EXAMPLES[name]
    meter = meter_of(example["meter"])
    points = [point_of(meter, event, n) for n, event in enumerate(example["events"])]
    carry = point_of(meter, example["carry"], 0) if "carry" in example else None
    quantity = fold(meter, points, START, END, carry)
    assert Decimal(example["quantity"]) == quantity
    if meter.conversion is not None:
        assert Decimal(example["converted"]) == convert(quantity, meter.conversion)


def test_the_spread_example_gives_its_quantities() -> None:
    example = EXAMPLES["spread"]
    meter = meter_of(example["meter"])
    totals: dict[str, Decimal] = {}
    for event in example["events"]:
        for reading in readings_of(meter, event):
            assert isinstance(reading.value, Decimal)
            kind = reading.dimensions[-1]
            totals[kind] = totals.get(kind, Decimal(0)) + reading.value
    assert {k: Decimal(v) for k, v in example["quantities"].items()} == totals


def test_the_first_meter_on_the_page_is_sound() -> None:
    assert meter_of(next(b for b in blocks() if "example" not in b)).key == "tokens"


def test_every_aggregation_has_an_example_under_its_heading() -> None:
    headings = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    assert [aggregation.value for aggregation in Aggregation] == headings
    assert set(headings) <= set(EXAMPLES)
    for heading in headings:
        assert heading == EXAMPLES[heading]["meter"]["aggregation"]


@pytest.mark.parametrize(
    ("heading", "codes"),
    [
        ("## What is refused when a meter is defined", MeterCode),
        ("## What is refused when an event is read", ReadingCode),
    ],
)
def test_every_code_is_listed_in_order(heading: str, codes: Any) -> None:
    section = PAGE.split(heading)[1].split("\n## ")[0]
    assert [code.value for code in codes] == re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_every_window_size_is_named() -> None:
    assert all(f"`{size}`" in PAGE for size in WindowSize)
