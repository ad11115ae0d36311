"""Spans of time, half open."""

from datetime import UTC, datetime, timedelta

from farebox.period.span import Span, without

BEGIN = datetime(2026, 9, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return BEGIN + timedelta(days=number)


def spans(*pairs: tuple[int, int]) -> list[Span]:
    return [(day(start), day(end)) for start, end in pairs]


def test_what_is_left_of_a_span_without_others() -> None:
    whole = (day(0), day(10))
    assert spans((0, 10)) == without(*whole, [])
    assert [] == without(*whole, spans((0, 10)))
    assert [] == without(*whole, spans((-5, 4), (4, 20)))
    assert spans((8, 10)) == without(*whole, spans((0, 8), (2, 4)))
    assert spans((0, 2), (4, 6), (9, 10)) == without(*whole, spans((6, 9), (2, 4), (3, 4)))
    assert spans((0, 10)) == without(*whole, spans((-5, 0), (10, 12)))
    assert [] == without(day(3), day(3), spans((5, 6)))
