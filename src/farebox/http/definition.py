"""The routes that all definitions of the catalog have alike: edit, publish, list, read."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar import Response, Router, get, post, put
from litestar.params import HeaderParameter, RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.key import Scope
from farebox.catalog.plain_json import encode
from farebox.events.event import Json
from farebox.flows.answer_once import Reply
from farebox.flows.edit_draft import (
    EditCode,
    Standing,
    publish_draft_in,
    put_definition,
    read_definition,
)
from farebox.flows.load_catalog import SECTIONS, TYPES, Definition, decode_definition
from farebox.flows.publish import key_of
from farebox.http.authenticate import Principal, requires
from farebox.http.body import read_as, read_body, read_json
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, change_once
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.period.instant import BEGINNING
from farebox.postgres import catalog, draft
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.draft import Listed
from farebox.postgres.session import transaction

Defined = TypeVar("Defined")

IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match", description="the ETag that was read; refused if it has changed"
    ),
]
_DATED = frozenset({Kind.METER, Kind.RATE_CARD})


class PublishRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a version comes into force, for meters and rate cards; without it, now.

    The first version of a definition is in force from the beginning.
    """

    effective_from: datetime | None = None


class VersionView(Struct, Generic[Defined], frozen=True):
    """A published version; `effective_from` is null where it is in force from the beginning."""

    version: int
    effective_from: datetime | None
    published_at: datetime
    definition: Defined


class VersionSummary(Struct, frozen=True):
    """A version without its definition."""

    version: int
    effective_from: datetime | None
    published_at: datetime


class DefinitionItem(Struct, Generic[Defined], frozen=True):
    """A definition in a list: what is under edit, and what is in force."""

    key: str
    draft: Defined | None
    current: VersionView[Defined] | None


class DefinitionView(Struct, Generic[Defined], frozen=True):
    """A definition: what is under edit, what is in force, and every version, oldest first."""

    key: str
    draft: Defined | None
    current: VersionView[Defined] | None
    versions: list[VersionSummary]


class EditAnswer(Struct, Generic[Defined], frozen=True):
    """What stands after an edit; `changed` is false where it stood so already."""

    key: str
    changed: bool
    draft: Defined | None
    newest: VersionView[Defined] | None


