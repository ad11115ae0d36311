"""The group committer of decisions: on books in memory, and yet as if each had locked the pool."""

import asyncio
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest

from farebox.flows.decide_pools import Asked, Outcome, Round
from farebox.intake import authorize
from farebox.intake.authorize import Books, Decider
from farebox.intake.intake import Intake
from farebox.intake.overload import Overloaded
from farebox.ledger.command import Answer, Command, Draw, Extend, Release, Reserve, Settle
from farebox.ledger.decide import apply
from farebox.ledger.policy import Limit, LimitMode, Policy
from farebox.money.rounding import exact
from farebox.postgres.book import Stated, read_books
from farebox.postgres.posting import SEPARATOR, Posted
from farebox.postgres.session import Pool, open_pool, transaction

_POOLS = Path(__file__).parent.parent / "flows" / "pools.py"
_spec = importlib.util.spec_from_file_location("farebox_pools", _POOLS)
assert _spec is not None
assert _spec.loader is not None
if "farebox_pools" not in sys.modules:
    sys.modules["farebox_pools"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_pools"])

from farebox_pools import Pools, digest, granted, refused, told  # noqa: E402

Result = TypeVar("Result")


@pytest.fixture
def pools(pool: Pool, organization_id: UUID) -> Pools:
    """Return an organization with a pool of 100 units, and one that is empty."""
    found = Pools(pool, organization_id, datetime(2026, 10, 2, 12, tzinfo=UTC))
    found.put("pool")
    found.put("empty")
    found.grant("pool", 100)
    return found


@pytest.fixture
def intake(pools: Pools, runtime_url: str) -> Intake:
    return Intake(pools.pool, runtime_url, pools.clock)


@pytest.fixture
def decider(pools: Pools, intake: Intake) -> Decider:
    return intake.decider(pools.organization_id)


def run(intake: Intake, story: Awaitable[Result]) -> Result:
    """Let the story happen on an event loop on which the intake is opened."""

    async def opened() -> Result:
        async with intake.opened():
            return await asyncio.wait_for(story, 30)

    return asyncio.run(opened())


class Desk:
    """Asks one decider about the pools of a world."""

    def __init__(self, pools: Pools, decider: Decider) -> None:
        self._pools, self._decider = pools, decider

    async def ask(self, pool: str, *commands: Command) -> list[Outcome]:
        asked = [Asked(self._pools.ids[pool], command) for command in commands]
        return await self._decider.decide(asked)

    async def one(self, pool: str, command: Command) -> Outcome:
        return (await self.ask(pool, command))[0]


@pytest.fixture
def desk(pools: Pools, decider: Decider) -> Desk:
    return Desk(pools, decider)


def draw(amount: object = 1, key: str | None = None, **fields: Any) -> Draw:
    return Draw(amount=Decimal(str(amount)), key=key, digest=digest(amount, key), **fields)


def hold(amount: object = 1, key: str | None = None) -> Reserve:
    return Reserve(amount=Decimal(str(amount)), key=key, digest=digest("hold", amount, key))


def versions(pools: Pools, pool: str = "pool") -> int:
    """Return how many commits a pool has seen."""
    return int(pools.rows("select version from pool where pool_id = %s", pools.ids[pool])[0][0])


def drawn(pools: Pools) -> Decimal:
    return Decimal(pools.rows("select sum(used) from pool")[0][0])


class Gate:
    """Holds the decider's commits until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()
        post = Decider._post

        async def wait_then_post(decider: Decider, decided: Round) -> Posted:
            self.entered.set()
            await self.open.wait()
            return await post(decider, decided)

        monkeypatch.setattr(Decider, "_post", wait_then_post)


# Requests that come together --------------------------------------------------------------------


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


# Somebody else moves the pool --------------------------------------------------------------------


def test_an_old_book_is_read_anew_and_decided_on_again(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    async def story() -> None:
        assert 99 == granted(await desk.one("pool", draw())).available
        pools.draw("pool", 95)
        outcome = await desk.one("pool", draw(5))
        assert "insufficient_balance" == refused(outcome), "there were 99 when it was last looked"
        assert 4 == getattr(outcome, "left", None)
        pools.grant("pool", 10)
        assert 9 == granted(await desk.one("pool", draw(5))).available

    run(intake, story())
    assert [] == pools.verify()


def test_a_hold_of_another_process_is_settled_on_an_old_book(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    """The hold is not in the book, and yet open: then it is the book that is wrong."""

    async def story() -> list[Outcome]:
        granted(await desk.one("pool", draw()))
        theirs = [pools.hold("pool", 10) for _ in range(4)]
        settled = await desk.one("pool", Settle(hold=theirs[0], amount=Decimal(4)))
        pools.draw("pool", 1)
        later = [pools.hold("pool", 10), pools.hold("pool", 10)]
        pools.release("pool", later[1])
        return [
            settled,
            *await desk.ask("pool", Release(hold=theirs[1]), Release(hold=later[0])),
            *await desk.ask("pool", Release(hold=later[1]), Release(hold=9999)),
        ]

    settled, *released, ended, unknown = run(intake, story())
    assert 4 == granted(settled).amount
    assert [10, 10] == [granted(one).amount for one in released]
    assert ["hold_released", "hold_unknown"] == [refused(ended), refused(unknown)]
    assert [] == pools.verify()


def test_a_hold_that_another_process_ended_is_refused(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    async def story() -> None:
        held = granted(await desk.one("pool", hold(10))).hold
        assert held is not None
        pools.settle("pool", held, 3)
        outcome = await desk.one("pool", Settle(hold=held, amount=Decimal(10)))
        assert "hold_settled" == refused(outcome)

    run(intake, story())
    assert 3 == drawn(pools)


def test_a_pool_that_others_keep_moving_is_locked_for_the_decision(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody comes in between every time; still each request is answered, and soon."""
    post, tries = Decider._post, [0]

    async def be_outrun(decider: Decider, decided: Round) -> Posted:
        tries[0] += 1
        await asyncio.to_thread(pools.draw, "pool", "0.5")
        return await post(decider, decided)

    monkeypatch.setattr(Decider, "_post", be_outrun)
    monkeypatch.setattr(authorize, "LOCKED_ROUNDS", 5)

    async def story() -> list[Outcome]:
        return [await desk.one("pool", draw()) for _ in range(11)]

    answers = [granted(outcome) for outcome in run(intake, story())]
    # Of 11 requests two found out, and then five in a row were decided under the lock.
    assert authorize.ATTEMPTS_APART * 3 == tries[0]
    assert 11 + Decimal("0.5") * tries[0] == drawn(pools)
    assert sorted((one.available for one in answers), reverse=True) == [
        one.available for one in answers
    ]
    assert [] == pools.verify()


def test_two_processes_share_a_pool(pools: Pools, intake: Intake, runtime_url: str) -> None:
    """Each has its own books; together they grant what there is, each key once."""
    connections = open_pool(runtime_url, size=3)
    other = Intake(connections, runtime_url, pools.clock)

    async def story() -> list[Outcome]:
        async with other.opened():
            desks = [Desk(pools, one.decider(pools.organization_id)) for one in (intake, other)]
            return await asyncio.gather(
                *(desk.one("pool", draw(1, f"{n}")) for n in range(130) for desk in desks)
            )

    outcomes = run(intake, story())
    connections.close()
    answers = [one for one in outcomes if isinstance(one, Answer)]
    assert 100 == sum(not one.repeated for one in answers)
    assert 100 == drawn(pools)
    for one, again in zip(outcomes[::2], outcomes[1::2], strict=True):
        if isinstance(one, Answer) and isinstance(again, Answer):
            assert told(one) == told(again)
    assert [] == pools.verify()


# Keys --------------------------------------------------------------------------------------------


def everything_keyed(pools: Pools) -> Callable[[Desk], Awaitable[list[tuple[Command, Answer]]]]:
    """Return what asks for one of each kind, under keys of their own."""

    async def ask(desk: Desk) -> list[tuple[Command, Answer]]:
        found: list[tuple[Command, Answer]] = []

        async def note(command: Command) -> int:
            answer = granted(await desk.one("pool", command))
            found.append((command, answer))
            return answer.hold or 0

        def settle(number: int, amount: object) -> Settle:
            key = f"settle {number}"
            return Settle(
                hold=number, amount=Decimal(str(amount)), key=key, digest=digest(key, amount)
            )

        await note(draw("0.5", "draw"))
        await note(settle(await note(hold(8, "held")), 3))
        await note(settle(await note(hold(2, "held for nothing")), 0))
        await note(settle(await note(hold(2, "held too little")), "95.25"))
        held = await note(hold("0.25", "held and given back"))
        await note(Extend(hold=held, amount=Decimal(1), key="more", digest=digest("more")))
        await note(Release(hold=held, key="back", digest=digest("back")))
        await note(draw(7, "beyond"))
        return found

    return ask


@pytest.mark.parametrize("mode", [LimitMode.SOFT, LimitMode.OVERAGE])
def test_a_known_key_is_answered_as_the_first_time(
    pools: Pools, intake: Intake, desk: Desk, runtime_url: str, mode: LimitMode
) -> None:
    """Whatever was asked, whoever asks again, and though nothing is left by then."""
    pools.put("pool", Policy(limit=Limit(mode=mode)))

    async def story() -> None:
        first = await everything_keyed(pools)(desk)
        moved = drawn(pools), len(pools.transfers("pool"))
        pools.put("pool", Policy(limit=Limit(mode=mode), hold_seconds=60))
        other = Intake(pools.pool, runtime_url, pools.clock)
        async with other.opened():
            for place in (desk, Desk(pools, other.decider(pools.organization_id))):
                together = [granted(one) for one in await place.ask("pool", *(c for c, _ in first))]
                alone = [granted(await place.one("pool", command)) for command, _ in first]
                for answers in (together, alone):
                    assert [told(answer) for _, answer in first] == [told(one) for one in answers]
                    assert all(one.repeated for one in answers)
        assert moved == (drawn(pools), len(pools.transfers("pool")))

    run(intake, story())
    assert [] == pools.verify()


def test_a_known_key_is_answered_when_the_pool_is_empty(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    async def story() -> None:
        first = granted(await desk.one("pool", draw(60, "a")))
        assert "insufficient_balance" == refused(await desk.one("pool", draw(60, "b")))
        again = granted(await desk.one("pool", draw(60, "a")))
        assert (told(first), True) == (told(again), again.repeated)
        assert 40 == granted(await desk.one("pool", draw(40))).amount
        assert told(first) == told(granted(await desk.one("pool", draw(60, "a"))))

    run(intake, story())


def test_a_key_of_another_request_is_refused(pools: Pools, intake: Intake, desk: Desk) -> None:
    async def story() -> list[Outcome]:
        granted(await desk.one("pool", draw(1, "a")))
        return [
            await desk.one("pool", draw(2, "a")),
            await desk.one("pool", draw(1000, "a")),
            *await desk.ask("pool", draw(1, "a"), draw(2, "a"), draw(1, "b"), draw(2, "b")),
        ]

    one, two, again, other, fresh, reused = run(intake, story())
    assert ["idempotency_key_reused"] * 4 == [refused(each) for each in (one, two, other, reused)]
    assert [True, False] == [granted(each).repeated for each in (again, fresh)]
    assert 2 == drawn(pools)


def test_a_key_that_was_refused_may_be_asked_again(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    async def story() -> None:
        assert "insufficient_balance" == refused(await desk.one("empty", draw(3, "a")))
        pools.grant("empty", 5)
        assert not granted(await desk.one("empty", draw(3, "a"))).repeated

    run(intake, story())


def test_a_key_counts_once_among_many_of_one_commit(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    commands = [draw(1, "a"), draw(200, "b"), draw(1, "a"), draw(2), draw(200, "b"), draw(1, "c")]

    async def story() -> list[Outcome]:
        granted(await desk.one("pool", draw(1, "c")))
        return await desk.ask("pool", *commands)

    outcomes = run(intake, story())
    assert [False, True, False, True] == [granted(outcomes[n]).repeated for n in (0, 2, 3, 5)]
    assert ["insufficient_balance"] * 2 == [refused(outcomes[n]) for n in (1, 4)]
    assert 4 == drawn(pools)


# What goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "error"),
    [
        (draw(1, f"poison{SEPARATOR}", subject="x"), psycopg.Error),
        (draw(-1), AssertionError),
    ],
    ids=["in the database", "in the decision"],
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
            await asyncio.to_thread(cut_who_waits, superuser_url)
            answers = await asyncio.gather(*lost, return_exceptions=True)
        assert [True, True] == [isinstance(one, psycopg.OperationalError) for one in answers]
        assert 1 == drawn(pools)
        again = [granted(await desk.one("pool", draw(n, f"{n}"))) for n in (1, 2)]
        assert [False, False] == [one.repeated for one in again]

    run(intake, story())
    assert 4 == drawn(pools)


def cut_who_waits(superuser_url: str) -> None:
    """Cut the connections that wait for a pool, as soon as there is one."""
    with psycopg.connect(superuser_url, autocommit=True) as killer:
        for _ in range(1000):
            cut = killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where wait_event_type = 'Lock' and query like '%post_transfers%'"
            ).fetchall()
            if cut:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


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


# Books in memory ---------------------------------------------------------------------------------


def stated(pools: Pools, *keys: str) -> list[Stated]:
    with transaction(pools.pool, pools.organization_id, snapshot=True) as connection:
        ids = [pools.ids[key] for key in keys]
        found = read_books(connection, pools.organization_id, ids)
    return [found[pool_id] for pool_id in ids]


def test_the_books_least_used_are_dropped(pools: Pools) -> None:
    for key in "abcd":
        pools.put(key)
    a, b, c, d = stated(pools, *"abcd")
    books = Books(weight_max=3)
    for one in (a, b, c):
        books.keep(one)
    assert books.get(a.pool_id) is a
    books.keep(d)
    assert books.get(b.pool_id) is None
    assert [a, c, d] == [books.get(one.pool_id) for one in (a, c, d)]
    books.drop(c.pool_id)
    books.keep(b)
    assert [a, b, d] == [books.get(one.pool_id) for one in (a, b, d)]


def test_one_book_is_kept_however_much_it_holds(pools: Pools) -> None:
    for _ in range(5):
        pools.grant("pool", 1)
    (one,) = stated(pools, "pool")
    books = Books(weight_max=3)
    books.keep(one)
    assert books.get(one.pool_id) is one


@pytest.mark.xfail(reason="the end of a hold stays on the agenda until its time", strict=True)
def test_a_book_forgets_the_holds_that_ended(pools: Pools) -> None:
    """A hold may last for days and be settled in a second; there are thousands in a second."""
    (one,) = stated(pools, "pool")
    with exact():
        for number in range(3000):
            held = granted(apply(one.book, hold(1), pools.now)).hold
            assert held is not None
            granted(apply(one.book, Settle(hold=held, amount=Decimal(0)), pools.now))
            if number % 100 == 0:
                one.book.changes()
    assert len(one.book._agenda) < 1500


def test_a_book_that_grows_while_it_is_kept_weighs_more(
    pools: Pools, intake: Intake, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds that were opened here are as heavy as those that were read."""
    reads: list[UUID] = []
    read = Decider._read

    def note_and_read(decider: Decider, pool_ids: list[UUID]) -> dict[UUID, Stated]:
        reads.extend(pool_ids)
        return read(decider, pool_ids)

    monkeypatch.setattr(Decider, "_read", note_and_read)
    pools.put("other")
    pools.grant("other", 5)
    small = Books(weight_max=20)
    monkeypatch.setattr(intake.decider(pools.organization_id), "_books", small)

    async def story() -> None:
        granted(await desk.one("other", draw()))
        for _ in range(3):
            for outcome in await desk.ask("pool", *[hold()] * 5):
                granted(outcome)
        assert small.get(pools.ids["other"]) is not None
        await desk.ask("pool", *[hold()] * 5)
        assert small.get(pools.ids["other"]) is None
        granted(await desk.one("other", draw()))

    run(intake, story())
    other, pool = pools.ids["other"], pools.ids["pool"]
    assert [other, pool, other] == reads
