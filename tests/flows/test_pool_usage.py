"""Who used what of a pool and when: the plain sum over its ledger, however it is followed."""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from farebox_world import World, at

from farebox.flows.follow_pools import follow_pools
from farebox.flows.read_pool_usage import (
    PoolUse,
    TooManyWindows,
    UsageBy,
    read_pool_usage,
)
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.share_pool import Share, share_pool
from farebox.ledger.command import Answer, Draw, Reserve, Settle
from farebox.ledger.policy import Limit, LimitMode
from farebox.postgres import pool_usage
from farebox.postgres.session import transaction

OVERAGE = Limit(mode=LimitMode.OVERAGE, price=Decimal("0.01"))
SUBJECTS = (None, "ann", "bob", "team/x")


def use_of(world: World, pool_id: UUID, by: UsageBy, **fields: Any) -> PoolUse:
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        found = read_pool_usage(
            connection,
            world.organization_id,
            pool_id,
            fields.pop("timezone", "UTC"),
            by,
            fields.pop("since", at("2026-01-01")),
            fields.pop("until", at("2027-01-01")),
            **fields,
        )
    assert isinstance(found, PoolUse), found
    return found


def told(use: PoolUse) -> dict[str | datetime, tuple[Decimal, Decimal, Decimal, int]]:
    """Return the rows by name or, where they have none, by their beginning."""
    return {
        row.start if row.name is None else row.name: (
            row.used.used,
            row.used.covered,
            row.used.beyond,
            row.used.operations,
        )
        for row in use.rows
    }


