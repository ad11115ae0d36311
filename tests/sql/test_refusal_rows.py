"""Refusals are counted by the minute, and resolved by what is granted after them."""

from decimal import Decimal
from typing import Any

import pytest
from farebox_pools import Pools

from farebox.flows.decide_pools import Asked
from farebox.ledger.command import Command, Draw
from farebox.postgres import book
from farebox.postgres.session import transaction


def refusals(pools: Pools) -> list[tuple[Any, ...]]:
    return pools.rows(
        "select subject, code, count, asked, available, extract(minute from minute)::int,"
        " resolved_at is not null from refusal order by minute, subject, code"
    )


def test_refusals_add_up_by_the_minute_and_are_resolved(two: Pools) -> None:
    too_much = Draw(amount=Decimal(200), subject="ann")
    for _ in range(2):
        two.decide(*[Asked(two.ids["one"], too_much)] * 3)
    two.decide(Asked(two.ids["one"], Draw(amount=Decimal(150))))
    two.later(minutes=1)
    two.ask("one", too_much)
    code = "insufficient_balance"
    assert [
        ("", code, 1, Decimal(150), Decimal(100), 0, False),
        ("ann", code, 6, Decimal(1200), Decimal(100), 0, False),
        ("ann", code, 1, Decimal(200), Decimal(100), 1, False),
    ] == refusals(two)

    two.later(minutes=5)
    two.draw("one", 1, subject="ann")
    assert [False, True, True] == [row[-1] for row in refusals(two)]
    resolved = two.rows("select distinct resolved_at from refusal where subject = 'ann'")
    assert [(two.now,)] == resolved
    two.draw("two", 1)
    assert [False, True, True] == [row[-1] for row in refusals(two)], "that was another pool"
    two.draw("one", 1)
    assert [True, True, True] == [row[-1] for row in refusals(two)]


def test_a_refusal_in_the_commit_that_also_grants_is_resolved_by_what_comes_after_it(
    two: Pools,
) -> None:
    """Requests that arrive together are decided one after the other."""
    pool_id = two.ids["one"]
    small, large = (Draw(amount=Decimal(n), subject="ann") for n in (1, 200))

    def decide_together(*commands: Command) -> None:
        two.decide(*(Asked(pool_id, command) for command in commands))

    decide_together(large, small)
    assert [True] == [row[-1] for row in refusals(two)], "what came after it was granted"
    decide_together(small, large)
    assert [False] == [row[-1] for row in refusals(two)], "the last word was no"
    decide_together(large, small, large)
    assert [False] == [row[-1] for row in refusals(two)]
    assert [("ann", 4)] == [(row[0], row[2]) for row in refusals(two)]
    two.later(minutes=2)
    decide_together(small)
    assert [True] == [row[-1] for row in refusals(two)]


def test_refusals_of_more_subjects_than_are_remembered_are_resolved_too(
    two: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "UNRESOLVED_MAX", 2)
    pool_id = two.ids["one"]
    names = ["ann", "bob", "eve", "zoë"]
    two.decide(*[Asked(pool_id, Draw(amount=Decimal(200), subject=name)) for name in names[:3]])
    two.later(minutes=1)
    two.decide(*[Asked(pool_id, Draw(amount=Decimal(200), subject=name)) for name in names])
    for seen, name in enumerate(names):
        assert {one: one in names[:seen] for one in names} == {
            row[0]: row[-1] for row in refusals(two)
        }
        two.decide(Asked(pool_id, Draw(amount=Decimal(1), subject=name)))
    assert {True} == {row[-1] for row in refusals(two)}


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_as_many_subjects_are_remembered_as_may_be(
    two: Pools, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(book, "UNRESOLVED_MAX", most)
    for name in ("ann", "bob", "zoë"):
        two.decide(Asked(two.ids["one"], Draw(amount=Decimal(200), subject=name)))
        two.later(minutes=1)
    with transaction(two.pool, two.organization_id, snapshot=True) as connection:
        stated = book.read_books(connection, two.organization_id, [two.ids["one"]])
    known = stated[two.ids["one"]].unresolved
    assert ({"ann", "bob", "zoë"} if most >= 3 else None) == known
