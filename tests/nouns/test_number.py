"""Invoice numbers follow each other without a gap, however they are taken."""

from hypothesis import given
from hypothesis import strategies as st

from farebox.invoicing.number import numbers


def test_numbers_are_six_digits_and_more_where_they_must_be() -> None:
    assert ["INV-000001", "INV-000002"] == list(numbers(0, 2))
    assert ["INV-999999", "INV-1000000"] == list(numbers(999_998, 2))
    assert ["DE-000008"] == list(numbers(7, 1, prefix="DE"))
    assert [] == list(numbers(7, 0))


@given(last=st.integers(0, 10**7), parts=st.lists(st.integers(0, 20), max_size=5))
def test_taken_in_parts_they_are_the_same(last: int, parts: list[int]) -> None:
    taken: list[str] = []
    at = last
    for count in parts:
        taken += numbers(at, count)
        at += count
    assert list(numbers(last, sum(parts))) == taken
    assert len(set(taken)) == len(taken)
