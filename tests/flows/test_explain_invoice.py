"""Every number opens: from a line to its events, and from an event to its line, or why not."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from farebox_world import World, at, days

from farebox.catalog.meter import Aggregation, Alias, Meter, Spread
from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.backfill_meter import backfill_meter
from farebox.flows.check_event import EventCheck, check_event
from farebox.flows.explain_event import EventQuestion, explain_event, list_events
from farebox.flows.explain_line import BUCKETS_A_PAGE, LineEvent, LineExplained, explain_line
from farebox.flows.place_reading import Fate
from farebox.period.instant import BEGINNING, END
from farebox.postgres.explain import Place

SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")


@pytest.fixture
def shop(world: World) -> World:
    """A customer on a plan that charges two meters, one of them by rate card."""
    world.publish(
        Meter(
            key="tokens",
            event_type="llm",
            aggregation=Aggregation.SUM,
            spread=Spread(dimension="kind", values={"in": "$.in", "out": "$.out"}),
            dimensions={"model": "$.model"},
        ),
        Meter(
            key="users",
            event_type="llm",
            aggregation=Aggregation.UNIQUE_COUNT,
            value="$.user",
            filter="data.user != ''",
        ),
        Meter(key="disk", event_type="disk", aggregation=Aggregation.LATEST, value="$.gb"),
        Meter(key="pings", event_type="ping", aggregation=Aggregation.COUNT),
    )
    cells = (
        Cell(match={"model": "a", "kind": "in"}, unit=Decimal("0.5")),
        Cell(match={"model": "a", "kind": "out"}, unit=Decimal(2)),
    )
    price = Matrix(dimensions=("model", "kind"), cells=cells)
    world.publish(
        RateCard(
            key="std",
            currency="USD",
            default=True,
            rates=(Rate(meter="tokens", price=price),),
            effective_from=at("2026-08-01"),
        ),
        Plan(
            key="p",
            currency="USD",
            charges=(
                Charge(key="tokens", meter="tokens"),
                Charge(key="users", meter="users", price=PerUnit(unit=Decimal(3))),
                Charge(key="disk", meter="disk", price=PerUnit(unit=Decimal(1))),
            ),
        ),
    )
    world.customer("acme")
    world.subscribe("acme", "p", SEPTEMBER)
    return world


def fate(world: World, number: int) -> Fate:
    found = explain_event(world.pool, world.organization_id, "test", f"e{number}")
    assert found is not None
    return found.fate


def line_of(world: World, charge: str, **options: object) -> LineExplained:
    (row,) = [one for one in world.invoices() if one.period_start == SEPTEMBER]
    (line,) = [one for one in world.lines(row) if one.charge_key == charge]
    found = explain_line(
        world.pool,
        world.organization_id,
        row.number or row.invoice_id,
        line.position,
        **options,  # type: ignore[arg-type]
    )
    assert found is not None
    return found


def ids(events: tuple[LineEvent, ...]) -> list[str]:
    return [event.id for event in events]


def test_a_line_opens_to_its_events_and_to_no_others(shop: World) -> None:
    use = shop.event
    shop.publish(Alias(dimension="model", alias="a2", canonical="a"))
    shop.send(
        use("llm", SEPTEMBER, "acme", model="a", user="x", **{"in": 10, "out": 1}),
        use("llm", at("2026-09-20 10:07"), "acme", model="a2", user="", **{"in": 4}),
        use("llm", OCTOBER - timedelta(microseconds=1), "acme", model="zz", user="y", out=5),
        use("llm", OCTOBER, "acme", model="a", user="z", out=100),
        use("llm", SEPTEMBER, "other", model="a", user="q", out=100),
        use("disk", at("2026-09-10"), "acme", gb=3),
    )
    assert 1 == shop.bill(OCTOBER).invoices
    shop.use("llm", at("2026-09-20 10:07"), "acme", model="a", user="late", **{"in": 999})

    tokens = line_of(shop, "tokens")
    assert tokens.detail.charge is not None
    assert Decimal("9.00") == tokens.line.amount  # 10 x 0.5, 1 x 2, 4 x 0.5
    # e3 has no price, so it is not on the line.
    assert ["e1", "e2"] == ids(tokens.events.events)
    assert [("in", "10"), ("out", "1")] == sorted(
        (one.dimensions["kind"], one.value) for one in tokens.events.events[0].readings
    )
    assert "std" == tokens.detail.charge.rate_card.key  # type: ignore[union-attr]
    assert [{"model": "a2"}] == [
        one.original for one in tokens.detail.charge.breakdown if one.original
    ]
    users = line_of(shop, "users")
    assert (Decimal(2), ["e1", "e3"]) == (users.line.quantity, ids(users.events.events))
    assert ["e6"] == ids(line_of(shop, "disk").events.events)


def test_an_event_tells_what_became_of_it(shop: World) -> None:
    use = shop.event
    shop.customer("globex")
    shop.subscribe("globex", "p", SEPTEMBER, end=at("2026-09-10"))
    shop.send(
        use("llm", SEPTEMBER, "acme", model="a", user="x", **{"in": 10}),  # 1
        use("llm", SEPTEMBER, "acme", model="zz", user="", **{"in": 10}),  # 2
        use("mystery", SEPTEMBER, "acme"),  # 3
        use("llm", SEPTEMBER, None, model="a", user="", **{"in": 1}),  # 4
        use("llm", at("2026-09-10"), "globex", model="a", user="", **{"in": 1}),  # 5
        use("ping", SEPTEMBER, "acme"),  # 6
        use("llm", SEPTEMBER, "acme", model="a", user=""),  # 7: nothing to read
        use("llm", OCTOBER, "acme", model="a", user="", **{"in": 1}),  # 8
        use("llm", SEPTEMBER, "globex", model="a", user="", **{"in": 1}),  # 9
    )
    assert Fate.NOT_YET_BILLED is fate(shop, 1)
    shop.bill(OCTOBER, finalize=False)
    assert Fate.NOT_YET_BILLED is fate(shop, 1)
    shop.bill(OCTOBER)
    shop.use("llm", at("2026-09-02"), "acme", model="a", user="", **{"in": 1})  # 10
    expected = [
        Fate.BILLED,
        Fate.NO_CELL,
        Fate.NO_METER,
        Fate.NO_CUSTOMER,
        Fate.NO_SUBSCRIPTION,
        Fate.NO_CHARGE,
        Fate.FILTERED_OUT,
        Fate.NOT_YET_BILLED,
        Fate.BILLED,
        Fate.LATE,
    ]
    assert expected == [fate(shop, number) for number in range(1, 11)]
    assert explain_event(shop.pool, shop.organization_id, "test", "e99") is None
    assert explain_event(shop.pool, shop.organization_id, "other", "e1") is None


def test_the_line_an_event_names_names_the_event(shop: World) -> None:
    shop.use("llm", SEPTEMBER, "acme", model="a", user="x", **{"in": 10})
    shop.bill(OCTOBER)
    found = explain_event(shop.pool, shop.organization_id, "test", "e1")
    assert found is not None
    places = {one.meter: one.readings[0].lines[0] for one in found.meters}
    assert {"tokens", "users"} == set(places)
    tokens = places["tokens"]
    assert tokens.invoice_number is not None
    assert tokens.position is not None
    assert Decimal(5) == tokens.amount_alone
    line = explain_line(shop.pool, shop.organization_id, tokens.invoice_number, tokens.position)
    assert line is not None
    assert ["e1"] == ids(line.events.events)


def test_what_was_unpriced_on_a_final_invoice_stays_so(shop: World) -> None:
    shop.use("llm", SEPTEMBER, "acme", model="new", user="", **{"in": 10})
    shop.bill(OCTOBER)
    shop.publish(Alias(dimension="model", alias="new", canonical="a"))
    assert Fate.NO_CELL is fate(shop, 1)


@pytest.mark.parametrize("series_at_once", [1_000, 1])
def test_pages_hold_every_event_once_in_order(
    shop: World, series_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More buckets than a page looks through, several events in some, and a subject that moved."""
    monkeypatch.setattr("farebox.postgres.explain.SERIES_AT_ONCE", series_at_once)
    shop.map("bot", "acme", BEGINNING, at("2026-09-03 00:07"))
    shop.map("bot", "globex", at("2026-09-03 00:07"), END)
    sent = []
    for number in range(3 * BUCKETS_A_PAGE):
        time = SEPTEMBER + number * timedelta(hours=1)
        sent.append(shop.event("llm", time, "acme", model="a", user="", out=1))
        if number % 5 == 0:
            # Same instant: the order of the stream decides.
            sent += [shop.event("llm", time, "bot", model="a", user="", out=1) for _ in range(4)]
    for number in range(20):
        time = at("2026-09-03 00:06") + number * timedelta(seconds=10)
        sent.append(shop.event("llm", time, "bot", model="a", user="", out=1))
    # In the same quarter of an hour as those that are another customer's by then.
    sent.append(shop.event("llm", at("2026-09-03 00:14"), "acme", model="a", user="", out=1))
    shop.send(*sent)
    shop.bill(OCTOBER)
    expected = [
        one["id"]
        for one in sorted(sent, key=lambda one: one["time"])
        if one["subject"] == "acme" or at(one["time"]) < at("2026-09-03 00:07")
    ]
    for limit in (1, 3, 7, 1000):
        found: list[str] = []
        after: Place | None = None
        while True:
            page = line_of(shop, "tokens", after=after, limit=limit).events
            assert len(page.events) <= limit
            found += ids(page.events)
            after = page.after
            if after is None:
                break
        assert expected == found
    assert Decimal(2 * len(expected)) == line_of(shop, "tokens").line.amount


