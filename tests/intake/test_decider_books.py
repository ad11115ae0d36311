"""Decisions on books in memory are as if each had locked the pool; and there are not too many."""

import asyncio
from decimal import Decimal
from uuid import UUID

import pytest
from farebox_desk import Desk, draw, drawn, hold, run
from farebox_pools import Pools, granted, refused, told

from farebox.flows.decide_pools import Outcome, Round
from farebox.intake import authorize
from farebox.intake.authorize import Books, Decider
from farebox.intake.intake import Intake
from farebox.ledger.command import Answer, Release, Settle
from farebox.ledger.decide import apply
from farebox.money.rounding import exact
from farebox.postgres.book import Stated, read_books
from farebox.postgres.posting import Posted
from farebox.postgres.session import open_pool, transaction


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
