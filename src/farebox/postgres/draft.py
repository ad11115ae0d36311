"""Drafts of the catalog: what was edited and not yet published; and the list of what there is."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.postgres.catalog import Kind, Version


class Draft(Struct, frozen=True):
    """A definition under edit; `definition` is its JSON text, `revision` counts its edits."""

    kind: Kind
    key: str
    definition: str
    revision: int
    updated_at: datetime


class Listed(Struct, frozen=True):
    """A definition as a list shows it: its draft, and the version in force."""

    key: str
    draft: str | None
    current: Version | None


_COLUMNS = "kind, key, definition::text, revision, updated_at"


def find_draft(connection: Connection, organization_id: UUID, kind: Kind, key: str) -> Draft | None:
    row = connection.execute(
        f"select {_COLUMNS} from catalog_draft"
        " where organization_id = %s and kind = %s and key = %s",
        (organization_id, kind, key),
    ).fetchone()
    return None if row is None else Draft(Kind(row[0]), *row[1:])


def drafts(connection: Connection, organization_id: UUID) -> list[Draft]:
    """Return every draft, by kind and key."""
    rows = connection.execute(
        f"select {_COLUMNS} from catalog_draft where organization_id = %s order by kind, key",
        (organization_id,),
    ).fetchall()
    return [Draft(Kind(row[0]), *row[1:]) for row in rows]


def put_draft(
    connection: Connection,
    organization_id: UUID,
    kind: Kind,
    key: str,
    definition: str,
    now: datetime,
) -> None:
    connection.execute(
        "insert into catalog_draft as d values (%s, %s, %s, %s, 1, %s)"
        " on conflict (organization_id, kind, key) do update set"
        " definition = excluded.definition, revision = d.revision + 1,"
        " updated_at = excluded.updated_at",
        (organization_id, kind, key, definition, now),
    )


def drop_draft(connection: Connection, organization_id: UUID, kind: Kind, key: str) -> bool:
    """Drop a draft; False where there was none."""
    cursor = connection.execute(
        "delete from catalog_draft where organization_id = %s and kind = %s and key = %s",
        (organization_id, kind, key),
    )
    return cursor.rowcount == 1


def listed(
    connection: Connection,
    organization_id: UUID,
    kind: Kind,
    now: datetime,
    *,
    after: str = "",
    limit: int = 1000,
) -> list[Listed]:
    """Return definitions of a kind by key, a page at a time, as they stand at `now`.

    In force is the newest version among those that have begun.
    """
    rows = connection.execute(
        _LISTED,
        {"org": organization_id, "kind": kind, "now": now, "after": after, "limit": limit},
    ).fetchall()
    return [
        Listed(key, draft, None if version[0] is None else Version(kind, key, *version))
        for key, draft, *version in rows
    ]


_LISTED = """
    select k.key, d.definition::text, v.version, v.definition::text, v.digest, v.effective_from,
        v.published_at, v.from_sequence
    from (
        select key from catalog_draft
        where organization_id = %(org)s and kind = %(kind)s and key > %(after)s
        union
        select key from catalog_version
        where organization_id = %(org)s and kind = %(kind)s and key > %(after)s
        order by key limit %(limit)s) k
    left join catalog_draft d
        on d.organization_id = %(org)s and d.kind = %(kind)s and d.key = k.key
    left join lateral (
        select * from catalog_version c
        where c.organization_id = %(org)s and c.kind = %(kind)s and c.key = k.key
            and c.effective_from <= %(now)s
        order by version desc limit 1) v on true
    order by k.key"""


def lock_organization(connection: Connection, organization_id: UUID) -> None:
    """Let one transaction at a time edit drafts, customers and subjects; readers go on."""
    connection.execute(
        "select 1 from organization where organization_id = %s for no key update",
        (organization_id,),
    )