def entries(world: World, pool_id: UUID) -> list[tuple[Any, ...]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute(
            "select source, target, origin, amount, coalesce(subject, ''), coalesce(allotment, ''),"
            " time, used_at, operation from transfer where pool_id = %s",
            (pool_id,),
        ).fetchall()


def plain_sum(
    rows: list[tuple[Any, ...]], key: Callable[[str, str, datetime], object]
) -> dict[object, tuple[Decimal, Decimal, Decimal, int]]:
    """Go through the ledger entry by entry: the oracle."""
    sums: dict[object, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    operations: dict[object, set[int]] = defaultdict(set)
    for source, target, origin, amount, subject, allotment, moment, used_at, operation in rows:
        if target == "used":
            sign, when, giver = 1, used_at or moment, origin or source
        elif source == "used":
            sign, when, giver = -1, moment, origin or target
        else:
            continue
        place = key(subject, allotment, when)
        sums[place][0] += sign * amount
        sums[place][1 if giver == "grant" else 2] += sign * amount
        if sign > 0:
            operations[place].add(operation)
    return {place: (a, b, c, len(operations[place])) for place, (a, b, c) in sums.items()}


def random_life(world: World, pool_id: UUID, random: Random, steps: int, follow: float) -> None:
    """Draw, hold, settle, take back while the clock goes on; somebody follows now and then."""
    holds: list[tuple[int, str | None]] = []
    drawn: list[int] = []
    for _ in range(steps):
        world.now += timedelta(seconds=random.randint(1, 9_000))
        subject = random.choice(SUBJECTS)
        amount = Decimal(random.randint(1, 900)) / 100
        match random.randrange(6):
            case 0 | 1:
                early = timedelta(seconds=random.randint(0, 200_000)) * random.randrange(2)
                used_at = world.now - early if early else None
                command = Draw(amount=amount, subject=subject, used_at=used_at)
                (done,) = world.ask(pool_id, command)
                assert isinstance(done, Answer)
                drawn.append(done.operation)
            case 2:
                (done,) = world.ask(
                    pool_id, Reserve(amount=amount, subject=subject, seconds=80_000)
                )
                assert isinstance(done, Answer)
                assert done.hold is not None
                holds.append((done.hold, subject))
            case 3 if holds:
                hold, of = holds.pop(random.randrange(len(holds)))
                world.ask(pool_id, Settle(hold=hold, amount=amount, subject=of))
            case 4 if drawn:
                with transaction(world.pool, world.organization_id) as connection:
                    reverse_draw(
                        connection,
                        world.organization_id,
                        pool_id,
                        random.choice(drawn),
                        random.choice([None, Decimal("0.5")]),
                        world.now,
                    )
            case _:
                world.grant(pool_id, amount * 3, expires_at=world.now + timedelta(hours=30))
        if random.random() < follow:
            follow_pools(world.pool, world.organization_id, world.now)


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("follow", [0, 0.2])
def test_usage_is_the_plain_sum_over_the_ledger(
    world: World, timezone: str, follow: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_usage, "FOLD_AT", 5)
    world.now = at("2026-10-30 12:00")  # clocks go back in between
    pool_id = world.pool_of("p", limit=OVERAGE, currency="EUR", timezone=timezone)
    world.grant(pool_id, 100)
    with transaction(world.pool, world.organization_id) as connection:
        shares = [Share(key="team", subjects=("ann", "bob")), Share(key="team/x", parent="team")]
        share_pool(connection, world.organization_id, pool_id, shares, world.now)
    random_life(world, pool_id, Random(7), 90, follow)
    rows, zone = entries(world, pool_id), ZoneInfo(timezone)
    assert len(rows) > 90

    def start(moment: datetime, **fields: int) -> datetime:
        return moment.astimezone(zone).replace(second=0, microsecond=0, **fields).astimezone(UTC)

    def hour(moment: datetime) -> datetime:
        past = timedelta(minutes=moment.astimezone(zone).minute)
        return moment.replace(second=0, microsecond=0) - past

    keys: dict[UsageBy, Callable[[str, str, datetime], object]] = {
        UsageBy.SUBJECT: lambda subject, _, __: subject,
        UsageBy.ALLOTMENT: lambda _, allotment, __: allotment,
        UsageBy.HOUR: lambda _, __, moment: hour(moment),
        UsageBy.DAY: lambda _, __, moment: start(moment, hour=0, minute=0),
        UsageBy.MONTH: lambda _, __, moment: start(moment, day=1, hour=0, minute=0),
    }
    since = start(at("2026-10-28"), hour=0, minute=0)
    until = start(at("2026-11-20"), hour=0, minute=0)
    inside = [row for row in rows if since <= (row[7] or row[6])]
    for by, key in keys.items():
        use = use_of(world, pool_id, by, timezone=timezone, since=since, until=until)
        expected = plain_sum(inside, key)
        if by is UsageBy.MONTH:  # the first window begins where the span does
            expected = {max(since, begins): sums for begins, sums in expected.items()}  # type: ignore[type-var]
        assert expected == told(use), by
        (total,) = plain_sum(inside, lambda *_: None).values()
        assert total[0] == use.total.used
        assert total == (
            use.total.used,
            use.total.covered,
            use.total.beyond,
            use.total.operations,
        )
    ann = [row for row in inside if row[4] == "ann"]
    use = use_of(
        world,
        pool_id,
        UsageBy.DAY,
        timezone=timezone,
        since=since,
        until=until,
        subject="ann",
    )
    assert plain_sum(ann, keys[UsageBy.DAY]) == told(use)


@pytest.mark.parametrize("mode", [LimitMode.HARD, LimitMode.UNLIMITED])
def test_what_is_taken_back_counts_when_it_is_taken_back(world: World, mode: LimitMode) -> None:
    pool_id = world.pool_of("p", limit=Limit(mode=mode))
    world.grant(pool_id, 100 if mode is LimitMode.HARD else 2)
    world.now = at("2026-10-03 10:30")
    done = world.draw(pool_id, 8, subject="ann")
    assert isinstance(done, Answer)
    follow_pools(world.pool, world.organization_id, world.now)
    world.now = at("2026-10-03 12:10")
    with transaction(world.pool, world.organization_id) as connection:
        reverse_draw(
            connection, world.organization_id, pool_id, done.operation, Decimal(3), world.now
        )
    eight, three = (
        (Decimal(8), Decimal(8), Decimal(0), 1),
        (Decimal(-3), Decimal(-3), Decimal(0), 0),
    )
    expected = {at("2026-10-03 10:00"): eight, at("2026-10-03 12:00"): three}
    since, until = at("2026-10-03"), at("2026-10-04")
    assert expected == told(use_of(world, pool_id, UsageBy.HOUR, since=since, until=until))


def test_the_span_is_widened_to_hours_of_the_pools_clocks(world: World) -> None:
    pool_id = world.pool_of("p", timezone="Asia/Kolkata")
    world.grant(pool_id, 100)
    for minute in ("10:29", "10:30", "11:29", "11:30"):
        world.now = at(f"2026-10-03 {minute}")
        world.draw(pool_id, 1)
    use = use_of(
        world,
        pool_id,
        UsageBy.SUBJECT,
        timezone="Asia/Kolkata",
        since=at("2026-10-03 10:40"),
        until=at("2026-10-03 11:10"),
    )
    expected = (at("2026-10-03 10:30"), at("2026-10-03 11:30"), Decimal(2))
    assert expected == (use.since, use.until, use.total.used)


def test_names_come_in_pages_with_the_greatest_use_first(world: World) -> None:
    pool_id = world.pool_of("p")
    world.grant(pool_id, 1000)
    for number, subject in enumerate("abcde"):
        world.draw(pool_id, 10 + number // 2, subject=subject)
        if number == 2:
            follow_pools(world.pool, world.organization_id, world.now)
    found: list[str | None] = []
    after = None
    while True:
        use = use_of(world, pool_id, UsageBy.SUBJECT, after=after, limit=2)
        found += [row.name for row in use.rows]
        assert Decimal(54) == use.total.used
        if (after := use.after) is None:
            break
    assert ["e", "c", "d", "a", "b"] == found


def test_too_many_windows_are_refused(world: World) -> None:
    pool_id = world.pool_of("p")
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        for years, expected in ((1, TooManyWindows), (2000, TooManyWindows)):
            found = read_pool_usage(
                connection,
                world.organization_id,
                pool_id,
                "UTC",
                UsageBy.HOUR,
                at("2026-01-01"),
                at(f"{2026 + years}-01-01"),
            )
            assert isinstance(found, expected)


def test_usage_of_a_pool_that_nobody_follows_is_there_at_once(world: World) -> None:
    pool_id = world.pool_of("p")
    world.grant(pool_id, 10)
    world.draw(pool_id, 4, subject="ann")
    use = use_of(world, pool_id, UsageBy.SUBJECT)
    assert {"ann": (Decimal(4), Decimal(4), Decimal(0), 1)} == told(use)
