"""Ids: the layout of RFC 9562, order by time, one spelling on the wire."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.access.id import Prefix, decode_id, encode_id, uuidv7

TIMES = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=10, max_size=10)
UUIDS = st.uuids()


def test_the_example_of_rfc_9562() -> None:
    # Appendix A.6: 22 February 2022 14:22:22.00 GMT-05:00.
    random = ((0xCC3 << 64) | 0x18C4DC0C0C07398F).to_bytes(10)
    expected = UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    assert expected == uuidv7(0x017F22E279B0, random)


@given(TIMES, RANDOM)
def test_version_variant_and_time_are_in_their_place(milliseconds: int, random: bytes) -> None:
    value = uuidv7(milliseconds, random)
    assert (7, "specified in RFC 4122") == (value.version, value.variant)
    assert milliseconds == value.int >> 80


@given(TIMES, RANDOM, TIMES, RANDOM)
def test_later_ids_sort_later_on_the_wire(a: int, ra: bytes, b: int, rb: bytes) -> None:
    first, second = uuidv7(a, ra), uuidv7(b, rb)
    texts = [encode_id(Prefix.CUSTOMER, value) for value in (first, second)]
    assert (first < second) == (texts[0] < texts[1])


@given(UUIDS, st.sampled_from(list(Prefix)))
def test_a_wire_id_reads_back_and_only_as_its_kind(value: UUID, prefix: Prefix) -> None:
    text = encode_id(prefix, value)
    assert value == decode_id(prefix, text)
    for other in Prefix:
        assert other is prefix or decode_id(other, text) is None


def test_the_examples_of_typeid() -> None:
    # typeid.io, valid.yml: the values of "ten" and "max-valid".
    assert encode_id(Prefix.CUSTOMER, UUID(int=10)) == ("cus_0000000000000000000000000a")
    assert UUID(int=2**128 - 1) == decode_id(Prefix.CUSTOMER, f"cus_7{'z' * 25}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cus",
        "cus_",
        f"cus_8{'0' * 25}",
        f"cus_{'0' * 25}",
        f"cus_{'0' * 27}",
        f"cus_{'0' * 25}A",
        f"cus_{'0' * 25}i",
        f"cus_{'0' * 25}l",
        f"cus_{'0' * 25}o",
        f"cus_{'0' * 25}u",
        f"CUS_{'0' * 26}",
        f"sub_{'0' * 26}",
        f"cus_{'0' * 25}é",
    ],
)
def test_an_id_has_one_spelling(text: str) -> None:
    assert decode_id(Prefix.CUSTOMER, text) is None


def test_prefixes_are_distinct_and_short() -> None:
    assert len(Prefix) == len(set(Prefix))
    assert {3} == {len(prefix) for prefix in Prefix}
