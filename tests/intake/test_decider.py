"""The group committer of decisions: who waits is answered, who leaves or fails harms nobody."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from farebox_desk import Desk, Gate, cut_who_waits, draw, drawn, hold, run, versions
from farebox_pools import Pools, granted, refused
from msgspec import structs

from farebox.flows.decide_pools import Asked, Outcome, Round
from farebox.intake import authorize
from farebox.intake.authorize import Decider
from farebox.intake.intake import Intake
from farebox.intake.overload import Overloaded
from farebox.ledger.command import Answer, Command
from farebox.period.clock import ClockJumped, SteadyClock
from farebox.postgres.book import read_books
from farebox.postgres.posting import LINE_END, VALUE_END, Posted
from farebox.postgres.session import transaction


def test_requests_that_come_together_are_one_commit(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, before = Gate(monkeypatch), versions(pools)

    async def story() -> list[Outcome]:
        first = asyncio.create_task(desk.one("pool", draw()))
        await gate.entered.wait()
        rest = [asyncio.create_task(desk.one("pool", draw(n))) for n in range(1, 10)]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *rest)

    answers = [granted(outcome) for outcome in run(intake, story())]
    assert [1, 1, 2, 3, 4, 5, 6, 7, 8, 9] == [answer.amount for answer in answers]
    assert [99, 98, 96, 93, 89, 84, 78, 71, 63, 54] == [answer.available for answer in answers]
    assert before + 2 == versions(pools)
    assert [] == pools.verify()


def test_a_commit_under_way_holds_up_its_own_pool_alone(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools.put("other")
    pools.grant("other", 5)
    post, entered, let_go = Decider._post, asyncio.Event(), asyncio.Event()

    async def hold_up(decider: Decider, decided: Round) -> Posted:
        if pools.ids["pool"] in decided.pool_ids:
            entered.set()
            await let_go.wait()
        return await post(decider, decided)

    monkeypatch.setattr(Decider, "_post", hold_up)

    async def story() -> list[Outcome]:
        slow = asyncio.create_task(desk.one("pool", draw()))
        await entered.wait()
        behind = asyncio.create_task(desk.one("pool", draw()))
        others = [await desk.one("other", draw()) for _ in range(3)]
        assert not slow.done()
        assert not behind.done()
        let_go.set()
        return [*others, await slow, await behind]

    answers = [granted(outcome) for outcome in run(intake, story())]
    assert [4, 3, 2, 99, 98] == [answer.available for answer in answers]
    assert [] == pools.verify()


def test_a_clock_that_leaps_ahead_moves_nothing(pools: Pools, runtime_url: str) -> None:
    """What expires next week does not, because somebody set the clock a month ahead."""
    expires_at = pools.now + timedelta(days=7)
    pools.grant("pool", 50, expires_at=expires_at)
    wall = [pools.now.timestamp()]
    intake = Intake(pools.pool, runtime_url, SteadyClock(lambda: wall[0], lambda: 0.0))
    desk = Desk(pools, intake.decider(pools.organization_id))

    async def story() -> tuple[Outcome, Outcome]:
        first = await desk.one("pool", draw())
        wall[0] += 30 * 86_400
        before = versions(pools)
        for _ in range(2):
            asked = [desk.one("pool", draw(n)) for n in range(1, 4)]
            for raised in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(raised, ClockJumped)
        assert before == versions(pools)
        wall[0] -= 30 * 86_400
        return first, await desk.one("pool", draw())

    first, last = run(intake, story())
    assert (149, 148) == (granted(first).available, granted(last).available)
    assert [] == pools.verify()


def test_many_requests_are_taken_a_commit_at_a_time(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorize, "COMMANDS_A_COMMIT", 10)
    gate, before = Gate(monkeypatch), versions(pools)
    gate.open.set()

    async def story() -> None:
        await asyncio.gather(*(desk.ask("pool", draw(), draw(), draw()) for _ in range(12)))

    run(intake, story())
    assert before + 3 == versions(pools), "12 commands, 12 and 12"
    assert 36 == drawn(pools)


def test_answers_keep_the_order_of_the_request(pools: Pools, intake: Intake, desk: Desk) -> None:
    mixed = run(intake, desk.ask("pool", draw(60), draw(50), hold(40), draw(1)))
    assert (60, 40) == (granted(mixed[0]).amount, granted(mixed[2]).amount)
    assert ["insufficient_balance"] * 2 == [refused(mixed[1]), refused(mixed[3])]


def test_pools_of_one_commit_are_decided_each_by_itself(
    pools: Pools, intake: Intake, decider: Decider
) -> None:
    unknown = UUID(int=7)
    asked = [Asked(one, draw()) for one in (*pools.ids.values(), unknown)]
    outcomes = run(intake, decider.decide(asked))
    assert isinstance(outcomes[0], Answer)
    assert ["insufficient_balance", "pool_unknown"] == [refused(one) for one in outcomes[1:]]


def test_an_empty_request_is_answered(intake: Intake, decider: Decider) -> None:
    assert [] == run(intake, decider.decide([]))


def test_a_client_that_leaves_stops_nobody(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asked for is decided all the same: its key tells what became of it."""
    gate = Gate(monkeypatch)

    async def story() -> tuple[Outcome, Outcome]:
        committing = asyncio.create_task(desk.one("pool", draw(1, "committing")))
        await gate.entered.wait()
        waiting = asyncio.create_task(desk.one("pool", draw(2, "waiting")))
        stays = asyncio.create_task(desk.one("pool", draw(4)))
        await asyncio.sleep(0)
        committing.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        answer = await stays
        assert committing.cancelled()
        assert waiting.cancelled()
        return answer, await desk.one("pool", draw(2, "waiting"))

    stayed, again = run(intake, story())
    assert 93 == granted(stayed).available
    assert granted(again).repeated
    assert 7 == drawn(pools)


