"""From events over HTTP to an invoice that opens, by the API alone; and who may see what."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from farebox.access.key import Scope

START, END = "2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z"
SPAN = f"from={START}&to={END}"


@pytest.fixture
def september(clock: Any) -> Iterator[None]:
    """Let the server's clock show 2 October 2026."""
    before = clock.ahead
    clock.ahead += datetime.fromisoformat("2026-10-02T12:00:00+00:00") - clock()
    yield
    clock.ahead = before


@pytest.fixture
def shop(api: Any, september: None) -> Any:
    """Two customers on a plan, tokens by model; nothing used yet."""
    api.ok(
        "PUT",
        "/v1/meters/tokens?publish=true",
        {
            "event_type": "llm",
            "aggregation": "sum",
            "value": "$.tokens",
            "unit": "token",
            "dimensions": {"model": "$.model"},
        },
    )
    price = {
        "model": "matrix",
        "dimensions": ["model"],
        "per": 1000,
        "cells": [{"match": {"model": "a"}, "unit": "0.5"}],
    }
    api.ok(
        "PUT",
        "/v1/rate_cards/std?publish=true",
        {"currency": "USD", "default": True, "rates": [{"meter": "tokens", "price": price}]},
    )
    api.ok(
        "PUT",
        "/v1/plans/team?publish=true",
        {
            "currency": "USD",
            "fees": [{"key": "base", "amount": 20}],
            "charges": [{"key": "tokens", "meter": "tokens"}],
        },
    )
    for customer in ("acme", "globex"):
        api.ok("PUT", f"/v1/customers/{customer}", {})
        body = {"customer": customer, "plan": "team", "start": START}
        api.ok("PUT", f"/v1/subscriptions/{customer}-team", body)
    return api


def event(number: int, time: str, subject: str, model: str, tokens: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "gateway/1",
        "type": "llm",
        "time": time,
        "subject": subject,
        "sequence": str(number),
        "data": {"model": model, "tokens": tokens},
    }


EVENTS = [
    event(1, "2026-09-05T10:00:00Z", "acme", "a", "1000.5"),
    event(2, "2026-09-06T10:00:00Z", "acme", "a", 2000),
    event(3, "2026-09-06T11:00:00Z", "acme", "zz", 7),
    event(5, "2026-09-07T00:00:00Z", "globex", "a", 4000),
    event(6, "2026-10-01T00:00:00Z", "acme", "a", 500),
]


def send(api: Any, *events: Any) -> None:
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = api.ok("POST", "/v1/events", list(events), headers=headers)
    assert len(events) == answer["accepted"]


