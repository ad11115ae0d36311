"""When the database is gone, the queue is full, or the code is wrong."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from litestar import get
from litestar.testing import TestClient
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from farebox.access.key import KeyRefusal
from farebox.http.app import ROUTES, create_app
from farebox.http.authenticate import KeyMemory, Principal
from farebox.intake import ingest
from farebox.intake.intake import Intake
from farebox.period.clock import SteadyClock
from farebox.postgres import stream
from farebox.postgres.migrate import ensure_runtime_role
from farebox.postgres.session import Pool, open_pool, transaction

EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}


class Unplugged:
    """A server whose database lets it in, or does not."""

    ROLE = "farebox_unplugged"

    def __init__(self, client: TestClient[Any], pool: Pool, superuser_url: str) -> None:
        self.client = client
        self._pool = pool
        self._superuser_url = superuser_url

    def unplug(self) -> None:
        """Cut every connection and let no new one in."""
        self._pool.close()
        with psycopg.connect(self._superuser_url, autocommit=True) as connection:
            connection.execute(f"alter role {self.ROLE} nologin")
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = %s",
                (self.ROLE,),
            )

    def plug_in(self) -> None:
        with psycopg.connect(self._superuser_url, autocommit=True) as connection:
            connection.execute(f"alter role {self.ROLE} login")


@pytest.fixture
def unplugged(farebox: Any, owner_url: str, superuser_url: str) -> Iterator[Unplugged]:
    """Return a server with a database role of its own."""
    ensure_runtime_role(owner_url, Unplugged.ROLE, "runtime")
    url = make_conninfo(owner_url, user=Unplugged.ROLE, password="runtime")
    pool: Pool = open_pool(url, size=2)
    intake = Intake(pool, url, farebox.clock)
    app = create_app(
        replace(farebox, pool=pool, intake=intake), lifespan=[lambda _: intake.opened()]
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Unplugged(client, pool, superuser_url)
    pool.close()


def test_without_a_database_nothing_is_acknowledged(api: Any, unplugged: Unplugged) -> None:
    client = unplugged.client
    headers = {"Authorization": f"Bearer {api.key}"}
    assert 200 == client.get("/readyz").status_code
    assert 200 == client.post("/v1/events", json=[EVENT], headers=headers).status_code
    unplugged.unplug()
    for method, path in (("GET", "/v1/meters"), ("POST", "/v1/events"), ("GET", "/readyz")):
        body = [{**EVENT, "id": "2"}] if method == "POST" else None
        response = client.request(method, path, json=body, headers=headers)
        assert (503, "database_unavailable") == (response.status_code, response.json()["code"])
        assert "1" == response.headers["retry-after"]
    assert 200 == client.get("/healthz").status_code
    # A key that nobody remembers cannot be judged now; it is not called unknown.
    stranger = {"Authorization": f"Bearer fbx_{'b' * 16}_{'b' * 52}"}
    assert 503 == client.get("/v1/meters", headers=stranger).status_code
    again = api.ok("POST", "/v1/events", [EVENT, {**EVENT, "id": "2"}])
    assert (1, 1) == (again["duplicates"], again["accepted"])


def test_events_come_in_again_when_the_database_is_back(api: Any, unplugged: Unplugged) -> None:
    client, headers = unplugged.client, {"Authorization": f"Bearer {api.key}"}
    assert 200 == client.post("/v1/events", json=[EVENT], headers=headers).status_code
    unplugged.unplug()
    assert 503 == client.post("/v1/events", json=[EVENT], headers=headers).status_code
    unplugged.plug_in()
    # The key was looked up a moment ago; nothing but the intake asks the database here.
    answer = client.post("/v1/events", json=[EVENT, {**EVENT, "id": "2"}], headers=headers)
    assert (200, 1, 1) == (
        answer.status_code,
        answer.json()["duplicates"],
        answer.json()["accepted"],
    )


def test_while_the_clock_has_leapt_nothing_is_acknowledged(
    api: Any, farebox: Any, runtime_url: str
) -> None:
    wall = [datetime.now(UTC).timestamp()]
    clock = SteadyClock(lambda: wall[0], lambda: 0.0)
    intake = Intake(farebox.pool, runtime_url, clock)
    app = create_app(
        replace(farebox, clock=clock, intake=intake), lifespan=[lambda _: intake.opened()]
    )
    headers = {"Authorization": f"Bearer {api.key}"}
    asked = (("/v1/events", [EVENT]), ("/v1/billing_runs", {}))
    with TestClient(app, raise_server_exceptions=False) as client:
        wall[0] += 86_400
        for path, body in asked:
            response = client.post(path, json=body, headers=headers)
            assert (503, "clock_jumped") == (response.status_code, response.json()["code"])
            assert "60" == response.headers["retry-after"]
        wall[0] -= 86_400
        assert 200 == client.post("/v1/events", json=[EVENT], headers=headers).status_code


def test_too_much_at_once_is_told_to_wait(
    api: Any, farebox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the stream is held, one request commits, one waits, and the others are sent away."""
    monkeypatch.setattr(ingest, "EVENTS_WAITING", 1)
    api.ok("POST", "/v1/events", [{**EVENT, "id": "first"}])
    with ThreadPoolExecutor(5) as threads:
        with transaction(farebox.pool, api.organization_id) as connection:
            stream.lock_head(connection, api.organization_id)
            calls = [
                threads.submit(api, "POST", "/v1/events", [{**EVENT, "id": str(n)}])
                for n in range(5)
            ]
            refused = [next(as_completed(calls)).result()]
        answers = [call.result() for call in calls]
    assert (429, "overloaded") == (refused[0].status_code, refused[0].json()["code"])
    assert "1" == refused[0].headers["retry-after"]
    accepted = [answer for answer in answers if answer.status_code == 200]
    assert {200, 429} == {answer.status_code for answer in answers}
    monkeypatch.undo()
    again = api.ok("POST", "/v1/events", [{**EVENT, "id": str(n)} for n in range(5)])
    assert len(accepted) == again["duplicates"]


