"""Rate cards that nobody writes: usage of a feature's meter uses up its pool, one unit for one.

They stand where a pool's rate card stands. No key of anybody's has a slash, so theirs are apart.
"""

from collections.abc import Iterable, Sequence

from farebox.catalog.plan import Rate, RateCard
from farebox.catalog.price import ONE, PerUnit
from farebox.catalog.resolve import CardVersion
from farebox.period.instant import BEGINNING

_COVERED, _CHARGED = "meter/", "charged/"


def feature_card(meter: str, *, charged: bool) -> str:
    """Return the key of a meter's card. charged: a plan charges what is used all the same."""
    return f"{_CHARGED if charged else _COVERED}{meter}"


def is_feature_card(key: str) -> bool:
    """Tell a card of this kind from one that somebody wrote."""
    return key.startswith((_COVERED, _CHARGED))


def is_charged(key: str) -> bool:
    """Whether a plan charges what burns a pool by this card, so that the pool only counts it."""
    return key.startswith(_CHARGED)


def feature_cards(meters: Iterable[str]) -> Sequence[str]:
    """Return the keys of all cards of these meters."""
    return [feature_card(one, charged=charged) for one in meters for charged in (False, True)]


def version_of(key: str) -> CardVersion:
    """Return the only version of the card that has this key, in force at all times."""
    rate = Rate(meter=key.partition("/")[2], price=PerUnit(unit=ONE))
    card = RateCard(key=key, currency="", rates=(rate,), custom_unit=True)
    return CardVersion(version=1, effective_from=BEGINNING, card=card)