def test_from_event_to_invoice_and_back(shop: Any) -> None:
    send(shop, *EVENTS)

    usage = shop.ok("GET", f"/v1/usage?meter=tokens&customer=acme&group_by=model&{SPAN}")
    assert ("tokens", "token", 5, None) == (
        usage["meter"],
        usage["unit"],
        usage["sequence"],
        usage["next_cursor"],
    )
    assert [
        {
            "customer": "acme",
            "subject": None,
            "from": START,
            "to": END,
            "dimensions": {"model": model},
            "quantity": quantity,
            "events": events,
        }
        for model, quantity, events in (("a", "3000.5", 2), ("zz", "7", 1))
    ] == usage["items"]

    upcoming = shop.ok("GET", "/v1/subscriptions/acme-team/upcoming")
    assert ("20.25", "2026-10-01T00:00:00Z") == (upcoming["total"], upcoming["period_start"])

    run = shop.ok("POST", "/v1/billing_runs", {"as_of": END})
    assert ("finished", 4, True) == (run["status"], run["invoices"], run["finalize"])
    assert [("no_cell", "tokens (model=zz)"), ("sequence_gap", "gateway/1")] == sorted(
        (one["code"], one["subject"]) for one in run["warnings"]
    )
    assert run == shop.ok("GET", f"/v1/billing_runs/{run['id']}")
    assert [run] == shop.ok("GET", "/v1/billing_runs")["items"]

    invoices = shop.ok("GET", "/v1/invoices?customer=acme&status=final")["items"]
    period, start = sorted(invoices, key=lambda one: str(one["kind"]))
    assert ("21.50", "20.00") == (period["total"], start["total"])  # 20 + 1.50025, rounded
    whole = shop.ok("GET", f"/v1/invoices/{period['number']}")
    assert whole == shop.ok("GET", f"/v1/invoices/{period['id']}")
    assert [("base", "20.00", None), ("tokens", "1.50", "3000.5")] == [
        (line["charge"], line["amount"], line["quantity"]) for line in whole["lines"]
    ]
    assert [("no_cell", "7", {"model": "zz"})] == [
        (one["reason"], one["quantity"], one["dimensions"]) for one in whole["invoice"]["unpriced"]
    ]

    opened = shop.ok("GET", f"/v1/invoices/{period['number']}/lines/2/explain?limit=1")
    assert ("1.50025", "std") == (opened["usage"]["exact"], opened["usage"]["rate_card"]["key"])
    assert "matrix" == opened["price"]["model"]
    assert ["e1"] == [one["id"] for one in opened["events"]]
    more = f"/v1/invoices/{period['number']}/lines/2/explain?cursor={opened['next_cursor']}"
    rest = shop.ok("GET", more)
    # e3 was read by the same meter, and is not on the line: nobody said what it costs.
    assert (["e2"], None) == ([one["id"] for one in rest["events"]], rest["next_cursor"])

    became = shop.ok("GET", "/v1/events/explain?source=gateway/1&id=e1")
    assert "billed" == became["fate"]
    (line,) = became["meters"][0]["readings"][0]["lines"]
    assert (period["number"], 2, "0.50025") == (
        line["invoice_number"],
        line["position"],
        line["amount_alone"],
    )
    assert {"model": "a", "tokens": "1000.5"} == became["event"]["payload"]["data"]


def test_what_is_late_unbilled_or_missing_is_listed(shop: Any) -> None:
    send(shop, *EVENTS, event(7, "2026-09-08T00:00:00Z", "nobody", "a", 1))
    shop.ok("POST", "/v1/billing_runs", {"as_of": END})
    send(shop, event(4, "2026-09-09T00:00:00Z", "globex", "a", 9))

    (late,) = shop.ok("GET", "/v1/late")["items"]
    assert ("globex", "9", 1, "tokens") == (
        late["customer"],
        late["quantity"],
        late["events"],
        late["meter"],
    )
    assert "late" == shop.ok("GET", "/v1/events/explain?source=gateway/1&id=e4")["fate"]

    found, cursor = [], ""
    while cursor is not None:
        page = shop.ok("GET", f"/v1/unbilled?{SPAN}{cursor}")
        found += page["items"]
        following = page["next_cursor"]
        cursor = None if following is None else f"&cursor={following}"
    assert [("no_customer", "nobody", "1"), ("no_cell", None, "7")] == [
        (one["reason"], one["subject"], one["quantity"]) for one in found
    ]
    assert all(one["help"] for one in found)

    (source,) = shop.ok("GET", "/v1/sources")["items"]
    assert ("gateway/1", 7, 7, 0, []) == (
        source["source"],
        source["events"],
        source["numbered"],
        source["missing"],
        source["gaps"],
    )
    control = {"from": START, "to": END, "events": 6, "totals": {"tokens": "7017.5"}}
    answer = shop.ok("PUT", f"/v1/sources/controls?source={quote('gateway/1', safe='')}", control)
    assert answer["agrees"]
    assert [answer] == shop.ok("GET", "/v1/sources/controls")["items"]


def test_events_are_listed_and_tried(shop: Any) -> None:
    send(shop, *EVENTS)
    listed = shop.ok("GET", f"/v1/events?customer=acme&{SPAN}&limit=2")
    assert ["e3", "e2"] == [one["id"] for one in listed["items"]]
    rest = shop.ok("GET", f"/v1/events?customer=acme&{SPAN}&cursor={listed['next_cursor']}")
    assert ["e1"] == [one["id"] for one in rest["items"]]
    assert 5 == len(shop.ok("GET", "/v1/events?type=llm")["items"])

    tried = shop.ok("POST", "/v1/events/check", event(9, "2026-10-02T11:00:00Z", "acme", "a", 10))
    (reading,) = tried["meters"][0]["readings"]
    assert ("accepted", "not_yet_billed", "10", "acme") == (
        tried["outcome"],
        tried["fate"],
        reading["value"],
        reading["customer"],
    )
    assert "0.005" == reading["lines"][0]["amount_alone"]
    assert (404, "not_found") == shop.code("GET", "/v1/events/explain?source=gateway/1&id=e9")