def test_a_bug_is_logged_under_the_id_that_is_answered(farebox: Any) -> None:
    @get("/broken", sync_to_thread=False)
    def broken() -> None:
        raise ZeroDivisionError("the secret detail")

    app = create_app(farebox, routes=[*ROUTES, broken])
    with TestClient(app, raise_server_exceptions=False) as client, capture_logs() as logs:
        response = client.get("/broken")
    assert (500, "internal") == (response.status_code, response.json()["code"])
    assert "secret" not in response.text
    assert next(log["request"] for log in logs if log["event"] == "internal") in response.text


def test_the_memory_of_keys_is_bounded(
    farebox: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from farebox.access.key import digest_of, make_key, parse_key
    from farebox.http import authenticate

    monkeypatch.setattr(authenticate, "_REMEMBERED_MAX", 1)
    memory = KeyMemory(farebox.pool, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    other = api.ok("POST", "/v1/api_keys", {"scopes": ["read"]})["key"]
    digests = [digest_of(parse_key(text)) for text in (api.key, other)]  # type: ignore[arg-type]
    for digest in digests:
        assert isinstance(memory.find(digest), Principal)
    assert [False, True] == [memory.recall(digest) is not None for digest in digests]
    assert KeyRefusal.KEY_UNKNOWN is memory.find(digest_of(make_key(os.urandom(42))[1]))


def test_a_clock_that_is_set_back_makes_no_key_last(farebox: Any, api: Any) -> None:
    from farebox.access.key import digest_of, parse_key

    now = [datetime(2026, 1, 2, tzinfo=UTC)]
    memory = KeyMemory(farebox.pool, lambda: now[0])
    digest = digest_of(parse_key(api.key))  # type: ignore[arg-type]
    memory.find(digest)
    assert memory.recall(digest) is not None
    now[0] = datetime(2026, 1, 1, tzinfo=UTC)
    assert memory.recall(digest) is None


def test_a_missing_parameter_is_named(api: Any) -> None:
    response = api("GET", "/v1/unbilled?from=2026-10-01T00:00:00Z")
    assert (400, "parameter_invalid") == (response.status_code, response.json()["code"])
    assert ["/to"] == [one["pointer"] for one in response.json()["errors"]]
    assert "`to` is required" in response.json()["detail"]
