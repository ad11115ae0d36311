"""Who calls: an API key into a principal, and the guards that ask for a scope.

A looked-up key is remembered for `REMEMBERED_SECONDS`, so that ingest does not pay a query a
request. A revoked key therefore works for at most that long in other processes; in the one that
revoked it, it ends at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg
from msgspec import Struct

from farebox.access.key import KeyRefusal, Scope, allows, digest_of, parse_key
from farebox.http.code import HttpCode
from farebox.http.problem import Refused, refused
from farebox.http.state import State
from farebox.postgres import access
from farebox.postgres.access import FoundKey
from farebox.postgres.session import Pool, unbound

REMEMBERED_SECONDS = 5
_REMEMBERED_MAX = 10_000

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]

_MESSAGES = {
    KeyRefusal.KEY_MISSING: "send an API key: `Authorization: Bearer fbx_...` or `X-API-Key`",
    KeyRefusal.KEY_MALFORMED: "an API key reads fbx_, 16 and 52 letters and digits",
    KeyRefusal.KEY_UNKNOWN: "there is no such API key",
    KeyRefusal.KEY_REVOKED: "this API key was revoked",
}
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Principal(Struct, frozen=True, kw_only=True):
    """Who calls, by which key; a route asks for it as its parameter `principal`.

    customer_key: the only customer this key may see; None sees all of the organization.
    """

    organization_id: UUID
    api_key_id: UUID
    scopes: frozenset[Scope]
    customer_key: str | None

    def allows(self, scope: Scope) -> bool:
        return allows(self.scopes, scope)


class KeyMemory:
    """Keys that were looked up a moment ago, by digest; bounded, the oldest go first."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._clock = clock
        self._found: dict[bytes, tuple[datetime, UUID, Principal | KeyRefusal]] = {}

    def recall(self, digest: bytes) -> Principal | KeyRefusal | None:
        """Return whose key it is, if that is remembered, without asking the database."""
        remembered = self._found.get(digest)
        if remembered is None:
            return None
        age = self._clock() - remembered[0]
        # A clock that was set back must not make a key last.
        if timedelta(0) <= age < timedelta(seconds=REMEMBERED_SECONDS):
            return remembered[2]
        return None

    def find(self, digest: bytes) -> Principal | KeyRefusal:
        """Return whose key has this digest, from the database, and remember it."""
        asked_at = self._clock()
        with unbound(self._pool) as connection:
            found = access.find_api_key(connection, digest)
        if found is None:
            return KeyRefusal.KEY_UNKNOWN
        self._found.pop(digest, None)
        while len(self._found) >= _REMEMBERED_MAX:
            self._found.pop(next(iter(self._found)), None)
        answer = _principal(found)
        self._found[digest] = (asked_at, found.api_key_id, answer)
        return answer

    def forget(self, api_key_id: UUID) -> None:
        """Look this key up anew when it is next presented."""
        for digest, (_, found_id, _) in list(self._found.items()):
            if found_id == api_key_id:
                self._found.pop(digest, None)


async def authenticate(memory: KeyMemory, presented_text: str | None) -> Principal | KeyRefusal:
    """Return who presents this key; raises psycopg.Error where the database is out of reach."""
    presented = parse_key(presented_text)
    if isinstance(presented, KeyRefusal):
        return presented
    digest = digest_of(presented)
    answer = memory.recall(digest)
    if answer is None:
        answer = await asyncio.to_thread(memory.find, digest)
    return answer


def _principal(found: FoundKey) -> Principal | KeyRefusal:
    if found.revoked_at is not None:
        return KeyRefusal.KEY_REVOKED
    return Principal(
        organization_id=found.organization_id,
        api_key_id=found.api_key_id,
        scopes=frozenset(Scope(scope) for scope in found.scopes),
        customer_key=found.customer_key,
    )


def presented_key(authorization: str | None, x_api_key: str | None) -> str | None:
    """Return the text of the key from `Authorization: Bearer` or `X-API-Key`."""
    if authorization is not None:
        scheme, _, text = authorization.partition(" ")
        return text.strip() if scheme.lower() == "bearer" else authorization
    return x_api_key


def key_refused(refusal: KeyRefusal) -> Refused:
    """Return the 401 for a key that opens nothing."""
    return refused(refusal, _MESSAGES[refusal], headers=_CHALLENGE)


def scope_refused(*scopes: Scope) -> Refused:
    """Return the 403 for a key that does not reach this far: it has none of these."""
    named = " or ".join(scope.value for scope in scopes)
    return refused(KeyRefusal.SCOPE_MISSING, f"this API key has no scope {named}")


def requires(*scopes: Scope, customer_bound: bool = False) -> Guard:
    """Return the guard of a route: a valid key with one of `scopes`.

    customer_bound: keys of one customer may come in; the route then must show that customer only
    (`visible_customer`, `require_customer`). Without it such keys are refused.
    """

    async def guard(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        memory: KeyMemory = connection.app.state.key_memory
        headers = connection.headers
        principal = await authenticate(
            memory, presented_key(headers.get("authorization"), headers.get("x-api-key"))
        )
        if isinstance(principal, KeyRefusal):
            raise key_refused(principal)
        if not any(principal.allows(scope) for scope in scopes):
            raise scope_refused(*scopes)
        if principal.customer_key is not None and not customer_bound:
            detail = "this API key belongs to one customer and does not reach this far"
            raise refused(HttpCode.CUSTOMER_KEY_REFUSED, detail)
        refuse_unknown_parameters(connection.query_params.keys(), handler)
        connection.scope["auth"] = principal

    return guard


def refuse_unknown_parameters(given: Iterable[str], handler: BaseRouteHandler) -> None:
    """Refuse a misspelt query parameter; a route that takes the `request` judges for itself."""
    fields = handler.parsed_fn_signature.parameters
    if "request" in fields:
        return
    known = set(fields)
    known |= {
        field.kwarg_definition.name
        for field in fields.values()
        if isinstance(field.kwarg_definition, ParameterKwarg) and field.kwarg_definition.name
    }
    for name in given:
        if name not in known:
            detail = f"there is no query parameter {name[:100]!r} here"
            raise refused(HttpCode.PARAMETER_INVALID, detail)


def visible_customer(principal: Principal, asked: str | None) -> str | None:
    """Return the customer by whom a list is to be filtered, None: by none.

    Asking for another customer than the key's own is refused by name.
    """
    if principal.customer_key is None:
        return asked
    if asked is not None and asked != principal.customer_key:
        detail = f"this API key sees customer {principal.customer_key} only"
        raise refused(HttpCode.CUSTOMER_KEY_REFUSED, detail)
    return principal.customer_key


def require_customer(principal: Principal, customer_key: str, what: str = "object") -> None:
    """Refuse an object of a customer whom the key does not see, as if it were not there."""
    if principal.customer_key not in (None, customer_key):
        raise refused(HttpCode.NOT_FOUND, f"there is no such {what}")


def provide_principal(request: "ASGIConnection[Any, Any, Any, Any]") -> Principal:
    """Give a route its principal; its guard has put it there."""
    principal = request.scope["auth"]
    assert isinstance(principal, Principal), "a route with a principal has the guard `requires`"
    return principal


def key_memory(farebox: State) -> KeyMemory:
    """Return an empty memory for this process."""
    return KeyMemory(farebox.pool, farebox.clock)
