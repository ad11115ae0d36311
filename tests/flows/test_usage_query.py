"""Questions about usage: their limits, their windows, and answers that are current."""

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from farebox_world import World, at

from farebox.catalog.meter import Aggregation, Conversion, Meter
from farebox.flows.query_usage import (
    UsageAnswer,
    UsageCode,
    UsageQuestion,
    UsageRefusal,
    query_usage,
)
from farebox.flows.read_usage import read_meters, read_single_values
from farebox.metering.quantity import Target
from farebox.metering.window import WindowSize
from farebox.period.instant import BEGINNING, END
from farebox.postgres.session import transaction

START, STOP = at("2026-09-01"), at("2026-10-01")
QUESTION = UsageQuestion(meter="tokens", start=START, end=STOP)


@pytest.fixture
def shop(world: World) -> World:
    world.publish(
        Meter(
            key="tokens",
            event_type="llm",
            aggregation=Aggregation.SUM,
            value="$.n",
            dimensions={"model": "$.model", "kind": "$.kind"},
            unit="token",
        ),
        Meter(key="level", event_type="disk", aggregation=Aggregation.LATEST, value="$.gb"),
    )
    world.customer("acme")
    world.customer("globex", timezone="America/New_York")
    return world


def ask(world: World, **changes: object) -> UsageAnswer:
    question = msgspec.structs.replace(QUESTION, **changes)
    found = query_usage(world.pool, world.organization_id, question)
    assert isinstance(found, UsageAnswer), found
    return found


def use(world: World, time: datetime, subject: str, n: int, model: str = "a") -> None:
    world.use("llm", time, subject, n=n, model=model, kind="in")


REFUSALS: dict[UsageCode, dict[str, object]] = {
    UsageCode.UNKNOWN_METER: {"meter": "nothing", "timezone": "Mars/Base"},
    UsageCode.UNKNOWN_CUSTOMER: {"customer": "nobody"},
    UsageCode.UNKNOWN_TIMEZONE: {"timezone": "Mars/Base", "group_by": ("nothing",)},
    UsageCode.UNKNOWN_DIMENSION: {"group_by": ("nothing",), "end": START},
    UsageCode.RANGE_EMPTY: {"end": START},
    UsageCode.TOO_MANY_WINDOWS: {"window": WindowSize.MINUTE},
    UsageCode.TOO_MANY_ROWS: {"window": WindowSize.HOUR, "group_by": ("model",)},
}


def test_every_refusal_has_a_row() -> None:
    assert list(UsageCode) == list(REFUSALS)


