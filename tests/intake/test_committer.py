"""The group committer: who waits is answered, who leaves harms nobody, what fails is alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
import pytest
from farebox_desk import cut_who_waits
from farebox_world import ANY_TIME, World, at

from farebox.catalog.meter import Aggregation, Meter
from farebox.events.admit import Admitted, admit
from farebox.events.answer import Outcome
from farebox.events.event import Event
from farebox.flows.ingest import Ingested
from farebox.intake import ingest as intake_ingest
from farebox.intake.ingest import Committer, Taken
from farebox.intake.intake import Intake
from farebox.intake.overload import Overloaded
from farebox.metering.reading import ReadingRefusal
from farebox.postgres import stream
from farebox.postgres.session import open_pool, transaction
from farebox.postgres.stream import SEPARATOR

CALLS = Meter(
    key="calls",
    event_type="call",
    aggregation=Aggregation.SUM,
    value="units",
    dimensions={"model": "$.model"},
)
ACCEPTED, DUPLICATE, CONFLICT = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT

Result = TypeVar("Result")


@pytest.fixture
def intake(world: World, runtime_url: str) -> Intake:
    world.publish(CALLS)
    return Intake(world.pool, runtime_url, world.clock)


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


def run(intake: Intake, story: Awaitable[Result]) -> Result:
    """Let the story happen on an event loop on which the intake is opened."""

    async def opened() -> Result:
        async with intake.opened():
            return await asyncio.wait_for(story, 30)

    return asyncio.run(opened())


class Gate:
    """Holds the committer's transactions until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()
        self.commits = 0
        self.expected: list[bool] = []
        ingest = intake_ingest.ingest

        async def wait_then_ingest(*arguments: Any, may_know: bool) -> Ingested:
            self.commits += 1
            self.expected.append(may_know)
            self.entered.set()
            await self.open.wait()
            return await ingest(*arguments, may_know=may_know)

        monkeypatch.setattr(intake_ingest, "ingest", wait_then_ingest)


def test_requests_that_come_together_are_one_commit(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def story() -> list[list[Taken]]:
        first = asyncio.create_task(committer.append(calls(world, "a")))
        await gate.entered.wait()
        rest = [asyncio.create_task(committer.append(calls(world, n, "a"))) for n in range(9)]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *rest)

    assert [[ACCEPTED]] + [[ACCEPTED, DUPLICATE]] * 9 == run(intake, story())
    assert 2 == gate.commits
    assert ["a", *(str(n) for n in range(9))] == stored(world)


def test_answers_keep_the_order_of_the_request(
    world: World, intake: Intake, committer: Committer
) -> None:
    async def story() -> list[Taken]:
        mixed = [*calls(world, 1), *calls(world, 2, units="many"), *calls(world, 1, 3)]
        return await committer.append(mixed)

    one, refused, again, three = run(intake, story())
    assert (ACCEPTED, DUPLICATE, ACCEPTED) == (one, again, three)
    assert isinstance(refused, ReadingRefusal)
    assert ["1", "3"] == stored(world)


def test_an_empty_request_is_answered(world: World, intake: Intake, committer: Committer) -> None:
    assert [] == run(intake, committer.append([]))


