"""Every number that an answer or a notice states is the plain shortest text of it."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from farebox.catalog.plain_json import encode
from farebox.flows.burn_usage import burn_usage
from farebox.flows.watch_pools import watch_all
from farebox.http.live_balance import LiveBalances
from farebox.postgres.pool import find_pool
from farebox.postgres.session import transaction

PLAIN = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?")
LIKE_A_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:E[+-]?\d+)?")
UGLY_WORDS = re.compile(r"\d+\.\d*0\b|\d+E[+-]?\d+")
FRACTION = "0.0000003"


def ugly(value: Any, path: str = "") -> Iterator[str]:
    """Yield where a number is not plain, of all that an answer holds."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from ugly(one, f"{path}/{name}")
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from ugly(one, f"{path}/{place}")
    elif isinstance(value, str) and LIKE_A_NUMBER.fullmatch(value) and not PLAIN.fullmatch(value):
        yield f"{path}: {value}"


@pytest.fixture
def burned(api: Any, farebox: Any, clock: Any) -> Any:
    """Return the API of a vendor with a pool that events burned, at a fraction of a credit each."""
    meter = {
        "event_type": "llm.request",
        "aggregation": "sum",
        "value": "$.tokens",
        "dimensions": {"model": "$.model"},
    }
    api.ok("PUT", "/v1/meters/tokens?publish=true", meter)
    cells = [
        {"match": {"model": "large"}, "unit": "0.5"},
        {"match": {"model": "small"}, "unit": FRACTION},
    ]
    price = {"model": "matrix", "dimensions": ["model"], "cells": cells}
    card = {
        "currency": "credit",
        "custom_unit": True,
        "rates": [{"meter": "tokens", "price": price}],
    }
    api.ok("PUT", "/v1/rate_cards/credits?publish=true", card)
    api.ok("PUT", "/v1/customers/acme", {"name": "Acme", "subjects": ["acme-dev"]})
    policy = {"limit": {"mode": "overage", "units": "1E+3", "price": "0.500"}, "currency": "USD"}
    pool = {
        "unit": "credit",
        "customer": "acme",
        "rate_card": "credits",
        "timezone": "UTC",
        "policy": policy,
    }
    api.ok("PUT", "/v1/pools/credits", pool)
    api.ok("PUT", "/v1/pools/other", {"unit": "credit", "customer": "acme"})
    share = {"key": "ann", "guarantee": "1E+1", "cap": "900.50", "subjects": ["ann-dev"]}
    api.ok("PUT", "/v1/pools/credits/allotments", {"allotments": [share]})
    rule = {"kind": "balance_below", "threshold": "2E+3", "pool": "credits"}
    api.ok("PUT", "/v1/alert_rules/low", rule)
    api.ok("POST", "/v1/pools/credits/grants", {"key": "a", "amount": "1E+3", "cost": "1.50"})
    time = (clock() + timedelta(milliseconds=200)).isoformat()
    for place, (model, tokens) in enumerate((("large", 600), ("small", 1), ("odd", 7))):
        event = {
            "specversion": "1.0",
            "id": f"e{place}",
            "source": "gateway",
            "type": "llm.request",
            "subject": "acme-dev",
            "time": time,
            "data": {"tokens": tokens, "model": model},
        }
        api.ok(
            "POST", "/v1/events", event, headers={"Content-Type": "application/cloudevents+json"}
        )
    assert 3 == burn_usage(farebox.pool, api.organization_id, clock())
    return api


def routes(api: Any) -> list[str]:
    (entry, *_) = api.ok("GET", "/v1/pools/credits/statement")["items"]
    return [
        "/v1/pools",
        "/v1/pools/credits",
        "/v1/pools/credits/grants",
        "/v1/pools/credits/statement?limit=1000",
        "/v1/pools/credits/allotments",
        "/v1/pools/credits/usage?by=subject",
        "/v1/pools/credits/usage?by=hour",
        f"/v1/draws/{entry['id']}",
        "/v1/refusals",
        "/v1/unburned",
        "/v1/alert_rules",
        "/v1/alerts",
        "/v1/notices",
        "/v1/events/explain?source=gateway&id=e0",
        "/v1/events/explain?source=gateway&id=e1",
        "/v1/events/explain?source=gateway&id=e2",
    ]


def test_no_answer_after_a_burn_has_an_exponent_or_trailing_zeros(
    burned: Any, farebox: Any, clock: Any
) -> None:
    burned("POST", "/v1/authorize", {"pool": "credits", "amount": "1E+5", "subject": "ann-dev"})
    watch_all(farebox.pool, burned.organization_id, clock())
    found = {path: list(ugly(burned.ok("GET", path))) for path in routes(burned)}
    assert {} == {path: places for path, places in found.items() if places}
    assert "699.9999997" == burned.ok("GET", "/v1/pools/credits")["available"]
    assert "1000" == burned.ok("GET", "/v1/pools/credits/grants")["items"][0]["amount"]
    assert burned.ok("GET", "/v1/notices")["items"]
    assert burned.ok("GET", "/v1/alerts")["items"]
    assert burned.ok("GET", "/v1/refusals")