@pytest.mark.parametrize("code", list(UsageCode))
def test_a_question_is_refused_by_name(
    shop: World, code: UsageCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code is UsageCode.TOO_MANY_ROWS:
        monkeypatch.setattr("farebox.flows.query_usage.ROWS_MAX", 2)
        for model in ("a", "b", "c"):
            use(shop, START, "acme", 1, model)
    question = msgspec.structs.replace(QUESTION, **REFUSALS[code])
    found = query_usage(shop.pool, shop.organization_id, question)
    assert isinstance(found, UsageRefusal)
    assert code is found.code


def test_a_thousand_windows_are_answered_and_one_more_is_not(shop: World) -> None:
    use(shop, START, "acme", 1)
    fits = {"window": WindowSize.MINUTE, "end": START + timedelta(minutes=1000)}
    assert 1 == len(ask(shop, **fits).rows)
    question = msgspec.structs.replace(
        QUESTION, window=WindowSize.MINUTE, end=START + timedelta(minutes=1000, microseconds=1)
    )
    found = query_usage(shop.pool, shop.organization_id, question)
    assert isinstance(found, UsageRefusal)
    assert UsageCode.TOO_MANY_WINDOWS is found.code


def test_a_filter_on_a_dimension_alone_is_unknown_too(shop: World) -> None:
    question = msgspec.structs.replace(QUESTION, filters={"color": frozenset({"red"})})
    found = query_usage(shop.pool, shop.organization_id, question)
    assert isinstance(found, UsageRefusal)
    assert (UsageCode.UNKNOWN_DIMENSION, "filters") == (found.code, found.field)


def test_days_begin_where_the_customers_do(shop: World) -> None:
    for subject in ("acme", "globex"):
        use(shop, at("2026-09-02 03:59"), subject, 1)
        use(shop, at("2026-09-02 04:00"), subject, 2)
    shop.fold()

    def days(**changes: object) -> list[tuple[str, str, Decimal | None]]:
        rows = ask(shop, window=WindowSize.DAY, **changes).rows
        return [(row.customer, row.start.isoformat()[5:13], row.quantity) for row in rows]

    assert [
        ("acme", "09-02T00", Decimal(3)),
        ("globex", "09-01T04", Decimal(1)),
        ("globex", "09-02T04", Decimal(2)),
    ] == days()
    assert [("acme", "09-02T00", Decimal(3)), ("globex", "09-02T00", Decimal(3))] == days(
        timezone="UTC"
    )


def test_customers_come_in_pages(shop: World) -> None:
    for number in range(5):
        shop.customer(f"c{number}")
        use(shop, START, f"c{number}", number + 1)
    found: dict[str, Decimal | None] = {}
    after: str | None = ""
    pages = 0
    while after is not None:
        answer = ask(shop, after=after, customers_max=2)
        found |= {row.customer: row.quantity for row in answer.rows}
        after = answer.after
        pages += 1
    assert ({f"c{n}": Decimal(n + 1) for n in range(5)}, 4) == (found, pages)


def test_filters_keep_their_values_only(shop: World) -> None:
    for model in ("a", "b", "c"):
        use(shop, START, "acme", 10 ** (ord(model) - ord("a")), model)
    (row,) = ask(shop, filters={"model": frozenset({"a", "c"})}).rows
    assert (Decimal(101), 2) == (row.quantity, row.events)
    (row,) = ask(shop, filters={"model": frozenset({"a"}), "kind": frozenset({"in"})}).rows
    assert Decimal(1) == row.quantity
    assert () == ask(shop, filters={"model": frozenset({"a"}), "kind": frozenset({"out"})}).rows


def test_an_answer_counts_every_event_acknowledged(shop: World) -> None:
    for number in range(1, 6):
        use(shop, START, "acme", 1)
        if number == 3:
            shop.fold()
        answer = ask(shop)
        assert (number, Decimal(number), "token") == (
            answer.sequence,
            answer.rows[0].quantity,
            answer.unit,
        )


def test_a_subject_that_came_back_has_one_latest_value(shop: World) -> None:
    first, second = at("2026-09-10"), at("2026-09-20")
    shop.map("bot", "acme", BEGINNING, first)
    shop.map("bot", "globex", first, second)
    shop.map("bot", "acme", second, END)
    for day, gb in ((5, 1), (15, 2), (25, 4)):
        shop.use("disk", START + timedelta(days=day), "bot", gb=gb)
    for _ in range(2):
        rows = {row.customer: row for row in ask(shop, meter="level").rows}
        assert (Decimal(4), 2) == (rows["acme"].quantity, rows["acme"].events)
        assert (Decimal(2), 1) == (rows["globex"].quantity, rows["globex"].events)
        shop.fold()


def test_single_values_leave_out_what_lies_before_and_what_is_anothers(world: World) -> None:
    world.publish(
        Meter(
            key="sales", event_type="sale", aggregation=Aggregation.SUM, value="$.n", per_event=True
        )
    )
    world.customer("acme")
    middle = at("2026-09-10")
    world.map("bot", "acme", middle, END)
    for n, time in enumerate((START, middle - timedelta(microseconds=1), middle, STOP), 1):
        world.use("sale", time, "bot", n=n)
        world.use("sale", time, "acme", n=n * 10)
    for _ in range(2):
        with transaction(world.pool, world.organization_id) as connection:
            history = read_meters(connection, world.organization_id)["sales"]
            target = Target("acme", "sales", START + timedelta(seconds=1), STOP)
            found = read_single_values(connection, world.organization_id, history, [target], ())
        assert [[Decimal(20), Decimal(3), Decimal(30)]] == list(found.values())
        world.fold(up_to=5)


def test_a_conversion_rounds_the_whole_once(world: World) -> None:
    world.publish(
        Meter(
            key="gb",
            event_type="io",
            aggregation=Aggregation.SUM,
            value="$.bytes",
            conversion=Conversion(divide_by=Decimal(1000), decimals=0),
        )
    )
    world.customer("acme")
    for _ in range(3):
        world.use("io", START, "acme", bytes=500)
    (row,) = ask(world, meter="gb").rows
    assert Decimal(2) == row.quantity  # 1.5 rounded half up, not three times 0.5 rounded to 1


@pytest.mark.parametrize("size", [WindowSize.MINUTE, WindowSize.FIVE_MINUTES])
def test_windows_inside_a_bucket_are_told_apart_after_folding(
    shop: World, size: WindowSize
) -> None:
    times = [START + timedelta(minutes=minute) for minute in (0, 5, 10, 20)]
    for n, time in enumerate(times, 1):
        use(shop, time, "acme", n)
    shop.fold()
    rows = ask(shop, window=size, end=START + timedelta(minutes=30)).rows
    assert [(time, Decimal(n)) for n, time in enumerate(times, 1)] == [
        (row.start, row.quantity) for row in rows
    ]
