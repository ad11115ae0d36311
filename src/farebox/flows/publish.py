"""Publish definitions of the catalog: each change is a new version that never changes again."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.customer import Partner
from farebox.catalog.meter import Alias, Meter
from farebox.catalog.plan import Feature, Plan, RateCard
from farebox.period.instant import BEGINNING
from farebox.postgres import catalog, stream
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.session import Pool, transaction

Definition = Meter | Feature | Alias | RateCard | Plan | Partner

_KINDS: dict[type, Kind] = {
    Meter: Kind.METER,
    Feature: Kind.FEATURE,
    Alias: Kind.ALIAS,
    RateCard: Kind.RATE_CARD,
    Plan: Kind.PLAN,
    Partner: Kind.PARTNER,
}
_ENCODER = msgspec.json.Encoder(order="deterministic")


class Published(Struct, frozen=True):
    """The version in question, and whether this call made it (the same body again does not)."""

    version: Version
    made: bool


def publish(
    pool: Pool,
    organization_id: UUID,
    definitions: Sequence[Definition],
    now: datetime,
    *,
    effective_from: datetime | None = None,
) -> list[Published]:
    """Publish all or none, in one transaction; the caller has checked them.

    A version is in force from `effective_from`; without it the first from the beginning and a later
    one from `now`. A rate card may name its own instant. New meters read every event after this
    commit, and none before: what is older is a backfill.
    """
    with transaction(pool, organization_id) as connection:
        return publish_in(
            connection, organization_id, definitions, now, effective_from=effective_from
        )


def publish_in(
    connection: Connection,
    organization_id: UUID,
    definitions: Sequence[Definition],
    now: datetime,
    *,
    effective_from: datetime | None = None,
) -> list[Published]:
    """As `publish`, inside a transaction that does more."""
    # The head's lock keeps two publishers, and the stream itself, apart.
    head = stream.lock_head(connection, organization_id)
    published = [
        _publish_one(connection, organization_id, one, now, effective_from, head.last_sequence)
        for one in definitions
    ]
    if any(one.made and one.version.kind is Kind.METER for one in published):
        stream.raise_catalog_revision(connection, organization_id)
    return published


def _publish_one(
    connection: Connection,
    organization_id: UUID,
    definition: Definition,
    now: datetime,
    effective_from: datetime | None,
    last_sequence: int,
) -> Published:
    kind, key = _KINDS[type(definition)], key_of(definition)
    text = _ENCODER.encode(definition).decode()
    digest = sha256(text.encode()).hexdigest()
    earlier = catalog.versions(connection, organization_id, kind, key)
    if earlier and earlier[-1].digest == digest:
        return Published(earlier[-1], made=False)
    own = definition.effective_from if isinstance(definition, RateCard) else None
    starts = own or effective_from or (now if earlier else BEGINNING)
    version = Version(kind, key, len(earlier) + 1, text, digest, starts, now, last_sequence)
    catalog.add_version(connection, organization_id, version)
    return Published(version, made=True)


def key_of(definition: Definition) -> str:
    """Return the key under which a definition is kept."""
    if isinstance(definition, Alias):
        return f"{definition.dimension}:{definition.alias}"
    return definition.key
