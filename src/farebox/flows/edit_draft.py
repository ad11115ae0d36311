"""Edit a definition of the catalog, and publish what was edited: in one step or in two."""

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.check import check_document
from farebox.catalog.document import Document, value_problems
from farebox.catalog.problem import Problem
from farebox.flows.load_catalog import (
    SECTIONS,
    TYPES,
    Definition,
    decode_definition,
    standing_catalog,
)
from farebox.flows.publish import key_of, publish_in
from farebox.postgres import catalog, draft
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.session import Pool, transaction

_ENCODER = msgspec.json.Encoder(order="deterministic")
_KINDS = {kind_type: kind for kind, kind_type in TYPES.items()}
ANY = "*"
"""As `if_match`: whatever stands, as long as something does."""


class EditCode(StrEnum):
    """Why a definition is not edited or published, in order of precedence."""

    NO_SUCH_DEFINITION = "no_such_definition"
    PRECONDITION_FAILED = "precondition_failed"


class Standing(Struct, frozen=True):
    """A definition as it stands: its draft, if it has one, and every version, oldest first."""

    kind: Kind
    key: str
    draft: Definition | None
    versions: list[Version]

    @property
    def definition(self) -> Definition | None:
        """What an edit would change: the draft, or the newest version."""
        if self.draft is not None:
            return self.draft
        if not self.versions:
            return None
        return decode_definition(self.kind, self.versions[-1].definition)

    @property
    def tag(self) -> str | None:
        """A digest of what an edit would change; None where nothing stands."""
        definition = self.definition
        return None if definition is None else tag_of(definition)


class Edited(Struct, frozen=True):
    """What stands after an edit, and whether it changed anything."""

    standing: Standing
    changed: bool


def tag_of(value: Struct) -> str:
    """Return the digest by which `If-Match` names a state."""
    return sha256(_ENCODER.encode(value)).hexdigest()[:32]


def read_definition(
    connection: Connection, organization_id: UUID, kind: Kind, key: str
) -> Standing:
    """Read one definition; it may be there or not."""
    found = draft.find_draft(connection, organization_id, kind, key)
    return Standing(
        kind,
        key,
        None if found is None else decode_definition(kind, found.definition),
        catalog.versions(connection, organization_id, kind, key),
    )


def put_definition(
    pool: Pool,
    organization_id: UUID,
    definition: Definition,
    now: datetime,
    *,
    publish: bool = False,
    effective_from: datetime | None = None,
    if_match: str | None = None,
) -> Edited | list[Problem]:
    """Let `definition` be the draft, or the newest version with `publish`; the same again changes
    nothing.

    A draft is checked against drafts and versions, what is published against versions only. A
    number with other digits (1.5, 1.50) is the same number.
    """
    kind, key = _KINDS[type(definition)], key_of(definition)
    with transaction(pool, organization_id) as connection:
        draft.lock_organization(connection, organization_id)
        standing = read_definition(connection, organization_id, kind, key)
        problems = _match_problems(standing, if_match)
        problems = problems or _check(connection, organization_id, definition, drafts=not publish)
        problems = problems or list(value_problems(effective_from, "/effective_from"))
        if problems:
            return problems
        if publish:
            changed = _publish(connection, organization_id, definition, now, effective_from)
        else:
            changed = _save(connection, organization_id, standing, definition, now)
        after = read_definition(connection, organization_id, kind, key) if changed else standing
    return Edited(after, changed)


def publish_draft_in(
    connection: Connection,
    organization_id: UUID,
    kind: Kind,
    key: str,
    now: datetime,
    *,
    effective_from: datetime | None = None,
) -> Edited | list[Problem]:
    """Make a version of the draft, in the caller's transaction; without a draft nothing changes."""
    draft.lock_organization(connection, organization_id)
    standing = read_definition(connection, organization_id, kind, key)
    if standing.definition is None:
        noun = kind.value.replace("_", " ")
        return [Problem(EditCode.NO_SUCH_DEFINITION, "", f"there is no {noun} {key!r}")]
    if standing.draft is None:
        return Edited(standing, changed=False)
    problems = _check(connection, organization_id, standing.draft, drafts=False)
    problems = problems or list(value_problems(effective_from, "/effective_from"))
    if problems:
        return problems
    _publish(connection, organization_id, standing.draft, now, effective_from)
    return Edited(read_definition(connection, organization_id, kind, key), changed=True)


def _match_problems(standing: Standing, if_match: str | None) -> list[Problem]:
    if if_match is None or (if_match == ANY and standing.tag is not None):
        return []
    if if_match == standing.tag:
        return []
    message = "it was changed since you read it; read it again and repeat the edit"
    return [Problem(EditCode.PRECONDITION_FAILED, "", message)]


def _check(
    connection: Connection, organization_id: UUID, definition: Definition, *, drafts: bool
) -> list[Problem]:
    section = SECTIONS[_KINDS[type(definition)]]
    document = msgspec.structs.replace(Document(), **{section: (definition,)})
    known = standing_catalog(connection, organization_id, with_drafts=drafts)
    prefix = f"/{section}/0"
    return [
        msgspec.structs.replace(one, pointer=one.pointer.removeprefix(prefix))
        for one in [*value_problems(definition, prefix)] or check_document(document, known)
    ]


def _save(
    connection: Connection,
    organization_id: UUID,
    standing: Standing,
    definition: Definition,
    now: datetime,
) -> bool:
    if standing.definition == definition:
        return False
    kind, key = standing.kind, standing.key
    newest = standing.versions[-1].definition if standing.versions else None
    if newest is not None and decode_definition(kind, newest) == definition:
        # Back to what is published: then there is nothing under edit.
        return draft.drop_draft(connection, organization_id, kind, key)
    text = _ENCODER.encode(definition).decode()
    draft.put_draft(connection, organization_id, kind, key, text, now)
    return True


def _publish(
    connection: Connection,
    organization_id: UUID,
    definition: Definition,
    now: datetime,
    effective_from: datetime | None,
) -> bool:
    kind, key = _KINDS[type(definition)], key_of(definition)
    dropped = draft.drop_draft(connection, organization_id, kind, key)
    versions = catalog.versions(connection, organization_id, kind, key)
    if versions and decode_definition(kind, versions[-1].definition) == definition:
        return dropped
    publish_in(connection, organization_id, [definition], now, effective_from=effective_from)
    return True
