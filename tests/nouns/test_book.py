"""The book of meters: an event is read by every meter of its type in force at its time."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from farebox.catalog.meter import Aggregation, Meter, Spread
from farebox.metering import kind as metering_kind
from farebox.metering.book import MeterBook
from farebox.metering.kind import Filed, MeterVersion
from farebox.metering.reading import ReadingCode, ReadingRefusal
from farebox.metering.series import Keeping, series_of
from farebox.period.instant import BEGINNING, END

ORGANIZATION = bytes(16)
CHANGE = datetime(2026, 9, 10, tzinfo=UTC)
SUM = Meter(
    key="units",
    event_type="call",
    aggregation=Aggregation.SUM,
    value="units",
    dimensions={"model": "$.model"},
)
COUNT = Meter(key="calls", event_type="call", aggregation=Aggregation.COUNT)


def book(*versions: MeterVersion) -> MeterBook:
    return MeterBook(ORGANIZATION, 7, versions)


def always(meter: Meter, version: int = 1) -> MeterVersion:
    return MeterVersion(meter, version, BEGINNING, END)


def read(
    of: MeterBook, data: Any, *, kind: str = "call", time: datetime = CHANGE, subject: str = "acme"
) -> list[Filed] | ReadingRefusal | None:
    return of.read(data, kind, "test", subject, time)


def filed(found: list[Filed] | ReadingRefusal | None) -> list[tuple[str, int, object]]:
    assert isinstance(found, list), found
    return [(one.series.meter_key, one.series.meter_version, one.value) for one in found]


def test_every_meter_of_the_type_reads() -> None:
    found = read(book(always(SUM), always(COUNT)), {"units": 3, "model": "m"})
    assert [("units", 1, Decimal(3)), ("calls", 1, Decimal(1))] == filed(found)
    assert isinstance(found, list)
    assert series_of(ORGANIZATION, "units", 1, "acme", "", ("m",)) == found[0].series
    assert [(Keeping.TOTALS, False)] * 2 == [(one.keeping, one.per_event) for one in found]


def test_a_type_that_no_meter_knows_is_told_from_one_that_is_not_taken() -> None:
    filtered = Meter(
        key="big", event_type="call", aggregation=Aggregation.COUNT, filter="data.units > 5"
    )
    assert None is read(book(always(filtered)), {"units": 9}, kind="other")
    assert [] == read(book(always(filtered)), {"units": 3})
    assert None is read(book(), {"units": 3})
    later = MeterVersion(COUNT, 1, CHANGE, END)
    assert [] == read(book(later), {}, time=CHANGE - timedelta(microseconds=1))


def test_one_refusal_refuses_the_event() -> None:
    found = read(book(always(COUNT), always(SUM)), {"units": "many"})
    assert isinstance(found, ReadingRefusal)
    assert (ReadingCode.VALUE_NOT_A_NUMBER, "units", "value") == (
        found.code,
        found.meter,
        found.field,
    )


def test_a_version_not_in_force_refuses_nothing() -> None:
    earlier = MeterVersion(SUM, 1, BEGINNING, CHANGE)
    assert [("calls", 1, Decimal(1))] == filed(
        read(book(earlier, always(COUNT)), {"units": "many"})
    )


@pytest.mark.parametrize(
    ("time", "version"),
    [
        (BEGINNING, 1),
        (CHANGE - timedelta(microseconds=1), 1),
        (CHANGE, 2),
        (END - timedelta(microseconds=1), 2),
    ],
)
def test_versions_are_half_open(time: datetime, version: int) -> None:
    versions = (MeterVersion(COUNT, 1, BEGINNING, CHANGE), MeterVersion(COUNT, 2, CHANGE, END))
    assert [("calls", version, Decimal(1))] == filed(read(book(*versions), {}, time=time))


def test_a_spread_is_filed_value_by_value() -> None:
    tokens = Meter(
        key="tokens",
        event_type="call",
        aggregation=Aggregation.SUM,
        spread=Spread(dimension="kind", values={"input": "$.input", "output": "$.output"}),
        per_event=True,
    )
    found = read(book(always(tokens)), {"input": 3, "output": 4})
    assert isinstance(found, list)
    assert [(("input",), 3, True), (("output",), 4, True)] == [
        (one.series.dimensions, one.value, one.per_event) for one in found
    ]


def test_users_are_told_apart_and_remembered() -> None:
    of = book(always(COUNT))
    series = []
    for subject in ("a", "b", "a"):
        found = read(of, {}, subject=subject)
        assert isinstance(found, list)
        series.append(found[0].series)
    assert series[0] is series[2]
    assert series[0].series_id != series[1].series_id


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering_kind, "_SERIES_REMEMBERED", 3)
    monkeypatch.setattr(metering_kind, "_PLACES_REMEMBERED", 2)
    of = book(always(COUNT))
    kind = of._kinds["call"]
    for number in [*range(10), 0, 9]:
        found = read(of, {}, subject=f"s{number}")
        assert isinstance(found, list)
        assert series_of(ORGANIZATION, "calls", 1, f"s{number}", "", ()) == found[0].series
        assert len(kind._entries[0].known) <= 3
        assert len(kind._places) <= 2


def test_the_book_knows_its_revision() -> None:
    assert 7 == book().revision