def test_a_run_sent_again_under_its_key_is_the_same_run(shop: Any) -> None:
    headers = {"Idempotency-Key": "september"}
    first = shop.ok("POST", "/v1/billing_runs", {"as_of": END}, headers=headers)
    again = shop.ok("POST", "/v1/billing_runs", {"as_of": END}, headers=headers)
    assert first == again
    assert 1 == len(shop.ok("GET", "/v1/billing_runs")["items"])
    refused = shop.code("POST", "/v1/billing_runs", {"as_of": START}, headers=headers)
    assert "idempotency_key_reused" == refused[1]


def test_a_draft_run_shows_what_a_final_one_would(shop: Any) -> None:
    send(shop, *EVENTS)
    draft = shop.ok("POST", "/v1/billing_runs", {"as_of": END, "finalize": False})
    drafts = shop.ok("GET", "/v1/invoices?status=draft")["items"]
    assert (4, 4, {None}) == (draft["invoices"], len(drafts), {one["number"] for one in drafts})
    shop.ok("POST", "/v1/billing_runs", {"as_of": END})
    final = shop.ok("GET", "/v1/invoices?status=final")["items"]
    assert sorted((one["subscription"], one["total"]) for one in drafts) == sorted(
        (one["subscription"], one["total"]) for one in final
    )
    assert [] == shop.ok("GET", "/v1/invoices?status=draft")["items"]


def test_invoices_come_in_pages(shop: Any) -> None:
    shop.ok("POST", "/v1/billing_runs", {"as_of": END})
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = shop.ok("GET", f"/v1/invoices?limit=1{cursor}")
        found += [one["number"] for one in page["items"]]
        following = page["next_cursor"]
        cursor = None if following is None else f"&cursor={following}"
    assert [f"INV-00000{n}" for n in (1, 2, 3, 4)] == sorted(found)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/v1/usage?meter=nothing&{SPAN}", (422, "unknown_meter")),
        (f"/v1/usage?meter=tokens&from=yesterday&to={END}", (400, "parameter_invalid")),
        (f"/v1/usage?meter=tokens&from={END}&to={START}", (422, "range_empty")),
        (f"/v1/usage?meter=tokens&{SPAN}&window=minute", (422, "too_many_windows")),
        (f"/v1/usage?meter=tokens&{SPAN}&window=moment", (400, "parameter_invalid")),
        (f"/v1/usage?meter=tokens&{SPAN}&filter.color=red", (422, "unknown_dimension")),
        (f"/v1/usage?meter=tokens&{SPAN}&cursor=nonsense", (400, "cursor_invalid")),
        ("/v1/usage?meter=tokens", (400, "parameter_invalid")),
        ("/v1/subscriptions/nothing/upcoming", (404, "unknown_subscription")),
        ("/v1/invoices/INV-999999", (404, "not_found")),
        ("/v1/invoices/INV-000001/lines/9/explain", (404, "not_found")),
        ("/v1/invoices/INV-000001/lines/1/explain?cursor=WyJ4IiwieSJd", (400, "parameter_invalid")),
        ("/v1/billing_runs/run_nothing", (404, "not_found")),
        (f"/v1/unbilled?from={END}&to={START}", (422, "range_empty")),
        (f"/v1/events?from={END}&to={START}", (422, "range_empty")),
        (f"/v1/sources/controls?from={END}&to={START}", (422, "range_empty")),
        (f"/v1/unbilled?{SPAN}&cursor=WyJ4IiwieSJd", (400, "cursor_invalid")),
        ("/v1/late?cursor=WyJ4IiwieSJd", (400, "cursor_invalid")),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(
    shop: Any, path: str, expected: tuple[int, str]
) -> None:
    assert expected == shop.code("GET", path)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/billing_runs", {"as_of": "2027-01-01T00:00:00Z"}, "parameter_invalid"),
        ("POST", "/v1/billing_runs", {"finalise": True}, "unknown_field"),
        ("PUT", "/v1/sources/limit?source=s", {"silence_seconds_max": 0}, "parameter_invalid"),
        ("PUT", "/v1/sources/limit?source=", {"silence_seconds_max": 9}, "parameter_invalid"),
        (
            "PUT",
            "/v1/sources/controls?source=s",
            {"from": START, "to": END, "events": 1, "totals": {"x": 1}},
            "unknown_meter",
        ),
        (
            "PUT",
            "/v1/sources/controls?source=s",
            {"from": START, "to": END, "events": -1},
            "parameter_invalid",
        ),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(
    shop: Any, method: str, path: str, body: Any, expected: str
) -> None:
    assert expected == shop.code(method, path, body)[1]