def test_a_client_that_leaves_harms_nobody(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its events are being committed or still wait, they count; the others are answered."""
    gate = Gate(monkeypatch)

    async def story() -> list[Taken]:
        committing = asyncio.create_task(committer.append(calls(world, "committing")))
        await gate.entered.wait()
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

    assert [ACCEPTED] == run(intake, story())
    assert ["committing", "waiting", "stays"] == stored(world)


def test_a_request_made_when_the_last_one_is_answered_is_not_forgotten(
    world: World, intake: Intake, committer: Committer
) -> None:
    async def chain(name: int) -> None:
        for number in range(25):
            assert [ACCEPTED] == await committer.append(calls(world, f"{name}/{number}"))

    async def story() -> None:
        await asyncio.gather(*(chain(name) for name in range(4)))

    run(intake, story())
    assert 100 == len(set(stored(world)))


def test_one_request_that_cannot_be_stored_fails_alone(
    world: World, intake: Intake, committer: Committer
) -> None:
    """The door lets no separator into a name; were one to pass, it must not shift the others."""

    async def story() -> list[Any]:
        requests = [calls(world, 1), calls(world, 3, f"poison{SEPARATOR}", 4), calls(world, 2)]
        return await asyncio.gather(
            *(committer.append(request) for request in requests), return_exceptions=True
        )

    one, poison, two = run(intake, story())
    assert ([ACCEPTED], [ACCEPTED]) == (one, two)
    assert isinstance(poison, psycopg.errors.NotNullViolation)
    assert ["1", "2"] == stored(world)


def test_a_lost_connection_is_told_and_the_next_request_goes_through(
    world: World, intake: Intake, committer: Committer, superuser_url: str
) -> None:
    """The stream is held by another process when the connection of the committer is cut."""

    async def story() -> None:
        assert [ACCEPTED] == await committer.append(calls(world, 0))
        with transaction(world.pool, world.organization_id) as connection:
            stream.lock_head(connection, world.organization_id)
            lost = [asyncio.create_task(committer.append(calls(world, n))) for n in (1, 2)]
            await asyncio.to_thread(cut_who_waits, superuser_url, "append_events")
            answers = await asyncio.gather(*lost, return_exceptions=True)
        assert [True, True] == [isinstance(one, psycopg.OperationalError) for one in answers]
        assert ["0"] == stored(world)
        assert [ACCEPTED, ACCEPTED] == await committer.append(calls(world, 1, 2))

    run(intake, story())
    assert ["0", "1", "2"] == stored(world)


def test_an_answer_that_is_lost_leaves_events_that_count_once(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit went through, the connection did not; whoever sends again is told the truth."""
    ingest = intake_ingest.ingest

    async def ingest_and_lose(*arguments: Any, may_know: bool) -> Ingested:
        await ingest(*arguments, may_know=may_know)
        raise psycopg.OperationalError("the connection is lost")

    async def story() -> list[Taken]:
        with monkeypatch.context() as patched:
            patched.setattr(intake_ingest, "ingest", ingest_and_lose)
            with pytest.raises(psycopg.OperationalError):
                await committer.append(calls(world, 1, 2))
        return await committer.append([*calls(world, 0, 1), *calls(world, 2, units=9)])

    assert [ACCEPTED, DUPLICATE, CONFLICT] == run(intake, story())
    assert ["1", "2", "0"] == stored(world)


def test_duplicates_are_expected_of_whoever_has_just_sent_some(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected or not, an event is told as what it is."""
    gate = Gate(monkeypatch)
    gate.open.set()

    async def story() -> list[list[Taken]]:
        sent = [(1, 2), (3,), (4, 2, 5), (1, 6), (7, 8), (9, 9), (10,)]
        return [await committer.append(calls(world, *some)) for some in sent]

    answers = run(intake, story())
    assert [
        [ACCEPTED, ACCEPTED],
        [ACCEPTED],
        [ACCEPTED, DUPLICATE, ACCEPTED],
        [DUPLICATE, ACCEPTED],
        [ACCEPTED, ACCEPTED],
        [ACCEPTED, DUPLICATE],
        [ACCEPTED],
    ] == answers
    assert [False, False, False, True, True, False, True] == gate.expected
    assert [str(n) for n in range(1, 11)] == stored(world)


def test_a_catalog_that_changes_all_the_time_is_kept_up_with(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter is published between reading the events and committing them, five times over."""
    ingest, left = intake_ingest.ingest, [5]

    async def publish_then_ingest(*arguments: Any, may_know: bool) -> Ingested:
        if left[0]:
            left[0] -= 1
            world.publish(
                Meter(key=f"m{left[0]}", event_type="call", aggregation=Aggregation.COUNT)
            )
        return await ingest(*arguments, may_know=may_know)

    monkeypatch.setattr(intake_ingest, "ingest", publish_then_ingest)
    assert [ACCEPTED] == run(intake, committer.append(calls(world, 1)))
    with transaction(world.pool, world.organization_id) as connection:
        row = connection.execute("select cardinality(series) from event").fetchone()
    assert row == (6,)


def test_a_full_queue_lets_nobody_in(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_ingest, "EVENTS_WAITING", 3)
    gate = Gate(monkeypatch)

    async def story() -> None:
        first = asyncio.create_task(committer.append(calls(world, *range(5))))
        await gate.entered.wait()
        second = asyncio.create_task(committer.append(calls(world, 10, 11)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await committer.append(calls(world, 12, 13))
        third = asyncio.create_task(committer.append(calls(world, 14)))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, second, third)
        assert [ACCEPTED] == await committer.append(calls(world, 12))

    run(intake, story())
    assert 9 == len(stored(world))


def test_waiting_events_are_bounded_by_their_size_too(
    world: World, intake: Intake, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_ingest, "CHARACTERS_WAITING", 2500)
    monkeypatch.setattr(intake_ingest, "CHARACTERS_A_COMMIT", 1000)
    gate = Gate(monkeypatch)

    async def story() -> None:
        first = asyncio.create_task(committer.append(calls(world, 0)))
        await gate.entered.wait()
        waiting = [
            asyncio.create_task(committer.append(calls(world, n, text="x" * 1000))) for n in (1, 2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await committer.append(calls(world, 3, text="x" * 1000))
        gate.open.set()
        await asyncio.gather(first, *waiting)

    run(intake, story())
    assert 3 == gate.commits
    assert ["0", "1", "2"] == stored(world)


def test_two_processes_take_the_same_events(world: World, intake: Intake, runtime_url: str) -> None:
    """Each has its own pool, committer and memory of series; what both are sent counts once."""
    pool = open_pool(runtime_url, size=3)
    other = Intake(pool, runtime_url, world.clock)

    async def story() -> list[list[Taken]]:
        async with other.opened():
            return await asyncio.gather(
                *(
                    side.committer(world.organization_id).append(calls(world, *range(n, n + 20)))
                    for n in range(0, 100, 5)
                    for side in (intake, other)
                )
            )

    answers = [answer for answers in run(intake, story()) for answer in answers]
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


def test_an_intake_takes_events_in_while_it_is_opened(
    world: World, intake: Intake, committer: Committer
) -> None:
    """One event loop after the other may open it; what it knows of the catalog stays."""
    for number in range(2):
        assert [ACCEPTED] == run(intake, committer.append(calls(world, number)))
        with pytest.raises(AssertionError, match="not opened"):
            asyncio.run(committer.append(calls(world, "early")))
    assert ["0", "1"] == stored(world)


def test_a_series_is_remembered_when_something_was_committed_to_it(
    world: World, intake: Intake, committer: Committer
) -> None:
    """A conflict and a call that failed make none; the next event of such a series does."""

    async def story() -> list[list[Taken]]:
        first = await committer.append(calls(world, 1, model="a"))
        conflict = await committer.append(calls(world, 1, model="b"))
        with pytest.raises(psycopg.errors.NotNullViolation):
            await committer.append(calls(world, f"poison{SEPARATOR}", model="c"))
        later = [await committer.append(calls(world, name, model=name)) for name in "abc"]
        return [first, conflict, *later]

    assert [[ACCEPTED], [CONFLICT], *[[ACCEPTED]] * 3] == run(intake, story())
    with transaction(world.pool, world.organization_id) as connection:
        found = connection.execute("select dimensions[1] from series order by 1").fetchall()
    assert [("a",), ("b",), ("c",)] == found
