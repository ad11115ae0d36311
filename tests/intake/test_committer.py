"""The group committer: who waits is answered, who leaves harms nobody, what fails is alone."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from farebox_world import ANY_TIME, World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.admit import Admitted, admit
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.intake import ingest as intake_ingest
from farebox.intake.ingest import Committer, Intake, Overloaded, Taken
from farebox.metering.reading import ReadingRefusal
from farebox.postgres import stream
from farebox.postgres.session import open_pool, transaction

CALLS = Meter(key="calls", event_type="call", aggregation=Aggregation.SUM, value="units")
ACCEPTED, DUPLICATE = Outcome.ACCEPTED, Outcome.DUPLICATE


@pytest.fixture
def intake(world: World) -> Iterator[Intake]:
    world.publish(CALLS)
    intake = Intake(world.pool, world.clock)
    yield intake
    intake.close()


@pytest.fixture
def committer(world: World, intake: Intake) -> Committer:
    return intake.committer(world.organization_id)


def calls(world: World, *identifiers: object, **data: Any) -> list[Admitted]:
    result = []
    for index, identifier in enumerate(identifiers):
        event = Event(
            id=str(identifier),
            source="test",
            type="call",
            subject="acme",
            time=at("2026-09-05 12:00"),
            data={"units": 1, **data},
        )
        admitted = admit(index, event, world.organization_id.bytes, world.now, ANY_TIME)
        assert isinstance(admitted, Admitted)
        result.append(admitted)
    return result


def stored(world: World) -> list[str]:
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute("select id from event order by sequence").fetchall()
    return [row[0] for row in found]


class Gate:
    """Holds the committer's transactions until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.commits = 0
        ingest = intake_ingest.ingest

        def wait_then_ingest(*arguments: Any) -> Any:
            self.commits += 1
            self.entered.set()
            assert self.open.wait(10)
            return ingest(*arguments)

        monkeypatch.setattr(intake_ingest, "ingest", wait_then_ingest)

    async def is_entered(self) -> None:
        await asyncio.to_thread(self.entered.wait, 10)


def test_requests_that_come_together_are_one_commit(
    world: World, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def run() -> list[list[Taken]]:
        first = asyncio.create_task(committer.append(calls(world, "a")))
        await gate.is_entered()
        rest = [asyncio.create_task(committer.append(calls(world, n, "a"))) for n in range(9)]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *rest)

    assert [[ACCEPTED]] + [[ACCEPTED, DUPLICATE]] * 9 == asyncio.run(run())
    assert 2 == gate.commits
    assert ["a", *(str(n) for n in range(9))] == stored(world)


def test_answers_keep_the_order_of_the_request(world: World, committer: Committer) -> None:
    async def run() -> list[Taken]:
        mixed = [*calls(world, 1), *calls(world, 2, units="many"), *calls(world, 1, 3)]
        return await committer.append(mixed)

    one, refused, again, three = asyncio.run(run())
    assert (ACCEPTED, DUPLICATE, ACCEPTED) == (one, again, three)
    assert isinstance(refused, ReadingRefusal)
    assert ["1", "3"] == stored(world)


def test_an_empty_request_is_answered(world: World, committer: Committer) -> None:
    assert [] == asyncio.run(committer.append([]))