def test_pages_of_points_hold_every_event_once(shop: World) -> None:
    """Meters that keep points have no buckets of their own; one is crowded, the others are not."""
    times = [SEPTEMBER + n * timedelta(seconds=1) for n in range(3 * BUCKETS_A_PAGE)]
    times += [SEPTEMBER + n * timedelta(hours=1) for n in range(1, 2 * BUCKETS_A_PAGE)]
    sent = [shop.event("disk", time, "acme", gb=n) for n, time in enumerate(times)]
    shop.send(*sent)
    shop.bill(OCTOBER)
    found: list[str] = []
    after: Place | None = None
    while True:
        page = line_of(shop, "disk", after=after, limit=50).events
        found += ids(page.events)
        after = page.after
        if after is None:
            break
    assert [one["id"] for one in sent] == found


def test_a_crowded_quarter_of_an_hour_is_looked_through_for_all(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More series in one bucket than are asked for at once."""
    monkeypatch.setattr("farebox.postgres.explain.SERIES_AT_ONCE", 1)
    sent = []
    for number in range(3 * BUCKETS_A_PAGE):
        shop.map(f"bot{number:02}", "acme")
        time = SEPTEMBER + number * timedelta(seconds=1)
        sent.append(shop.event("disk", time, f"bot{number:02}", gb=1))
    shop.send(*sent, shop.event("disk", SEPTEMBER + days(1), "acme", gb=1))
    shop.bill(OCTOBER)
    page = line_of(shop, "disk", limit=1000).events
    rest = line_of(shop, "disk", limit=1000, after=page.after).events
    expected = [f"e{n}" for n in range(1, 3 * BUCKETS_A_PAGE + 2)]
    assert expected == ids(page.events) + ids(rest.events)


def test_events_are_listed_newest_first(shop: World, new_world: Callable[[], World]) -> None:
    sent = [
        shop.event("llm" if n % 3 else "ping", SEPTEMBER + n * timedelta(hours=7), "acme", out=1,
                   model="a", user="")
        for n in range(40)
    ]  # fmt: skip
    shop.send(*sent)
    shop.fold(up_to=25)
    stranger = new_world()
    stranger.use("llm", SEPTEMBER, "acme")

    def pages(**asked: object) -> list[str]:
        found: list[str] = []
        after: Place | None = None
        while True:
            question = EventQuestion(
                **{"start": SEPTEMBER, "end": OCTOBER, "limit": 7, "after": after, **asked}  # type: ignore[arg-type]
            )
            rows, after = list_events(shop.pool, shop.organization_id, question)
            found += [row.id for row in rows]
            if after is None:
                return found

    everything = [one["id"] for one in reversed(sent)]
    assert everything == pages()
    assert everything == pages(customer="acme")
    assert [] == pages(customer="globex")
    only = [one["id"] for one in reversed(sent) if one["type"] == "ping"]
    assert only == pages(type="ping")
    assert only == pages(type="ping", customer="acme")
    start, end = SEPTEMBER + days(2), SEPTEMBER + days(4)
    some = [one["id"] for one in reversed(sent) if start <= at(one["time"]) < end]
    assert some == pages(start=start, end=end) == pages(start=start, end=end, customer="acme")


def check(world: World, **event: object) -> EventCheck:
    whole = {"specversion": "1.0", "id": "c1", "source": "test", "subject": "acme", **event}
    return check_event(world.pool, world.organization_id, json.dumps(whole).encode(), world.now)


def test_a_pasted_event_is_followed_and_not_stored(shop: World) -> None:
    data = {"model": "a", "in": "2.5", "out": 3, "user": "x"}
    found = check(shop, type="llm", data=data)
    assert ("accepted", Fate.NOT_YET_BILLED) == (found.outcome, found.fate)
    tokens, users = found.meters
    amounts = [one.lines[0].amount_alone for one in tokens.readings]
    assert [Decimal("1.25"), Decimal(6)] == amounts
    assert ["x"] == [one.reading.value for one in users.readings]
    assert explain_event(shop.pool, shop.organization_id, "test", "c1") is None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "other"}, Fate.NO_METER),
        ({"type": "llm", "data": {"user": ""}}, Fate.FILTERED_OUT),
        ({"type": "disk", "data": {"gb": 1}, "subject": "who"}, Fate.NO_CUSTOMER),
        ({"type": "disk", "data": {"gb": 1}, "time": "2026-08-30T00:00:00Z"}, Fate.NO_SUBSCRIPTION),
        ({"type": "ping"}, Fate.NO_CHARGE),
        ({"type": "llm", "data": {"user": "", "in": 1, "model": "zz"}}, Fate.NO_CELL),
        ({"type": "disk", "data": {"gb": 1}, "time": "2026-09-30T00:00:00Z"}, Fate.LATE),
        ({"type": "disk", "data": {"gb": 1}}, Fate.NOT_YET_BILLED),
    ],
)
def test_a_check_names_how_far_it_gets(
    shop: World, event: dict[str, object], expected: Fate
) -> None:
    shop.bill(OCTOBER)
    assert expected is check(shop, **event).fate


def test_a_check_before_the_rate_card_finds_no_rate(shop: World) -> None:
    shop.customer("early")
    shop.subscribe("early", "p", at("2026-07-01"))
    data = {"model": "a", "in": 1, "user": ""}
    found = check(shop, type="llm", data=data, subject="early", time="2026-07-02T00:00:00Z")
    assert Fate.NO_RATE is found.fate


def test_a_check_says_what_the_door_would(shop: World) -> None:
    event = shop.event("disk", at("2026-10-01 01:00"), "acme", gb=1)
    shop.send(event)

    def outcome(changed: dict[str, object]) -> tuple[str, str | None]:
        body = json.dumps({**event, **changed}).encode()
        found = check_event(shop.pool, shop.organization_id, body, shop.now)
        return found.outcome.value, found.rejection.code.value if found.rejection else None

    assert ("duplicate", None) == outcome({})
    assert ("conflict", None) == outcome({"data": {"gb": 2}})
    assert ("rejected", "value_not_a_number") == outcome({"id": "n", "data": {"gb": "many"}})
    assert ("rejected", "time_too_old") == outcome({"id": "n", "time": "2020-01-01T00:00:00Z"})
    assert ("rejected", "id_missing") == outcome({"id": None})
    found = check_event(shop.pool, shop.organization_id, b"{", shop.now)
    assert found.rejection is not None
    assert "malformed_json" == found.rejection.code


# Corrections ------------------------------------------------------------------------------------


def test_a_backfill_is_part_of_the_explanation(world: World) -> None:
    """The meter came after the event, and a second version after the first had read it."""
    world.publish(
        Plan(
            key="p",
            currency="USD",
            charges=(Charge(key="n", meter="n", price=PerUnit(unit=Decimal(1))),),
        )
    )
    world.customer("acme")
    world.subscribe("acme", "p", SEPTEMBER)
    world.use("use", at("2026-09-05"), "acme", n=5, m=500)
    assert Fate.NO_METER is fate(world, 1)
    meter = Meter(key="n", event_type="use", aggregation=Aggregation.SUM, value="$.n")
    world.publish(meter)
    backfill_meter(world.pool, world.organization_id, "n", 1, world.now)
    assert Fate.NOT_YET_BILLED is fate(world, 1)
    world.use("use", at("2026-09-20"), "acme", n=7, m=700)
    world.publish(msgspec.structs.replace(meter, value="$.m"), since=at("2026-09-10"))
    backfill_meter(world.pool, world.organization_id, "n", 2, world.now)
    world.bill(OCTOBER)
    opened = line_of(world, "n")
    assert Decimal(705) == opened.line.quantity
    assert [("e1", ["5"]), ("e2", ["700"])] == [
        (event.id, [one.value for one in event.readings]) for event in opened.events.events
    ]
    found = explain_event(world.pool, world.organization_id, "test", "e2")
    assert found is not None
    (read,) = found.meters
    assert [Decimal(700)] == [one.reading.value for one in read.readings]