def test_what_changes_units_answers_plain_numbers(burned: Any) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/authorize", {"pool": "credits", "amount": "1E+2"}),
        ("/v1/authorize", {"pool": "credits", "amount": "0.10"}),
        ("/v1/authorize", {"pool": "credits", "amount": "0.0000001", "hold": {}}),
        ("/v1/authorize", {"pool": "credits", "amount": "1E+6"}),
        ("/v1/authorize/batch", {"requests": [{"pool": "credits", "amount": "1E-7"}]}),
        ("/v1/pools/credits/check", {"amount": "1E+2"}),
        ("/v1/pools/credits/grants", {"key": "b", "amount": "1E+3"}),
        ("/v1/pools/credits/grants", {"key": "c", "amount": "0.0000001", "cost": "2.50"}),
        ("/v1/pools/credits/moves", {"to": "other", "amount": "1E-7"}),
        (
            "/v1/uses",
            {
                "pool": "credits",
                "type": "llm.request",
                "data": {"tokens": 1, "model": "small"},
            },
        ),
    ]
    found = {}
    for path, body in asked:
        response = burned("POST", path, body)
        assert response.status_code in (200, 201, 409, 402, 403, 429), (path, response.text)
        answer = response.json()
        found[f"{path} {body}"] = [*ugly(answer), *UGLY_WORDS.findall(answer.get("detail", ""))]
    assert {} == {path: places for path, places in found.items() if places}


def test_a_live_balance_and_the_page_of_a_pool_are_plain(
    burned: Any, farebox: Any, clock: Any
) -> None:
    with transaction(farebox.pool, burned.organization_id) as connection:
        found = find_pool(connection, burned.organization_id, key="credits")
    assert found is not None

    async def first() -> bytes:
        async def always() -> bool:
            return True

        live = LiveBalances(farebox.pool, clock)
        async with aclosing(live.events(burned.organization_id, found.pool_id, always)) as events:
            async for event in events:
                if event.startswith(b"event: balance"):
                    return event
        raise AssertionError("no balance came")

    event = asyncio.run(first()).decode()
    balance = json.loads(event.split("data: ")[1])
    assert ([], "699.9999997") == (list(ugly(balance)), balance["available"])


def test_an_explained_event_names_the_pool_that_it_burned(burned: Any) -> None:
    def explained(name: str) -> tuple[str, dict[str, Any]]:
        found = burned.ok("GET", f"/v1/events/explain?source=gateway&id={name}")
        (reading,) = found["meters"][0]["readings"]
        assert [] == reading["lines"]
        return found["fate"], reading["burn"]

    (entry, *_) = burned.ok("GET", "/v1/pools/credits/statement")["items"]
    burn = {
        "pool": "credits",
        "units": "300",
        "rate_card": {"key": "credits", "version": 1},
        "draw": entry["id"],
        "reason": None,
    }
    assert ("burned_pool", burn) == explained("e0")
    assert ("burned_pool", {**burn, "units": FRACTION}) == explained("e1")
    nothing = {**burn, "units": None, "rate_card": None, "draw": None, "reason": "no_cell"}
    assert ("unburned", nothing) == explained("e2")
    event = {
        "specversion": "1.0",
        "id": "e3",
        "source": "gateway",
        "type": "llm.request",
        "subject": "acme-dev",
        "data": {"tokens": 1, "model": "small"},
    }
    checked = burned.ok("POST", "/v1/events/check", event)
    assert ("burns_pool", {**burn, "units": FRACTION, "draw": None}) == (
        checked["fate"],
        checked["meters"][0]["readings"][0]["burn"],
    )


def test_texts_that_look_like_numbers_stay_as_they_are(burned: Any) -> None:
    metadata = {"version": "1.0", "mass": "1E-7"}
    body = {"key": "d", "amount": "1E+1", "metadata": metadata}
    grant = burned.ok("POST", "/v1/pools/credits/grants", body)
    assert (metadata, "10") == (grant["metadata"], grant["amount"])


def test_what_is_plain_already_is_written_as_before() -> None:
    value = {"a": Decimal("0.5"), "b": [Decimal(7)], "c": datetime(2026, 1, 1, tzinfo=UTC)}
    assert b'{"a":"0.5","b":["7"],"c":"2026-01-01T00:00:00Z"}' == encode(value)
    mended = {"a": Decimal("0E-18"), "b": [Decimal("1E+3")], "c": (Decimal("1.5E-7"), "1.0")}
    assert b'{"a":"0","b":["1000"],"c":["0.00000015","1.0"]}' == encode(mended)
