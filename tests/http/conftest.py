"""A server in the test's own process, on real PostgreSQL, with a key that may do everything."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from litestar.testing import TestClient

from farebox.access.id import uuidv7
from farebox.access.key import ID_BYTES, SECRET_BYTES, Scope
from farebox.flows.api_key import NewApiKey, create_api_key_in
from farebox.flows.create_organization import create_organization
from farebox.http.app import create_app
from farebox.http.state import State
from farebox.intake.intake import Intake
from farebox.postgres.session import Pool, transaction


class Clock:
    """The time of the test's server: the real one, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def new_id() -> UUID:
    """Return a fresh time-ordered id."""
    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


@pytest.fixture(scope="session")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def farebox(pool: Pool, runtime_url: str, clock: Clock) -> State:
    """Return the state of a server over the test database; `anonymous` opens its intake."""
    return State(pool, Intake(pool, runtime_url, clock), clock, new_id, os.urandom)


@pytest.fixture(scope="session")
def anonymous(farebox: State) -> Iterator[TestClient[Any]]:
    """Return a client without a key; the server is shared by the whole session."""
    app = create_app(farebox, lifespan=[lambda _: farebox.intake.opened()])
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


class Api:
    """One organization, called with one key."""

    def __init__(self, client: TestClient[Any], organization_id: UUID, key: str) -> None:
        self.client = client
        self.organization_id = organization_id
        self.key = key

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send a request; `body` is JSON."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        return self.client.request(method, path, headers=headers, **options)

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send a request that succeeds, and return its JSON."""
        response = self(method, path, body, **options)
        assert response.status_code < 300, response.text
        return response.json() if response.content else None

    def code(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        """Send a request that is refused, and return its status and code."""
        response = self(method, path, body, **options)
        assert response.status_code >= 400, response.text
        assert response.headers["content-type"] == "application/problem+json"
        return response.status_code, response.json()["code"]

    def with_key(self, key: str) -> "Api":
        return Api(self.client, self.organization_id, key)


@pytest.fixture
def new_api(farebox: State, anonymous: TestClient[Any]) -> Callable[[], Api]:
    """Return a function that makes an organization and gives its owner's view of the API."""

    def make() -> Api:
        organization_id, key = create_organization(
            farebox.pool, f"org-{new_id()}", "Test", farebox.clock(), new_id, os.urandom
        )
        return Api(anonymous, organization_id, key)

    return make


@pytest.fixture
def api(new_api: Callable[[], Api]) -> Api:
    return new_api()


@pytest.fixture
def new_key(farebox: State) -> Callable[..., Api]:
    """Return a function that gives the API as another key of the same organization sees it."""

    def make(api: Api, *scopes: Scope, customer: str | None = None) -> Api:
        with transaction(farebox.pool, api.organization_id) as connection:
            made = create_api_key_in(
                connection,
                api.organization_id,
                new_id(),
                "test",
                frozenset(scopes),
                customer,
                farebox.clock(),
                os.urandom(ID_BYTES + SECRET_BYTES),
            )
        assert isinstance(made, NewApiKey)
        return api.with_key(made.text)

    return make