def test_a_request_made_when_the_last_one_is_answered_is_not_forgotten(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    async def chain() -> None:
        for _ in range(20):
            granted(await desk.one("pool", draw()))

    async def story() -> None:
        await asyncio.gather(*(chain() for _ in range(4)))

    run(intake, story())
    assert 80 == drawn(pools)


@pytest.mark.parametrize(
    ("poison", "error"),
    [
        (structs.replace(draw(1, "poison"), digest="no digest"), psycopg.Error),
        (draw(1, f"poison{VALUE_END}"), AssertionError),
        (draw(1, f"poison{LINE_END}"), AssertionError),
        (draw(-1), AssertionError),
    ],
    ids=["in the database", "between values", "between lines", "in the decision"],
)
def test_one_request_that_cannot_be_decided_fails_alone(
    pools: Pools, intake: Intake, desk: Desk, poison: Command, error: type[Exception]
) -> None:
    """The door lets neither in; were one to pass, its neighbours must not suffer."""

    async def story() -> list[Any]:
        requests = [[draw(1)], [draw(2), poison], [draw(4), draw(8)]]
        return await asyncio.gather(
            *(desk.ask("pool", *request) for request in requests), return_exceptions=True
        )

    first, failed, last = run(intake, story())
    assert isinstance(failed, error)
    assert [1, 4, 8] == [granted(one).amount for one in (*first, *last)]
    assert 13 == drawn(pools)
    assert [] == pools.verify()


def test_a_lost_connection_is_told_and_the_next_request_goes_through(
    pools: Pools, intake: Intake, desk: Desk, superuser_url: str
) -> None:
    """The pool is held by another process when the connection of the decider is cut."""

    async def story() -> None:
        granted(await desk.one("pool", draw()))
        with transaction(pools.pool, pools.organization_id) as connection:
            read_books(connection, pools.organization_id, list(pools.ids.values()), lock=True)
            lost = [asyncio.create_task(desk.one("pool", draw(n, f"{n}"))) for n in (1, 2)]
            await asyncio.to_thread(cut_who_waits, superuser_url, "post_transfers")
            answers = await asyncio.gather(*lost, return_exceptions=True)
        assert [True, True] == [isinstance(one, psycopg.OperationalError) for one in answers]
        assert 1 == drawn(pools)
        again = [granted(await desk.one("pool", draw(n, f"{n}"))) for n in (1, 2)]
        assert [False, False] == [one.repeated for one in again]

    run(intake, story())
    assert 4 == drawn(pools)


def test_an_answer_that_is_lost_leaves_a_draw_that_counts_once(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit went through, the connection did not; whoever asks again is told the truth."""
    post = Decider._post

    async def post_and_lose(decider: Decider, decided: Round) -> Posted:
        await post(decider, decided)
        raise psycopg.OperationalError("the connection is lost")

    async def story() -> list[Outcome]:
        with monkeypatch.context() as patched:
            patched.setattr(Decider, "_post", post_and_lose)
            with pytest.raises(psycopg.OperationalError):
                await desk.ask("pool", draw(60, "a"), draw(50, "b"), hold(40, "c"))
        return await desk.ask("pool", draw(60, "a"), draw(50, "b"), hold(40, "c"), draw(1, "d"))

    lost, refused_then, held, fresh = run(intake, story())
    assert [True, True] == [granted(one).repeated for one in (lost, held)]
    assert ["insufficient_balance"] * 2 == [refused(one) for one in (refused_then, fresh)]
    assert 60 == drawn(pools)
    assert [] == pools.verify()


def test_a_full_queue_lets_nobody_in(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorize, "COMMANDS_WAITING", 3)
    gate = Gate(monkeypatch)

    async def story() -> None:
        first = asyncio.create_task(desk.ask("pool", *[draw()] * 5))
        await gate.entered.wait()
        second = asyncio.create_task(desk.ask("pool", draw(), draw()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await desk.ask("pool", draw(), draw())
        third = asyncio.create_task(desk.ask("pool", draw()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await desk.one("pool", draw())
        gate.open.set()
        await asyncio.gather(first, second, third)
        granted(await desk.one("pool", draw()))

    run(intake, story())
    assert 9 == drawn(pools)


def test_organizations_have_deciders_of_their_own(
    pools: Pools, intake: Intake, new_organization: Callable[[], UUID]
) -> None:
    other = new_organization()
    assert intake.decider(pools.organization_id) is intake.decider(pools.organization_id)
    assert intake.decider(pools.organization_id) is not intake.decider(other)
    outcome = run(intake, intake.decider(other).decide([Asked(pools.ids["pool"], draw())]))[0]
    assert "pool_unknown" == refused(outcome)


def test_an_intake_decides_while_it_is_opened(pools: Pools, intake: Intake, desk: Desk) -> None:
    """One event loop after the other may open it; what it knows of the pools stays."""
    for available in (99, 98):
        assert available == granted(run(intake, desk.one("pool", draw()))).available
        with pytest.raises(AssertionError, match="not opened"):
            asyncio.run(desk.one("pool", draw()))
