"""A whole catalog applied at once: all of it or nothing, and a dry run that is exact."""

import os
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from farebox.access.id import uuidv7
from farebox.catalog.diff import Action, Change
from farebox.catalog.document import Document, read_document
from farebox.flows.apply_catalog import apply_catalog
from farebox.postgres import catalog, customer
from farebox.postgres.session import Pool, transaction

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TEXT = """
meters: [{key: calls, event_type: call, aggregation: count}]
features: [{key: chat, meter: calls}]
aliases: [{dimension: model, alias: new, canonical: old}]
rate_cards:
  - {key: list, currency: USD, rates: [{meter: calls, price: {model: per_unit, unit: 0.10}}]}
plans: [{key: team, currency: USD, rate_card: list, charges: [{key: c, meter: calls}]}]
partners: [{key: globex, rate_card: list}]
customers: [{key: acme, partner: globex, subjects: [gw, app]}]
subscriptions: [{key: s, customer: acme, plan: team, start: "2026-01-01T00:00:00Z"}]
"""


def _document(text: str) -> Document:
    document = read_document(text.encode())
    assert isinstance(document, Document), document
    return document


def _apply(pool: Pool, organization_id: UUID, text: str, *, dry_run: bool = False) -> Any:
    return apply_catalog(
        pool,
        organization_id,
        _document(text),
        NOW,
        lambda: uuidv7(1, os.urandom(10)),
        dry_run=dry_run,
    )


def _state(pool: Pool, organization_id: UUID) -> Any:
    with transaction(pool, organization_id) as connection:
        return (
            catalog.latest_versions(connection, organization_id),
            customer.customers(connection, organization_id),
            customer.subscriptions(connection, organization_id),
            customer.current_subjects(connection, organization_id, "acme"),
        )


def test_everything_in_one_document(pool: Pool, organization_id: UUID) -> None:
    changes = _apply(pool, organization_id, TEXT)
    assert [Action.CREATE] * 8 == [change.action for change in changes]
    versions, customers, subscriptions, subjects = _state(pool, organization_id)
    assert (6, 1) == (len(versions), len(customers))
    assert ["team"] == [row.plan_key for row in subscriptions]
    assert ["acme", "app", "gw"] == subjects


def test_the_same_again_changes_nothing(pool: Pool, organization_id: UUID) -> None:
    _apply(pool, organization_id, TEXT)
    before = _state(pool, organization_id)
    again = _apply(pool, organization_id, TEXT.replace("0.10", "0.1"))
    assert {Action.UNCHANGED} == {change.action for change in again}
    assert before == _state(pool, organization_id)


def test_a_dry_run_says_what_would_be_and_writes_nothing(pool: Pool, organization_id: UUID) -> None:
    empty = _state(pool, organization_id)
    dry = _apply(pool, organization_id, TEXT, dry_run=True)
    assert empty == _state(pool, organization_id)
    assert dry == _apply(pool, organization_id, TEXT)
    changed = TEXT.replace("0.10", "0.20").replace("[gw, app]", "[gw]")
    before = _state(pool, organization_id)
    dry = _apply(pool, organization_id, changed, dry_run=True)
    told = [change for change in dry if change.action is not Action.UNCHANGED]
    assert ["list", "acme"] == [change.key for change in told]
    assert before == _state(pool, organization_id)


def test_one_refusal_takes_everything_back(pool: Pool, organization_id: UUID) -> None:
    _apply(pool, organization_id, TEXT)
    before = _state(pool, organization_id)
    text = TEXT.replace("0.10", "0.20") + "\n".join(
        [
            "# a subject of another customer, a start that cannot move",
        ]
    )
    text = text.replace(
        "subjects: [gw, app]}]", "subjects: [gw, app]}, {key: other, subjects: [gw]}]"
    ).replace("2026-01-01", "2026-01-02")
    problems = _apply(pool, organization_id, text)
    # The document contradicts itself, which is seen before anything is written.
    assert [("subject_duplicate", "/customers/1/subjects/0")] == [
        (one.code.value, one.pointer) for one in problems if one.code.value == "subject_duplicate"
    ][-1:]
    alone = _apply(
        pool,
        organization_id,
        """
meters: [{key: fresh, event_type: call, aggregation: count}]
customers: [{key: other, subjects: [mine, gw]}]
subscriptions: [{key: s, customer: acme, plan: team, start: "2026-01-02T00:00:00Z"}]
""",
    )
    assert [
        ("subject_taken", "/customers/0/subjects/1"),
        ("subscription_fixed", "/subscriptions/0/start"),
    ] == [(one.code.value, one.pointer) for one in alone]
    assert before == _state(pool, organization_id)


def test_a_subscription_is_pinned_to_the_plan_of_the_same_document(
    pool: Pool, organization_id: UUID
) -> None:
    _apply(pool, organization_id, TEXT)
    more = (
        TEXT.replace("key: team,", "key: team, name: Two,")
        + "customers: [{key: b}]\nsubscriptions: [{key: s2, customer: b, plan: team,"
        ' start: "2026-01-01T00:00:00Z"}]'
    )
    more = "\n".join(
        line for line in more.splitlines() if not line.startswith(("customers: [{key: acme",))
    )
    more = "\n".join(line for line in more.splitlines() if "key: s," not in line)
    changes = _apply(pool, organization_id, more)
    assert all(isinstance(change, Change) for change in changes), changes
    _, _, subscriptions, _ = _state(pool, organization_id)
    assert {"s": 1, "s2": 2} == {row.key: row.plan_version for row in subscriptions}
