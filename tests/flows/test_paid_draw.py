"""An event that names the draw that paid for it: which draws may be, and for whom they pay."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from farebox_late_shop import (
    OPENED,
    acmes,
    billed,
    burn_all,
    burned,
    drawn,
    meter,
    new_id,
    open_shop,
    paid,
    put,
    take_back,
)
from farebox_world import World, days

from farebox.access.id import Prefix, encode_numbered
from farebox.flows.check_event import check_event
from farebox.flows.refuse_draw import REFUSALS
from farebox.ledger.command import Answer, Draw, Release, Reserve, Settle
from farebox.postgres.session import transaction

DAY = OPENED + days(3)


@pytest.fixture
def shop(world: World) -> World:
    """Return a shop where bot uses for Acme and app for Beta; Acme alone has a pool."""
    open_shop(world)
    put(world, "acme", "bot")
    put(world, "beta", "app")
    return world


def asked(shop: World, pool: UUID, command: Any) -> Answer:
    (answer,) = shop.ask(pool, command)
    assert isinstance(answer, Answer), answer
    return answer


# Which draws --------------------------------------------------------------------------------------


def test_an_event_whose_draw_paid_for_it_burns_nothing_again(shop: World) -> None:
    assert ["accepted"] == shop.send(paid(shop, drawn(shop)))
    burn_all(shop)
    assert {"acme-credits": Decimal(2)} == burned(shop)
    assert {"acme": Decimal(0), "beta": Decimal(0)} == billed(shop)


def test_one_draw_may_pay_for_several_events(shop: World) -> None:
    draw = drawn(shop)
    assert ["accepted"] * 3 == shop.send(*(paid(shop, draw) for _ in range(3)))
    burn_all(shop)
    assert {"acme-credits": Decimal(2)} == burned(shop)


def wire(pool: UUID, number: int, prefix: Prefix = Prefix.DRAW) -> str:
    return encode_numbered(prefix, pool, number)


def opened_hold(shop: World) -> str:
    """Return the number of a hold as that of a draw: so far it has taken nothing."""
    pool = acmes(shop)
    return wire(pool, asked(shop, pool, Reserve(amount=Decimal(2), seconds=60)).hold or 0)


def hold_id(shop: World) -> str:
    return opened_hold(shop).replace("drw_", "hld_")


def released_hold(shop: World) -> str:
    pool = acmes(shop)
    hold = asked(shop, pool, Reserve(amount=Decimal(2), seconds=60)).hold or 0
    return wire(pool, asked(shop, pool, Release(hold=hold)).operation)


def settled_with_nothing(shop: World) -> str:
    pool = acmes(shop)
    hold = asked(shop, pool, Reserve(amount=Decimal(2), seconds=60)).hold or 0
    return wire(pool, asked(shop, pool, Settle(hold=hold, amount=Decimal(0))).operation)


def grant_number(shop: World) -> str:
    return wire(acmes(shop), 1)


def refused_draw(shop: World) -> str:
    """Return the number that the draw would have had."""
    pool = shop.pool_of("little", unit="token", customer="acme")
    shop.ask(pool, Draw(amount=Decimal(1)))
    return wire(pool, 1)


def what_usage_burned(shop: World) -> str:
    shop.use("llm", DAY, "bot", n=100, model="large")
    burn_all(shop)
    with transaction(shop.pool, shop.organization_id) as connection:
        row = connection.execute(
            "select operation from transfer where organization_id = %s and reason = 'metered'",
            (shop.organization_id,),
        ).fetchone()
    assert row is not None
    return wire(acmes(shop), row[0])


def taken_back(shop: World) -> str:
    draw = drawn(shop)
    take_back(shop, draw, "0.5")
    take_back(shop, draw)
    return draw


ROWS: list[tuple[str, Callable[[World], object]]] = [
    ("draw_unknown", lambda shop: "drw_1"),
    ("draw_unknown", lambda shop: ""),
    ("draw_unknown", lambda shop: True),
    ("draw_unknown", lambda shop: 17),
    ("draw_unknown", lambda shop: wire(new_id(), 1)),
    ("draw_unknown", lambda shop: wire(acmes(shop), 99)),
    ("draw_unknown", lambda shop: wire(acmes(shop), 10**18 - 1)),
    ("draw_unknown", lambda shop: drawn(shop).upper()),
    ("draw_unknown", lambda shop: drawn(shop) + "1"),
    ("draw_unknown", lambda shop: drawn(shop).rpartition("_")[0]),
    ("draw_unknown", lambda shop: drawn(shop).rpartition("_")[0] + "_0"),
    ("draw_unknown", opened_hold),
    ("draw_unknown", hold_id),
    ("draw_unknown", released_hold),
    ("draw_unknown", settled_with_nothing),
    ("draw_unknown", grant_number),
    ("draw_unknown", refused_draw),
    ("draw_unknown", what_usage_burned),
    ("draw_reversed", taken_back),
    ("subject_not_served", drawn),
]


def test_every_refusal_of_a_draw_has_its_row_in_order_of_precedence() -> None:
    assert list(REFUSALS) == list(dict.fromkeys(code for code, _ in ROWS))


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_a_draw_that_cannot_have_paid_is_refused_by_name(shop: World, row: int) -> None:
    """Sent for Beta, whom the pool does not serve: what stands first is named."""
    code, make = ROWS[row]
    event = paid(shop, make(shop), "app")
    assert [code] == shop.send(event)
    told = check_event(shop.pool, shop.organization_id, json.dumps(event).encode(), shop.now)
    assert told.rejection is not None
    assert ("rejected", code, "/fareboxdraw") == (
        told.outcome.value,
        told.rejection.code,
        told.rejection.pointer,
    )


def test_the_draw_of_another_organization_is_not_known(
    shop: World, new_world: Callable[[], World]
) -> None:
    other = open_shop(new_world())
    put(other, "acme", "bot")
    draw = drawn(other)
    assert ["draw_unknown"] == shop.send(paid(shop, draw))
    assert ["accepted"] == other.send(paid(other, draw))


def test_what_settled_a_hold_pays_and_so_does_a_draw_that_was_taken_back_in_part(
    shop: World,
) -> None:
    pool = acmes(shop)
    hold = asked(shop, pool, Reserve(amount=Decimal(2), seconds=60)).hold or 0
    settled = wire(pool, asked(shop, pool, Settle(hold=hold, amount=Decimal(3))).operation)
    partly = drawn(shop)
    take_back(shop, partly, "1.5")
    assert ["accepted"] * 2 == shop.send(paid(shop, settled), paid(shop, partly))


def test_of_a_batch_the_others_are_taken_in_their_order(shop: World) -> None:
    draw, plain = drawn(shop), shop.event("llm", DAY, "bot", n=100, model="large")
    good, bad = paid(shop, draw), paid(shop, "drw_1")
    found = shop.send(bad, plain, paid(shop, draw, "app"), good, bad, good, plain)
    expected = ["draw_unknown", "accepted", "subject_not_served", "accepted", "draw_unknown"]
    assert [*expected, "duplicate", "duplicate"] == found
    with transaction(shop.pool, shop.organization_id) as connection:
        rows = connection.execute(
            "select sequence, id from event where organization_id = %s order by 1",
            (shop.organization_id,),
        ).fetchall()
    assert [(1, plain["id"]), (2, good["id"])] == rows


def test_a_batch_of_nothing_but_refused_events_stores_nothing(shop: World) -> None:
    assert ["draw_unknown"] * 2 == shop.send(paid(shop, "drw_1"), paid(shop, "drw_2"))
    use_of_bot = shop.event("llm", DAY, "bot", n=100, model="large")
    assert ["accepted"] == shop.send(use_of_bot)
    burn_all(shop)
    assert {"acme-credits": Decimal(2)} == burned(shop)


def test_what_was_accepted_stays_a_duplicate_after_its_draw_was_taken_back(shop: World) -> None:
    draw = drawn(shop)
    event = paid(shop, draw)
    assert ["accepted"] == shop.send(event)
    take_back(shop, draw)
    assert ["duplicate"] == shop.send(event)
    assert ["conflict"] == shop.send({**event, "fareboxdraw": "drw_1"})
    assert ["draw_reversed"] == shop.send(paid(shop, draw))


# For whom -----------------------------------------------------------------------------------------


def test_a_pool_that_serves_children_pays_for_them_while_they_are_its_customers(
    shop: World,
) -> None:
    shop.now = OPENED + days(1)
    put(shop, "acme-eu", "eu", parent="acme")
    shop.now = OPENED + days(10)
    put(shop, "acme-eu", "eu")
    plain = shop.pool_of("plain", customer="acme", serves_children=True)
    own = shop.pool_of("own", customer="acme")
    for pool in (plain, own):
        shop.grant(pool, 10)
    draws = [drawn(shop), drawn(shop, plain), drawn(shop, own)]
    within = [shop.send(paid(shop, one, "eu", OPENED + days(2))) for one in draws]
    after = [shop.send(paid(shop, one, "eu", OPENED + days(10))) for one in draws]
    assert [["accepted"], ["accepted"], ["subject_not_served"]] == within
    assert [["subject_not_served"]] * 3 == after


def test_a_pool_that_ceased_to_serve_children_pays_for_what_they_used_before(shop: World) -> None:
    shop.now = OPENED + days(1)
    put(shop, "acme-eu", "eu", parent="acme")
    shop.now = OPENED + days(10)
    shop.pool_of("acme-credits", unit="credit", customer="acme", rate_card="credits")
    draw = drawn(shop)
    times = (shop.now - days(1), shop.now + days(1) / 48)
    assert ["accepted", "subject_not_served"] == shop.send(
        *(paid(shop, draw, "eu", time) for time in times)
    )


def test_a_pool_of_a_subject_pays_for_that_subject_alone(shop: World) -> None:
    put(shop, "acme", "bot", "robot")
    pools = [
        shop.pool_of("bots", subject="bot"),
        shop.pool_of("acmes-bot", subject="bot", customer="acme"),
        shop.pool_of("nobodys"),
    ]
    for pool in pools:
        shop.grant(pool, 10)
    draws = [drawn(shop, pool) for pool in pools]
    assert ["accepted", "accepted", "subject_not_served"] == shop.send(
        *(paid(shop, draw) for draw in draws)
    )
    assert ["subject_not_served"] * 3 == shop.send(*(paid(shop, draw, "robot") for draw in draws))


def test_whose_a_use_is_its_meters_say(shop: World) -> None:
    """An event that several meters read is of all whom they read."""
    shop.publish(meter("paid-for", "llm", "$.payer"))
    draw = drawn(shop)
    payers = ["acme", "beta", "nobody-yet"]
    assert ["accepted", "subject_not_served", "accepted"] == shop.send(
        *(paid(shop, draw, payer=payer) for payer in payers)
    )


def test_an_event_that_no_meter_reads_is_its_subjects(shop: World) -> None:
    def sent(subject: str) -> list[str]:
        event = shop.event("job", DAY, subject, n=1, model="large")
        return shop.send({**event, "fareboxdraw": draw})

    draw = drawn(shop)
    assert (["accepted"], ["subject_not_served"]) == (sent("bot"), sent("app"))
