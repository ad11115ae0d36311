"""The example that ships: its tokens are the traces', to the unit, and its catalog is sound."""

import gzip
import hashlib
import json
import runpy
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from farebox.catalog.check import check_document
from farebox.catalog.document import Document
from farebox.catalog.llm import llm_meters
from farebox.catalog.price import Matrix
from farebox.cli.example import (
    AZURE_SOURCE,
    MOONCAKE_SOURCE,
    example_catalog,
    example_events,
    examples_directory,
)

LLM = examples_directory() / "llm"
MONTH = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return list(example_events(LLM, MONTH))


@pytest.fixture(scope="module")
def catalog() -> Document:
    return example_catalog(LLM)


def test_the_azure_trace_is_the_published_one() -> None:
    content = gzip.decompress((LLM / "AzureLLMInferenceTrace_conv_2023.csv.gz").read_bytes())
    expected = "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8"
    assert expected == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("source", "requests", "prompt", "cached", "output"),
    [
        (AZURE_SOURCE, 19_366, 22_361_870, 0, 4_088_665),
        (MOONCAKE_SOURCE, 12_031, 144_793_823, 54_098_411, 4_122_048),
    ],
)
def test_every_token_of_the_traces_is_there(
    events: list[dict[str, Any]], source: str, requests: int, prompt: int, cached: int, output: int
) -> None:
    data = [event["data"] for event in events if event["source"] == source]
    assert requests == len(data)
    assert cached == sum(item["cached_input_tokens"] for item in data)
    assert prompt == cached + sum(item["input_tokens"] for item in data)
    assert output == sum(item["output_tokens"] for item in data)
    assert all(item["input_tokens"] >= 0 for item in data)


def test_a_source_gives_each_id_once(events: list[dict[str, Any]]) -> None:
    assert len(events) == len({(event["source"], event["id"]) for event in events})


def test_the_same_month_gives_the_same_events(events: list[dict[str, Any]]) -> None:
    assert events == list(example_events(LLM, MONTH))


@pytest.mark.parametrize("month", [MONTH, datetime(2024, 2, 1, tzinfo=UTC)])
def test_times_fill_one_month_in_every_customers_zone(month: datetime, catalog: Document) -> None:
    times = [datetime.fromisoformat(event["time"]) for event in example_events(LLM, month)]
    assert times == sorted(times)
    for customer in catalog.customers:
        zone = ZoneInfo(customer.timezone)
        for end in (times[0], times[-1]):
            local = end.astimezone(zone)
            assert (month.year, month.month) == (local.year, local.month)
    assert times[-1] - times[0] > timedelta(days=27)


def test_each_trace_keeps_its_order(events: list[dict[str, Any]]) -> None:
    for source in (AZURE_SOURCE, MOONCAKE_SOURCE):
        ids = [event["id"] for event in events if event["source"] == source]
        assert ids == sorted(ids)


def test_every_customer_user_model_and_operation_gets_its_share(
    events: list[dict[str, Any]], catalog: Document
) -> None:
    owner = {subject: item.key for item in catalog.customers for subject in item.subjects}
    by_subject = Counter(event["subject"] for event in events)
    assert owner.keys() == by_subject.keys()
    shares = Counter(owner[event["subject"]] for event in events)
    assert ["northwind", "lumen-health"] == [name for name, _ in shares.most_common(2)]
    assert 0.29 < shares["northwind"] / len(events) < 0.33
    models = Counter(event["data"]["model"] for event in events)
    assert 0.005 < models["orchid-preview"] / len(events) < 0.015
    assert {"chat", "summarize"} == {event["data"]["operation"] for event in events}


def test_the_catalog_is_without_fault(catalog: Document) -> None:
    assert [] == check_document(catalog, Document())
    assert llm_meters() == catalog.meters
    assert 6 == len(catalog.customers) == len({item.timezone for item in catalog.customers})


def test_all_models_but_one_have_a_price(events: list[dict[str, Any]], catalog: Document) -> None:
    (card,) = (card for card in catalog.rate_cards if card.default)
    price = card.rates[0].price
    assert isinstance(price, Matrix)
    priced = {cell.match["model"] for cell in price.cells}
    canonical = {alias.alias: alias.canonical for alias in catalog.aliases}
    used = {event["data"]["model"] for event in events}
    assert {"orchid-preview"} == {name for name in used if canonical.get(name, name) not in priced}


def test_the_list_prices_are_those_of_the_providers(catalog: Document) -> None:
    (card,) = (card for card in catalog.rate_cards if card.default)
    price = card.rates[0].price
    assert isinstance(price, Matrix)
    found = {
        (cell.match["model"], cell.match["token_kind"]): cell.unit
        for cell in price.cells
        if "context" not in cell.match
    }
    expected = {
        "gpt-4o": ("2.5", "1.25", "10"),
        "gpt-4o-mini": ("0.15", "0.075", "0.6"),
        "claude-sonnet-4-5": ("3", "0.3", "15"),
        "gemini-2.5-flash": ("0.3", "0.03", "2.5"),
    }
    for model, units in expected.items():
        kinds = ("input", "cache_read", "output")
        assert tuple(map(Decimal, units)) == tuple(found[model, kind] for kind in kinds)


def test_subscriptions_begin_at_midnight_on_the_first_where_the_customer_is(
    catalog: Document,
) -> None:
    zones = {customer.key: ZoneInfo(customer.timezone) for customer in catalog.customers}
    assert zones.keys() == {item.customer for item in catalog.subscriptions}
    for subscription in catalog.subscriptions:
        local = subscription.start.astimezone(zones[subscription.customer])
        assert (1, 0, 0) == (local.day, local.hour, local.minute)


def test_cached_tokens_are_the_blocks_that_were_sent_before() -> None:
    rows = runpy.run_path(str(LLM / "derive_mooncake.py"))["rows"]
    requests = [
        {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 7, "input_length": 1300, "output_length": 6, "hash_ids": [1, 2, 4]},
        {"timestamp": 8, "input_length": 1030, "output_length": 7, "hash_ids": [1, 2, 3]},
        {"timestamp": 9, "input_length": 1200, "output_length": 8, "hash_ids": [9, 2, 3]},
    ]
    lines = (json.dumps(request).encode() for request in requests)
    expected = [(0, 1100, 5, 0), (7, 1300, 6, 1024), (8, 1030, 7, 1030), (9, 1200, 8, 0)]
    assert expected == list(rows(lines))
