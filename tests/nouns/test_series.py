"""A series is named by what it is: the same everywhere, and never the same as another."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.meter import Aggregation, Meter
from farebox.metering.series import Keeping, keeping_of, series_of

ORGANIZATION = UUID("01a1fde5-0000-7000-8000-000000000001").bytes
# Few and short, so that parts run into each other wherever they are not framed.
TEXTS = st.text("ab1", max_size=3)
IDENTITIES = st.tuples(
    st.binary(min_size=16, max_size=16) | st.just(ORGANIZATION),
    TEXTS,
    st.integers(1, 12),
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple),
)


def test_an_id_never_changes() -> None:
    """Rollups of years stand under these; another digest would lose them all."""
    series = series_of(ORGANIZATION, "calls", 1, "acme", "", ("gpt-4o", "ü"))
    assert "a2cad5db0cb46888a967a2bff24dbd80" == series.series_id
    assert ("calls", 1, "acme", "", ("gpt-4o", "ü")) == (
        series.meter_key,
        series.meter_version,
        series.subject,
        series.customer,
        series.dimensions,
    )


@given(one=IDENTITIES, two=IDENTITIES)
def test_ids_are_equal_where_everything_is(
    one: tuple[bytes, str, int, str, str, tuple[str, ...]],
    two: tuple[bytes, str, int, str, str, tuple[str, ...]],
) -> None:
    assert (one == two) == (series_of(*one).series_id == series_of(*two).series_id)
    assert UUID(series_of(*one).series_id).hex == series_of(*one).series_id


@given(parts=st.lists(TEXTS, min_size=5, max_size=5))
def test_parts_do_not_run_into_each_other(parts: list[str]) -> None:
    """Moving the border between two parts makes another series."""
    meter, subject, customer, *dimensions = parts
    here = series_of(ORGANIZATION, meter, 1, subject, customer, tuple(dimensions))
    moved = [
        (meter + subject, "", customer, tuple(dimensions)),
        (meter, subject + customer, "", tuple(dimensions)),
        (meter, subject, customer, ("".join(dimensions),)),
        (meter, subject, customer + dimensions[0], tuple(dimensions[1:])),
    ]
    for other in moved:
        if other != (meter, subject, customer, tuple(dimensions)):
            there = series_of(ORGANIZATION, other[0], 1, *other[1:])
            assert here.series_id != there.series_id


def test_every_aggregation_is_kept_in_a_way_that_can_answer_it() -> None:
    expected = {
        Keeping.TOTALS: {"count", "sum", "min", "max", "avg"},
        Keeping.VALUES: {"unique_count", "percentile"},
        Keeping.POINTS: {"latest", "weighted_sum", "increase"},
    }
    found: dict[Keeping, set[str]] = {}
    for aggregation in Aggregation:
        meter = Meter(key="m", event_type="t", aggregation=aggregation, value="v")
        found.setdefault(keeping_of(meter), set()).add(aggregation.value)
    assert expected == found
