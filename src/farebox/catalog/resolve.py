"""Which rate prices a meter's usage at each instant: whose card, and which version of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from msgspec import Struct

from farebox.catalog.plan import Rate, RateCard
from farebox.period.instant import BEGINNING


class CardOwner(StrEnum):
    """Through whom a rate card applies, in the order in which they are asked."""

    CUSTOMER = "customer"
    PARTNER = "partner"
    PLAN = "plan"
    DEFAULT = "default"


class CardVersion(Struct, frozen=True, kw_only=True):
    """A published version, in force from `effective_from`, which may lie before its publication."""

    version: int
    effective_from: datetime
    card: RateCard
    published_at: datetime = BEGINNING


class Segment(Struct, frozen=True, kw_only=True):
    """One rate from `start` (inclusive) to `end` (exclusive).

    owner, card and rate are none where no card has a rate: such usage is listed as unpriced.
    versions: those in force within the segment; more than one where they do not differ in this
        meter's rate.
    """

    start: datetime
    end: datetime
    owner: CardOwner | None = None
    card: str | None = None
    currency: str | None = None
    versions: tuple[int, ...] = ()
    rate: Rate | None = None


class Cards(Struct, frozen=True, kw_only=True):
    """The keys of the rate cards that may price a subscription's usage."""

    customer: str | None = None
    partner: str | None = None
    plan: str | None = None
    default: str | None = None


def resolve(
    meter: str,
    start: datetime,
    end: datetime,
    cards: Cards,
    versions: Mapping[str, Sequence[CardVersion]],
) -> tuple[Segment, ...]:
    """Return the segments that cover `start` to `end` without gap, merged where nothing changes.

    At every instant the first card in the order of `CardOwner` decides that has a rate for `meter`
    in its version in force then. In force is the version with the latest `effective_from` that is
    not after the instant; of two with the same one, the higher number. A card without a version
    in force, or unknown to `versions`, has no rate.
    """
    assert start < end, (start, end)
    candidates = tuple(
        (owner, key, versions.get(key, ()))
        for owner in CardOwner
        if (key := getattr(cards, owner.value)) is not None
    )
    changes = {
        version.effective_from
        for _, _, history in candidates
        for version in history
        if start < version.effective_from < end
    }
    edges = [start, *sorted(changes), end]
    segments: list[Segment] = []
    for left, right in pairwise(edges):
        segment = _segment(meter, left, right, candidates)
        if segments and _same(segments[-1], segment):
            segments[-1] = _joined(segments[-1], segment)
        else:
            segments.append(segment)
    return tuple(segments)


def in_force(history: Sequence[CardVersion], at: datetime) -> CardVersion | None:
    """Return the version in force at an instant, none before the first."""
    begun = [version for version in history if version.effective_from <= at]
    return max(begun, key=lambda item: (item.effective_from, item.version), default=None)


def _segment(
    meter: str,
    start: datetime,
    end: datetime,
    candidates: tuple[tuple[CardOwner, str, Sequence[CardVersion]], ...],
) -> Segment:
    for owner, key, history in candidates:
        version = in_force(history, start)
        for rate in version.card.rates if version is not None else ():
            if rate.meter == meter:
                assert version is not None
                return Segment(
                    start=start,
                    end=end,
                    owner=owner,
                    card=key,
                    currency=version.card.currency,
                    versions=(version.version,),
                    rate=rate,
                )
    return Segment(start=start, end=end)


def _same(left: Segment, right: Segment) -> bool:
    return (left.owner, left.card, left.currency, left.rate) == (
        right.owner,
        right.card,
        right.currency,
        right.rate,
    )


def _joined(left: Segment, right: Segment) -> Segment:
    later = tuple(number for number in right.versions if number not in left.versions)
    return Segment(
        start=left.start,
        end=right.end,
        owner=left.owner,
        card=left.card,
        currency=left.currency,
        versions=left.versions + later,
        rate=left.rate,
    )