def test_a_customers_key_sees_that_customer_only(shop: Any, new_key: Callable[..., Any]) -> None:
    send(shop, *EVENTS)
    shop.ok("POST", "/v1/billing_runs", {"as_of": END})
    bound = new_key(shop, Scope.READ, customer="acme")
    usage = bound.ok("GET", f"/v1/usage?meter=tokens&{SPAN}")["items"]
    assert ["acme"] == [one["customer"] for one in usage]
    refused = (403, "customer_key_refused")
    assert refused == bound.code("GET", f"/v1/usage?meter=tokens&customer=globex&{SPAN}")
    mine = bound.ok("GET", "/v1/invoices")["items"]
    assert {"acme"} == {one["customer"] for one in mine}
    (other, *_) = shop.ok("GET", "/v1/invoices?customer=globex")["items"]
    assert (404, "not_found") == bound.code("GET", f"/v1/invoices/{other['number']}")
    explain = f"/v1/invoices/{other['number']}/lines/1/explain"
    assert (404, "not_found") == bound.code("GET", explain)
    assert {"acme"} == {one["subject"] for one in bound.ok("GET", "/v1/events")["items"]}
    hidden = bound.code("GET", "/v1/subscriptions/globex-team/upcoming")
    assert hidden == bound.code("GET", "/v1/subscriptions/nothing/upcoming")
    assert "20.25" == bound.ok("GET", "/v1/subscriptions/acme-team/upcoming")["total"]
    for path in (f"/v1/unbilled?{SPAN}", "/v1/billing_runs", "/v1/sources"):
        assert refused == bound.code("GET", path)
    assert refused == bound.code("GET", "/v1/events/explain?source=gateway/1&id=e5")


def test_another_organization_sees_none_of_it(shop: Any, new_api: Callable[[], Any]) -> None:
    send(shop, *EVENTS)
    run = shop.ok("POST", "/v1/billing_runs", {"as_of": END})
    stranger = new_api()
    for path in ("/v1/invoices", "/v1/events", "/v1/late", "/v1/sources", "/v1/billing_runs"):
        assert [] == stranger.ok("GET", path)["items"]
    assert 404 == stranger.code("GET", f"/v1/billing_runs/{run['id']}")[0]
    assert 404 == stranger.code("GET", "/v1/invoices/INV-000001")[0]
    assert 404 == stranger.code("GET", "/v1/events/explain?source=gateway/1&id=e1")[0]


def test_scopes_are_asked_for(shop: Any, new_key: Callable[..., Any]) -> None:
    reader, sender = new_key(shop, Scope.READ), new_key(shop, Scope.INGEST)
    missing = (403, "scope_missing")
    assert missing == reader.code("POST", "/v1/billing_runs", {"as_of": END})
    assert missing == sender.code("GET", f"/v1/usage?meter=tokens&{SPAN}")
    control = {"from": START, "to": END, "events": 0}
    assert sender.ok("PUT", "/v1/sources/controls?source=s", control)["agrees"]


def test_a_window_is_half_open(shop: Any) -> None:
    first = datetime.fromisoformat("2026-09-10T00:00:00+00:00")
    for number, time in enumerate((first, first + timedelta(minutes=1)), 1):
        send(shop, event(number, time.isoformat(), "acme", "a", number))
    span = "from=2026-09-10T00:00:00Z&to=2026-09-10T00:01:00Z"
    (row,) = shop.ok("GET", f"/v1/usage?meter=tokens&{span}&window=minute")["items"]
    assert ("1", 1) == (row["quantity"], row["events"])
