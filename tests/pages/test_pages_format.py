"""How values look: every digit is kept, signs and currencies are right, spans read well."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.http.pages.format import compact, day, money, quantity, span
from farebox.http.pages.sparkline import HEIGHT, WIDTH, sparkline
from farebox.period.instant import BEGINNING, END

AMOUNTS = st.decimals(
    min_value=Decimal("-1e19"), max_value=Decimal("1e19"), allow_nan=False, places=18
)


@given(AMOUNTS)
def test_a_quantity_keeps_every_digit(value: Decimal) -> None:
    assert value == Decimal(quantity(value).replace(",", "").replace("\u2212", "-"))


@given(AMOUNTS, st.sampled_from(["USD", "EUR", "JPY", "KWD", "CHF"]))
def test_money_keeps_every_digit(value: Decimal, currency: str) -> None:
    digits = re.sub(r"[^0-9.\u2212]", "", money(value, currency)).replace("\u2212", "-")
    assert value == Decimal(digits)


@pytest.mark.parametrize(
    ("value", "currency", "shown"),
    [
        ("1234.5", "USD", "$1,234.50"),
        ("-0.5", "EUR", "\u2212€0.50"),
        ("0.0000025", "USD", "$0.0000025"),
        ("1200", "JPY", "¥1,200"),
        ("1.5", "KWD", "KWD\u00a01.500"),
        ("0", "USD", "$0.00"),
    ],
)
def test_money(value: str, currency: str, shown: str) -> None:
    assert shown == money(Decimal(value), currency)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"),
        ("3.14159", "3.14"),
        ("99999.4", "99,999"),
        ("100000", "100K"),
        ("22361870", "22.36M"),
        ("-4500000000", "\u22124.5B"),
        ("1e19", "10,000,000T"),
    ],
)
def test_compact(value: str, shown: str) -> None:
    assert shown == compact(Decimal(value))


@pytest.mark.parametrize(
    ("start", "end", "zone", "shown"),
    [
        ("2026-05-01T00:00", "2026-06-01T00:00", "UTC", "1–31 May 2026"),
        ("2026-05-15T00:00", "2026-06-15T00:00", "UTC", "15 May – 14 Jun 2026"),
        ("2026-12-15T00:00", "2027-01-15T00:00", "UTC", "15 Dec 2026 – 14 Jan 2027"),
        ("2026-05-01T00:00", "2026-05-02T00:00", "UTC", "1 May 2026"),
        ("2026-03-01T00:00", "2026-04-01T00:00", "Europe/Berlin", "1–31 Mar 2026"),
        (
            "2026-05-01T06:00",
            "2026-05-02T00:00",
            "UTC",
            "1 May 2026, 06:00:00 – 2 May 2026, 00:00:00",
        ),
    ],
)
def test_span(start: str, end: str, zone: str, shown: str) -> None:
    first, after = (
        datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        for text in (start, end)
    )
    assert shown == span(first, after, zone)


def test_the_ends_of_time_have_words() -> None:
    assert ("always", "–") == (day(BEGINNING), day(END))


@given(st.lists(AMOUNTS, min_size=2, max_size=60))
def test_a_sparkline_stays_in_its_box(values: list[Decimal]) -> None:
    picture = sparkline(values)
    if picture is None:
        assert not any(values)
        return
    points = re.findall(r"(-?[\d.]+) (-?[\d.]+)", picture.line)
    assert len(points) == len(values)
    for x, y in points:
        assert 0 <= Decimal(x) <= WIDTH
        assert 0 <= Decimal(y) <= HEIGHT


@given(st.lists(AMOUNTS, min_size=2, max_size=30, unique=True))
def test_a_sparkline_is_highest_where_the_values_are(values: list[Decimal]) -> None:
    picture = sparkline(values)
    assert picture is not None
    heights = [Decimal(y) for _, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", picture.line)]
    assert heights[values.index(max(values))] == min(heights)
