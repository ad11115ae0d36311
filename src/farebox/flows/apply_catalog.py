"""Apply a catalog document: all of it in one transaction, or nothing and every reason."""

from collections.abc import Callable, Iterator
from datetime import datetime
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.check import check_document
from farebox.catalog.customer import Customer, Subscription
from farebox.catalog.diff import Action, Change, ObjectKind, diff
from farebox.catalog.document import Document
from farebox.catalog.problem import Problem
from farebox.flows.entitle import lock_entitlements
from farebox.flows.load_catalog import (
    SECTIONS,
    standing_catalog,
    standing_customers,
    standing_subscriptions,
)
from farebox.flows.publish import publish_in
from farebox.flows.put_customer import PutCustomer, burn_mapped, put_customer_in
from farebox.flows.put_subscription import put_subscription_in
from farebox.postgres import customer as store
from farebox.postgres import rollup
from farebox.postgres.burn_late import Mapped
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool, transaction


class _Undone(Exception):
    """Ends the transaction without writing: for a dry run, or for what was found wrong late."""

    def __init__(self, answer: list[Change] | list[Problem]) -> None:
        super().__init__()
        self.answer = answer


def apply_catalog(
    pool: Pool,
    organization_id: UUID,
    document: Document,
    now: datetime,
    new_id: Callable[[], UUID],
    *,
    dry_run: bool = False,
) -> list[Change] | list[Problem]:
    """Let everything in `document` stand as it says; what it does not mention stays.

    Returns what changed, in document order, or what is wrong. Definitions are published; drafts
    are left alone. A dry run does all of it, and then takes it back: its answer is exact.
    """
    try:
        with transaction(pool, organization_id) as connection:
            lock_organization(connection, organization_id)
            known, before = _standing(connection, organization_id, document)
            problems = check_document(document, known)
            if problems:
                return problems
            changes = diff(before, document)
            _write(connection, organization_id, document, changes, now, new_id)
            if dry_run:
                raise _Undone(changes)
            return changes
    except _Undone as undone:
        return undone.answer


def _standing(
    connection: Connection, organization_id: UUID, document: Document
) -> tuple[Document, Document]:
    """Return what the checks need to know, and the former selves of the document's objects."""
    catalog = standing_catalog(connection, organization_id)
    rows = [
        store.find_subscription(connection, organization_id, one.key)
        for one in document.subscriptions
    ]
    own = [msgspec.json.decode(row.definition, type=Subscription) for row in rows if row]
    keys = {one.key for one in document.customers}
    keys |= {one.customer for one in (*document.subscriptions, *own)}
    customers = standing_customers(connection, organization_id, sorted(keys))
    subscriptions = {
        one.key: one
        for one in (*standing_subscriptions(connection, organization_id, sorted(keys)), *own)
    }
    # Whose a subject is, is decided under lock when it is written, not by this index.
    without = [msgspec.structs.replace(one, subjects=()) for one in customers]
    known = msgspec.structs.replace(
        catalog, customers=tuple(without), subscriptions=tuple(subscriptions.values())
    )
    listed = {one.key: one.subjects for one in document.customers}
    ordered = [_in_order(one, listed.get(one.key, ())) for one in customers]
    return known, msgspec.structs.replace(known, customers=tuple(ordered))


def _in_order(customer: Customer, listed: tuple[str, ...]) -> Customer:
    """Return the customer with its subjects in the order of the document: order says nothing."""
    present = {*customer.subjects, customer.key}
    same = [subject for subject in listed if subject in present]
    rest = [subject for subject in customer.subjects if subject not in listed]
    return msgspec.structs.replace(customer, subjects=(*same, *rest))


def _write(
    connection: Connection,
    organization_id: UUID,
    document: Document,
    changes: list[Change],
    now: datetime,
    new_id: Callable[[], UUID],
) -> None:
    todo = iter(changes)
    if any(
        one.kind is ObjectKind.SUBSCRIPTION and one.action is not Action.UNCHANGED
        for one in changes
    ):
        # What they pay for may change hands. Before whatever else is locked, as everywhere.
        rollup.hold_watermark(connection, organization_id)
    definitions = [
        definition
        for section in SECTIONS.values()
        for definition in getattr(document, section)
        if next(todo).action is not Action.UNCHANGED
    ]
    if definitions:
        publish_in(connection, organization_id, definitions, now)
    problems: list[Problem] = []
    mapped: list[Mapped] = []
    for index, customer in enumerate(document.customers):
        if _is_changed(todo, ObjectKind.CUSTOMER):
            put = put_customer_in(connection, organization_id, customer, now, new_id())
            problems += _below(f"/customers/{index}", put)
            mapped += put.mapped if isinstance(put, PutCustomer) else ()
    sold = [
        (index, one)
        for index, one in enumerate(document.subscriptions)
        if _is_changed(todo, ObjectKind.SUBSCRIPTION)
    ]
    if sold:
        lock_entitlements(connection, organization_id, [one.customer for _, one in sold])
    for index, subscription in sold:
        done = put_subscription_in(connection, organization_id, subscription, now, new_id)
        problems += _below(f"/subscriptions/{index}", done)
    if problems:
        raise _Undone(problems)
    burn_mapped(connection, organization_id, mapped, now)


def _is_changed(todo: Iterator[Change], kind: ObjectKind) -> bool:
    change = next(todo)
    assert change.kind is kind, "the changes come in document order"
    return change.action is not Action.UNCHANGED


def _below(pointer: str, answer: object) -> list[Problem]:
    if not isinstance(answer, list):
        return []
    return [msgspec.structs.replace(one, pointer=pointer + one.pointer) for one in answer]
