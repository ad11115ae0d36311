"""A known key is answered as the first time, whoever asks again and whatever is left by then."""

from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from farebox_desk import Desk, draw, drawn, hold, run
from farebox_pools import Pools, digest, granted, refused, told

from farebox.flows.decide_pools import Outcome
from farebox.intake.intake import Intake
from farebox.ledger.command import Answer, Command, Extend, Release, Settle
from farebox.ledger.policy import Limit, LimitMode, Policy


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


def test_what_was_settled_past_the_limit_is_flagged_each_time(
    pools: Pools, intake: Intake, desk: Desk
) -> None:
    limit = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.5"), units=Decimal(30))
    pools.put("pool", Policy(limit=limit, currency="USD"))

    async def story() -> list[bool]:
        flags: list[bool] = []
        for key, amount in (("within", 120), ("past", 200)):
            held = granted(await desk.one("pool", hold(1))).hold or 0
            command = Settle(hold=held, amount=Decimal(amount), key=key, digest=digest(key))
            flags += [granted(await desk.one("pool", command)).over_limit for _ in range(2)]
        return flags

    assert [False, False, True, True] == run(intake, story())


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
