"""A use asked for by its event: priced by the card, drawn and metered in one commit."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Alias, Meter
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.burn_usage import burn_usage
from farebox.flows.move_subject import Moved, move_subject_in
from farebox.flows.read_pool import books_now
from farebox.flows.use_priced import PricedUse, UseCode, UseRefusal, Wanted, try_use, use_priced
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.pool import RefusalRow
from farebox.postgres.pool import refusals as stored_refusals
from farebox.postgres.session import transaction

TOKENS = Meter(
    key="tokens",
    event_type="llm.request",
    aggregation=Aggregation.SUM,
    value="input + 4 * output",
    dimensions={"model": "$.model"},
)
CALLS = Meter(key="calls", event_type="llm.request", aggregation=Aggregation.COUNT)


@pytest.fixture
def sold(world: World) -> World:
    world.now = at("2026-09-01 00:00")
    matrix = Matrix(
        dimensions=("model",),
        cells=(Cell(match={"model": "large"}, unit=Decimal("0.01")),),
    )
    rates = (
        Rate(meter="tokens", price=matrix),
        Rate(meter="calls", price=PerUnit(unit=Decimal("0.5"))),
    )
    card = RateCard(key="credits", currency="credit", custom_unit=True, rates=rates)
    world.publish(TOKENS, CALLS, card, Alias(dimension="model", alias="big", canonical="large"))
    world.customer("acme")
    return world


@pytest.fixture
def pool_id(sold: World) -> UUID:
    pool_id = sold.pool_of("credits", unit="credit", customer="acme", rate_card="credits")
    sold.grant(pool_id, 100)
    sold.now += timedelta(hours=1)
    return pool_id


def use(
    world: World, pool_id: UUID, *, dry_run: bool = False, **fields: object
) -> PricedUse | UseRefusal:
    data = {"model": fields.pop("model", "large"), "input": fields.pop("input", 100), "output": 25}
    values: dict[str, object] = {"type": "llm.request", "data": data, "subject": "acme", **fields}
    ask = try_use if dry_run else use_priced
    with transaction(world.pool, world.organization_id) as connection:
        return ask(
            connection,
            world.organization_id,
            pool_id,
            Wanted(**values),  # type: ignore[arg-type]
            world.now,
        )


def available(world: World, pool_id: UUID) -> Decimal:
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        return books_now(connection, world.organization_id, [pool_id], world.now)[
            pool_id
        ].pool.available


def events(world: World) -> list[tuple[str, str]]:
    with transaction(world.pool, world.organization_id) as connection:
        return connection.execute(
            "select subject, payload ->> 'fareboxdraw' from event order by sequence"
        ).fetchall()


def test_a_use_costs_what_all_its_readings_cost(sold: World, pool_id: UUID) -> None:
    done = use(sold, pool_id)
    assert isinstance(done, PricedUse)
    assert isinstance(done.answer, Answer)
    # 100 + 4 x 25 tokens at 0.01, and one call at 0.5.
    assert (Decimal("2.50"), Decimal("97.50")) == (done.units, done.answer.available)
    assert {"tokens": Decimal(2), "calls": Decimal("0.5")} == {
        part.meter: part.units for part in done.parts
    }


def test_its_event_is_metered_and_burns_nothing_again(sold: World, pool_id: UUID) -> None:
    done = use(sold, pool_id)
    assert isinstance(done, PricedUse)
    assert isinstance(done.answer, Answer)
    ((subject, draw),) = events(sold)
    assert "acme" == subject
    assert draw.endswith(f"_{done.answer.operation}")
    sold.fold()
    while burn_usage(sold.pool, sold.organization_id, sold.now):
        pass
    assert Decimal("97.50") == available(sold, pool_id)


def test_an_alias_costs_what_it_stands_for(sold: World, pool_id: UUID) -> None:
    done = use(sold, pool_id, model="big")
    assert isinstance(done, PricedUse)
    assert Decimal("2.5") == done.units


def test_a_hold_writes_no_event_and_what_settles_it_does(sold: World, pool_id: UUID) -> None:
    held = use(sold, pool_id, hold=True, seconds=60, input=1000)
    assert isinstance(held, PricedUse)
    assert isinstance(held.answer, Answer)
    assert [] == events(sold)
    settled = use(sold, pool_id, settle=held.answer.hold, input=20)
    assert isinstance(settled, PricedUse)
    assert isinstance(settled.answer, Answer)
    assert (Decimal("1.7"), Decimal("98.3")) == (settled.units, available(sold, pool_id))
    assert 1 == len(events(sold))


def test_under_its_key_it_is_drawn_and_written_once(sold: World, pool_id: UUID) -> None:
    for repeated in (False, True):
        done = use(sold, pool_id, key="call-1", digest="0" * 32)
        assert isinstance(done, PricedUse)
        assert isinstance(done.answer, Answer)
        assert repeated == done.answer.repeated
    assert (Decimal("97.5"), 1) == (available(sold, pool_id), len(events(sold)))
    reused = use(sold, pool_id, key="call-1", digest="1" * 32)
    assert isinstance(reused, PricedUse)
    assert isinstance(reused.answer, Refusal)
    assert RefusalCode.IDEMPOTENCY_KEY_REUSED is reused.answer.code


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hold": True, "seconds": 60},
        {"input": 1_000_000},
        {"allotment": "nobodys"},
        {"model": "small"},
        {"customer": "globex"},
        {"key": "call-1", "digest": "0" * 32},
    ],
)
def test_a_dry_run_answers_as_the_use_would_and_takes_nothing(
    sold: World, pool_id: UUID, fields: dict[str, Any]
) -> None:
    tried = use(sold, pool_id, dry_run=True, **fields)
    assert (Decimal(100), [], []) == (available(sold, pool_id), events(sold), refusals(sold))
    done = use(sold, pool_id, **fields)
    if isinstance(done, PricedUse) and isinstance(done.answer, Answer):
        answer = msgspec.structs.replace(done.answer, operation=0, hold=None)
        done = msgspec.structs.replace(done, answer=answer)
    assert done == tried


def refusals(world: World) -> list[RefusalRow]:
    with transaction(world.pool, world.organization_id) as connection:
        spans = {"since": world.now - timedelta(days=1), "until": world.now + timedelta(days=1)}
        return stored_refusals(connection, world.organization_id, **spans)


def test_what_is_refused_writes_no_event(sold: World, pool_id: UUID) -> None:
    done = use(sold, pool_id, input=1_000_000)
    assert isinstance(done, PricedUse)
    assert isinstance(done.answer, Refusal)
    assert (Decimal(100), []) == (available(sold, pool_id), events(sold))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "unheard.of"}, UseCode.EVENT_NOT_METERED),
        ({"input": "many"}, UseCode.EVENT_UNREADABLE),
        ({"model": "small"}, UseCode.EVENT_UNPRICED),
    ],
)
def test_a_use_that_has_no_price_is_refused_by_name(
    sold: World, pool_id: UUID, fields: dict[str, object], code: UseCode
) -> None:
    done = use(sold, pool_id, **fields)
    assert isinstance(done, UseRefusal)
    assert code is done.code
    assert (Decimal(100), []) == (available(sold, pool_id), events(sold))


def test_a_pool_without_a_card_cannot_say_what_a_use_costs(sold: World) -> None:
    plain = sold.pool_of("plain", unit="credit", customer="acme")
    done = use(sold, plain)
    assert isinstance(done, UseRefusal)
    assert UseCode.POOL_WITHOUT_RATE_CARD is done.code


@pytest.mark.parametrize("asked", [{}, {"hold": True, "seconds": 60}, {"dry_run": True}])
def test_a_use_that_another_customer_is_billed_for_is_refused(
    sold: World, pool_id: UUID, asked: dict[str, Any]
) -> None:
    sold.customer("globex")
    sold.map("globex-dev", "globex")
    done = use(sold, pool_id, subject="globex-dev", **asked)
    assert isinstance(done, UseRefusal)
    assert RefusalCode.SUBJECT_NOT_SERVED is done.code
    assert "globex" not in done.detail
    assert (Decimal(100), []) == (available(sold, pool_id), events(sold))


def test_a_use_without_a_price_is_refused_for_that_first(sold: World, pool_id: UUID) -> None:
    sold.customer("globex")
    done = use(sold, pool_id, subject="globex", model="small")
    assert isinstance(done, UseRefusal)
    assert UseCode.EVENT_UNPRICED is done.code


def test_a_pool_of_its_own_does_not_let_a_customer_use_that_of_another(
    sold: World, pool_id: UUID
) -> None:
    sold.customer("globex")
    sold.pool_of("globex-credits", unit="credit", customer="globex", rate_card="credits")
    done = use(sold, pool_id, subject="globex")
    assert isinstance(done, UseRefusal)
    assert RefusalCode.SUBJECT_NOT_SERVED is done.code


def test_a_hold_of_a_subject_that_was_moved_away_is_not_settled(sold: World, pool_id: UUID) -> None:
    sold.map("dev", "acme")
    sold.customer("globex")
    held = use(sold, pool_id, subject="dev", hold=True, seconds=60)
    assert isinstance(held, PricedUse)
    assert isinstance(held.answer, Answer)
    with transaction(sold.pool, sold.organization_id) as connection:
        scope = connection, sold.organization_id
        assert isinstance(move_subject_in(*scope, "dev", "globex", sold.now, sold.now), Moved)
    done = use(sold, pool_id, subject="dev", settle=held.answer.hold)
    assert isinstance(done, UseRefusal)
    assert RefusalCode.SUBJECT_NOT_SERVED is done.code
    assert [] == events(sold)


@pytest.mark.parametrize("subject", ["nobody", None])
def test_a_use_that_is_nobodys_is_granted(sold: World, pool_id: UUID, subject: str | None) -> None:
    done = use(sold, pool_id, subject=subject)
    assert isinstance(done, PricedUse)
    assert isinstance(done.answer, Answer)


def test_a_child_uses_the_pool_that_serves_it_also_where_its_own_goes_first(sold: World) -> None:
    sold.customer("team", parent="acme")
    fields: dict[str, Any] = {"unit": "credit", "customer": "acme", "rate_card": "credits"}
    pool_id = sold.pool_of("mothers", **fields)
    sold.grant(pool_id, 100)
    sold.now += timedelta(hours=1)
    assert isinstance(use(sold, pool_id, subject="team"), UseRefusal)
    sold.pool_of("mothers", **fields, serves_children=True)
    sold.now += timedelta(hours=1)
    assert isinstance(use(sold, pool_id, subject="team"), PricedUse)
    sold.pool_of("teams", unit="credit", customer="team", rate_card="credits")
    sold.now += timedelta(hours=1)
    assert isinstance(use(sold, pool_id, subject="team"), PricedUse)
    assert (Decimal(95), 2) == (available(sold, pool_id), len(events(sold)))


def test_a_use_for_a_customer_who_is_named_is_one_that_the_pool_serves(sold: World) -> None:
    sold.customer("team", parent="acme")
    sold.customer("globex")
    fields: dict[str, Any] = {"unit": "credit", "customer": "acme", "rate_card": "credits"}
    pool_id = sold.pool_of("mothers", **fields, serves_children=True)
    sold.grant(pool_id, 100)
    sold.now += timedelta(hours=1)
    for customer, subject in (("acme", "acme"), ("team", "team"), ("team", "nobody")):
        done = use(sold, pool_id, customer=customer, subject=subject)
        assert isinstance(done, PricedUse), (customer, subject)
        assert isinstance(done.answer, Answer), (customer, subject)
    for customer, subject in (("globex", "nobody"), ("acme", "team"), ("team", "acme")):
        refused = use(sold, pool_id, customer=customer, subject=subject)
        assert isinstance(refused, UseRefusal), (customer, subject)
        assert RefusalCode.SUBJECT_NOT_SERVED is refused.code
    assert (Decimal("92.5"), 3) == (available(sold, pool_id), len(events(sold)))


def test_a_use_that_its_event_counts_for_another_customer_is_refused(sold: World) -> None:
    meter = Meter(key="jobs", event_type="job", aggregation=Aggregation.COUNT, customer="$.for")
    rate = Rate(meter="jobs", price=PerUnit(unit=Decimal(1)))
    card = RateCard(key="work", currency="credit", custom_unit=True, rates=(rate,))
    sold.publish(meter, card)
    sold.customer("globex")
    pool_id = sold.pool_of("work", unit="credit", customer="acme", rate_card="work")
    sold.grant(pool_id, 100)
    done = use(sold, pool_id, type="job", data={"for": "globex"})
    assert isinstance(done, UseRefusal)
    assert RefusalCode.SUBJECT_NOT_SERVED is done.code
    assert isinstance(use(sold, pool_id, type="job", data={"for": "acme"}), PricedUse)


def test_each_use_is_paid_once_by_the_pool_or_by_the_bill(sold: World, pool_id: UUID) -> None:
    charge = Charge(key="calls", meter="calls", price=PerUnit(unit=Decimal(2)))
    sold.publish(Plan(key="base", currency="USD", charges=(charge,)))
    sold.customer("globex")
    for key in ("acme", "globex"):
        sold.subscribe(key, "base", at("2026-09-01 00:00"), key=key)
        paid = use(sold, pool_id, subject=key)
        assert isinstance(paid, PricedUse) == (key == "acme")
    (outcome,) = sold.send(
        sold.event("llm.request", sold.now, "globex", model="large", input=100, output=25)
    )
    assert "accepted" == outcome
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    billed = {one.customer_key: one.total for one in sold.invoices() if one.kind == "period"}
    assert {"acme": Decimal(0), "globex": Decimal(2)} == billed
    assert Decimal("97.5") == available(sold, pool_id)
