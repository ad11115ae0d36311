"""What a line of a pool is explained by is the line, to the last unit, whatever happened before.

Beside it stands a simpler computation of its episodes, which goes through the ledger once by hand.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from farebox_pool_lines import (
    NOVEMBER,
    OCTOBER,
    OVERAGE,
    SEPTEMBER,
    adds_up,
    draw,
    invoice_of,
    pool_lines,
    pool_of,
    sell,
    take_back,
    whole,
)
from farebox_world import World

from farebox.flows.replay_invoice import replay_invoice
from farebox.flows.reverse_draw import left_of
from farebox.ledger.command import Answer, Release, Reserve, Settle
from farebox.ledger.policy import Burst, Limit, LimitMode
from farebox.money.rounding import exact_sum
from farebox.postgres.session import transaction
from farebox.postgres.transfer import Entry, operation, statement, undoing


@pytest.fixture
def sold(world: World) -> World:
    return sell(world)


BEYOND = ("overage", "burst")
Line = tuple[str, Decimal | None]
Episodes = dict[Line, list[tuple[datetime, datetime, Decimal]]]


def entries_of(world: World, pool: UUID) -> list[Entry]:
    with transaction(world.pool, world.organization_id) as connection:
        found = statement(connection, world.organization_id, pool, limit=100_000)
    return found[::-1]


def by_operation(entries: Sequence[Entry]) -> list[list[Entry]]:
    found: dict[int, list[Entry]] = {}
    for one in entries:
        found.setdefault(one.operation, []).append(one)
    return list(found.values())


def episodes_by_hand(entries: Sequence[Entry], start: datetime, end: datetime) -> Episodes:
    """Go through the ledger once, with an episode of each account that is open or not."""
    within = [one for one in entries if start <= one.time < end]
    used_in = {one.operation for one in within}
    parts: dict[tuple[Line, int], list[tuple[datetime, Decimal]]] = {}
    place: dict[tuple[str, int], int] = {}
    counts = dict.fromkeys(BEYOND, 0)
    broken = dict.fromkeys(BEYOND, False)
    for group in by_operation(within):
        for account in BEYOND:
            taken = [
                one for one in group if one.target == "used" and account in (one.source, one.origin)
            ]
            if taken:
                counts[account] += broken[account]
                broken[account] = False
                place[account, group[0].operation] = counts[account]
                for one in taken:
                    line = (account, one.price)
                    parts.setdefault((line, counts[account]), []).append((one.time, one.amount))
        covered = any(one.source == "grant" and one.target in ("used", "held") for one in group)
        if covered and not any({one.source, one.origin} & set(BEYOND) for one in group):
            broken = dict.fromkeys(BEYOND, True)
    back: dict[tuple[Line, int], Decimal] = {}
    earlier: dict[tuple[Line, int], list[tuple[datetime, Decimal]]] = {}
    for one in entries:
        if one.source != "used" or one.origin not in BEYOND or one.undoes is None:
            continue
        line = (one.origin, one.price)
        if one.undoes in used_in and (one.reason == "voided" or one in within):
            at_place = (line, place[one.origin, one.undoes])
            back[at_place] = back.get(at_place, Decimal(0)) + one.amount
        elif one.reason != "voided" and one in within:
            earlier.setdefault((line, -1), []).append((one.time, -one.amount))
    found: Episodes = {}
    for key, moved in sorted({**parts, **earlier}.items(), key=lambda one: one[0][1]):
        times = [time for time, _ in moved]
        units = exact_sum([units for _, units in moved]) - back.get(key, Decimal(0))
        found.setdefault(key[0], []).append((min(times), max(times), units))
    return {line: told for line, told in found.items() if sum(units for _, _, units in told)}


def live_a_month(world: World, pool: UUID, chance: random.Random, drawn: list[int]) -> None:
    """Do whatever may be done to a pool, forty times; the last days of a month are quiet."""
    holds: list[int] = []
    for _ in range(40):
        world.now += timedelta(hours=chance.randint(1, 15))
        amount = Decimal(chance.randint(1, 60)) / 4
        match chance.choice(("draw", "draw", "draw", "grant", "hold", "settle", "back", "price")):
            case "draw":
                drawn.append(draw(world, pool, str(amount), subject="ann").operation)
            case "grant":
                world.grant(pool, str(amount))
            case "hold":
                (outcome,) = world.ask(pool, Reserve(amount=amount, seconds=86_400 * 20))
                assert isinstance(outcome, Answer)
                assert outcome.hold is not None
                holds.append(outcome.hold)
            case "settle" if holds:
                hold = holds.pop(chance.randrange(len(holds)))
                used = Settle(hold=hold, amount=amount) if chance.random() < 0.8 else None
                (outcome,) = world.ask(pool, used or Release(hold=hold))
                if used is not None and isinstance(outcome, Answer):
                    drawn.append(outcome.operation)
            case "back" if drawn:
                number = drawn.pop(chance.randrange(len(drawn)))
                within = chance.random() < 0.5
                with transaction(world.pool, world.organization_id) as connection:
                    scope = connection, world.organization_id, pool
                    left = left_of(operation(*scope, number), undoing(*scope, number))
                    first = operation(*scope, number)[0]
                units = exact_sum([one.amount for one in left])
                if units:
                    part = units if chance.random() < 0.5 else units / 2
                    voided = within and first.time >= world.now.replace(day=1, hour=0)
                    take_back(world, pool, number, part, voided=voided)
            case "price":
                price = chance.choice(("0.0015", "0.002"))
                limit = Limit(mode=LimitMode.OVERAGE, price=Decimal(price))
                pool_of(world, limit=limit, **LIVING)


LIVING: dict[str, Any] = {
    "burst": Burst(units=Decimal(20), price=Decimal("0.3")),
    "undo_seconds": 86_400 * 90,
}


@pytest.mark.parametrize("seed", range(8))
def test_what_explains_a_line_is_the_line_whatever_happened(sold: World, seed: int) -> None:
    chance = random.Random(seed)
    pool = pool_of(sold, limit=OVERAGE, **LIVING)
    drawn: list[int] = []
    rows = []
    for start, end in ((SEPTEMBER, OCTOBER), (OCTOBER, NOVEMBER)):
        sold.now = max(sold.now, start)
        live_a_month(sold, pool, chance, drawn)
        assert sold.now < end
        sold.now = end + timedelta(minutes=1)
        rows.append(invoice_of(sold, start))
        expected = episodes_by_hand(entries_of(sold, pool), start, end)
        found = {
            (one.use.kind.value, one.use.price): [
                (episode.start, episode.end, episode.units) for episode, _ in one.episodes
            ]
            for one in (whole(sold, rows[-1], line) for line in pool_lines(sold, rows[-1]))
        }
        assert expected == found
    assert any(pool_lines(sold, row) for row in rows)
    for row in rows:
        adds_up(sold, row)
        assert () == replay_invoice(sold.pool, sold.organization_id, row.invoice_id)
