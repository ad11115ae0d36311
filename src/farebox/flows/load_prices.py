"""Read what usage is priced by: the versions of rate cards, and the aliases of dimension values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.feature_card import feature_cards, is_feature_card, version_of
from farebox.catalog.meter import Alias
from farebox.catalog.plan import Feature, RateCard
from farebox.catalog.resolve import CardVersion
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind


def card_histories(
    connection: Connection, organization_id: UUID, key: str | None = None
) -> Mapping[str, Sequence[CardVersion]]:
    """Return the versions of each rate card, or of one, by key; the earliest first.

    Among them those that nobody writes, by which a meter uses up a feature.
    """
    if key is not None and is_feature_card(key):
        return {key: [version_of(key)]}
    found: dict[str, list[CardVersion]] = defaultdict(list)
    if key is None:
        for one in feature_cards(_meters_of_features(connection, organization_id)):
            found[one].append(version_of(one))
    for row in catalog.versions(connection, organization_id, Kind.RATE_CARD, key):
        card = msgspec.json.decode(row.definition, type=RateCard)
        found[row.key].append(
            CardVersion(
                version=row.version,
                effective_from=row.effective_from,
                card=card,
                published_at=row.published_at,
            )
        )
    return found


def _meters_of_features(connection: Connection, organization_id: UUID) -> set[str]:
    """Return the meters that features name, or did: what burned by them stays burned."""
    features = (
        msgspec.json.decode(one.definition, type=Feature)
        for one in catalog.versions(connection, organization_id, Kind.FEATURE)
    )
    return {one.meter for one in features if one.meter is not None}


def aliases_of(connection: Connection, organization_id: UUID) -> dict[tuple[str, str], str]:
    """Return what stands for each alias, by dimension and alias."""
    found = {}
    for one in catalog.versions(connection, organization_id, Kind.ALIAS):
        alias = msgspec.json.decode(one.definition, type=Alias)
        found[alias.dimension, alias.alias] = alias.canonical
    return found
