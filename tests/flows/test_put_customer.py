"""Customers and their subjects: whose a subject is at every instant, and never two at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.access.id import uuidv7
from farebox.catalog.customer import Customer
from farebox.catalog.problem import Problem
from farebox.flows.move_subject import Moved, move_subject_in
from farebox.flows.put_customer import PutCustomer, put_customer
from farebox.period.instant import BEGINNING, END
from farebox.postgres.customer import SubjectRow, subject_rows
from farebox.postgres.session import Pool, transaction

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _put(
    pool: Pool, organization_id: UUID, key: str, *subjects: str, at: datetime = NOW, **fields: Any
) -> PutCustomer | list[Problem]:
    customer = Customer(key=key, subjects=subjects, **fields)
    return put_customer(pool, organization_id, customer, at, uuidv7(1, os.urandom(10)))


def _rows(pool: Pool, organization_id: UUID, *subjects: str) -> list[SubjectRow]:
    with transaction(pool, organization_id) as connection:
        return subject_rows(connection, organization_id, list(subjects))


def _move(
    pool: Pool, organization_id: UUID, subject: str, customer: str, starts: datetime
) -> Moved | list[Problem]:
    with transaction(pool, organization_id) as connection:
        return move_subject_in(connection, organization_id, subject, customer, starts, NOW)


def _codes(answer: object) -> list[tuple[str, str]]:
    assert isinstance(answer, list), answer
    return [(one.code.value, one.pointer) for one in answer]


def test_a_new_subject_counts_from_the_beginning(pool: Pool, organization_id: UUID) -> None:
    done = _put(pool, organization_id, "acme", "gw")
    assert isinstance(done, PutCustomer)
    assert (True, True, ("gw",)) == (done.created, done.changed, done.customer.subjects)
    assert [
        SubjectRow("acme", "acme", BEGINNING, END),
        SubjectRow("gw", "acme", BEGINNING, END),
    ] == _rows(pool, organization_id, "acme", "gw")


def test_the_same_again_changes_nothing(pool: Pool, organization_id: UUID) -> None:
    _put(pool, organization_id, "acme", "a", "b", name="Acme")
    again = _put(pool, organization_id, "acme", "b", "a", at=NOW + DAY, name="Acme")
    assert isinstance(again, PutCustomer)
    assert (False, False) == (again.changed, again.created)


def test_a_subject_of_another_is_refused_by_that_name(pool: Pool, organization_id: UUID) -> None:
    _put(pool, organization_id, "acme", "gw")
    refused = _put(pool, organization_id, "globex", "own", "gw")
    assert [("subject_taken", "/subjects/1")] == _codes(refused)
    assert "acme" in refused[0].message  # type: ignore[index]
    assert [] == _rows(pool, organization_id, "own", "globex")


def test_what_is_no_longer_listed_ends_now_and_may_begin_elsewhere(
    pool: Pool, organization_id: UUID
) -> None:
    _put(pool, organization_id, "acme", "gw")
    _put(pool, organization_id, "acme", at=NOW + DAY)
    _put(pool, organization_id, "globex", "gw", at=NOW + 2 * DAY)
    assert [
        SubjectRow("gw", "acme", BEGINNING, NOW + DAY),
        SubjectRow("gw", "globex", NOW + 2 * DAY, END),
    ] == _rows(pool, organization_id, "gw")
    # Its own key stays a customer's subject, listed or not.
    assert [SubjectRow("acme", "acme", BEGINNING, END)] == _rows(pool, organization_id, "acme")


def test_an_own_key_that_another_has_stays_there(pool: Pool, organization_id: UUID) -> None:
    _put(pool, organization_id, "acme", "team-1")
    done = _put(pool, organization_id, "team-1", "team-1-app")
    assert isinstance(done, PutCustomer)
    assert [SubjectRow("team-1", "acme", BEGINNING, END)] == _rows(pool, organization_id, "team-1")
    assert [("subject_taken", "/subjects/0")] == _codes(
        _put(pool, organization_id, "team-1", "team-1")
    )


def test_a_move_from_an_instant(pool: Pool, organization_id: UUID) -> None:
    for key in ("a", "b"):
        _put(pool, organization_id, key, *(["gw"] if key == "a" else []))
    moved = _move(pool, organization_id, "gw", "b", NOW)
    assert isinstance(moved, Moved)
    expected = [SubjectRow("gw", "a", BEGINNING, NOW), SubjectRow("gw", "b", NOW, END)]
    assert (True, expected) == (moved.changed, moved.mappings)
    again = _move(pool, organization_id, "gw", "b", NOW)
    assert isinstance(again, Moved)
    assert (False, expected) == (again.changed, again.mappings)
    back = _move(pool, organization_id, "gw", "a", NOW)
    assert isinstance(back, Moved)
    assert [SubjectRow("gw", "a", BEGINNING, END)] == back.mappings
    # What "a" says of itself no longer counts where the subject is another's.
    _move(pool, organization_id, "gw", "b", NOW + DAY)
    assert [("subject_taken", "/subjects/0")] == _codes(_put(pool, organization_id, "a", "gw"))


def test_what_cannot_be_moved(pool: Pool, organization_id: UUID) -> None:
    _put(pool, organization_id, "a", "gw")
    assert [("unknown_customer", "/customer")] == _codes(
        _move(pool, organization_id, "gw", "none", NOW)
    )
    assert [("no_such_subject", "")] == _codes(_move(pool, organization_id, "other", "a", NOW))
    assert [("time_out_of_range", "/from")] == _codes(
        _move(pool, organization_id, "gw", "a", datetime(1900, 1, 1, tzinfo=UTC))
    )


def test_a_move_never_reaches_into_a_final_invoice(pool: Pool, organization_id: UUID) -> None:
    for key in ("a", "b"):
        _put(pool, organization_id, key, *(["gw"] if key == "a" else []))
    with transaction(pool, organization_id) as connection:
        connection.execute(
            "insert into invoice (organization_id, invoice_id, number, kind, status, customer_key,"
            " subscription_key, plan_key, plan_version, period_start, period_end, currency, total,"
            " cutoff_sequence, created_at, unpriced) values (%s, %s, '1', 'period', 'final', 'a',"
            " 's', 'p', 1, %s, %s, 'USD', 0, 0, %s, '[]')",
            (organization_id, uuidv7(1, os.urandom(10)), NOW - DAY, NOW, NOW),
        )
    inside = _move(pool, organization_id, "gw", "b", NOW - DAY / 2)
    assert [("period_final", "/from")] == _codes(inside)
    assert isinstance(_move(pool, organization_id, "gw", "b", NOW), Moved)


Step = tuple[str, str, frozenset[str], int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "move"]),
        st.sampled_from(["a", "b", "c"]),
        st.frozensets(st.sampled_from(["x", "y", "a", "b"]), max_size=3),
        st.integers(0, 6),
    ),
    max_size=8,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_a_subject_is_one_customers_at_every_instant(
    pool: Pool, new_organization: Any, steps: list[Step]
) -> None:
    """Against a second, simpler computation: for every day, who has the subject."""
    organization_id = new_organization()
    for key in ("a", "b", "c"):
        assert isinstance(_put(pool, organization_id, key), PutCustomer)
    for verb, key, subjects, day in steps:
        before = _by_day(pool, organization_id)
        at = NOW + day * DAY
        if verb == "put":
            _put(pool, organization_id, key, *sorted(subjects), at=NOW)
            continue
        for subject in sorted(subjects)[:1]:
            moved = _move(pool, organization_id, subject, key, at)
            if isinstance(moved, Moved):
                expected = {
                    (name, one): key if name == subject and one >= day else holder
                    for (name, one), holder in before.items()
                }
                assert expected == _by_day(pool, organization_id)
    rows = _rows(pool, organization_id, "x", "y", "a", "b")
    for first, second in pairwise(rows):
        if first.subject == second.subject:
            assert first.valid_to <= second.valid_from


def _by_day(pool: Pool, organization_id: UUID) -> dict[tuple[str, int], str | None]:
    rows = _rows(pool, organization_id, "x", "y", "a", "b")
    found: dict[tuple[str, int], str | None] = {}
    for subject in ("x", "y", "a", "b"):
        for day in range(-1, 8):
            at = NOW + day * DAY
            own = [
                row.customer_key
                for row in rows
                if row.subject == subject and row.valid_from <= at < row.valid_to
            ]
            assert len(own) <= 1
            found[subject, day] = own[0] if own else None
    return found


def test_two_who_claim_one_subject_at_once(pool: Pool, organization_id: UUID) -> None:
    ready = Barrier(6)

    def claim(number: int, prize: str) -> PutCustomer | list[Problem]:
        ready.wait()
        return _put(pool, organization_id, f"{prize}-{number}", prize)

    with ThreadPoolExecutor(6) as threads:
        for prize in (f"prize{turn}" for turn in range(12)):
            answers = list(threads.map(claim, range(6), [prize] * 6))
            assert 1 == sum(isinstance(one, PutCustomer) for one in answers)
            assert 1 == len(_rows(pool, organization_id, prize))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"timezone": "Mars/Base"}, ("unknown_timezone", "/timezone")),
        ({"country": "ZZ"}, ("country_invalid", "/country")),
        ({"rate_card": "none"}, ("unknown_rate_card", "/rate_card")),
        ({"partner": "none"}, ("unknown_partner", "/partner")),
    ],
)
def test_a_customer_is_checked(
    pool: Pool, organization_id: UUID, fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert [expected] == _codes(_put(pool, organization_id, "acme", **fields))
