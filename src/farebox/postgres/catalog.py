"""The catalog's definitions: drafts that may change, versions that never do again."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection


class Kind(StrEnum):
    """What a definition defines."""

    METER = "meter"
    FEATURE = "feature"
    ALIAS = "alias"
    RATE_CARD = "rate_card"
    PLAN = "plan"
    PARTNER = "partner"


class Version(Struct, frozen=True):
    """A published definition; `definition` is its JSON text."""

    kind: Kind
    key: str
    version: int
    definition: str
    digest: str
    effective_from: datetime
    published_at: datetime
    from_sequence: int


_COLUMNS = (
    "kind, key, version, definition::text, digest, effective_from, published_at, from_sequence"
)


def versions(
    connection: Connection, organization_id: UUID, kind: Kind, key: str | None = None
) -> list[Version]:
    """Return the versions of one definition or of a whole kind, by key and oldest first."""
    rows = connection.execute(
        f"select {_COLUMNS} from catalog_version where organization_id = %s and kind = %s"
        " and (%s::text is null or key = %s) order by key, version",
        (organization_id, kind, key, key),
    ).fetchall()
    return [_version(row) for row in rows]


def latest_versions(connection: Connection, organization_id: UUID) -> list[Version]:
    """Return the newest version of every definition, by kind and key."""
    rows = connection.execute(
        f"select distinct on (kind, key) {_COLUMNS} from catalog_version"
        " where organization_id = %s order by kind, key, version desc",
        (organization_id,),
    ).fetchall()
    return [_version(row) for row in rows]


def count_versions(connection: Connection, organization_id: UUID) -> int:
    """Return how many versions there are; they never change, so the same number is the same."""
    row = connection.execute(
        "select count(*) from catalog_version where organization_id = %s", (organization_id,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_version(connection: Connection, organization_id: UUID, version: Version) -> None:
    connection.execute(
        "insert into catalog_version values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            organization_id,
            version.kind,
            version.key,
            version.version,
            version.definition,
            version.digest,
            version.effective_from,
            version.published_at,
            version.from_sequence,
        ),
    )


def _version(row: Sequence[object]) -> Version:
    return msgspec.convert(
        dict(zip(Version.__struct_fields__, row, strict=True)), Version, strict=False
    )
