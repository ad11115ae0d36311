"""Rate card resolution against a timeline that is painted instant by instant."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog.plan import Rate, RateCard
from farebox.catalog.price import PerUnit
from farebox.catalog.resolve import CardOwner, Cards, CardVersion, Segment, resolve

ZERO = datetime(2026, 3, 1, tzinfo=UTC)
LENGTH = 12


def at(hour: int) -> datetime:
    return ZERO + timedelta(hours=hour)


def card_version(
    key: str, version: int, hour: int, unit: int | None, meter: str = "tokens"
) -> CardVersion:
    rates = () if unit is None else (Rate(meter=meter, price=PerUnit(unit=Decimal(unit))),)
    return CardVersion(
        version=version,
        effective_from=at(hour),
        card=RateCard(key=key, currency="USD", rates=rates),
    )


def told(segments: tuple[Segment, ...]) -> list[tuple[int, int, str | None, str | None, object]]:
    """Segments as (from hour, to hour, owner, card, unit)."""
    return [
        (
            int((segment.start - ZERO) / timedelta(hours=1)),
            int((segment.end - ZERO) / timedelta(hours=1)),
            segment.owner,
            segment.card,
            None if segment.rate is None else segment.rate.price.unit,  # type: ignore[union-attr]
        )
        for segment in segments
    ]


def test_the_first_owner_whose_card_has_a_rate_decides() -> None:
    versions = {
        "customer": [card_version("customer", 1, 8, 1)],
        "partner": [card_version("partner", 1, 0, None), card_version("partner", 2, 6, 2)],
        "plan": [card_version("plan", 1, 4, 3)],
        "default": [card_version("default", 1, 2, 4)],
    }
    cards = Cards(customer="customer", partner="partner", plan="plan", default="default")
    assert [
        (0, 2, None, None, None),
        (2, 4, "default", "default", 4),
        (4, 6, "plan", "plan", 3),
        (6, 8, "partner", "partner", 2),
        (8, 10, "customer", "customer", 1),
    ] == told(resolve("tokens", at(0), at(10), cards, versions))


def test_a_new_version_splits_only_where_the_rate_differs() -> None:
    versions = {
        "plan": [
            card_version("plan", 1, 0, 5),
            card_version("plan", 2, 3, 5),
            card_version("plan", 3, 6, 7),
        ]
    }
    segments = resolve("tokens", at(0), at(10), Cards(plan="plan"), versions)
    assert [(0, 6, "plan", "plan", 5), (6, 10, "plan", "plan", 7)] == told(segments)
    assert [(1, 2), (3,)] == [segment.versions for segment in segments]


def test_a_backdated_version_prices_only_what_no_later_one_covers() -> None:
    versions = {"plan": [card_version("plan", 1, 5, 1), card_version("plan", 2, 2, 2)]}
    segments = resolve("tokens", at(0), at(8), Cards(plan="plan"), versions)
    assert [
        (0, 2, None, None, None),
        (2, 5, "plan", "plan", 2),
        (5, 8, "plan", "plan", 1),
    ] == told(segments)


def test_of_two_versions_from_one_instant_the_later_published_wins() -> None:
    versions = {"plan": [card_version("plan", 2, 0, 2), card_version("plan", 1, 0, 1)]}
    segments = resolve("tokens", at(0), at(8), Cards(plan="plan"), versions)
    assert [(0, 8, "plan", "plan", 2)] == told(segments)


def test_a_version_that_drops_the_meter_gives_way_to_the_next_owner() -> None:
    versions = {
        "customer": [card_version("customer", 1, 0, 1), card_version("customer", 2, 4, 9, "other")],
        "default": [card_version("default", 1, 0, 4)],
    }
    cards = Cards(customer="customer", default="default")
    assert [(0, 4, "customer", "customer", 1), (4, 8, "default", "default", 4)] == told(
        resolve("tokens", at(0), at(8), cards, versions)
    )


def test_a_card_that_no_one_published_has_no_rate() -> None:
    assert [(0, 1, None, None, None)] == told(
        resolve("tokens", at(0), at(1), Cards(customer="gone"), {})
    )


HISTORIES = st.lists(
    st.tuples(
        st.integers(-4, LENGTH + 4),
        st.none() | st.integers(1, 3),
        st.sampled_from(["tokens", "other"]),
    ),
    max_size=5,
)


def painted(history: list[CardVersion]) -> list[Rate | None]:
    """The rate at every hour, found by painting the versions over each other, later ones last."""
    timeline: list[Rate | None] = [None] * LENGTH
    for version in sorted(history, key=lambda item: (item.effective_from, item.version)):
        by_meter = {rate.meter: rate for rate in version.card.rates}
        for hour in range(LENGTH):
            if version.effective_from <= at(hour):
                timeline[hour] = by_meter.get("tokens")
    return timeline


@given(
    st.fixed_dictionaries(dict.fromkeys(CardOwner, HISTORIES)),
    st.dictionaries(st.sampled_from(list(CardOwner)), st.sampled_from(list(CardOwner))),
    st.permutations(range(5)),
    st.integers(0, LENGTH - 1),
)
@settings(max_examples=400)
def test_every_instant_has_the_rate_of_the_painted_timeline(
    drawn: dict[CardOwner, list[tuple[int, int | None, str]]],
    named: dict[CardOwner, CardOwner],
    order: list[int],
    start: int,
) -> None:
    versions = {
        owner.value: [
            card_version(owner.value, order[number], hour, unit, meter)
            for number, (hour, unit, meter) in enumerate(history)
        ]
        for owner, history in drawn.items()
    }
    cards = Cards(**{owner.value: card.value for owner, card in named.items()})
    segments = resolve("tokens", at(start), at(LENGTH), cards, versions)

    timelines = [
        (owner, painted(versions[named[owner].value])) for owner in CardOwner if owner in named
    ]
    expected: list[tuple[CardOwner | None, Rate | None]] = [
        next(((owner, line[hour]) for owner, line in timelines if line[hour]), (None, None))
        for hour in range(start, LENGTH)
    ]
    found = [
        (segment.owner, segment.rate)
        for hour in range(start, LENGTH)
        for segment in segments
        if segment.start <= at(hour) < segment.end
    ]
    assert expected == found
    assert (at(start), at(LENGTH)) == (segments[0].start, segments[-1].end)
    for left, right in pairwise(segments):
        assert left.end == right.start
        assert (left.owner, left.rate) != (right.owner, right.rate)
