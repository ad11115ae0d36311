"""A time is read one way only: what a quicker path takes, the rule takes too, and to the same.

The rule is a copy: the regular expression of RFC 3339 and the standard library.
"""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farebox.events.time import parse_time

RULE = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)?", re.ASCII
)


def by_the_rule(text: str) -> datetime | None:
    if RULE.fullmatch(text) is None:
        return None
    try:
        time = datetime.fromisoformat(text.upper())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def check(text: str) -> None:
    expected, found = by_the_rule(text), parse_time(text)
    assert expected == found
    if found is not None:
        # Two times may be equal in different zones.
        assert (UTC, repr(expected)) == (found.tzinfo, repr(found))


YEARS = st.sampled_from(["0000", "0001", "1969", "1970", "2000", "2024", "2026", "9999"])
MONTHS = st.sampled_from(["00", "01", "02", "06", "12", "13"])
DAYS = st.sampled_from(["00", "01", "28", "29", "30", "31", "32"])
HOURS = st.sampled_from(["00", "01", "09", "12", "19", "23", "24", "25"])
SIXTIETHS = st.sampled_from(["00", "01", "30", "59", "60", "61", "99"])
FRACTIONS = st.one_of(
    st.just(""),
    st.text("0123456789", min_size=0, max_size=9).map(".".__add__),
    st.sampled_from([".9999999", ".999999", ".0000004", ".0000005", ",5", ".5.5", ". 5", ".-5"]),
)
OFFSETS = st.one_of(
    st.sampled_from(
        ["Z", "Z", "Z", "z", "", "+00:00", "+00:00", "-00:00", "+0000", "+00", "-0:00"]
    ),
    st.sampled_from([" Z", "Z ", "ZZ", "Z+00:00", "+00:00Z", "UTC", "+00:00:00", "\u221200:00"]),
    st.builds("{}{}:{}".format, st.sampled_from("+-"), HOURS, SIXTIETHS),
)
SPELT = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    *(YEARS, MONTHS, DAYS, st.sampled_from(["T", "T", "T", "t", " ", "_", ""])),
    *(HOURS, SIXTIETHS, SIXTIETHS, FRACTIONS, OFFSETS),
)
SOUND = st.builds(
    "{:%m-%dT%H:%M:%S}{}{}".format,
    st.datetimes(),
    FRACTIONS,
    OFFSETS,
).flatmap(lambda rest: YEARS.map(lambda year: f"{year}-{rest}"))
DIGITS = st.characters(categories=["Nd"])


@st.composite
def changed(draw: st.DrawFn) -> str:
    """Return a time in which one character is put in, left out or replaced."""
    text = draw(st.one_of(SOUND, SPELT))
    place = draw(st.integers(0, len(text)))
    put = draw(
        st.one_of(st.sampled_from("0123456789TZz:.+- "), DIGITS, st.characters(), st.just(""))
    )
    return text[:place] + put + text[place + draw(st.integers(0, 1)) :]


@given(text=st.one_of(SOUND, SPELT, changed()))
@example("2026-10-17T08:14:22.123456Z")
@example("2026-10-17T08:14:22.1234567Z")
@example("2026-10-17T08:14:22.999999+00:00")
@example("2026-10-17T08:14:22.9999999+00:00")
@example("9999-12-31T23:59:59.999999Z")
@example("9999-12-31T23:59:59.9999999Z")
@example("0001-01-01T00:00:00+00:00")
@example("0000-12-31T23:59:59Z")
@example("2016-12-31T23:59:60Z")
@example("2026-10-17T24:00:00Z")
@example("2026-10-17 08:14:22Z")
@example("2026-10-17t08:14:22Z")
@example("2026-10-17T08:14Z")
@example("2026-10-17T08Z")
@example("2026-10-17Z")
@example("20261017T081422Z")
@example("1792224862Z")
@example("P1DZ")
@example("\u0662026-10-17T08:14:22Z")
@example("2026-10-17T08:14:22.\u0661Z")
@example("2026-10-17T08:14:22\ud800Z")
@example("2026-10-17T08:14:22+00:00Z")
@example("2026-10-17T08:14:22.5-00:00+00:00")
@example("")
@example("Z")
@example("+00:00")
@settings(max_examples=5000, deadline=None)
def test_whatever_is_sent_is_read_by_the_rule(text: str) -> None:
    check(text)


@given(text=st.text(max_size=40), end=st.sampled_from(["Z", "+00:00", "z", ""]))
@settings(max_examples=1000, deadline=None)
def test_whatever_is_no_time_is_none(text: str, end: str) -> None:
    check(text + end)


@pytest.mark.parametrize("end", ["Z", "+00:00", "z", "", "-00:00", "+02:00", "-23:59"])
@given(time=st.datetimes().filter(lambda time: "0001-01-02" < f"{time}" < "9999-12-30"))
def test_a_time_that_is_printed_is_read_back(end: str, time: datetime) -> None:
    """Whichever number of digits it has, as far as they tell microseconds."""
    shift = timedelta()
    if end[:1] in {"+", "-"}:
        shift = timedelta(hours=int(end[:3]), minutes=int(end[0] + end[4:]))
    for places in range(1, 10):
        digits = f"{time.microsecond:06}000"[:places]
        microseconds = int(digits.ljust(6, "0")[:6])
        text = f"{time.year:04}{time:-%m-%dT%H:%M:%S}.{digits}{end}"
        check(text)
        assert time.replace(microsecond=microseconds, tzinfo=UTC) - shift == parse_time(text)