def test_a_client_that_leaves_harms_nobody(
    world: World, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its events are being committed or still wait, they count; the others are answered."""
    gate = Gate(monkeypatch)

    async def run() -> list[Taken]:
        committing = asyncio.create_task(committer.append(calls(world, "committing")))
        await gate.is_entered()
        waiting = asyncio.create_task(committer.append(calls(world, "waiting")))
        stays = asyncio.create_task(committer.append(calls(world, "stays")))
        await asyncio.sleep(0)
        committing.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        answer = await stays
        assert committing.cancelled()
        assert waiting.cancelled()
        return answer

    assert [ACCEPTED] == asyncio.run(run())
    assert ["committing", "waiting", "stays"] == stored(world)


def test_a_request_made_when_the_last_one_is_answered_is_not_forgotten(
    world: World, committer: Committer
) -> None:
    async def chain(name: int) -> None:
        for number in range(25):
            assert [ACCEPTED] == await committer.append(calls(world, f"{name}/{number}"))

    async def run() -> None:
        await asyncio.gather(*(chain(name) for name in range(4)))

    asyncio.run(asyncio.wait_for(run(), 30))
    assert 100 == len(set(stored(world)))


def test_one_request_that_cannot_be_stored_fails_alone(
    world: World, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stream.stage

    def refuse_poison(connection: Any, lines: list[str]) -> None:
        if any("\tpoison\t" in line for line in lines):
            raise psycopg.DataError("invalid byte sequence")
        stage(connection, lines)

    monkeypatch.setattr(stream, "stage", refuse_poison)

    async def run() -> list[Any]:
        requests = [calls(world, 1), calls(world, "poison"), calls(world, 2)]
        return await asyncio.gather(
            *(committer.append(request) for request in requests), return_exceptions=True
        )

    one, poison, two = asyncio.run(run())
    assert ([ACCEPTED], [ACCEPTED]) == (one, two)
    assert isinstance(poison, psycopg.DataError)
    assert ["1", "2"] == stored(world)


def test_a_lost_connection_is_told_and_the_next_request_goes_through(
    world: World, superuser_url: str, monkeypatch: pytest.MonkeyPatch, committer: Committer
) -> None:
    append = stream.append
    lose = [True]

    def append_then_die(connection: Any, *arguments: Any) -> None:
        append(connection, *arguments)
        if lose.pop() if lose else False:
            with psycopg.connect(superuser_url, autocommit=True) as killer:
                killer.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))

    monkeypatch.setattr(stream, "append", append_then_die)

    async def run() -> None:
        lost = await asyncio.gather(
            committer.append(calls(world, 1)),
            committer.append(calls(world, 2)),
            return_exceptions=True,
        )
        assert [True, True] == [isinstance(one, psycopg.OperationalError) for one in lost]
        assert [ACCEPTED, ACCEPTED] == await committer.append(calls(world, 1, 2))

    asyncio.run(run())
    assert ["1", "2"] == stored(world)


def test_a_catalog_that_changes_all_the_time_is_kept_up_with(
    world: World, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter is published between reading the events and committing them, five times over."""
    ingest, left = intake_ingest.ingest, [5]

    def publish_then_ingest(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            world.publish(
                Meter(key=f"m{left[0]}", event_type="call", aggregation=Aggregation.COUNT)
            )
        return ingest(*arguments)

    monkeypatch.setattr(intake_ingest, "ingest", publish_then_ingest)
    assert [ACCEPTED] == asyncio.run(committer.append(calls(world, 1)))
    with transaction(world.pool, world.organization_id) as connection:
        row = connection.execute("select cardinality(series) from event").fetchone()
    assert row == (6,)


def test_a_full_queue_lets_nobody_in(
    world: World, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_ingest, "EVENTS_WAITING", 3)
    gate = Gate(monkeypatch)

    async def run() -> None:
        first = asyncio.create_task(committer.append(calls(world, *range(5))))
        await gate.is_entered()
        second = asyncio.create_task(committer.append(calls(world, 10, 11)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await committer.append(calls(world, 12, 13))
        third = asyncio.create_task(committer.append(calls(world, 14)))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, second, third)
        assert [ACCEPTED] == await committer.append(calls(world, 12))

    asyncio.run(run())
    assert 9 == len(stored(world))


def test_waiting_events_are_bounded_by_their_size_too(
    world: World, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_ingest, "CHARACTERS_WAITING", 2500)
    monkeypatch.setattr(intake_ingest, "CHARACTERS_A_COMMIT", 1000)
    gate = Gate(monkeypatch)

    async def run() -> None:
        first = asyncio.create_task(committer.append(calls(world, 0)))
        await gate.is_entered()
        waiting = [
            asyncio.create_task(committer.append(calls(world, n, text="x" * 1000))) for n in (1, 2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await committer.append(calls(world, 3, text="x" * 1000))
        gate.open.set()
        await asyncio.gather(first, *waiting)

    asyncio.run(run())
    assert 3 == gate.commits
    assert ["0", "1", "2"] == stored(world)


def test_two_processes_take_the_same_events(world: World, intake: Intake, runtime_url: str) -> None:
    """Each has its own pool, committer and memory of series; what both are sent counts once."""
    pool = open_pool(runtime_url, size=3)
    other = Intake(pool, world.clock)

    async def run() -> list[list[Taken]]:
        return await asyncio.gather(
            *(
                side.committer(world.organization_id).append(calls(world, *range(n, n + 20)))
                for n in range(0, 100, 5)
                for side in (intake, other)
            )
        )

    answers = [answer for answers in asyncio.run(run()) for answer in answers]
    other.close()
    pool.close()
    assert 115 == answers.count(ACCEPTED)
    assert len(answers) - 115 == answers.count(DUPLICATE)
    assert sorted(str(n) for n in range(115)) == sorted(stored(world))


def test_organizations_have_committers_of_their_own(
    new_world: Callable[[], World], intake: Intake
) -> None:
    one, two = new_world(), new_world()
    assert intake.committer(one.organization_id) is intake.committer(one.organization_id)
    assert intake.committer(one.organization_id) is not intake.committer(two.organization_id)
