"""API keys: made with scopes, shown once, revoked for good."""

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import RawBody
from msgspec import Meta, Struct
from psycopg import Connection

from farebox.access.id import Prefix, decode_id, encode_id
from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope
from farebox.catalog.code import CatalogCode
from farebox.flows.answer_once import Reply
from farebox.flows.api_key import create_api_key_in, revoke_api_key
from farebox.http.authenticate import KeyMemory, Principal, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.idempotency import IdempotencyKey, change_once, reply_with
from farebox.http.operation import Example, describe
from farebox.http.page import Page
from farebox.http.problem import refused, refused_for
from farebox.http.state import State
from farebox.postgres import access
from farebox.postgres.access import ApiKeyRow
from farebox.postgres.session import transaction


class NewApiKeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new key may do; with a customer it sees that customer only."""

    name: Annotated[str, Meta(max_length=200)] = ""
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    customer: str | None = None


class ApiKeyView(Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    id: str
    name: str
    scopes: list[str]
    customer: str | None
    created_at: datetime
    revoked_at: datetime | None


class NewApiKeyView(ApiKeyView, frozen=True, kw_only=True):
    """A new API key; `key` is its text.

    It is shown this once and stored nowhere: repeated under the same Idempotency-Key, the answer
    has null in its place.
    """

    key: str | None


_EXAMPLE = {
    "id": "key_01jbsqz4e2e0rv8h9yj0fn5c7k",
    "name": "gateway",
    "scopes": ["ingest"],
    "customer": None,
    "created_at": "2026-10-01T00:00:00Z",
    "revoked_at": None,
}
_TEXT = "fbx_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


@post(
    "/",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="create_api_key",
    opt=describe(
        "Create an API key",
        request=NewApiKeyRequest,
        answer=NewApiKeyView,
        status=201,
        codes=[CatalogCode.UNKNOWN_CUSTOMER],
        examples=[
            Example(
                path="/v1/api_keys",
                body={"name": "gateway", "scopes": ["ingest"]},
                status=201,
                answer={**_EXAMPLE, "key": _TEXT},
            )
        ],
    ),
)
def create_api_key(
    farebox: State,
    principal: Principal,
    body: RawBody,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Create a key."""
    wanted = read_body(body, NewApiKeyRequest)

    def act(connection: Connection) -> Reply:
        created = create_api_key_in(
            connection,
            principal.organization_id,
            farebox.new_id(),
            wanted.name,
            frozenset(wanted.scopes),
            wanted.customer,
            farebox.clock(),
            farebox.random_bytes(ID_BYTES + SECRET_BYTES),
        )
        if isinstance(created, list):
            raise refused_for(created)
        shown = msgspec.structs.asdict(_view(created.row))
        return reply_with(
            NewApiKeyView(**shown, key=created.text),
            201,
            remembered=NewApiKeyView(**shown, key=None),
        )

    return change_once(farebox, principal, idempotency_key, "POST /v1/api_keys", body, act)


@get(
    "/",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="list_api_keys",
    opt=describe(
        "List API keys, revoked ones too",
        answer=Page[ApiKeyView],
        examples=[Example(path="/v1/api_keys")],
    ),
)
def list_api_keys(farebox: State, principal: Principal) -> Page[ApiKeyView]:
    """List the keys, oldest first."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = access.api_keys(connection, principal.organization_id)
    return Page([_view(row) for row in rows], None)


@delete(
    "/{api_key_id:str}",
    guards=[requires(Scope.MANAGE)],
    status_code=204,
    sync_to_thread=True,
    operation_id="revoke_api_key",
    opt=describe(
        "Revoke an API key, for good",
        status=204,
        codes=[HttpCode.NOT_FOUND],
        description="It stops working within 5 seconds, in every process.",
    ),
)
def delete_api_key(
    farebox: State, principal: Principal, api_key_id: str, key_memory: KeyMemory
) -> None:
    """Revoke a key; one that is revoked already stays so."""
    decoded = decode_id(Prefix.API_KEY, api_key_id)
    if decoded is None or not revoke_api_key(
        farebox.pool, principal.organization_id, decoded, farebox.clock()
    ):
        raise refused(HttpCode.NOT_FOUND, "there is no such API key")
    key_memory.forget(decoded)


def _view(row: ApiKeyRow) -> ApiKeyView:
    return ApiKeyView(
        id=encode_id(Prefix.API_KEY, row.api_key_id),
        name=row.name,
        scopes=list(row.scopes),
        customer=row.customer_key,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )


routes = Router(
    "/v1/api_keys",
    route_handlers=[create_api_key, list_api_keys, delete_api_key],
    tags=["API keys"],
)
