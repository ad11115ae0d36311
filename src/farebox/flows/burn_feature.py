"""Usage of a feature's meter uses up the feature: by which card its pool burns, from when on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.entitled import Entitled
from farebox.catalog.feature_card import feature_card, is_charged, is_feature_card
from farebox.catalog.meter import SINGLE_USES, Meter
from farebox.catalog.plan import Feature, Plan
from farebox.postgres import burn, catalog
from farebox.postgres.catalog import Kind


class FeatureBurns(Struct, frozen=True):
    """By which card the pool of each feature is to burn; changing: of which it did not so far.

    since: from when on it does. A pool to which somebody gave a rate card keeps it.
    """

    cards: Mapping[str, str]
    changing: frozenset[str]
    since: datetime

    def is_charged(self, feature: str) -> bool:
        """Whether a plan charges the usage that uses up this feature."""
        return is_charged(self.cards.get(feature, ""))


def cards_of_features(
    connection: Connection,
    organization_id: UUID,
    metered: Mapping[str, Entitled],
    plans: Sequence[Plan],
) -> Mapping[str, str]:
    """Return by which card the pool of each feature burns unless it is given another.

    plans: those of the customer that run.
    """
    charged = {charge.meter for plan in plans for charge in plan.charges}
    cards = {}
    for feature, one in metered.items():
        meter = _meter_of(connection, organization_id, feature)
        if meter is not None:
            # A price of its own beyond the limit goes before that of a plan, or both would be paid.
            counts = meter in charged and one.price is None
            cards[feature] = feature_card(meter, charged=counts)
    return cards


def plan_burns(
    connection: Connection,
    organization_id: UUID,
    customer_key: str,
    metered: Mapping[str, Entitled],
    plans: Sequence[Plan],
    standing: Mapping[str, UUID],
    now: datetime,
) -> FeatureBurns:
    """Return how the pools of a customer's features are to burn; before any pool is locked.

    plans: those that run. standing: the pools that there are, by feature; closed ones stay as they
    are.
    """
    cards = dict(cards_of_features(connection, organization_id, metered, plans))
    by_pool = burn.cards_of_pools(connection, organization_id, list(standing.values()))
    before = {key: by_pool[pool] for key, pool in standing.items() if pool in by_pool}
    given = {key for key, card in before.items() if not is_feature_card(card)}
    cards = {key: card for key, card in cards.items() if key not in given}
    closed = burn.closed_pools(connection, organization_id, list(standing.values()))
    given |= {key for key, pool in standing.items() if pool in closed}
    changing = frozenset(
        key for key in {*cards, *before} - given if cards.get(key) != before.get(key)
    )
    since = now
    if changing:
        since = burn.boundary(connection, organization_id, customer_key, now)
    return FeatureBurns(cards, changing, since)


def begin_burn(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    feature: str,
    burns: FeatureBurns,
) -> None:
    """Let usage burn a feature's pool as planned, or no more."""
    if feature not in burns.changing:
        return
    card = burns.cards.get(feature)
    if card is None:
        burn.end(connection, organization_id, pool_id, burns.since)
    else:
        burn.begin(connection, organization_id, pool_id, card, burns.since, serves_children=False)


def _meter_of(connection: Connection, organization_id: UUID, feature: str) -> str | None:
    """Return the meter whose usage uses up a feature; none where single uses do not add up."""
    versions = catalog.versions(connection, organization_id, Kind.FEATURE, feature)
    if not versions:
        return None
    key = msgspec.json.decode(versions[-1].definition, type=Feature).meter
    if key is None:
        return None
    meters = catalog.versions(connection, organization_id, Kind.METER, key)
    found = msgspec.json.decode(meters[-1].definition, type=Meter)
    return key if found.aggregation in SINGLE_USES else None
