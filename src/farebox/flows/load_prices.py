"""Read what usage is priced by: the versions of rate cards, and the aliases of dimension values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.meter import Alias
from farebox.catalog.plan import RateCard
from farebox.catalog.resolve import CardVersion
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind


def card_histories(
    connection: Connection, organization_id: UUID, key: str | None = None
) -> Mapping[str, Sequence[CardVersion]]:
    """Return the versions of each rate card, or of one, by key; the earliest first."""
    found: dict[str, list[CardVersion]] = defaultdict(list)
    for one in catalog.versions(connection, organization_id, Kind.RATE_CARD, key):
        card = msgspec.json.decode(one.definition, type=RateCard)
        found[one.key].append(
            CardVersion(
                version=one.version,
                effective_from=one.effective_from,
                card=card,
                published_at=one.published_at,
            )
        )
    return found


def aliases_of(connection: Connection, organization_id: UUID) -> dict[tuple[str, str], str]:
    """Return what stands for each alias, by dimension and alias."""
    found = {}
    for one in catalog.versions(connection, organization_id, Kind.ALIAS):
        alias = msgspec.json.decode(one.definition, type=Alias)
        found[alias.dimension, alias.alias] = alias.canonical
    return found
