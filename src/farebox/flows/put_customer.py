"""Put a customer as it should be: who it is, and which subjects use on its behalf from now on."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.check import check_document
from farebox.catalog.code import CatalogCode
from farebox.catalog.customer import Customer
from farebox.catalog.document import Document
from farebox.catalog.problem import Problem
from farebox.flows.burn_late import burn_late
from farebox.flows.edit_draft import ANY, EditCode, tag_of
from farebox.flows.load_catalog import (
    standing_catalog,
    standing_customers,
    standing_subscriptions,
)
from farebox.period.instant import BEGINNING, END
from farebox.postgres import customer as store
from farebox.postgres.burn_late import Mapped
from farebox.postgres.customer import SubjectRow
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool, transaction


class SubjectCode(StrEnum):
    """Why a subject does not become a customer's, in order of precedence."""

    SUBJECT_TAKEN = "subject_taken"


class PutCustomer(Struct, frozen=True):
    """The customer as it stands, and whether anything changed; mapped: usage that became its."""

    customer: Customer
    changed: bool
    created: bool = False
    mapped: Sequence[Mapped] = ()


def put_customer(
    pool: Pool,
    organization_id: UUID,
    customer: Customer,
    now: datetime,
    customer_id: UUID,
    *,
    if_match: str | None = None,
) -> PutCustomer | list[Problem]:
    """Add or change a customer; `customer_id` is for a new one. All or nothing is written.

    A subject that was never mapped becomes the customer's from the beginning of time, so that
    usage sent before the customer was known is found. One that is mapped to another customer is
    refused (`subject_taken`); one that is no longer listed ends now, or right after the last
    of its events that is dated ahead and has burned a pool. The customer's own key is its subject
    unless another customer has it.
    """
    with transaction(pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        standing = standing_customers(connection, organization_id, [customer.key])
        tag = tag_of(standing[0]) if standing else None
        if if_match is not None and if_match != tag and not (if_match == ANY and tag):
            message = "it was changed since you read it; read it again and repeat the edit"
            return [Problem(EditCode.PRECONDITION_FAILED, "", message)]
        subscriptions = standing_subscriptions(connection, organization_id, [customer.key])
        known = msgspec.structs.replace(
            standing_catalog(connection, organization_id), subscriptions=tuple(subscriptions)
        )
        problems = [
            msgspec.structs.replace(one, pointer=one.pointer.removeprefix("/customers/0"))
            for one in check_document(Document(customers=(customer,)), known)
        ]
        if problems:
            return problems
        put = put_customer_in(connection, organization_id, customer, now, customer_id)
        if isinstance(put, PutCustomer):
            burn_mapped(connection, organization_id, put.mapped, now)
        return put


def put_customer_in(
    connection: Connection,
    organization_id: UUID,
    customer: Customer,
    now: datetime,
    customer_id: UUID,
) -> PutCustomer | list[Problem]:
    """As `put_customer`, in a transaction that holds the organization's lock and has checked.

    What was `mapped` has not burned yet; the caller does `burn_mapped`, once for all customers.
    """
    standing = standing_customers(connection, organization_id, [customer.key])
    taken, ending, beginning = _subjects(connection, organization_id, customer, now)
    if taken:
        return taken
    wrong = _parent(connection, organization_id, customer)
    if wrong is not None:
        return [wrong]
    kept = msgspec.structs.replace(customer, subjects=())
    same = bool(standing) and msgspec.structs.replace(standing[0], subjects=()) == kept
    if not same:
        store.put_customer(connection, organization_id, kept, customer_id, now)
    for subject, end in _ends(connection, organization_id, customer.key, ending, now).items():
        store.end_subject(connection, organization_id, subject, end)
    for row in beginning:
        if not store.extend_subject(connection, organization_id, row):
            store.add_subject(connection, organization_id, row)
    after = standing_customers(connection, organization_id, [customer.key])[0]
    changed = not same or bool(ending) or bool(beginning)
    mapped = [Mapped(row.subject, customer.key, row.valid_from, row.valid_to) for row in beginning]
    if not standing:
        mapped.append(Mapped("", customer.key, BEGINNING, END, named=True))
    return PutCustomer(after, changed, created=not standing, mapped=mapped)


def burn_mapped(
    connection: Connection, organization_id: UUID, mapped: Sequence[Mapped], now: datetime
) -> None:
    """Let usage that was nobody's burn the pools of the customers that it became."""
    burned = burn_late(connection, organization_id, mapped, now)
    assert not burned, "what was nobody's has burned nothing"


def _parent(connection: Connection, organization_id: UUID, customer: Customer) -> Problem | None:
    """Return what is wrong with the customer that this one is to be part of."""
    above, seen = customer.parent, {customer.key}
    while above is not None:
        if above in seen:
            message = f"{customer.key!r} would be part of itself"
            return Problem(CatalogCode.CUSTOMER_CYCLE, "/parent", message)
        seen.add(above)
        found = store.find_customer(connection, organization_id, above)
        if found is None:
            message = f"there is no customer {above!r}"
            return Problem(CatalogCode.UNKNOWN_CUSTOMER, "/parent", message)
        above = found.parent
    return None


def _subjects(
    connection: Connection, organization_id: UUID, customer: Customer, now: datetime
) -> tuple[list[Problem], list[str], list[SubjectRow]]:
    """Return which listed subjects are taken, which ones end and which mappings begin."""
    current = store.current_subjects(connection, organization_id, customer.key)
    wanted = list(dict.fromkeys((*customer.subjects, customer.key)))
    rows = store.subject_rows(connection, organization_id, wanted)
    taken: list[Problem] = []
    beginning: list[SubjectRow] = []
    for subject in wanted:
        own = [row for row in rows if row.subject == subject]
        holder = _holder(own)
        if holder is None:
            since = max((row.valid_to for row in own), default=BEGINNING)
            starts = BEGINNING if since == BEGINNING else max(since, now)
            beginning.append(SubjectRow(subject, customer.key, starts, END))
        elif holder != customer.key and subject in customer.subjects:
            taken.append(_taken(customer.subjects, subject, holder))
    ending = [subject for subject in current if subject not in wanted]
    return taken, ending, beginning


def _holder(rows: Sequence[SubjectRow]) -> str | None:
    """Return who has the subject at last, from now or later on; none where nobody will."""
    return next((row.customer_key for row in rows if row.valid_to == END), None)


def _ends(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    ending: Sequence[str],
    now: datetime,
) -> dict[str, datetime]:
    """Return when each of these subjects ends: not before what has burned a pool as the customer's.

    Events may be dated ahead, and what has burned stays the customer's.
    """
    ends = dict.fromkeys(ending, now)
    leaving = [
        Mapped(row.subject, "", max(row.valid_from, now), END, customer_key)
        for row in store.subject_rows(connection, organization_id, ending)
        if row.valid_to == END
    ]
    for one in burn_late(connection, organization_id, leaving, now):
        ends[one.subject] = max(ends[one.subject], one.last_time + datetime.resolution)
    return ends


def _taken(listed: Sequence[str], subject: str, holder: str) -> Problem:
    message = (
        f"{subject!r} is a subject of customer {holder}; "
        f"move it from an instant with POST /v1/subjects/{subject}/move"
    )
    return Problem(SubjectCode.SUBJECT_TAKEN, f"/subjects/{listed.index(subject)}", message)
