"""Who is decided on next: every pool is asked by one group at a time, and nobody waits for ever."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.flows.decide_pools import Asked
from farebox.intake.waiting import Request, Waiting
from farebox.ledger.command import Draw

A, B, C = (UUID(int=number) for number in range(3))


def request(*pool_ids: UUID) -> Request:
    asked = [Asked(one, Draw(amount=Decimal(1))) for one in pool_ids]
    loop = asyncio.new_event_loop()
    try:
        return Request(asked, loop.create_future())
    finally:
        loop.close()


def taken(waiting: Waiting, requests: Sequence[Request], most: int = 500) -> list[int]:
    """Return the places of the requests that the next group has."""
    group = waiting.next_group(most)
    return [requests.index(one) for one in group.requests]


def test_requests_of_free_pools_make_one_group() -> None:
    waiting, requests = Waiting(), [request(A), request(B), request(A), request(A, B)]
    assert [True] * 4 == [waiting.add(one) for one in requests]
    assert 5 == waiting.commands
    assert [0, 1, 2, 3] == taken(waiting, requests)
    assert 0 == waiting.commands
    assert [] == waiting.next_group(500).requests


def test_who_asks_a_pool_of_a_group_waits_until_it_is_done() -> None:
    waiting, requests = Waiting(), [request(A), request(A), request(B), request(A)]
    waiting.add(requests[0])
    first = waiting.next_group(500)
    # Nothing can be done about the second now, so nobody need look.
    assert [False, True, False] == [waiting.add(one) for one in requests[1:]]
    assert [2] == taken(waiting, requests)
    waiting.done(first)
    assert [1, 3] == taken(waiting, requests)


def test_a_group_ends_at_its_size() -> None:
    waiting, requests = Waiting(), [request(A, B), request(C), request(C)]
    for one in requests:
        waiting.add(one)
    first = waiting.next_group(3)
    assert requests[:2] == first.requests
    assert [] == waiting.next_group(3).requests
    waiting.done(first)
    assert [2] == taken(waiting, requests)


def test_a_request_of_several_pools_is_not_passed_for_ever() -> None:
    """Two pools that are never free at once would keep it waiting, were it passed."""
    waiting = Waiting()
    waiting.add(request(A))
    first = waiting.next_group(500)
    both = request(A, B)
    waiting.add(both)
    later = [request(B) for _ in range(3)]
    for one in later:
        waiting.add(one)
    assert [] == waiting.next_group(500).requests
    waiting.done(first)
    assert [both, *later] == waiting.next_group(500).requests


def test_an_empty_request_waits_for_nothing() -> None:
    waiting = Waiting()
    waiting.add(request(A))
    waiting.next_group(500)
    nothing = request()
    assert waiting.add(nothing)
    assert [nothing] == waiting.next_group(500).requests


@settings(max_examples=500)
@given(
    wanted=st.lists(st.sets(st.sampled_from([A, B, C]), min_size=1), max_size=30),
    steps=st.lists(st.sampled_from(["add", "take", "done"]), max_size=120),
    most=st.integers(1, 5),
)
def test_each_is_taken_once_in_the_order_of_its_pool(
    wanted: list[set[UUID]], steps: list[str], most: int
) -> None:
    waiting, left = Waiting(), [request(*sorted(one)) for one in wanted]
    requests, order, running = list(left), list[Request](), []
    # After the steps all that was asked is seen to its end.
    for step in steps + ["add"] * len(left) + ["take", "done"] * (2 * len(left) + 2):
        if step == "add" and left:
            waiting.add(left.pop(0))
        elif step == "take" and len(running) < 2:
            group = waiting.next_group(most)
            if group.requests:
                assert all(group.pool_ids.isdisjoint(one.pool_ids) for one in running)
                running.append(group)
                order += group.requests
        elif step == "done" and running:
            waiting.done(running.pop(0))
    assert sorted(map(requests.index, order)) == list(range(len(requests)))
    assert 0 == waiting.commands
    for pool_id in (A, B, C):
        alone = [requests.index(one) for one in order if one.pool_ids == {pool_id}]
        assert sorted(alone) == alone


@pytest.mark.parametrize("pools", [[A], [A, B]])
def test_what_waits_is_counted_in_commands(pools: list[UUID]) -> None:
    waiting = Waiting()
    waiting.add(request(*pools))
    group = waiting.next_group(500)
    waiting.add(request(*pools))
    waiting.add(request(*pools))
    assert 2 * len(pools) == waiting.commands
    waiting.done(group)
    waiting.next_group(500)
    assert 0 == waiting.commands