def definition_router(kind: Kind, examples: Mapping[str, Sequence[Example]]) -> Router:
    """Return the routes of one kind.

    examples: by `put`, `publish`, `list`, `get` and `version`.
    """
    section = SECTIONS[kind]
    noun, nouns = kind.value.replace("_", " "), section.replace("_", " ")
    defined: Any = TYPES[kind]

    @put(
        "/{key:str}",
        guards=[requires(Scope.MANAGE)],
        sync_to_thread=True,
        operation_id=f"put_{kind.value}",
        opt=describe(
            f"Edit the draft of a {noun}, or publish it at once",
            request=defined,
            answer=EditAnswer[defined],
            codes=[HttpCode.KEY_MISMATCH, EditCode.PRECONDITION_FAILED],
            examples=examples.get("put", ()),
            description="The same body again changes nothing. `key` may be left out of the body.",
        ),
    )
    def put_one(
        farebox: State,
        principal: Principal,
        key: str,
        body: RawBody,
        publish: bool = False,
        effective_from: datetime | None = None,
        if_match: IfMatch = None,
    ) -> Response[bytes]:
        _refuse_undated(kind, effective_from)
        edited = put_definition(
            farebox.pool,
            principal.organization_id,
            _definition(kind, key, read_json(body)),
            farebox.clock(),
            publish=publish,
            effective_from=effective_from,
            if_match=untag(if_match),
        )
        if isinstance(edited, list):
            raise refused_for(edited)
        answer = _edit_answer(edited.standing, edited.changed)
        return tagged(answer, edited.standing.tag, as_written=True)

    @post(
        "/{key:str}/publish",
        guards=[requires(Scope.MANAGE)],
        sync_to_thread=True,
        status_code=200,
        operation_id=f"publish_{kind.value}",
        opt=describe(
            f"Publish the draft of a {noun}: a version that never changes again",
            request=PublishRequest,
            answer=EditAnswer[defined],
            codes=[EditCode.NO_SUCH_DEFINITION],
            examples=examples.get("publish", ()),
            description="Without a draft nothing changes.",
        ),
    )
    def publish_one(
        farebox: State,
        principal: Principal,
        key: str,
        body: RawBody,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[bytes]:
        wanted = read_body(body, PublishRequest)
        _refuse_undated(kind, wanted.effective_from)

        def act(connection: Connection) -> Reply:
            edited = publish_draft_in(
                connection,
                principal.organization_id,
                kind,
                key,
                farebox.clock(),
                effective_from=wanted.effective_from,
            )
            if isinstance(edited, list):
                raise refused_for(edited)
            answer = _edit_answer(edited.standing, edited.changed)
            return Reply(200, msgspec.json.encode(answer))

        place = f"POST /v1/{section}/{key}/publish"
        return change_once(farebox, principal, idempotency_key, place, body, act)

    @get(
        "/",
        guards=[requires(Scope.READ)],
        sync_to_thread=True,
        operation_id=f"list_{section}",
        opt=describe(
            f"List {nouns} by key",
            answer=Page[DefinitionItem[defined]],
            examples=examples.get("list", ()),
        ),
    )
    def list_all(
        farebox: State,
        principal: Principal,
        cursor: Cursor = None,
        limit: Limit = PAGE_USUAL,
    ) -> Page[Any]:
        after = after_key(cursor)
        with transaction(farebox.pool, principal.organization_id) as connection:
            rows = draft.listed(
                connection,
                principal.organization_id,
                kind,
                farebox.clock(),
                after=after,
                limit=limit + 1,
            )
        return page_of([_item(kind, row) for row in rows], limit, lambda item: [item.key])

    @get(
        "/{key:str}",
        guards=[requires(Scope.READ)],
        sync_to_thread=True,
        operation_id=f"get_{kind.value}",
        opt=describe(
            f"Read a {noun}: its draft, the version in force and all versions",
            answer=DefinitionView[defined],
            codes=[HttpCode.NOT_FOUND],
            examples=examples.get("get", ()),
        ),
    )
    def get_one(farebox: State, principal: Principal, key: str) -> Response[bytes]:
        with transaction(farebox.pool, principal.organization_id) as connection:
            standing = read_definition(connection, principal.organization_id, kind, key)
        if standing.definition is None:
            raise refused(HttpCode.NOT_FOUND, f"there is no {noun} {key!r}")
        now = farebox.clock()
        begun = [one for one in standing.versions if one.effective_from <= now]
        current = _version(begun[-1]) if begun else None
        versions = [
            VersionSummary(one.version, _since(one), one.published_at) for one in standing.versions
        ]
        view = DefinitionView(key, standing.draft, current, versions)
        return tagged(view, standing.tag, as_written=True)

    @get(
        "/{key:str}/versions/{version:int}",
        guards=[requires(Scope.READ)],
        sync_to_thread=True,
        operation_id=f"get_{kind.value}_version",
        opt=describe(
            f"Read one version of a {noun}",
            answer=VersionView[defined],
            codes=[HttpCode.NOT_FOUND],
            examples=examples.get("version", ()),
        ),
    )
    def get_version(
        farebox: State, principal: Principal, key: str, version: int
    ) -> VersionView[Any]:
        with transaction(farebox.pool, principal.organization_id) as connection:
            found = catalog.versions(connection, principal.organization_id, kind, key)
        if not 1 <= version <= len(found):
            raise refused(HttpCode.NOT_FOUND, f"there is no version {version} of {noun} {key!r}")
        return _version(found[version - 1])

    handlers = [put_one, publish_one, list_all, get_one, get_version]
    # A definition is answered as it was written.
    tags = [nouns.capitalize()]
    return Router(f"/v1/{section}", route_handlers=handlers, tags=tags, response_class=Response)


def untag(if_match: str | None) -> str | None:
    """Return what `If-Match` names, without the quotes of an ETag."""
    return None if if_match is None else if_match.strip().removeprefix("W/").strip('"')


def tagged(
    value: Struct, tag: str | None, status: int = 200, *, as_written: bool = False
) -> Response[bytes]:
    """Return a value as JSON with its ETag; `as_written`: its numbers keep their digits."""
    headers = {} if tag is None else {"ETag": f'"{tag}"'}
    return Response(
        content=msgspec.json.encode(value) if as_written else encode(value),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )


def _definition(kind: Kind, key: str, members: dict[str, Json]) -> Definition:
    """Return the body as a definition; what the path says may be left out of it."""
    if kind is Kind.ALIAS:
        dimension, _, alias = key.partition(":")
        members = {"dimension": dimension, "alias": alias, **members}
    else:
        members = {"key": key, **members}
    definition: Definition = read_as(members, TYPES[kind])
    if key_of(definition) != key:
        place = "/alias" if kind is Kind.ALIAS else "/key"
        detail = f"the body says {key_of(definition)!r}, the path says {key!r}"
        raise refused(HttpCode.KEY_MISMATCH, detail, pointer=place)
    return definition


def _refuse_undated(kind: Kind, effective_from: datetime | None) -> None:
    if effective_from is not None and kind not in _DATED:
        detail = f"a {kind.value.replace('_', ' ')} has no effective_from; rate cards and meters do"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/effective_from")


def _edit_answer(standing: Standing, changed: bool) -> EditAnswer[Any]:
    newest = _version(standing.versions[-1]) if standing.versions else None
    return EditAnswer(standing.key, changed, standing.draft, newest)


def _item(kind: Kind, row: Listed) -> DefinitionItem[Any]:
    under_edit = None if row.draft is None else decode_definition(kind, row.draft)
    current = None if row.current is None else _version(row.current)
    return DefinitionItem(row.key, under_edit, current)


def _version(version: Version) -> VersionView[Any]:
    return VersionView(
        version.version,
        _since(version),
        version.published_at,
        decode_definition(version.kind, version.definition),
    )


def _since(version: Version) -> datetime | None:
    return None if version.effective_from == BEGINNING else version.effective_from
